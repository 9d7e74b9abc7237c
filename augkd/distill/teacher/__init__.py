"""The teacher's outputs and layer vectors, computed once and kept on disk."""
