"""Sentences that several stages show to users."""

RANDOM_WEIGHTS_NOTE = "random weights: not pretrained"
UNKNOWN_WEIGHTS_NOTE = "weights not known to be pretrained"


def weights_note(is_pretrained: object, *, if_pretrained: str = "") -> str:
    """What a user must know of the weights that features were made with.

    Args:
        is_pretrained: As the features' provenance says: True or False; anything else is not known.
        if_pretrained: What is returned for pretrained weights.
    """
    if is_pretrained is True:
        return if_pretrained
    return RANDOM_WEIGHTS_NOTE if is_pretrained is False else UNKNOWN_WEIGHTS_NOTE


def weights_limit(is_pretrained: object) -> str:
    """What a run must not be used for because of the weights; "" where they set no limit.

    Args:
        is_pretrained: As in `weights_note`.
    """
    if is_pretrained is True:
        return ""
    if is_pretrained is False:
        return f"Extractor with {RANDOM_WEIGHTS_NOTE}. Use the run for tests only."
    return (
        "It is not known whether the extractor's weights are pretrained; if not, use the run for "
        "tests only."
    )
