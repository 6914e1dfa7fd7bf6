"""Decoding of video files to frames with timestamps: readers, and the processes that run them."""
