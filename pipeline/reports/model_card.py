"""The model card of a run (`README.md`): data, features, metrics, limits, license of the weights.

It is written from the files of the run alone, so it can be written again at any time.
"""

import errno
import json
import logging
from typing import Any

from extractors.networks.weights import NAMED
from pipeline.atomic import replacing
from pipeline.evaluation.results import FORMAT, FORMAT_VERSION, Evaluation, write_json
from pipeline.evaluation.verdict import describe_unbeaten
from pipeline.notes import weights_limit
from pipeline.printable import describe_error
from pipeline.runs.checkpoints import CheckpointError
from pipeline.runs.epochs import read_epochs
from pipeline.runs.run_folder import Run, RunDescription, read_description

CARD_METRICS = {
    "auc": "frame AUC",
    "auc_abnormal": "frame AUC, abnormal videos",
    "ap_trapezoid": "frame AP, trapezoid",
    "ap_step": "frame AP, step",
    "false_alarms_per_hour": "false alarms per hour of normal videos",
    "event_precision": "event precision",
    "event_recall": "event recall",
    "delay_seconds": "detection delay in seconds",
}

LIST_METRICS = ("auc", "auc_abnormal", "ap_trapezoid")  # in the table of `pipeline runs`

LIMITS = """\
- It was trained with labels of whole videos, without knowing which frames are anomalous.
- A score ranks frames; it is not a probability. Choose a threshold on normal video of your own
  cameras: `pipeline calibrate`.
- Metrics hold for the videos they were measured on. Expect lower ones on other cameras: published
  models of this kind lose 16 to 42 points from one dataset to another.
- Its scores must not be the only basis of a decision about a person."""

logger = logging.getLogger(__name__)


def keep_evaluation(run: Run, evaluation: Evaluation) -> None:
    """Store an evaluation in the run's folder and in its card.

    If the folder cannot be written to, nothing is stored and a warning is logged: the run may
    belong to another user or lie on a read-only file system.
    """
    try:
        write_json(evaluation, run.evaluation_path(evaluation.dataset))
        write_card(run)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        logger.warning("%s: the evaluation is not kept there (%s)", run.folder, error.strerror)


def read_evaluations(run: Run, seed: int) -> list[dict[str, Any]]:
    """The stored evaluation of each dataset, as `results.as_json` wrote it.

    Args:
        run: The run.
        seed: That its description says.

    Raises:
        CheckpointError: If a file is not such an evaluation of the run.
    """
    evaluations = []
    for path in run.evaluation_paths():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            _check_evaluation(values, seed)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: is not an evaluation ({describe_error(error)}); "
                "remove it and run `pipeline evaluate`"
            ) from error
        evaluations.append(values)
    return evaluations


def _check_evaluation(values: dict[str, Any], seed: int) -> None:
    """Refuse an evaluation that lacks what the card or the table of runs reads."""
    if values["format"] != FORMAT or values["format_version"] != FORMAT_VERSION:
        raise ValueError("it is of another program or version")
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
        f"{config.selection_description}. `config.json` has every setting, `metrics.jsonl` every "
        "loss term, `losses.png` draws them.",
        f"## Data\n\n{_data(run, description)}",
        f"## Features\n\n{_features(description)}",
        *_ensemble(run),
        f"## Metrics\n\n{_metrics(run, config.seed)}",
        f"## Limits\n\n{_limits(description)}",
        f"## License of the weights\n\n{_license(description)}",
    ]
    return "\n\n".join(sections) + "\n"


def _data(run: Run, description: RunDescription) -> str:
    lines = [f"Training split of `{description.dataset_source}`."]
    if run.training_path.is_file():
        lines.append(_training(run))
    epochs = read_epochs(run)
    if epochs:
        lines.append(f"The loss was {epochs[-1]['loss']:.4f} after {epochs[-1]['step']} steps.")
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


def _ensemble(run: Run) -> list[str]:
    """The members of an ensemble with their weights, or why there are none.

    Nothing where no ensemble was wanted.
    """
    if not run.ensemble_path.is_file():
        return []
    try:
        members = json.loads(run.ensemble_path.read_text(encoding="utf-8"))
        rows = [
            f"| {member['name']} | {member['held_out_auc']:.3f} | {member['weight']:.2f} |"
            for member in members
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{run.ensemble_path}: is damaged ({describe_error(error)}); remove it"
        ) from error
    if not rows:
        return [
            "## Ensemble\n\nNone: the network scores alone. Simple scorers are weighted by "
            "cross-validation, which needs two training videos of either class."
        ]
    lines = [
        "Networks, whose logits are averaged, and simple scorers, weighted by cross-validation "
        "over the training videos. The AUC of the network is that of a single one, trained on the "
        "other folds.",
        "",
        "| member | AUC over held-out videos | weight |",
        "| --- | --- | --- |",
        *rows,
    ]
    return ["## Ensemble\n\n" + "\n".join(lines)]


def _features(description: RunDescription) -> str:
    rows = [f"| {key} | {value} |" for key, value in description.provenance.items()]
    return "\n".join(["| header | |", "| --- | --- |", *rows])


def _metrics(run: Run, seed: int) -> str:
    """A table per dataset: this seed, and the mean and spread over all seeds."""
    evaluations = read_evaluations(run, seed)
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
    limit = weights_limit(description.provenance.get("is_pretrained"))
    return f"- {limit}\n{LIMITS}" if limit else LIMITS


def _license(description: RunDescription) -> str:
    """The license of the extractor's weights; the model's own belong to whoever trained it."""
    weights = str(description.provenance.get("weights", "unknown"))
    if weights in NAMED:
        return f"Features: {NAMED[weights].license} ({NAMED[weights].source})."
    if weights.startswith("random:"):
        return "Features: random numbers, no license needed."
    return f"Features: weights `{weights}` of unknown license; ask their authors."
