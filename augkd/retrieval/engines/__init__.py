"""Who encodes the corpus of a dense index: each engine fills the same spool; the builder plans and finishes."""
