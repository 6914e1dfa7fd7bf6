"""One rule for the precision of a run's features, wherever a run meets features.

The run's precision is taken where the device computes in it. Elsewhere float32 is taken, and a
notice says so: features in bfloat16 are rounded features in float32, so a model that was trained on
the former scores the latter. Not the other way around: a model that was trained on float32 can
always have features in float32.
"""

import torch

from extractors.precision import check_precision
from pipeline.feature_file import Contract, contract_differences


def precision_for_run(run: Contract, device: torch.device) -> str:
    """The precision in which a device computes features for a run."""
    precision = str(run["precision"])
    try:
        check_precision(precision, device)
    except ValueError:
        return "float32"
    return precision


def compare_with_run(run: Contract, found: Contract) -> tuple[list[str], str]:
    """Whether features may be scored by a run.

    Args:
        run: How the features were made that the run was trained on.
        found: How other features are made.

    Returns:
        In which ways they differ so that they must be refused, empty where there is none; and a
        notice of a difference that only rounds, "" where there is none.
    """
    if run.get("precision") == "bfloat16" and found.get("precision") == "float32":
        notice = (
            "precision: features are in float32, the run was trained on bfloat16; "
            "scores may differ somewhat"
        )
        return contract_differences({**run, "precision": "float32"}, found), notice
    return contract_differences(run, found), ""
