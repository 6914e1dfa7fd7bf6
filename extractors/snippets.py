"""Which frames belong to which snippet: pure arithmetic.

Snippets lie end to end and do not overlap; no frame is left out. Where the frames run out in the
last snippet, the video's last frame is repeated.
"""

SNIPPET_LEN = 16


def n_snippets(n_frames: int, snippet_len: int = SNIPPET_LEN) -> int:
    """Return the number of snippets that hold all frames.

    Raises:
        ValueError: If there are fewer than 0 frames or less than one per snippet.

    >>> n_snippets(33)
    3
    """
    if n_frames < 0:
        raise ValueError(f"n_frames must be at least 0, instead got {n_frames}")
    if snippet_len < 1:
        raise ValueError(f"snippet_len must be at least 1, instead got {snippet_len}")
    return -(-n_frames // snippet_len)
