"""A trained run and the extractor of its features, loaded once to score any number of videos."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

import torch

from extractors.build import ExtractorChoice, ExtractorError
from extractors.decoding.decode_pool import VideoLost
from extractors.decoding.frame_folder import VideoSource, path_of
from extractors.decoding.video import VideoError
from extractors.engine import FramesDecoded
from extractors.features import Extractor
from extractors.snippets import SNIPPET_LEN
from pipeline.device import choose_device
from pipeline.extraction.feature_file import Provenance
from pipeline.extraction.releases import refuse_imported
from pipeline.notes import weights_note
from pipeline.printable import describe_error
from pipeline.progress import Progress, ReportProgress, no_report
from pipeline.runs.checkpoints import Checkpoint, CheckpointError
from pipeline.runs.compatibility import compare_with_run, precision_for_run
from pipeline.runs.feature_distance import describe_distance
from pipeline.runs.seeds import Seeds, load_average
from pipeline.scoring.calibration import Calibration, distance_limits
from pipeline.scoring.events import EventRule
from pipeline.scoring.frame_scores import Scores
from pipeline.scoring.score_streams import VideoScored, score_streams
from pipeline.scoring.snippet_scores import check_streams


@dataclass(frozen=True, slots=True)
class VideoFailure:
    """A video that could not be scored, and why in one line that names the file."""

    video: Path
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Scorer:
    """A trained model and the extractor of its features, loaded once for any number of videos.

    Attributes:
        checkpoint: The trained model, of several seeds their average, in evaluation mode on
            `device`.
        extractor: Computes features as the checkpoint's provenance says.
        device: Where both compute.
        distance_limits: From which distance of its features on a video is unlike those of the
            training and of the calibration; None where that is not known.
        seeds: Which seeds of how many score together, for people; "" for a run that is alone.
        rule: When a score is an event; the scores carry it.
    """

    checkpoint: Checkpoint
    extractor: Extractor
    device: torch.device
    distance_limits: tuple[float | None, ...] = ()
    seeds: str = ""
    rule: EventRule = field(default_factory=EventRule)

    @classmethod
    def load(
        cls,
        seeds: Seeds,
        rule: EventRule | None = None,
        calibration: Calibration | None = None,
        *,
        device: str = "auto",
        weights: str | Path | None = None,
        flow_weights: str | Path | None = None,
    ) -> "Scorer":
        """Load a run and its extractor; other arguments and errors as those of `score`.

        Args:
            seeds: Of the run; their scores are averaged.
            rule: When a score is an event, as from `read_rule`; None for the default.
            calibration: The run's, for how far its footage lay from the training videos; None
                where it does not count.
            device: As in `score`.
            weights: As in `score`.
            flow_weights: As in `score`.
        """
        checkpoint = load_average(seeds.finished)
        chosen = choose_device(device)
        extractor = extractor_of_run(
            checkpoint.provenance, weights=weights, flow_weights=flow_weights, device=chosen
        )
        return cls(
            checkpoint,
            extractor,
            chosen,
            distance_limits=distance_limits(seeds, calibration),
            seeds=_describe_seeds(seeds),
            rule=rule or EventRule(),
        )

    @property
    def note(self) -> str:
        """What a plot must say of the extractor's weights, such as that they are random; or ""."""
        return weights_note(self.checkpoint.is_pretrained)

    @property
    def notices(self) -> list[str]:
        """What a user should know of the scores: seeds, weights, another precision."""
        _, precision = compare_with_run(self.checkpoint.provenance, self.extractor.provenance())
        return [notice for notice in (self.seeds, self.note, precision) if notice]

    def warning(self, scores: Scores) -> str:
        """That a video's features are unlike those that the run knows; "" where they are not."""
        return describe_distance(scores.feature_distance, self.distance_limits)

    def score(
        self, video: VideoSource, *, stride: int = SNIPPET_LEN, report: ReportProgress = no_report
    ) -> Scores:
        """Score every frame of one video; arguments and errors as those of `score`."""
        found: list[Scores] = []
        failures = self.score_all(
            [video], lambda _, scores: found.append(scores), stride=stride, report=report
        )
        if failures:
            raise VideoError(failures[0].reason)
        return found[0]

    def score_all(
        self,
        videos: Sequence[VideoSource],
        receive: Callable[[Path, Scores], None],
        *,
        stride: int = SNIPPET_LEN,
        explain: bool = False,
        report: ReportProgress = no_report,
    ) -> list[VideoFailure]:
        """Score videos, each in bounded memory; one that fails does not stop the others.

        Args:
            videos: Files and folders of frames. No path may occur twice.
            receive: Called with the path of each video and its scores once they are complete.
            stride: As in `score`.
            explain: Also score without each part of the model: see `Scores.without`.
            report: Called with the progress.

        Returns:
            The videos that could not be scored.

        Raises:
            FeatureFileError: If the model was built for other streams than the extractor's.
            ValueError: If the stride does not divide a snippet.
        """
        snippet_len = self.extractor.snippet_len
        if stride < 1 or snippet_len % stride:
            raise ValueError(f"stride must be a divisor of {snippet_len}, instead got {stride}")
        model = self.checkpoint.model.to(self.device).eval()
        check_streams(model, list(self.extractor.stream_dims.items()), path_of(videos[0]))
        counter = _Counter(len(videos), report)
        failures = []
        for event in score_streams(
            videos, self.extractor, model, device=self.device, stride=stride, explain=explain
        ):
            match event:
                case FramesDecoded():
                    counter.count(event)
                case VideoScored(path=path, scores=scores, n_missing=n_missing):
                    receive(path, replace(scores, rule=self.rule))
                    missing = f"{n_missing} frames could not be decoded" if n_missing else ""
                    said = "; ".join(filter(None, (missing, self.warning(scores))))
                    counter.end(path, f"{path}: {said}" if said else "")
                case VideoLost(path=path, reason=reason):
                    failures.append(VideoFailure(path, reason))
                    counter.end(path, "")
        return failures


def _describe_seeds(seeds: Seeds) -> str:
    """That several seeds score, and how many of the same training have no checkpoint."""
    if seeds.n_trained == 1:
        return ""
    names = ", ".join(seed.folder.name.partition("-seed")[2] for seed in seeds.finished)
    missing = seeds.n_trained - len(seeds.finished)
    return f"mean of seeds: {names}" + (f" ({missing} not finished)" if missing else "")


class _Counter:
    """Reports how many videos are scored, parts of videos included, and frames per second."""

    def __init__(self, n_videos: int, report: ReportProgress) -> None:
        self._n_videos, self._report = n_videos, report
        self._n_ended = self._n_frames_ended = 0
        self._open: dict[Path, FramesDecoded] = {}
        self._started = monotonic()

    def count(self, decoded: FramesDecoded) -> None:
        self._open[decoded.path] = decoded
        self._send("")

    def end(self, path: Path, message: str) -> None:
        self._n_ended += 1
        if path in self._open:
            self._n_frames_ended += self._open.pop(path).n_frames
        self._send(message)

    def _send(self, message: str) -> None:
        n_frames = self._n_frames_ended + sum(video.n_frames for video in self._open.values())
        self._report(
            Progress(
                stage="score",
                done=self._n_ended + sum(video.fraction for video in self._open.values()),
                total=self._n_videos,
                unit="videos",
                detail=f"{n_frames / max(monotonic() - self._started, 1e-9):.1f} frames/s",
                message=message,
            )
        )


def extractor_of_run(
    provenance: Provenance,
    *,
    weights: str | Path | None,
    device: torch.device,
    flow_weights: str | Path | None = None,
) -> Extractor:
    """Rebuild the extractor whose features a run was trained on, in the same precision if possible.

    If the device does not compute in that precision, `compare_with_run` has a notice.

    Args:
        provenance: The run's.
        weights: A name or a path; None for the name in the provenance.
        device: Where it runs.
        flow_weights: The same for a flow method that is a network.

    Raises:
        CheckpointError: If the provenance does not describe an extractor, or the extractor that was
            built has another provenance.
        WeightsError: If the weights cannot be had.
    """
    refuse_imported(provenance)
    try:
        choice = ExtractorChoice(
            extractor=str(provenance["extractor"]),
            flow=str(provenance["flow_method"]),
            crops=int(provenance["crops"]),
            weights=str(provenance["weights"] if weights is None else weights),
            flow_weights=str(flow_weights or provenance.get("flow_weights", "")) or None,
            tail_policy=str(provenance["tail_policy"]),
            precision=precision_for_run(provenance, device),
        )
    except ExtractorError:
        raise
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            "the training features do not say which extractor made them "
            f"({describe_error(error)}); extract them with this program, and train on them"
        ) from error
    extractor = choice.build(device)
    differences, _ = compare_with_run(provenance, extractor.provenance())
    if differences:
        raise CheckpointError(
            "the run was trained on features that were extracted with other settings than "
            f"this program would use now: {'; '.join(differences)}; for weights of your own give "
            "--weights PATH or --flow-weights PATH"
        )
    return extractor
