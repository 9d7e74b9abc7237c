"""The BM25 index, which needs no model."""
