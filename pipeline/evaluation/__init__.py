"""How well scores find the anomalies of a test split: metrics, baselines, results."""
