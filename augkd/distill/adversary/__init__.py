"""Training against an adversary: perturbed embeddings (FreeLB), a masked generator (MATE-KD)."""
