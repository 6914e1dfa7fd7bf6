"""The rules by which published frame-level ground truths were made from the annotations.

Each has another length than the videos, because its snippets of 16 frames leave out, or pad, the
end of each video; so the ground truth of one publication does not fit the features of another.

Which published totals are reached from the annotations in this package, and what is missing where
they are not (anomalous frames in brackets):

- UCF-Crime 1,109,680 (84,128), 1,109,824 and 1,114,144: reached, for the number of frames of every
  test video is known.
- ShanghaiTech 142,912 (8,028): reached; the annotation has each video's length in whole snippets.
- ShanghaiTech 143,888 (8,028), of TEVAD: missing are the numbers of snippets of TEVAD's features of
  the 199 test videos. They are 61 more than RTFM's 8,932. As no anomalous frame is more, the rule
  reaches both numbers in whichever videos the 61 snippets are.
- ShanghaiTech 140,112 (7,874), of PEL4VAD: missing are the numbers of snippets of its features of
  the 199 test videos, 175 fewer than RTFM's. One snippet less in each of 175 videos would cost at
  most 96 anomalous frames; 154 are missing, so some videos must be shorter by more. Its script
  (list/sh/rectify_gt.py) goes on with the labels of the next video where features are longer than
  the labels; here such frames are normal.
- XD-Violence 2,330,384 (537,805): missing are the numbers of frames of the 800 test videos, which
  no list holds; the authors read them from the videos (list/make_gt.py). The annotation has 538,324
  anomalous frames before the ends of the 500 violent videos are cut off: 519 more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from extractors.snippets import SNIPPET_LEN
from pipeline.datasets import shanghaitech
from pipeline.datasets.catalog import VideoEntry, frame_labels
from pipeline.datasets.listed_videos import read_list

FrameLabels = NDArray[np.bool_]  # (n_frames,) True where the frame is anomalous

ANNOTATION = "annotation"
ANNOTATION_RULE = "the annotation cut to each video's true length"

# Their length is a multiple of 16, and still their last snippet is missing in the ground truth of
# DeepMIL and UR-DMU; eleven other videos of such a length are whole there.
WITHOUT_LAST_SNIPPET = frozenset(
    f"{name}_x264"
    for name in (
        *("Assault006", "Burglary037", "Normal_Videos_881", "Normal_Videos_914"),
        *("RoadAccidents010", "RoadAccidents016", "Shooting046", "Shoplifting010"),
        "Shoplifting015",
    )
)


@dataclass(frozen=True, slots=True)
class VideoLength:
    """How long a test video is.

    Attributes:
        n_frames: Its true number of frames; None where it is not known.
        n_snippets: Snippets of its features; None where there are none.
    """

    n_frames: int | None = None
    n_snippets: int | None = None


@dataclass(frozen=True, slots=True)
class Convention:
    """How a published ground truth is made from the annotation.

    Attributes:
        rule: In one sentence.
        publishers: Whose results rest on it.
        n_frames: Its published length, over all test videos.
        labels: Makes the labels of one video; None where its length is not known.
        needs: Which length of a video it needs, in the words of an error message.
    """

    rule: str
    publishers: str
    n_frames: int
    labels: Callable[[VideoEntry, VideoLength], FrameLabels | None]
    needs: str = "number of frames"


def conventions_of(dataset_name: str) -> Mapping[str, Convention]:
    """The published conventions of a dataset, by name; none for most datasets."""
    return CONVENTIONS.get(dataset_name, {})


def cut_to_frames(entry: VideoEntry, length: VideoLength) -> FrameLabels | None:
    """Our own rule: the annotation cut to the true number of frames; None if that is not known."""
    return None if length.n_frames is None else frame_labels(entry, length.n_frames)


def _whole_snippets(entry: VideoEntry, length: VideoLength) -> FrameLabels | None:
    labels = cut_to_frames(entry, length)
    return None if labels is None else labels[: labels.size // SNIPPET_LEN * SNIPPET_LEN]


def _whole_snippets_but_nine(entry: VideoEntry, length: VideoLength) -> FrameLabels | None:
    labels = _whole_snippets(entry, length)
    if labels is None or entry.video_id not in WITHOUT_LAST_SNIPPET:
        return labels
    return labels[:-SNIPPET_LEN]


def _without_last_frame(entry: VideoEntry, length: VideoLength) -> FrameLabels | None:
    labels = cut_to_frames(entry, length)
    return None if labels is None else labels[: (labels.size - 1) // SNIPPET_LEN * SNIPPET_LEN]


def _padded(entry: VideoEntry, length: VideoLength) -> FrameLabels | None:
    """Labels with the last frame of each interval included, and the last label repeated."""
    if length.n_frames is None:
        return None
    labels = frame_labels(entry, length.n_frames)
    for _, stop in entry.anomalies:
        labels[stop : stop + 1] = True
    return np.pad(labels, (0, -labels.size % SNIPPET_LEN), mode="edge")


@cache
def _shanghaitech_lengths() -> dict[str, int]:
    """By video id its length padded to whole snippets."""
    annotations = shanghaitech.parse_annotations(read_list("shanghaitech", "annotations.txt"))
    return {video_id: n_padded for video_id, (n_padded, _) in annotations.items()}


def _padded_shanghaitech(entry: VideoEntry, length: VideoLength) -> FrameLabels:
    return frame_labels(entry, _shanghaitech_lengths()[entry.video_id])


def _as_many_as_features(entry: VideoEntry, length: VideoLength) -> FrameLabels | None:
    if length.n_snippets is None:
        return None
    labels = _padded_shanghaitech(entry, length)
    n_frames = length.n_snippets * SNIPPET_LEN
    return np.pad(labels[:n_frames], (0, max(n_frames - labels.size, 0)))


CONVENTIONS: dict[str, dict[str, Convention]] = {
    "ucf_crime": {
        "deepmil": Convention(
            "whole snippets of 16 frames; nine videos of a multiple of 16 frames lose one more",
            "DeepMIL, UR-DMU, PEL4VAD",
            1_109_680,
            _whole_snippets_but_nine,
        ),
        "whole-snippets": Convention(
            "whole snippets of 16 frames; the frames after the last one are left out",
            "features extracted by that rule",
            1_109_824,
            _whole_snippets,
        ),
        "rtfm": Convention(
            "the last snippet is filled up with its last label; an interval includes its end",
            "RTFM, TEVAD",
            1_114_144,
            _padded,
        ),
    },
    "xd_violence": {
        "xdviodet": Convention(
            "without the last frame, then whole snippets of 16 frames, as flow has a frame less",
            "XDVioDet, BN-WVAD",
            2_330_384,
            _without_last_frame,
        ),
    },
    "shanghaitech": {
        "rtfm": Convention(
            "every video padded to whole snippets of 16 frames",
            "RTFM, S3R, CLIP-TSA",
            142_912,
            _padded_shanghaitech,
        ),
        "tevad": Convention(
            "that of rtfm, cut or continued as normal to 16 frames per snippet of the features",
            "TEVAD, with its own features",
            143_888,
            _as_many_as_features,
            needs="number of snippets",
        ),
        "pel4vad": Convention(
            "that of rtfm, cut or continued as normal to 16 frames per snippet of the features",
            "PEL4VAD, with its own features",
            140_112,
            _as_many_as_features,
            needs="number of snippets",
        ),
    },
}
