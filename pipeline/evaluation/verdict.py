"""Whether a model beats its baselines, in a sentence for the table and for the model card."""

from collections.abc import Mapping, Sequence
from typing import Any


def describe_unbeaten(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name the baselines and controls that a model does not beat.

    Args:
        rows: Of an evaluation as JSON: the model first, `kind` says which are controls.

    Returns:
        A sentence; "" where the model's mean AUC is above that of each, or none was measured.

    >>> def row(name, kind, auc):
    ...     return {"name": name, "kind": kind, "metrics": {"auc": {"mean": auc}}}
    >>> describe_unbeaten([row("la-net", "model", 0.7), row("motion energy", "control", 0.8)])
    'la-net (AUC 70.0) does not beat motion energy (80.0).'
    """
    model = rows[0]
    auc = model["metrics"]["auc"]["mean"]
    unbeaten = [
        f"{row['name']} ({100 * row['metrics']['auc']['mean']:.1f})"
        for row in rows
        if row["kind"] == "control" and row["metrics"]["auc"]["mean"] >= auc
    ]
    if not unbeaten:
        return ""
    return f"{model['name']} (AUC {100 * auc:.1f}) does not beat {', '.join(unbeaten)}."
