"""Folders that can be trusted: manifests, fingerprints, write-then-rename, locks."""
