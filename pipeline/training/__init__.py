"""Bags of features to a trained model."""
