"""Scoring of videos: snippet scores, frame scores, events, calibration."""
