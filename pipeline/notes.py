"""Sentences that several stages show to users."""

RANDOM_WEIGHTS_NOTE = "random weights: not pretrained"
UNKNOWN_WEIGHTS_NOTE = "weights not known to be pretrained"


def weights_note(is_pretrained: object) -> str:
    """What a user must know of the weights that features were made with; "" for pretrained ones.

    Args:
        is_pretrained: As the features' provenance says: True or False; anything else is not known.
    """
    if is_pretrained is True:
        return ""
    return RANDOM_WEIGHTS_NOTE if is_pretrained is False else UNKNOWN_WEIGHTS_NOTE
