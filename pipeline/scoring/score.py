"""Stage 3: a video and a trained model become a score for every frame."""

from collections.abc import Generator
from pathlib import Path

import torch

from extractors.build import ExtractorChoice, ExtractorError
from extractors.features import Extractor
from pipeline.extraction.extract import stream_features
from pipeline.extraction.extract_records import FramesDone
from pipeline.extraction.feature_file import Provenance
from pipeline.runs.checkpoints import Checkpoint, CheckpointError
from pipeline.runs.compatibility import compare_with_run, precision_for_run
from pipeline.scoring.frame_scores import Scores, scores_of_video
from pipeline.scoring.snippet_scores import check_streams, snippet_scores


def extractor_of_run(
    provenance: Provenance,
    *,
    weights: str | None,
    device: torch.device,
    flow_weights: str | None = None,
) -> Extractor:
    """Rebuild the extractor whose features a run was trained on, in its precision if possible.

    Where the device does not compute in that precision, `compare_with_run` has a notice.

    Args:
        provenance: The run's.
        weights: What `--weights` would say; None takes the name that the provenance remembers.
        device: Where it runs.
        flow_weights: What `--flow-weights` would say; None as above.

    Raises:
        CheckpointError: If the provenance is not one of an extractor, or what was built is not what
            the run was trained on.
        WeightsError: If the weights cannot be had.
    """
    try:
        choice = ExtractorChoice(
            extractor=str(provenance["extractor"]),
            flow=str(provenance["flow_method"]),
            crops=int(provenance["crops"]),
            weights=str(provenance["weights"]) if weights is None else weights,
            flow_weights=flow_weights or str(provenance.get("flow_weights", "")) or None,
            tail_policy=str(provenance["tail_policy"]),
            precision=precision_for_run(provenance, device),
        )
    except ExtractorError:
        raise
    except (KeyError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"the run does not say how its features were made ({reason}); train again"
        ) from error
    extractor = choice.build(device)
    differences, _ = compare_with_run(provenance, extractor.provenance())
    if differences:
        raise CheckpointError(
            "the run was trained on features made in another way than this program would make "
            f"them now: {'; '.join(differences)}; for weights of your own give "
            "--weights PATH or --flow-weights PATH"
        )
    return extractor


def score_video(
    path: Path, checkpoint: Checkpoint, extractor: Extractor, device: torch.device
) -> Generator[FramesDone, None, Scores]:
    """Score every frame of one video.

    Memory grows with the length of the video only by its features, 16 frames a row.

    Args:
        path: The video file.
        checkpoint: The trained model.
        extractor: Makes features as the checkpoint's provenance says.
        device: Where the model runs.

    Yields:
        The progress.

    Returns:
        The scores of all frames that are shown.

    Raises:
        VideoError: If no frame can be had from the file.
        FeatureFileError: If the model was built for other streams than the extractor's.
    """
    features = yield from stream_features(path, extractor)
    model = checkpoint.model.to(device).eval()
    check_streams(model, features, path)
    return scores_of_video(snippet_scores(model, features, device=device), features)
