"""What `run` and `compare` do: recipes through their stages."""
