"""The folder of a training run: settings, checkpoint, records, and what may be scored with it."""
