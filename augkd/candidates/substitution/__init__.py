"""Candidates by word substitution (TinyBERT's data augmentation)."""
