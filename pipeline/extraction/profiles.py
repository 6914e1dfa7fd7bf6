"""Profiles: the options with which published features were extracted, as far as they are known.

Features of a profile match a published release in kind. None has been compared with the released
values: neither the videos nor the weights were at hand. This module imports no torch: the command
line lists the profiles in its help.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from extractors.names import NO_FLOW

DEFAULT_PROFILE = "default"

_FRAME_RATE = "frames are taken at the video's own rate"
_JPEG_FRAMES = (
    "releases were made from JPEG frames of unknown quality; here videos are decoded directly"
)


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of options.

    Attributes:
        options: Fields of `ExtractorChoice` that differ from its defaults.
        release: Which published features it follows.
        not_known: What of that release is not known, or is known to differ.
        drops_tail: Whether the tail policy is `DROP_TAIL`.
    """

    options: Mapping[str, str | int]
    release: str
    not_known: tuple[str, ...] = ()
    drops_tail: bool = False


PROFILES = {
    DEFAULT_PROFILE: Profile({}, release="none: no frame is left out"),
    "xd-official": Profile(
        {"flow": "tvl1", "crops": 5},
        drops_tail=True,
        release="the RGB and flow features of XD-Violence (Roc-Ng/XDVioDet)",
        not_known=(
            "how frames were resized",
            "how flow was bounded and rounded",
            "whether each snippet was computed by itself",
            _JPEG_FRAMES,
            f"{_FRAME_RATE} (24 per second in the release)",
        ),
    ),
    "ucf-deepmil": Profile(
        {"flow": NO_FLOW, "crops": 10},
        release="the 10-crop RGB features of UCF-Crime (Roc-Ng/DeepMIL)",
        not_known=(
            "how frames were resized (UR-DMU's tool: to 340x256 whatever their shape)",
            "what became of the frames after the last whole snippet",
            "whether each snippet was computed by itself",
            _JPEG_FRAMES,
            _FRAME_RATE,
        ),
    ),
    "rtfm-r50": Profile(
        {"extractor": "i3d_r50", "flow": NO_FLOW, "crops": 10},
        release="the 10-crop ResNet-50 features of RTFM and S3R",
        not_known=(
            "the release's weights (Tushar-N/pytorch-resnet3d) are of another ResNet-50 I3D than "
            "pytorchvideo's, which is used here: the features do not mix with the release's",
            "in which order the crops came",
            "how frames were resized",
            "what became of the frames after the last whole snippet",
            _JPEG_FRAMES,
            f"{_FRAME_RATE} (ten training videos of the release seem to be at another)",
        ),
    ),
}


def describe_profile(name: str) -> str:
    """Describe which release a profile follows, and what of that release is not known."""
    profile = PROFILES[name]
    lines = [f"profile {name}: follows {profile.release}"]
    lines += [f"  not known, or different: {point}" for point in profile.not_known]
    return "\n".join(lines)
