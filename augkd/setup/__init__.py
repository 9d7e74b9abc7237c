"""Before the first run: what this machine can do, what is in a user's files, a first recipe for them."""
