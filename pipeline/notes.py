"""Sentences that several stages show to users."""

RANDOM_WEIGHTS_NOTE = "random weights: not pretrained"
