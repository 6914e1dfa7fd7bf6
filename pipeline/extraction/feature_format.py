"""The format of a feature file: one HDF5 file per video, version 3, for who reads or writes it.

The file `features/<dataset>/<video_id>.h5` holds in its root group:

Datasets, contiguous and uncompressed, little-endian:

    <stream>         (n_snippets, K, D) float16, finite: one dataset for each stream, such as `rgb`
                     and `flow`; K crops of each frame, D values for each crop of a snippet
    timestamps       (n_frames,) float64: seconds at which each decoded frame is shown, never
                     falling; all NaN where nobody knows them, and fps is then NaN, too

Attributes, all scalars: text in UTF-8, integers, and fps, a float. Another program may leave out
those marked *; without a checksum there is nothing to verify. Text is written with fixed length,
and read with fixed or variable length:

    format           "lookaround features"
    format_version   3
    video_id         the video's name within its dataset, with `/` between its parts
    source_name *    file name of the video
    source_bytes *   size of the video file in bytes; -1 if not known
    source_sha256 *  hexadecimal digest of the video file, see `video_digest.Source`; "" if not
                     known
    streams          JSON list of the names of the streams, in the extractor's order
    snippet_len      frames per snippet
    n_frames         frames that were decoded
    n_missing *      frames that the container announces and that could not be decoded
    fps              average frames per second
    decoder *        what decoded the video, with its version, such as "pyav 18.0.0"
    provenance       JSON object without nesting; its keys are below
    arrays_sha256 *  hexadecimal SHA-256 of the datasets: for each stream in the order of `streams`,
                     then for timestamps, the JSON list [name, *shape] and a newline, then the
                     values' bytes in C order
    header_sha256 *  hexadecimal SHA-256 of a JSON object of all other attributes, keys sorted, as
                     Python's json.dumps writes it

Both checksums are verified when a file is read. n_snippets follows from n_frames, snippet_len and
the tail policy: ceil(n_frames / snippet_len), where the last snippet repeats the video's last
frame, or (n_frames - 1) // snippet_len, where the tail is dropped.

The provenance says how the features were extracted: every choice that features must share to be
comparable. Files whose provenance differs in any key are never mixed. Its keys, in the extractors
of this project:

    format_version   version of the extractor's computation, an integer
    extractor        name of the extractor, such as "i3d"
    feature_dim      D
    streams          names of the streams with commas between
    snippet_len      frames per snippet
    crops            K
    crop_px          side of the square crops in pixels
    crop_order       positions of the crops along the axis K with commas between
    resize           how frames are resized before they are cropped
    rgb_range        range, or normalization, of the RGB network's input
    fps_policy       "native": every frame of the video at its own rate
    tail_policy      which snippets the last frames make, see `extractors.snippets`
    precision        of the networks: "float32" or "bfloat16"
    weights          name of the weights, "random:SEED", or file name
    is_pretrained    false for random weights: everything made with the features says "random
                     weights: not pretrained"; without this key "weights not known to be pretrained"
    weights_sha256_<stream>  hexadecimal SHA-256 of each stream's weights
    flow_method      name of the flow method; "none" where there is no flow stream
    flow_bound_px    the flow in pixels that is clipped to and scaled to 1
    flow_<parameter> the parameters of the flow method, by the names that its `describe` gives them:
                     of dis: flow_preset, flow_initial_flow;
                     of tvl1: flow_implementation and the fields of `TVL1Config`;
                     of raft: flow_network, flow_updates, flow_weights, flow_weights_sha256

Features that were imported (`import_features.py`) have these keys instead:

    imported_from    name of the release, see `releases.RELEASES`
    made_by          who published it, with the address
    extractor        the network and what it was trained on
    streams          names and widths of the streams
    crops, crop_order, snippet_len, tail_policy, is_pretrained   as above
    published_tail_policy   what the release did with the last, incomplete snippet
    fps              "not known"
    ground_truth     the convention of the published ground truth that fits them

Another program may write any keys, at least one; a missing tail_policy is the first of the two.
`feature_check.py` shows how another program writes a file.
`index.h5` in the same folder links to every file under its video_id, by HDF5's external links.
"""

import numpy as np

Header = dict[str, str | int | float]
FORMAT = "lookaround features"
FORMAT_VERSION = 3
STREAM_DTYPE = np.dtype("<f2")
TIMESTAMP_DTYPE = np.dtype("<f8")
ATTRIBUTES: dict[str, type[str] | type[int] | type[float]] = {
    "format": str,
    "format_version": int,
    "video_id": str,
    "source_name": str,
    "source_bytes": int,
    "source_sha256": str,
    "streams": str,
    "snippet_len": int,
    "n_frames": int,
    "n_missing": int,
    "fps": float,
    "decoder": str,
    "provenance": str,
    "arrays_sha256": str,
    "header_sha256": str,
}
# What a file of another program may leave out. Without a checksum nothing is verified by it.
DEFAULTS: Header = {
    "source_name": "",
    "source_bytes": -1,
    "source_sha256": "",
    "n_missing": 0,
    "decoder": "not known",
    "arrays_sha256": "",
    "header_sha256": "",
}
