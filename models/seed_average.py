"""Models that differ in their seed only, as one model: the mean of their scores."""

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.interface import AnomalyModel, BagBatch, Output


class SeedAverage(AnomalyModel):
    """The mean of the scores of several models. It is not trained itself.

    Args:
        models: At least one, of the same config and fitted to the same features.

    Raises:
        ValueError: If there is none, or their configs differ.
    """

    def __init__(self, models: Sequence[AnomalyModel]) -> None:
        if not models or any(model.config != models[0].config for model in models):
            raise ValueError("models must be at least one, and of the same config")
        super().__init__(models[0].config)
        self.models = nn.ModuleList(models)
        self.input_norm.load_state_dict(models[0].input_norm.state_dict())

    def forward(self, features: Tensor, mask: Tensor, *, context: Tensor | None = None) -> Output:
        """Score every snippet; arguments as those of the models' `forward`.

        Returns:
            The first model's output with the logits of the mean score.
        """
        options = {} if context is None else {"context": context}
        outputs: list[Output] = [model(features, mask, **options) for model in self.models]
        logits = torch.stack([output.logits.float() for output in outputs])
        return dataclasses.replace(outputs[0], logits=_logit_of_mean_score(logits))

    def losses(self, output: Output, batch: BagBatch) -> dict[str, Tensor]:
        """The first model's loss terms."""
        return self._first.losses(output, batch)

    @property
    def accepts_context(self) -> bool:
        """Whether the models do."""
        return self._first.accepts_context

    def scores_without(self, features: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """The mean over the models, part by part."""
        found: list[dict[str, Tensor]] = []
        for model in self.models:
            assert isinstance(model, AnomalyModel)
            found.append(model.scores_without(features, mask))
        return {
            name: torch.stack([scores[name] for scores in found]).mean(dim=0) for name in found[0]
        }

    @property
    def _first(self) -> AnomalyModel:
        model = self.models[0]
        assert isinstance(model, AnomalyModel)
        return model


def _logit_of_mean_score(logits: Tensor) -> Tensor:
    """(n, B, T) to (B, T), in logarithms: a mean score near 0 or 1 keeps its digits."""
    log_n = math.log(len(logits))
    log_anomalous = F.logsigmoid(logits).logsumexp(dim=0) - log_n
    log_normal = F.logsigmoid(-logits).logsumexp(dim=0) - log_n
    return log_anomalous - log_normal
