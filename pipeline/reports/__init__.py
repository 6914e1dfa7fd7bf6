"""What people read: plots, model cards, the table of runs."""
