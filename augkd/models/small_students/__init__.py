"""Students that are not layers of the teacher: a BiLSTM, a static one, a smaller transformer."""
