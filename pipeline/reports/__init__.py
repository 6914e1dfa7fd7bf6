"""Reports for people: plots, model cards, the table of runs."""
