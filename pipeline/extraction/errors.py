"""The error of an extraction that cannot begin as it was asked for."""

from extractors.errors import LookaroundError


class ExtractionError(LookaroundError, ValueError):
    """An option of an extraction has a value that does not exist, or contradicts another option."""
