"""Stage 3: a video and a trained model become a score for every frame."""

from collections.abc import Generator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extractors.build import ExtractorChoice
from extractors.features import Extractor, Features
from models.clav_como import ClavComo
from models.interface import AnomalyModel
from pipeline.checkpoints import Checkpoint, CheckpointError
from pipeline.extract import FramesDone, stream_features
from pipeline.feature_file import Contract, contract_differences
from pipeline.frame_scores import Scores


def extractor_of_run(
    contract: Contract,
    *,
    weights: str | None,
    device: torch.device,
    flow_weights: str | None = None,
) -> Extractor:
    """Rebuild the extractor whose features a run was trained on.

    Args:
        contract: The run's.
        weights: What `--weights` would say; None takes the name that the contract remembers.
        device: Where it runs.
        flow_weights: What `--flow-weights` would say; None as above.

    Raises:
        CheckpointError: If what was built is not what the run was trained on.
        WeightsError: If the weights cannot be had.
    """
    extractor = ExtractorChoice(
        extractor=str(contract["extractor"]),
        flow=str(contract["flow_method"]),
        crops=int(contract["crops"]),
        weights=str(contract["weights"]) if weights is None else weights,
        flow_weights=flow_weights or str(contract.get("flow_weights", "")) or None,
        tail_rule=str(contract["tail_rule"]),
    ).build(device)
    differences = contract_differences(_comparable(contract), _comparable(extractor.contract()))
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
        extractor: Makes features as the checkpoint's contract says.
        device: Where the model runs.

    Yields:
        The progress.

    Returns:
        The scores of all frames that are shown.

    Raises:
        VideoError: If no frame can be had from the file.
    """
    features = yield from stream_features(path, extractor)
    per_snippet = score_features(checkpoint.model.to(device).eval(), features, device=device)
    return Scores(per_snippet, features.snippet_len, features.timestamps, features.tail_rule)


def _comparable(contract: Contract) -> Contract:
    """A contract without the precision: a camera's CPU may score with a run from a GPU's features.

    The README has the measured difference between features in bfloat16 and in float32.
    """
    return {name: value for name, value in contract.items() if name != "precision"}


@torch.inference_mode()
def score_features(
    model: AnomalyModel,
    features: Features,
    *,
    device: torch.device,
    context: Mapping[str, NDArray[np.float32]] | None = None,
) -> NDArray[np.float32]:
    """Apply a model to one video's whole sequence of snippets and average over crops.

    The average is taken in score space, as the field does. One crop at a time: the attention of a
    long video over all crops at once would not fit.

    Args:
        model: In evaluation mode, on `device`.
        features: One video's.
        device: Where the model is.
        context: For CLAV-CoMo only: what its context path reads instead, each stream
            (n_snippets, K, D).

    Returns:
        (n_snippets,) in [0, 1].
    """
    total = np.zeros(features.n_snippets, dtype=np.float64)
    mask = torch.ones(1, features.n_snippets, dtype=torch.bool, device=device)
    for crop in range(features.n_crops):
        bag = _bag_of_crop(features.streams, crop, device)
        if context is None:
            output = model(bag, mask)
        else:
            assert isinstance(model, ClavComo)
            output = model(bag, mask, context=_bag_of_crop(context, crop, device))
        total += output.logits[0].sigmoid().double().cpu().numpy()
    return np.clip(total / features.n_crops, 0, 1).astype(np.float32)


def _bag_of_crop(
    streams: Mapping[str, NDArray[np.float32]], crop: int, device: torch.device
) -> Tensor:
    """(1, n_snippets, D) the streams side by side, in their order."""
    side_by_side = np.concatenate([values[:, crop] for values in streams.values()], axis=1)
    return torch.from_numpy(side_by_side).to(device)[None]
