"""Feature releases that others have published: who made them, how, and for which ground truth.

Their arrays are found by `import_features.py`. Addresses and rules are those of the releases' own
pages and scripts. What a release does not say is "not known" here, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from extractors.errors import LookaroundError

if TYPE_CHECKING:
    from extractors.features import Provenance

NOT_KNOWN = "not known"
IMPORTED_FROM = "imported_from"  # the key that only imported features have
GROUND_TRUTH = "ground_truth"  # its value is a convention's name, or not known


class ImportFeaturesError(LookaroundError, ValueError):
    """Features of others cannot be imported as they are."""


@dataclass(frozen=True, slots=True)
class Release:
    """One published set of features.

    Attributes:
        made_by: Authors and address.
        family: The network and what it was trained on.
        tail_policy: What became of the last, incomplete snippet.
        crop_order: Which crop is which; empty if nobody has said.
        stream_dims: Width of each stream that there may be; empty if any will do.
        other_dims: By dataset, the same where its features are of another width.
        n_crops: Crops by dataset; of other datasets any number will do, but all videos alike.
        ground_truth: By dataset, the published ground truth that fits: a key of `conventions_of`.
        n_segments: Number of equal segments of every video; 0 for snippets of 16 frames.
    """

    made_by: str
    family: str
    tail_policy: str
    crop_order: str = NOT_KNOWN
    stream_dims: Mapping[str, int] = field(default_factory=dict)
    other_dims: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    n_crops: Mapping[str, int] = field(default_factory=dict)
    ground_truth: Mapping[str, str] = field(default_factory=dict)
    n_segments: int = 0

    def dims_of(self, dataset: str) -> Mapping[str, int]:
        """Width of each stream that there may be of a dataset; empty if any will do."""
        return self.other_dims.get(dataset, self.stream_dims)


_INCEPTION = "Inception I3D, Kinetics"
_RESNET = "ResNet-50 I3D, Kinetics"
_CENTER_FIRST = "center, 4 corners, the same mirrored"
_RTFM = Release(
    made_by="Tian et al., ICCV 2021, https://github.com/tianyu0207/RTFM",
    family=_RESNET,
    tail_policy="repeat the last frame to fill the last snippet",
    stream_dims={"rgb": 2048},
    n_crops={"ucf_crime": 10, "shanghaitech": 10, "xd_violence": 5},
    ground_truth={"ucf_crime": "rtfm", "shanghaitech": "rtfm", "xd_violence": "xdviodet"},
)

RELEASES: dict[str, Release] = {
    "rtfm": _RTFM,
    # Inputs in [-1, 1] for weights that expect another range: not to be mixed with RTFM's.
    "tevad": replace(
        _RTFM,
        made_by="Chen et al., CVPR Workshops 2023, https://github.com/coranholmes/TEVAD",
        other_dims={"xd_violence": {"rgb": 1024}},  # its README: --feature-size 1024
        ground_truth={"ucf_crime": "rtfm", "shanghaitech": "tevad"},
    ),
    "deepmil": Release(
        made_by="Wu et al., https://github.com/Roc-Ng/DeepMIL",
        family=_INCEPTION,
        tail_policy="drop the incomplete last snippet, and of some videos a whole one",
        crop_order=_CENTER_FIRST,
        stream_dims={"rgb": 1024, "flow": 1024},
        n_crops={"ucf_crime": 10},
        ground_truth={"ucf_crime": "deepmil"},
    ),
    "xdviodet": Release(
        made_by="Wu et al., ECCV 2020, https://github.com/Roc-Ng/XDVioDet",
        family=_INCEPTION,
        tail_policy="drop the last frame, then the incomplete last snippet",
        crop_order=_CENTER_FIRST,
        stream_dims={"rgb": 1024, "flow": 1024},
        n_crops={"xd_violence": 5},
        ground_truth={"xd_violence": "xdviodet"},
    ),
    "pel4vad": Release(
        made_by="Pu et al., IEEE TIP 2024, https://github.com/yujiangpu20/PEL4VAD",
        family=_INCEPTION,
        tail_policy=NOT_KNOWN,
        stream_dims={"rgb": 1024},
        n_crops={"shanghaitech": 10},
        ground_truth={"shanghaitech": "pel4vad"},
    ),
    "c3d": Release(
        made_by=(
            "Sultani et al., CVPR 2018, https://github.com/WaqasSultani/AnomalyDetectionCVPR2018"
        ),
        family="C3D fc6, Sports-1M",
        tail_policy="means over 32 equal segments of the video",
        crop_order="none",
        stream_dims={"rgb": 4096},
        n_segments=32,
    ),
}
OTHER = "other"  # features of a maker whom the user names


def find_release(name: str, made_by: str | None = None) -> Release:
    """Find a release by its name.

    Args:
        name: A key of `RELEASES`, or `other`.
        made_by: Who made the features, and how, where the name is `other`.

    Raises:
        ImportFeaturesError: If there is no such release, or it is `other` and nobody is named.
    """
    if name in RELEASES and made_by is None:
        return RELEASES[name]
    if name == OTHER and made_by:
        return Release(made_by=made_by, family=NOT_KNOWN, tail_policy=NOT_KNOWN)
    if name in RELEASES or name == OTHER:
        raise ImportFeaturesError(
            f"--made-by must say who made the features and how, with --release {OTHER} alone"
        )
    raise ImportFeaturesError(
        f"--release must be one of {', '.join([*RELEASES, OTHER])}, instead got {name!r}"
    )


def refuse_imported(provenance: Provenance) -> None:
    """Refuse to compute features as others have made theirs.

    Raises:
        ImportFeaturesError: If the features were imported.
    """
    if IMPORTED_FROM in provenance:
        raise ImportFeaturesError(
            f"the run was trained on imported features ({provenance[IMPORTED_FROM]}: "
            f"{provenance['made_by']}), which this program cannot compute from a video; train on "
            "features made with pipeline extract to score new videos"
        )
