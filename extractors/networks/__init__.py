"""The networks that features come from, and their weights."""
