"""The `README.md` of a run: what the model is, what it learned from, how good it is, its limits.

It is written from the files of the run alone, so it can be written again at any time.
"""

import errno
import json
import logging
from typing import Any

from extractors.networks.weights import NAMED
from pipeline.atomic import replacing
from pipeline.evaluation.results import FORMAT, Evaluation, write_json
from pipeline.evaluation.verdict import describe_unbeaten
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.epochs import read_epochs
from pipeline.runs.run_folder import Run, RunDescription, read_description

CARD_METRICS = {
    "auc": "frame AUC",
    "auc_abnormal": "frame AUC, abnormal videos",
    "ap_trapezoid": "frame AP, trapezoid",
    "ap_step": "frame AP, step",
    "false_alarms_per_hour": "false alarms per hour",
    "event_precision": "event precision",
    "event_recall": "event recall",
    "delay_seconds": "detection delay in seconds",
}

LIST_METRICS = ("auc", "auc_abnormal", "ap_trapezoid")  # of `pipeline runs`

LIMITS = """\
- It learned from labels of whole videos and has not seen which of their frames are anomalous.
- A score ranks moments; it is no probability. Choose a threshold on normal video of your own
  cameras.
- Figures hold for the videos they were measured on. On other cameras expect them to fall: published
  models of this kind lose 16 to 42 points from one dataset to another.
- Its scores must not be the only ground for a decision about a person."""

logger = logging.getLogger(__name__)


def keep_evaluation(run: Run, evaluation: Evaluation) -> None:
    """Put what an evaluation found into the run's folder and its card.

    A folder that cannot be written to is left as it is, with a warning in the log: the run may be
    somebody else's, or on a file system that is read-only.
    """
    try:
        write_json(evaluation, run.evaluation_path(evaluation.dataset))
        write_card(run)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        logger.warning("%s: the evaluation is not kept there (%s)", run.folder, error.strerror)


def read_evaluations(run: Run) -> list[dict[str, Any]]:
    """What was found on each dataset, as `results.as_json` gave it.

    Raises:
        CheckpointError: If a file is not such an evaluation of the run.
    """
    seed = read_description(run).config.seed
    evaluations = []
    for path in run.evaluation_paths():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            _check_evaluation(values, seed)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            reason = f"{error} is missing" if isinstance(error, LookupError) else str(error)
            raise CheckpointError(
                f"{path}: is not an evaluation ({' '.join(reason.split())}); "
                "remove it and run `pipeline evaluate`"
            ) from error
        evaluations.append(values)
    return evaluations


def _check_evaluation(values: dict[str, Any], seed: int) -> None:
    """Find out that something is missing which the card or the list of runs reads."""
    if values["format"] != FORMAT:
        raise ValueError("it is of another program")
    if not isinstance(values["dataset"], str):
        raise TypeError("dataset must be a name")
    for count in (values["n_frames"], values["n_videos"], values["event_rule"]["threshold"]):
        if not isinstance(count, int | float):
            raise TypeError(f"a number expected, instead got {count!r:.40}")
    index = values["seeds"].index(seed)
    metrics = values["rows"][0]["metrics"]
    for name in {*LIST_METRICS, *CARD_METRICS}:
        for value in (
            metrics[name]["per_seed"][index],
            metrics[name]["mean"],
            metrics[name]["std"],
        ):
            if not isinstance(value, int | float | None):
                raise TypeError(f"{name} must be numbers, instead got {value!r:.40}")
    describe_unbeaten(values["rows"])  # fails where a name or an AUC is missing


def write_card(run: Run) -> None:
    """Write a run's `README.md`; the file appears whole or not at all.

    Raises:
        CheckpointError: If the run cannot be read.
        OSError: If the card cannot be written.
    """
    with replacing(run.card_path) as temporary:
        temporary.write_text(card_text(run), encoding="utf-8")


def card_text(run: Run) -> str:
    """The card of a run.

    Raises:
        CheckpointError: If the run cannot be read.
    """
    description = read_description(run)
    config = description.config
    sections = [
        f"# {config.model_name} on {description.dataset}, seed {config.seed}\n\n"
        f"Scores every snippet of a video for anomalies. Trained by lookaround: "
        f"{config.selection_in_words}. `config.json` has every setting, `metrics.jsonl` every loss "
        "term, `losses.png` draws them.",
        f"## Data\n\n{_data(run, description)}",
        f"## Features\n\n{_features(description)}",
        f"## Metrics\n\n{_metrics(run, config.seed)}",
        f"## Limits\n\n{_limits(description)}",
        f"## Licence of the weights\n\n{_licence(description)}",
    ]
    return "\n\n".join(sections) + "\n"


def _data(run: Run, description: RunDescription) -> str:
    lines = [f"Training split of `{description.dataset_source}`."]
    if run.training_path.is_file():
        lines.append(_training(run))
    epochs = read_epochs(run)
    if epochs:
        lines.append(f"The loss came to {epochs[-1]['loss']:.4f} after {epochs[-1]['step']} steps.")
    return " ".join(lines)


def _training(run: Run) -> str:
    try:
        training = json.loads(run.training_path.read_text(encoding="utf-8"))
        return (
            f"{training['n_normal']} normal and {training['n_anomalous']} anomalous videos, "
            f"{training['n_held_out']} held out for selection. "
            f"Trained on {training['device']} with torch {training['torch']}."
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{run.training_path}: is damaged; remove it") from error


def _features(description: RunDescription) -> str:
    rows = [f"| {key} | {value} |" for key, value in description.provenance.items()]
    return "\n".join(["| header | |", "| --- | --- |", *rows])


def _metrics(run: Run, seed: int) -> str:
    """A table per dataset: this seed, and the mean and spread over all seeds."""
    evaluations = read_evaluations(run)
    if not evaluations:
        return "Not evaluated yet: `pipeline evaluate` fills this in."
    tables = []
    for evaluation in evaluations:
        threshold = evaluation["event_rule"]["threshold"]
        index = evaluation["seeds"].index(seed)
        n_seeds = len(evaluation["seeds"])
        found = evaluation["rows"][0]["metrics"]
        lines = [
            f"Test split of {evaluation['dataset']}: {evaluation['n_frames']} frames of "
            f"{evaluation['n_videos']} videos, alarms at {threshold:g}.",
            "",
            f"| | seed {seed} | mean of {n_seeds} | standard deviation |",
            "| --- | --- | --- | --- |",
        ]
        for key, words in CARD_METRICS.items():
            values = found[key]
            cells = [_number(values["per_seed"][index]), _number(values["mean"])]
            lines.append(f"| {words} | {' | '.join(cells)} | {_number(values['std'])} |")
        unbeaten = describe_unbeaten(evaluation["rows"])
        lines += ["", unbeaten] if unbeaten else []
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _limits(description: RunDescription) -> str:
    if description.provenance.get("is_pretrained") is True:
        return LIMITS
    return f"- The features are of random weights, not pretrained. Use it for tests.\n{LIMITS}"


def _licence(description: RunDescription) -> str:
    """Of the weights that made the features; the model's own are the work of who trained it."""
    weights = str(description.provenance.get("weights", "unknown"))
    if weights in NAMED:
        return f"Features: {NAMED[weights].licence} ({NAMED[weights].source})."
    if weights.startswith("random:"):
        return "Features: random numbers, no licence needed."
    return f"Features: weights `{weights}` of unknown licence; ask who made them."
