"""How good a student is: metrics with confidence intervals, comparisons of recipes, reports."""
