"""The FAISS index: which kind, how large, how it is built, changed and searched."""
