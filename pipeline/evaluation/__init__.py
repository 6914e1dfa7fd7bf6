"""Evaluation on a test split: ground truth, metrics, baselines, results."""
