"""What a student is worth: metrics with intervals, comparisons of recipes."""
