"""The stages of a run, one file for each folder it leaves behind."""
