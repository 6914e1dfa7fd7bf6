"""From raw video to anomaly scores: everything that has a path."""

__version__ = "0.1.0"
