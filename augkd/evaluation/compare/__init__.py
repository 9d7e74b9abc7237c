"""Whether one recipe is better than another: resampling, intervals, the table."""
