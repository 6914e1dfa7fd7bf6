"""A paper's row of results once more: train with several seeds, and evaluate in two ways.

The rows of the last step are without any selection, by our and by the published ground truth. Most
papers report the epoch that is best on the test videos, which is optimistic; one row, marked so,
has that number, by the published ground truth. It is the one to lay beside the paper's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.errors import LookaroundError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.ground_truth_conventions import ANNOTATION
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.split_videos import default_ground_truth
from pipeline.experiments.published_results import METRICS, PUBLISHED, PublishedResult
from pipeline.extraction.releases import IMPORTED_FROM
from pipeline.progress import ReportProgress, no_report
from pipeline.runs.run_folder import Run, read_description
from pipeline.training.train import train

N_SEEDS = 3
# The rows of an evaluation that are shown, by their kind, and how they are called here.
KINDS = {
    "model": "last step",
    "best on test": "best epoch on test{alone} (optimistic, as papers report)",
}
ALONE = ", network alone"  # in the name of a best epoch whose final model is an ensemble


class ReproduceError(LookaroundError, ValueError):
    """There is no row of that model and that dataset to reproduce."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A paper's number beside ours.

    Attributes:
        model: Name of the model.
        dataset: Name of the dataset.
        run: The last of the runs.
        features: Where the features are from.
        published: The paper's number.
        evaluations: By our ground truth, then by the published one with the best epoch on test.
    """

    model: str
    dataset: str
    run: Run
    features: str
    published: PublishedResult
    evaluations: tuple[Evaluation, ...]

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns of `rows`."""
        return ("", "ground truth", "test videos", "frames", METRICS[self.dataset][1])

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each evaluation, and one of the published number; in percent."""
        metric = METRICS[self.dataset][0]
        rows = []
        for evaluation in self.evaluations:
            for row in evaluation.rows:
                if row.kind not in KINDS:
                    continue
                percent = [100 * getattr(each.frames, metric) for each in row.per_seed]
                kind = KINDS[row.kind].format(alone=ALONE if ALONE in row.name else "")
                spread = f" ± {np.std(percent, ddof=1):.2f}" if len(percent) > 1 else ""
                rows.append(
                    (
                        f"ours, {len(percent)} seeds, {kind}",
                        evaluation.ground_truth,
                        str(evaluation.n_videos),
                        str(evaluation.n_frames),
                        f"{np.mean(percent):.2f}{spread}",
                    )
                )
        percent_published = self.published.percent
        number = "-" if percent_published is None else f"{percent_published:g}"
        return [*rows, (f"published: {self.published.source}", "", "", "", number)]


def reproduce(
    model: str,
    dataset: str,
    *,
    features: Path | str = "features",
    runs: Path | str = "runs",
    device: str = "auto",
    seeds: int = N_SEEDS,
    settings: Sequence[str] = (),
    report: ReportProgress = no_report,
) -> Reproduction:
    """Train a model by its recipe for a dataset, and evaluate it by our and the published rule.

    The weights of all epochs are kept in the runs, to find the one that is best on the test videos.

    Args:
        model: Key of `MODELS`.
        dataset: `ucf_crime`, `shanghaitech` or `xd_violence`.
        features: Folder of feature files, extracted or imported.
        runs: Folder of training runs.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        seeds: How many runs to train.
        settings: Single settings `key=value` that differ from the recipe.
        report: Called with the progress.

    Raises:
        ReproduceError: If there is no such row.
        ConfigError, DatasetError, FeatureFileError, CheckpointError: As `train` and `evaluate`.
    """
    published = PUBLISHED.get((model, dataset))
    if published is None:
        raise ReproduceError(
            f"{model} {dataset}: expected a model of {', '.join(sorted({m for m, _ in PUBLISHED}))}"
            f" and a dataset of {', '.join(METRICS)}"
        )
    run = train(
        dataset,
        model=model,
        seeds=seeds,
        settings=[*settings, "keep_epochs=true"],
        device=device,
        features=features,
        runs=runs,
        report=report,
    )
    provenance = read_description(run).provenance
    is_imported = IMPORTED_FROM in provenance
    # A published ground truth fits the features that it was made for.
    own = default_ground_truth(dataset, provenance)
    convention = own if is_imported and own != ANNOTATION else published.ground_truth
    return Reproduction(
        model,
        dataset,
        run,
        features=f"imported, {provenance['made_by']}" if is_imported else "extracted here",
        published=published,
        evaluations=tuple(
            evaluate(
                run,
                dataset=dataset,
                features=features,
                device=device,
                best_on_test=ground_truth == convention,
                best_by=METRICS[dataset][0],
                ground_truth=ground_truth,
                report=report,
            )
            for ground_truth in (ANNOTATION, convention)
        ),
    )
