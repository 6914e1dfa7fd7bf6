"""What papers report for their models on the benchmarks, each number with its source.

None of the three papers' texts was at hand: the numbers are those that later papers and lists
quote. CBCG's numbers were not found anywhere.
"""

from dataclasses import dataclass

NOT_REPORTED = "not reported"

# The metric by which a benchmark is compared: a field of `FrameMetrics`, and its name for people.
METRICS: dict[str, tuple[str, str]] = {
    "ucf_crime": ("auc", "frame AUC"),
    "shanghaitech": ("auc", "frame AUC"),
    "xd_violence": ("ap_trapezoid", "frame AP, trapezoid"),
}


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """A number of a paper.

    Attributes:
        percent: In percent; None where none was found.
        source: Where it was read.
        ground_truth: The convention of the ground truth on which it probably rests.
    """

    percent: float | None
    source: str
    ground_truth: str


PUBLISHED: dict[tuple[str, str], PublishedResult] = {
    ("clav-como", "ucf_crime"): PublishedResult(86.1, "arXiv 2405.19387, table 2", "rtfm"),
    ("clav-como", "shanghaitech"): PublishedResult(
        97.59, "Papers with Code leaderboard; 97.6 in arXiv 2405.19387, table 2", "rtfm"
    ),
    ("clav-como", "xd_violence"): PublishedResult(81.3, "arXiv 2405.19387, table 2", "xdviodet"),
    ("la-net", "ucf_crime"): PublishedResult(
        85.12, "ReFLIP-VAD, doi 10.1109/TCSVT.2024.3482007, table I", "deepmil"
    ),
    ("la-net", "shanghaitech"): PublishedResult(None, NOT_REPORTED, "rtfm"),
    ("la-net", "xd_violence"): PublishedResult(
        80.72, "ReFLIP-VAD, doi 10.1109/TCSVT.2024.3482007, table II", "xdviodet"
    ),
    ("cbcg", "ucf_crime"): PublishedResult(None, "not found", "rtfm"),
    ("cbcg", "shanghaitech"): PublishedResult(None, "not found", "rtfm"),
    ("cbcg", "xd_violence"): PublishedResult(None, "not found", "xdviodet"),
}
