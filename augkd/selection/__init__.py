"""The meeting point of candidates and losses: tensors only, no source and no model known here."""
