"""Whether one recipe is better than another: bootstrap, confidence intervals, summaries, tables."""
