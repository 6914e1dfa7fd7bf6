"""From a profile and the options that a user gave to the options of an extractor."""

from dataclasses import replace

from extractors.build import ExtractorChoice
from extractors.snippets import DROP_TAIL, REPEAT_LAST_FRAME
from pipeline.extraction.errors import ExtractionError
from pipeline.extraction.profiles import DEFAULT_PROFILE, PROFILES

FREE_OPTIONS = ("weights", "flow_weights", "precision")  # that agree with any profile


def resolve_choices(profile: str | None, **given: str | int | None) -> ExtractorChoice:
    """Combine a profile with the options that were given.

    Weights may be given with any profile, because a file of one's own may hold the same weights; so
    may the precision, which no release states. Both are in every feature file's provenance. Other
    options must agree with the profile; without a profile they are free.

    Args:
        profile: A key of `PROFILES`; None is the default.
        given: Fields of `ExtractorChoice` by name; None where an option was not given.

    Raises:
        ExtractionError: If there is no such profile, or an option contradicts it.
        ExtractorError: If the options contradict each other.
    """
    if profile is not None and profile not in PROFILES:
        raise ExtractionError(
            f"profile must be one of {', '.join(PROFILES)}, instead got {profile}"
        )
    chosen = PROFILES[profile or DEFAULT_PROFILE]
    choices = ExtractorChoice(
        **chosen.options,  # type: ignore[arg-type]  # the fields' own types
        tail_policy=DROP_TAIL if chosen.drops_tail else REPEAT_LAST_FRAME,
    )
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        expected = getattr(choices, name)
        is_free = profile is None or name in FREE_OPTIONS
        if not is_free and value != expected:
            raise ExtractionError(
                f"profile {profile}: {name} is {expected}, instead got {value}; "
                f"leave out --{name.replace('_', '-')} or --profile"
            )
    return replace(choices, **options)  # type: ignore[arg-type]  # the fields' own types
