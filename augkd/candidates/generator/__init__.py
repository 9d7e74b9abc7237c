"""Candidates from a masked language model that fills in masked tokens (MATE-KD)."""
