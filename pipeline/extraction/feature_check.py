"""Validation of a feature file: every problem in one line.

Any program can write such a file. This is all that it takes with h5py, for a video of 100 frames at
25 fps whose 7 snippets of 16 frames have 1024-d RGB features of one crop:

    import json
    import h5py
    import numpy as np
    with h5py.File("garage.h5", "w") as file:
        file["rgb"] = np.random.default_rng(0).normal(size=(7, 1, 1024)).astype("float16")
        file["timestamps"] = np.arange(100) / 25
        provenance = {"extractor": "mine", "is_pretrained": True}
        file.attrs.update(format="lookaround features", format_version=3, video_id="garage")
        file.attrs.update(streams=json.dumps(["rgb"]), provenance=json.dumps(provenance))
        file.attrs.update(snippet_len=16, n_frames=100, fps=25.0)

`feature_format.py` documents every name, shape and attribute.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from extractors.snippets import REPEAT_LAST_FRAME, n_snippets
from pipeline.extraction.feature_file import (
    FeatureFileError,
    parse_provenance,
    parse_stream_names,
    read_attribute,
    read_features,
)
from pipeline.extraction.feature_format import (
    ATTRIBUTES,
    FORMAT,
    FORMAT_VERSION,
    STREAM_DTYPE,
    TIMESTAMP_DTYPE,
    Header,
)
from pipeline.extraction.hdf5 import File, read_array, reading


def check_feature_file(path: Path) -> list[str]:
    """Find out what is wrong with a feature file.

    Args:
        path: The file; it need not be one.

    Returns:
        One line for each problem, each beginning with the path; empty if the file is valid.
    """
    problems: list[str] = []
    try:
        with reading(path) as file:
            _check(file, problems)
        if not problems:
            read_features(path)  # what only all of it together shows, such as the checksums
    except FeatureFileError as error:
        return [str(error)]
    return [f"{path}: {problem}" for problem in problems]


@contextmanager
def _collecting(problems: list[str]) -> Iterator[None]:
    """Add what the body raises to the problems, and go on."""
    try:
        yield
    except ValueError as error:
        problems.append(str(error))


def _check(file: File, problems: list[str]) -> None:
    header: Header = {}
    for name in ATTRIBUTES:
        with _collecting(problems):
            header[name] = read_attribute(file, name)
    for name, expected in (("format", FORMAT), ("format_version", FORMAT_VERSION)):
        if header.get(name, expected) != expected:
            problems.append(f"{name} must be {expected!r}, instead got {header[name]!r}")
    streams: list[str] = []
    if "streams" in header:
        with _collecting(problems):
            streams = parse_stream_names(header)
            if not streams:
                raise ValueError("its streams must be a list of at least one name")
    tail_policy = REPEAT_LAST_FRAME
    if "provenance" in header:
        with _collecting(problems):
            provenance = parse_provenance(header)
            if not provenance:
                raise ValueError("its provenance must say how the features were made")
            tail_policy = str(provenance.get("tail_policy", tail_policy))
    if {"n_frames", "snippet_len"} <= set(header):
        with _collecting(problems):
            n_rows = n_snippets(int(header["n_frames"]), int(header["snippet_len"]), tail_policy)
            _check_arrays(file, streams, n_rows, int(header["n_frames"]), problems)


def _check_arrays(
    file: File, streams: list[str], n_rows: int, n_frames: int, problems: list[str]
) -> None:
    for name in streams:
        with _collecting(problems):
            values = read_array(file, name, STREAM_DTYPE, n_rows, n_axes=3)
            n_wrong = int(np.count_nonzero(~np.isfinite(values)))
            if n_wrong:
                raise ValueError(f"{name} must be finite, instead {n_wrong} values are not")
    with _collecting(problems):
        read_array(file, "timestamps", TIMESTAMP_DTYPE, n_frames, n_axes=1)
