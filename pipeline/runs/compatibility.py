"""Whether features fit a trained run: which differences of provenance are rounding only.

The run's precision is taken where the device computes in it. Elsewhere float32 is taken, and a
notice says so: features in bfloat16 are rounded features in float32, so a model that was trained on
the former scores the latter. Not the other way around: a model that was trained on float32 can
always have features in float32.

TV-L1 flow by torch (on a CPU) and by Triton (on a GPU) differ by some 0.01 px: either scores with a
run that was trained on the other, and a notice says so.
"""

import torch

from extractors.networks.precision import check_precision
from pipeline.extraction.feature_file import Provenance, provenance_differences

IMPLEMENTATION = "flow_implementation"  # of TV-L1


def precision_for_run(run: Provenance, device: torch.device) -> str:
    """The precision in which a device computes features for a run."""
    precision = str(run["precision"])
    try:
        check_precision(precision, device)
    except ValueError:
        return "float32"
    return precision


def compare_with_run(run: Provenance, found: Provenance) -> tuple[list[str], str]:
    """Whether features may be scored by a run.

    Args:
        run: How the features were made that the run was trained on.
        found: How other features are made.

    Returns:
        In which ways they differ so that they must be refused, empty where there is none; and a
        notice of a difference that only rounds, "" where there is none.
    """
    expected, notices = dict(run), []
    if run.get("precision") == "bfloat16" and found.get("precision") == "float32":
        expected["precision"] = "float32"
        notices.append(
            "precision: features are in float32, the run was trained on bfloat16; "
            "scores may differ somewhat"
        )
    by_run, by_found = run.get(IMPLEMENTATION), found.get(IMPLEMENTATION)
    if by_run and by_found and by_run != by_found:
        expected[IMPLEMENTATION] = by_found
        notices.append(
            f"flow: computed by {by_found}, the run was trained on flow by {by_run}; "
            "scores may differ slightly"
        )
    return provenance_differences(expected, found), "; ".join(notices)
