"""The base of every error that is shown to a user as one line."""


class LookaroundError(Exception):
    """Something that a user can mend; the message names the file and the remedy."""
