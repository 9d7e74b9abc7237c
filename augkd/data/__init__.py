"""What goes in and what comes out, on disk: tasks, corpora, transfer sets."""
