"""Networks beside scorers of single snippets that have little to learn, for few training videos.

A few dozen videos do not teach a network which of its features matter, and what it has memorized
looks the same in training as what it has understood. What it learns depends on its initial weights.
So the mean logits of several networks are added to those of simple scorers, with weights that
cross-validation over the training videos has found:

- `network`: networks of one kind, any model of this package.
- `linear <stream>`: one weight per feature of one stream (`models.linear_mil`).
- `distance <stream>`: how unlike the snippets of normal training videos a snippet is.
- `motion`: how unlike those of a video that does not move its flow features are.

The papers of the models have nothing of the kind: an ensemble is this project's own.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.interface import AnomalyModel, BagBatch, Output, stream_columns
from models.layers import Standardize
from models.linear_mil import fit_linear_mil

# Mean squared distances per feature, standardized; below this all are as good as none.
MIN_SQUARED_DISTANCE = 1e-3


class Ensemble(AnomalyModel):
    """A weighted sum of the standardized logits of averaged networks and of simple scorers.

    As built it only gives the networks' logits, standardized by nothing; `fit_scorers` and then
    `fuse` make it an ensemble.

    Args:
        networks: Trained, with different seeds; at least one.
        has_motion: Whether the features of a video that does not move are known.

    Attributes:
        members: Names, in the order of all axes over members.
        weights: (M,) of the members' logits, each divided by its scale; not negative.
        bias: () added to the weighted sum.
        offsets: (M,) of the members' logits.
        scales: (M,) positive.
    """

    weights: Tensor
    bias: Tensor
    offsets: Tensor
    scales: Tensor
    linear_weights: Tensor
    linear_biases: Tensor
    normal_center: Tensor
    still: Tensor

    def __init__(self, networks: Sequence[AnomalyModel], *, has_motion: bool) -> None:
        super().__init__(networks[0].config)
        self.networks = nn.ModuleList(networks)
        self.n_networks = len(networks)
        self._columns = stream_columns(self.config.stream_dims)
        streams = [name for name, _ in self.config.stream_dims]
        if has_motion and "flow" not in streams:
            raise ValueError(f"motion needs a flow stream, instead got {streams}")
        self.has_motion = has_motion
        self.members = (
            "network",
            *(f"linear {name}" for name in streams),
            *(f"distance {name}" for name in streams),
            *(["motion"] if has_motion else []),
        )
        D, M = self.config.feature_dim, len(self.members)
        self.register_buffer("weights", torch.eye(M)[0].clone())
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("offsets", torch.zeros(M))
        self.register_buffer("scales", torch.ones(M))
        self.register_buffer("linear_weights", torch.zeros(D))
        self.register_buffer("linear_biases", torch.zeros(len(streams)))
        self.register_buffer("normal_center", torch.zeros(D))
        self.register_buffer("still", torch.zeros(D))

    @torch.no_grad()
    def fit_scorers(self, batch: BagBatch, still_flow: Tensor | None) -> None:
        """Fit the simple scorers, on the CPU.

        Args:
            batch: One bag of every training video, normal and anomalous ones, on the CPU.
            still_flow: (D of the flow stream,) features of a video that does not move; None if
                they are not known.

        Raises:
            ValueError: If `still_flow` is given to an ensemble without motion, or not to one with.
        """
        if (still_flow is not None) != self.has_motion:
            raise ValueError("still_flow must be given if, and only if, the ensemble has motion")
        self.input_norm.fit(batch.features[batch.mask])
        is_normal = batch.mask & (batch.labels == 0)[:, None]
        center = self.input_norm(batch.features[is_normal]).mean(dim=0)
        self.normal_center.copy_(center)
        for index, (name, columns) in enumerate(self._columns.items()):
            norm = Standardize(columns.stop - columns.start)
            norm.mean.copy_(self.input_norm.mean[columns])
            norm.std.copy_(self.input_norm.std[columns])
            with torch.enable_grad():
                weights, biases = fit_linear_mil(
                    batch.features[:, :, columns], batch.mask, batch.labels, norm
                )
            self.linear_weights[columns] = weights.mean(dim=0)
            self.linear_biases[index] = biases.mean()
            if name == "flow" and still_flow is not None:
                self.still[columns] = norm(still_flow)

    @torch.no_grad()
    def fuse(self, *, weights: Tensor, bias: float, offsets: Tensor, scales: Tensor) -> None:
        """Set how the members' logits are put together; shapes as those of the attributes."""
        self.weights.copy_(weights)
        self.bias.fill_(bias)
        self.offsets.copy_(offsets)
        self.scales.copy_(scales)

    def member_logits(
        self, features: Tensor, mask: Tensor, *, context: Tensor | None = None
    ) -> tuple[Tensor, Output]:
        """What each member says of every snippet.

        Args:
            features: (B, T, D).
            mask: (B, T) True where the snippet is real.
            context: As in the network's `forward`, where it accepts one.

        Returns:
            (B, T, M) float32 logits as the members give them, and the first network's output.
        """
        options = {} if context is None else {"context": context}
        outputs: list[Output] = [network(features, mask, **options) for network in self.networks]
        of_networks = torch.stack([output.logits.float() for output in outputs]).mean(dim=0)
        standard = self.input_norm(features.float())
        linear, distances, motion = [], [], []
        for index, (name, columns) in enumerate(self._columns.items()):
            part = standard[..., columns]
            linear.append(part @ self.linear_weights[columns] + self.linear_biases[index])
            distances.append(_log_distance(part, self.normal_center[columns]))
            if name == "flow" and self.has_motion:
                motion.append(_log_distance(part, self.still[columns]))
        logits = [of_networks, *linear, *distances, *motion]
        return torch.stack(logits, dim=2), outputs[0]

    def forward(self, features: Tensor, mask: Tensor, *, context: Tensor | None = None) -> Output:
        """Score every snippet; arguments as those of the network's `forward`.

        Returns:
            The first network's output with the logits of the ensemble.
        """
        logits, output = self.member_logits(features, mask, context=context)
        return dataclasses.replace(output, logits=self._terms(logits).sum(dim=2) + self.bias)

    def scores_without(self, features: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """`the network`, and by stream as `the rgb scorers`: without the terms of its members."""
        logits, _ = self.member_logits(features, mask)
        terms = self._terms(logits)
        fused = terms.sum(dim=2) + self.bias
        parts = {"the network": self.members[:1]}
        for name, _ in self.config.stream_dims:
            of_stream = (f"linear {name}", f"distance {name}")
            parts[f"the {name} scorers"] = (*of_stream, "motion") if name == "flow" else of_stream
        without = {}
        for part, names in parts.items():
            columns = [index for index, name in enumerate(self.members) if name in names]
            without[part] = (fused - terms[..., columns].sum(dim=2)).sigmoid()
        return without

    def _terms(self, logits: Tensor) -> Tensor:
        """(B, T, M) what each member adds to the sum."""
        return (logits - self.offsets) / self.scales * self.weights

    def losses(self, output: Output, batch: BagBatch) -> dict[str, Tensor]:
        """The loss terms of the first network, for the logits of the ensemble."""
        return self._first.losses(output, batch)

    @property
    def accepts_context(self) -> bool:
        """Whether the networks do."""
        return self._first.accepts_context

    @property
    def _first(self) -> AnomalyModel:
        network = self.networks[0]
        assert isinstance(network, AnomalyModel)
        return network


def _log_distance(standard: Tensor, center: Tensor) -> Tensor:
    """(..., D) to (...): the logarithm of the root mean square distance from (D,)."""
    squared = (standard - center).square().mean(dim=-1)
    return 0.5 * squared.clamp(min=MIN_SQUARED_DISTANCE).log()
