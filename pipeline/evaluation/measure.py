"""Frame-level metrics and alarms of checkpoints on a test split, and of controls: row by row."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from extractors.features import Features
from pipeline.datasets.catalog import Dataset
from pipeline.evaluation.baselines import (
    ControlError,
    context_of,
    energies_of,
    permutation_without_fixed_points,
)
from pipeline.evaluation.linear_baseline import (
    fit_linear_scorers,
    load_labeled_bags,
    scored_columns,
)
from pipeline.evaluation.metrics import curves, mean_metrics
from pipeline.evaluation.paired_jackknife import mean_of
from pipeline.evaluation.results import Evaluation, LeftOut, Measurement, Row
from pipeline.evaluation.split_scores import (
    FrameScores,
    ScoredSplit,
    cut_or_continue,
    frame_metrics_of,
    mean_over_seeds,
    score_split,
)
from pipeline.evaluation.split_videos import EvaluatedSplit, default_ground_truth
from pipeline.extraction.releases import IMPORTED_FROM
from pipeline.progress import Progress, ReportProgress, no_report
from pipeline.runs.checkpoints import Checkpoint, load_checkpoint
from pipeline.scoring.events import EventRule
from pipeline.scoring.frame_scores import scores_of_video
from pipeline.scoring.snippet_scores import Streams

N_CONTEXT_SHUFFLES = 5
N_EPOCHS_AT_ONCE = 8  # whose models and scores are held together

MeasureRows = Callable[[ScoredSplit], Sequence[Row]]


def measure(
    checkpoints: Sequence[Checkpoint],
    dataset: Dataset,
    features_folder: Path,
    device: torch.device,
    *,
    controls: bool = False,
    rule: EventRule | None = None,
    epochs: Sequence[Sequence[Path]] = (),
    best_by: str = "auc",
    training: Dataset | None = None,
    no_training: str | None = None,
    training_features: Path | None = None,
    ground_truth: str | None = None,
    report: ReportProgress = no_report,
) -> Evaluation:
    """Measure one model, trained with one or more seeds, on a dataset's test split.

    Where the dataset names classes, the model is also measured on each of them: on the abnormal
    videos of the class together with all normal ones.

    Args:
        checkpoints: The same model and features, one per seed.
        dataset: Any dataset with a test split; need not be the one the model was trained on.
        features_folder: Holds the dataset's features.
        device: Where the model runs.
        controls: Also measure motion energy, linear scorers and, if the model accepts another
            context, the model with shuffled context.
        rule: When a score is an event; the default rule if None.
        epochs: Per seed the checkpoints of its epochs, if the epoch that is best on the test videos
            is wanted too.
        best_by: The field of `FrameMetrics` that is the highest in that epoch.
        training: What the model was trained on; with `controls` linear scorers are fitted to its
            train split. `dataset` if None.
        no_training: Why it is not known what the model was trained on, in one line; linear scorers
            are then left out.
        training_features: Holds the features of `training`; `features_folder` if None.
        ground_truth: How frame labels are made: `annotation`, or one of the dataset's published
            conventions, to whose length scores are cut or continued. None takes what fits the
            features: the convention of their release if they were imported, else `annotation`.
        report: Called with the progress; a message says which line was left out.

    Raises:
        CheckpointError: If an epoch's checkpoint cannot be read.
        DatasetError: If there is no test video or no such convention, one's anomalous frames are
            not known, or the frames of all of them are of one class.
        FeatureFileError: If features are missing, were extracted with other settings than the
            run's, or have other streams than the model.
    """
    first = checkpoints[0]
    ground_truth = ground_truth or default_ground_truth(dataset.name, first.provenance)
    split = EvaluatedSplit(dataset, features_folder, first.provenance, ground_truth=ground_truth)
    name = first.model_name
    if first.dataset != dataset.name:
        name = f"{name} ({first.dataset} -> {dataset.name})"
    plan: list[tuple[str, MeasureRows]] = [(name, partial(_model_rows, name=name))]
    if len(checkpoints) > 1:
        plan.append(("seeds averaged", partial(_averaged_rows, name=name)))
    if epochs:
        plan.append(("best on test", partial(_best_epoch_rows, epochs=epochs, best_by=best_by)))
    if controls:
        linear = partial(
            _linear_rows,
            training=training or dataset,
            folder=training_features or features_folder,
            run=first,
        )
        if no_training is not None:
            linear = partial(_leave_out, reason=no_training)
        plan += _controls(first, linear, n_videos=len(split.entries))
    report(Progress("evaluate", 0, len(plan), "rows", detail=name))
    models = [checkpoint.model.to(device).eval() for checkpoint in checkpoints]
    test = score_split(split, models, device, rule=rule or EventRule(), is_compared=controls)
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    for index, (name, measure_rows) in enumerate(plan):
        report(Progress("evaluate", index, len(plan), "rows", detail=name))
        try:
            rows += measure_rows(test)
        except ControlError as error:
            left_out.append(LeftOut(name, str(error), is_failure=not _is_imported(first)))
            message = f"{name}: left out: {error}"
            report(Progress("evaluate", index + 1, len(plan), "rows", message=message))
    labels = test.labels
    return Evaluation(
        trained_on=first.dataset,
        dataset=dataset.name,
        n_videos=len(test.truths),
        n_absent=len(dataset.split("test")) - len(test.truths),
        n_frames=labels.size,
        n_anomalous=int(labels.sum()),
        labels_sha256=hashlib.sha256(labels.tobytes()).hexdigest(),
        rule=test.rule,
        seeds=tuple(checkpoint.seed for checkpoint in checkpoints),
        is_pretrained=first.is_pretrained,
        rows=(*rows, *_class_rows(test)),
        left_out=tuple(left_out),
        ground_truth=ground_truth,
    )


def _controls(
    first: Checkpoint, linear_rows: MeasureRows, *, n_videos: int
) -> Iterator[tuple[str, MeasureRows]]:
    """What a model has to beat, by name; scorers of one kind are measured together."""
    is_imported = _is_imported(first)
    yield "motion energy", partial(_motion_energy_rows, is_imported=is_imported)
    yield "; ".join(scored_columns(first.model.config.stream_dims)), linear_rows
    if first.model.accepts_context and n_videos > 1:
        yield "context shuffled", partial(_shuffled_context_rows, name=first.model_name)


def _is_imported(first: Checkpoint) -> bool:
    return IMPORTED_FROM in first.provenance


def _model_rows(test: ScoredSplit, *, name: str) -> list[Row]:
    """The model itself."""
    return [Row(name, "model", tuple(map(test.measurement, test.per_seed)))]


def _averaged_rows(test: ScoredSplit, *, name: str) -> list[Row]:
    """The mean of the scores of all seeds: what `pipeline score` gives."""
    averaged = test.measurement(mean_over_seeds(test.per_seed))
    return [Row(f"{name}, {len(test.models)} seeds averaged", "seeds averaged", (averaged,))]


def _best_epoch_rows(
    test: ScoredSplit, *, epochs: Sequence[Sequence[Path]], best_by: str
) -> list[Row]:
    """Per seed the epoch that has the highest value of a metric on the test videos.

    An ensemble is built once, beside the final network: an epoch of one is its network alone.
    """
    best = tuple(
        max(_epochs(test, paths), key=lambda measured: float(getattr(measured.frames, best_by)))
        for paths in epochs
    )
    alone = ", network alone" if test.models[0].members else ""
    return [Row(f"best epoch on test{alone} (optimistic)", "best on test", best)]


def _epochs(test: ScoredSplit, paths: Sequence[Path]) -> Iterator[Measurement]:
    for first in range(0, len(paths), N_EPOCHS_AT_ONCE):
        some = paths[first : first + N_EPOCHS_AT_ONCE]
        models = [load_checkpoint(path).model.to(test.device).eval() for path in some]
        yield from map(test.measurement, test.score(models))


def _motion_energy_rows(test: ScoredSplit, *, is_imported: bool) -> list[Row]:
    """How well motion alone ranks frames: a baseline that a model has to beat."""
    if is_imported:
        raise ControlError("it needs the videos, and the features were imported without them")
    n_frames = {truth.source: truth.n_frames for truth in test.truths}
    found = energies_of(n_frames, smoothing_len=test.truths[0].snippet_len)
    energies = [
        cut_or_continue(found[truth.entry.path], truth.labels.size) for truth in test.truths
    ]
    measured = Measurement(
        test.frame_metrics(energies),
        curves=curves(np.concatenate(energies), test.labels),
        jackknifed=test.jackknife(energies),
    )
    return [Row("motion energy (baseline)", "control", (measured,))]


def _leave_out(test: ScoredSplit, *, reason: str) -> list[Row]:
    raise ControlError(reason)


def _linear_rows(
    test: ScoredSplit, *, training: Dataset, folder: Path, run: Checkpoint
) -> list[Row]:
    """Linear scorers of the same features, fitted to the training videos."""
    bags = load_labeled_bags(training, folder, run.provenance)
    scorers = fit_linear_scorers(bags, run.model.config.stream_dims)
    scored: dict[str, FrameScores] = {name: [] for name in scorers}
    for index, truth in enumerate(test.truths):
        features = test.split.features(index)
        for name, scorer in scorers.items():
            per_frame = scores_of_video(scorer.score(features), features).per_frame
            scored[name].append(cut_or_continue(per_frame, truth.labels.size))
    return [Row(name, "control", (test.measurement(each),)) for name, each in scored.items()]


def _shuffled_context_rows(test: ScoredSplit, *, name: str) -> list[Row]:
    """The model when its context path reads another video: means over several shuffles.

    Per seed and, with several, of the mean of their scores: averaging ranks better by itself, so
    what the averaged seeds are compared with must be averaged, too.
    """
    n_seeds = len(test.models)
    systems: list[list[Measurement]] = [[] for _ in range(n_seeds if n_seeds == 1 else n_seeds + 1)]
    for shuffle in range(N_CONTEXT_SHUFFLES):
        per_seed = _shuffled_scores(test, np.random.default_rng(shuffle))
        averaged = [] if n_seeds == 1 else [mean_over_seeds(per_seed)]
        for shuffles, scores in zip(systems, [*per_seed, *averaged], strict=True):
            frames = test.frame_metrics(scores)
            shuffles.append(Measurement(frames, jackknifed=test.jackknife(scores)))
    means = tuple(map(_mean_over_shuffles, systems))
    name = f"{name}, context shuffled"
    rows = [Row(name, "control", means[:n_seeds])]
    if n_seeds > 1:
        rows.append(Row(f"{name}, {n_seeds} seeds averaged", "averaged control", means[n_seeds:]))
    return rows


def _shuffled_scores(test: ScoredSplit, rng: np.random.Generator) -> tuple[FrameScores, ...]:
    """Per seed the scores of all videos, each with the context of another."""
    order = permutation_without_fixed_points(len(test.truths), rng)

    def context(index: int, features: Features) -> Streams:
        return context_of(test.split.features(int(order[index])), features.n_snippets)

    return test.score(test.models, context)


def _mean_over_shuffles(shuffles: Sequence[Measurement]) -> Measurement:
    jackknifed = [each.jackknifed for each in shuffles if each.jackknifed is not None]
    frames = mean_metrics([each.frames for each in shuffles])
    return Measurement(frames, jackknifed=mean_of(jackknifed))


def _class_rows(test: ScoredSplit) -> Iterator[Row]:
    """The model on each class of anomalies, the most frequent first."""
    dataset = test.split.dataset.name
    classes = [name for truth in test.truths for name in truth.entry.categories]
    for name in sorted(set(classes), key=lambda c: (-classes.count(c), c)):
        of_class = [
            index
            for index, truth in enumerate(test.truths)
            if truth.entry.label == 0 or name in truth.entry.categories
        ]
        chosen = [test.truths[index] for index in of_class]
        labels = np.concatenate([truth.labels for truth in chosen])
        if labels.all() or not labels.any():
            continue  # nothing to rank
        measured = tuple(
            Measurement(frame_metrics_of(chosen, [scores[i] for i in of_class], dataset))
            for scores in test.per_seed
        )
        yield Row(name, "class", measured, n_videos=classes.count(name))
