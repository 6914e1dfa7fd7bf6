"""The division of a video into snippets: number, tail policy, padding, scores per frame.

Snippets are consecutive and do not overlap. Two tail policies are in use for the frames at the end
that do not fill a snippet:

- `REPEAT_LAST_FRAME`: they are one more snippet, padded with the video's last frame; no frame is
  lost.
- `DROP_TAIL`: (n - 1) // 16 snippets of n frames, as in the XD-Violence features (list/make_gt.py
  of https://github.com/Roc-Ng/XDVioDet), because n frames have n - 1 flows. A video of a multiple
  of 16 frames loses its last whole snippet, too.
"""

import numpy as np
from numpy.typing import NDArray

SNIPPET_LEN = 16
REPEAT_LAST_FRAME = "repeat last frame"
DROP_TAIL = "drop tail: (n - 1) // snippet_len"
TAIL_POLICIES = (REPEAT_LAST_FRAME, DROP_TAIL)


def n_snippets(
    n_frames: int, snippet_len: int = SNIPPET_LEN, tail_policy: str = REPEAT_LAST_FRAME
) -> int:
    """Return the number of snippets of a video.

    Raises:
        ValueError: If there are fewer than 0 frames or less than one per snippet, or no such tail
            policy.

    >>> n_snippets(33), n_snippets(33, tail_policy=DROP_TAIL)
    (3, 2)
    """
    if n_frames < 0:
        raise ValueError(f"n_frames must be at least 0, instead got {n_frames}")
    if snippet_len < 1:
        raise ValueError(f"snippet_len must be at least 1, instead got {snippet_len}")
    check_tail_policy(tail_policy)
    if tail_policy == REPEAT_LAST_FRAME:
        return -(-n_frames // snippet_len)
    return max(n_frames - 1, 0) // snippet_len


def fill_snippet(
    snippet: NDArray[np.uint8], frames: NDArray[np.uint8], following: NDArray[np.uint8] | None
) -> None:
    """Fill a snippet with its frames and the frame after them, for T flows need T + 1 frames.

    Where the video ends, its last frame is repeated: in the place of the frame after it, and in the
    places of frames that the last snippet lacks.

    Args:
        snippet: (snippet_len + 1, H, W, 3), overwritten.
        frames: (n, H, W, 3) the snippet's own frames, from 1 to snippet_len.
        following: (H, W, 3) the frame after them; None where the video ends.

    >>> snippet = np.zeros((5, 1, 1, 3), np.uint8)
    >>> fill_snippet(snippet, np.array([7, 8], np.uint8).reshape(2, 1, 1, 1), None)
    >>> snippet[:, 0, 0, 0].tolist()
    [7, 8, 8, 8, 8]
    """
    n_frames = len(frames)
    snippet[:n_frames] = frames
    # Most published features lack the incomplete snippet: its frames would have no score.
    snippet[n_frames:] = frames[-1]
    if following is not None:
        snippet[-1] = following


def check_tail_policy(tail_policy: str) -> None:
    """Check that a tail policy exists.

    Raises:
        ValueError: If not.
    """
    if tail_policy not in TAIL_POLICIES:
        raise ValueError(f"tail_policy must be one of {TAIL_POLICIES}, instead got {tail_policy!r}")


def per_frame(
    per_snippet: NDArray[np.float32], snippet_len: int, n_frames: int
) -> NDArray[np.float32]:
    """Repeat each snippet's value for its frames; frames after the last snippet get its value.

    Args:
        per_snippet: (n_snippets,) at least one.
        snippet_len: Frames per snippet.
        n_frames: Frames of the video.

    Returns:
        (n_frames,)

    >>> per_frame(np.array([0, 1], "float32"), 2, 5)
    array([0., 0., 1., 1., 1.], dtype=float32)
    """
    snippets = np.minimum(np.arange(n_frames) // snippet_len, len(per_snippet) - 1)
    return per_snippet[snippets]
