"""What loads and runs a network: classifiers, masked language models, small students, rows of tokens."""
