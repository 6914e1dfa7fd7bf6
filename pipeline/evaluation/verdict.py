"""Whether a model beats its baselines, in sentences for the terminal and for the model card."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.paired_jackknife import Difference


def describe_unbeaten(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name the baselines and controls that a model is not above, or not shown to be above.

    With several seeds that is said of the mean of their scores, for that is what `pipeline score`
    gives. It holds for these trained seeds, not for new ones.

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
    compared, key = rows[0], "model_lead"
    controls = [row for row in rows[1:] if row["kind"] in ("control", "averaged control")]
    if any("averaged_lead" in row for row in controls):
        (compared,) = (row for row in rows if row["kind"] == "seeds averaged")
        key = "averaged_lead"
        controls = [row for row in controls if key in row]
    auc = compared["metrics"]["auc"]["mean"]
    unbeaten, undecided = [], []
    for row in controls:
        described = f"{row['name']} ({100 * row['metrics']['auc']['mean']:.1f})"
        if row["metrics"]["auc"]["mean"] >= auc:
            unbeaten.append(described)
        elif key in row and not Difference(**row[key]).excludes_zero:
            undecided.append(described)
    described = f"{compared['name']} (AUC {100 * auc:.1f})"
    sentences = []
    if unbeaten:
        sentences.append(f"{described} does not beat {', '.join(unbeaten)}.")
    if undecided:
        sentences.append(f"The test videos do not show {described} above {', '.join(undecided)}.")
    return " ".join(sentences)
