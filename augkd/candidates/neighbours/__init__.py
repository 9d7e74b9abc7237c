"""Candidates from an index: what is asked, what is withheld, which of the nearest texts are taken."""
