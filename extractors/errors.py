"""The base of every error that is shown to a user as one line."""


class LookaroundError(Exception):
    """An error that the user can correct; the message names the file and the remedy."""
