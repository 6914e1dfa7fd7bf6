"""Measure trained runs on a test split: the library function `evaluate`."""

from dataclasses import replace
from pathlib import Path

from pipeline.datasets import load_dataset
from pipeline.datasets.catalog import Dataset, DatasetError
from pipeline.device import choose_device
from pipeline.evaluation.measure import measure
from pipeline.evaluation.results import Evaluation
from pipeline.progress import ReportProgress, no_report
from pipeline.runs.checkpoints import CheckpointError, load_checkpoint
from pipeline.runs.run_folder import Run
from pipeline.runs.seeds import Seeds
from pipeline.scoring.calibration import read_rule
from pipeline.scoring.score import RUNS_FOLDER, find_seeds

FEATURES_FOLDER = Path("features")


def evaluate(
    run: Seeds | Run | str | Path | None = None,
    *,
    dataset: Dataset | str | None = None,
    features: str | Path | None = None,
    runs: str | Path = RUNS_FOLDER,
    device: str = "auto",
    controls: bool = False,
    threshold: float | None = None,
    best_on_test: bool = False,
    best_by: str = "auc",
    ground_truth: str | None = None,
    report: ReportProgress = no_report,
) -> Evaluation:
    """Measure a trained model on the test videos of a dataset, over all seeds of its training.

    Args:
        run: A training run or its folder, or its seeds as `find_seeds` finds them; None for the run
            that was trained last.
        dataset: A dataset, its name or the path of its manifest; None for the one that the run was
            trained on.
        features: Folder that holds `<dataset>/<video_id>.h5`; None for `features_folder_of`.
            Training features that are not there are looked for with `features_folder_of`.
        runs: Folder in which the last run is looked for.
        device: "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N".
        controls: Also measure motion energy, which needs the videos, linear scorers, which need the
            training features, and the model with shuffled context, if it accepts another context.
        threshold: In (0, 1]; the score that begins an event. None for the rule of the run's
            calibration, which is for the mean score of its seeds; without one for the default.
        best_on_test: Also measure the epoch that is best on the test videos, which is optimistic.
        best_by: The field of `FrameMetrics` by which it is the best.
        ground_truth: "annotation" (cut to each video's true length), or a published convention of
            the dataset, such as "rtfm": see `pipeline groundtruth DATASET --list`. None takes the
            convention of their release for imported features, else "annotation".
        report: Called with the progress.

    Returns:
        What was measured; `evaluation.metrics["auc"]` is the mean over seeds.

    Raises:
        CheckpointError: If a run or its calibration cannot be read, or kept no epochs to choose
            from.
        ConfigError: If there is no such device.
        DatasetError: If the dataset cannot be read, has no test video, no such convention, or only
            frames of one class.
        FeatureFileError: If features are missing or were extracted with other settings.
        ValueError: If the threshold is out of its range.
    """
    seeds = find_seeds(run, runs)
    if dataset is None:
        dataset = seeds.describe().dataset_source
    if not isinstance(dataset, Dataset):
        dataset = load_dataset(dataset, allow_outside=not controls)  # which alone open videos
    folder = features_folder_of(seeds, dataset) if features is None else Path(features)
    training: Dataset | None = None
    no_training: str | None = None
    training_features: Path | None = None
    if controls:  # whose features alone are read
        try:
            training = load_dataset(seeds.describe().dataset_source, allow_outside=True)
            training_features = _training_features(seeds, training, folder)
        # A checkpoint alone, or a manifest that is gone: linear scorers are left out.
        except (CheckpointError, DatasetError) as error:
            no_training = str(error)
    rule, calibration = read_rule(seeds, threshold=threshold)
    evaluation = measure(
        [load_checkpoint(seed.checkpoint_path) for seed in seeds.finished],
        dataset,
        folder,
        choose_device(device),
        controls=controls,
        rule=rule,
        training=training,
        no_training=no_training,
        training_features=training_features,
        epochs=[seed.epoch_checkpoints() for seed in seeds.finished] if best_on_test else (),
        best_by=best_by,
        ground_truth=ground_truth,
        report=report,
    )
    return replace(evaluation, calibration=calibration)


def _training_features(seeds: Seeds, training: Dataset, features: Path) -> Path:
    """The folder of the training features: that of the test features if they are there, too."""
    has_both = (features / training.name).is_dir()
    return features if has_both else features_folder_of(seeds, training)


def features_folder_of(seeds: Seeds, dataset: Dataset) -> Path:
    """Where the features of a dataset are looked for if nobody says where they are.

    In `features`; if that has none of this dataset, in the folder that the run was trained from.
    """
    if seeds.description is None:  # a folder with a checkpoint alone
        return FEATURES_FOLDER
    trained_from = seeds.description.features_folder
    if (FEATURES_FOLDER / dataset.name).is_dir() or not (trained_from / dataset.name).is_dir():
        return FEATURES_FOLDER
    return trained_from
