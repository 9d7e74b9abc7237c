"""Text to unit vectors: sentence-transformers models, static token vectors, INT8."""
