"""One HTML page about a run or a comparison."""
