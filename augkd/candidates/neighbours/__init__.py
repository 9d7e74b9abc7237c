"""Candidates from an index: what is searched for, what is withheld, which of the nearest texts are taken."""
