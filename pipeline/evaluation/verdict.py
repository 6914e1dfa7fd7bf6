"""Whether a model beats its baselines, in sentences for the terminal and for the model card."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.paired_jackknife import Difference


def describe_unbeaten(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name the baselines and controls that a model is not above, or not shown to be above.

    Args:
        rows: Of an evaluation as JSON: the model first, `kind` says which are controls.

    Returns:
        One or two sentences; "" where the model's mean AUC is above that of each by more than the
        test videos leave open, or no control was measured.

    >>> def row(name, kind, auc, **more):
    ...     return {"name": name, "kind": kind, "metrics": {"auc": {"mean": auc}}, **more}
    >>> model = row("la-net", "model", 0.7)
    >>> describe_unbeaten([model, row("motion energy", "control", 0.8)])
    'la-net (AUC 70.0) does not beat motion energy (80.0).'
    >>> lead = {"mean": 0.05, "low": -0.02, "high": 0.11}
    >>> describe_unbeaten([model, row("linear MIL", "control", 0.65, model_lead=lead)])
    'The test videos do not show la-net (AUC 70.0) above linear MIL (65.0).'
    """
    model, *others = rows
    auc = model["metrics"]["auc"]["mean"]
    unbeaten, undecided = [], []
    for row in others:
        if row["kind"] != "control":
            continue
        described = f"{row['name']} ({100 * row['metrics']['auc']['mean']:.1f})"
        if row["metrics"]["auc"]["mean"] >= auc:
            unbeaten.append(described)
        elif "model_lead" in row and not Difference(**row["model_lead"]).excludes_zero:
            undecided.append(described)
    described = f"{model['name']} (AUC {100 * auc:.1f})"
    sentences = []
    if unbeaten:
        sentences.append(f"{described} does not beat {', '.join(unbeaten)}.")
    if undecided:
        sentences.append(f"The test videos do not show {described} above {', '.join(undecided)}.")
    return " ".join(sentences)
