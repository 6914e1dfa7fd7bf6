"""Profiles: the choices with which published features were made, as far as they are known.

A profile makes features that match a published release in kind. None has been compared with the
released numbers: neither the videos nor the weights were at hand.
"""

from dataclasses import dataclass, replace

from extractors.build import ExtractorChoice
from extractors.names import NO_FLOW
from extractors.snippets import DROP_TAIL
from pipeline.config import ConfigError

DEFAULT_PROFILE = "default"

_FRAME_RATE = "frames are taken at the video's own rate"
_PICTURES = (
    "releases were made from JPEG pictures of unknown quality; here videos are decoded directly"
)


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of choices.

    Attributes:
        choices: What is chosen.
        release: Which published features it follows.
        not_known: What of that release is not known, or is known to differ.
    """

    choices: ExtractorChoice
    release: str
    not_known: tuple[str, ...] = ()


PROFILES = {
    DEFAULT_PROFILE: Profile(ExtractorChoice(), release="none: no frame is left out"),
    "xd-official": Profile(
        ExtractorChoice(flow="tvl1", crops=5, tail_policy=DROP_TAIL),
        release="the RGB and flow features of XD-Violence (Roc-Ng/XDVioDet)",
        not_known=(
            "how frames were resized",
            "how flow was bounded and rounded",
            "whether each snippet was computed by itself",
            _PICTURES,
            f"{_FRAME_RATE} (24 per second in the release)",
        ),
    ),
    "ucf-deepmil": Profile(
        ExtractorChoice(flow=NO_FLOW, crops=10),
        release="the 10-crop RGB features of UCF-Crime (Roc-Ng/DeepMIL)",
        not_known=(
            "how frames were resized (UR-DMU's tool: to 340x256 whatever their shape)",
            "what became of the frames after the last whole snippet",
            "whether each snippet was computed by itself",
            _PICTURES,
            _FRAME_RATE,
        ),
    ),
    "rtfm-r50": Profile(
        ExtractorChoice(extractor="i3d_r50", flow=NO_FLOW, crops=10),
        release="the 10-crop ResNet-50 features of RTFM and S3R",
        not_known=(
            "the release's weights (Tushar-N/pytorch-resnet3d) are of another ResNet-50 I3D than "
            "pytorchvideo's, which is used here: the features do not mix with the release's",
            "in which order the crops came",
            "how frames were resized",
            "what became of the frames after the last whole snippet",
            _PICTURES,
            f"{_FRAME_RATE} (ten training videos of the release seem to be at another)",
        ),
    ),
}


def resolve_choices(profile: str | None, **given: str | int | None) -> ExtractorChoice:
    """Put the options that were given into a profile's choices.

    Weights may stand beside any profile, for the same weights may lie in a file of one's own; so
    may the precision, which no release tells. Both are in every feature file's header. All else may
    differ from the default only.

    Args:
        profile: A key of `PROFILES`; None is the default.
        given: Fields of `ExtractorChoice` by name; None where an option was not given.

    Raises:
        ConfigError: If there is no such profile, or an option contradicts it.
        ExtractorError: If the options do not go together.
    """
    if profile is not None and profile not in PROFILES:
        raise ConfigError(f"profile must be one of {', '.join(PROFILES)}, instead got {profile}")
    choices = PROFILES[profile or DEFAULT_PROFILE].choices
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        expected = getattr(choices, name)
        is_free = profile is None or name in ("weights", "flow_weights", "precision")
        if not is_free and value != expected:
            raise ConfigError(
                f"profile {profile}: {name} is {expected}, instead got {value}; "
                f"leave out --{name.replace('_', '-')} or --profile"
            )
    return replace(choices, **options)  # type: ignore[arg-type]  # the fields' own types


def describe_profile(name: str) -> str:
    """Say in words which release a profile follows, and what of that release is not known."""
    profile = PROFILES[name]
    lines = [f"profile {name}: follows {profile.release}"]
    lines += [f"  not known, or different: {point}" for point in profile.not_known]
    return "\n".join(lines)
