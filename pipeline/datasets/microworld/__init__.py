"""microworld: a synthetic dataset of small surveillance videos."""
