"""Unlabelled text → index → neighbours."""
