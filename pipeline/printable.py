"""Text from outside, such as a video's name, in the form in which it may be shown."""


def printable(text: str) -> str:
    r"""Replace the characters that could change what a terminal shows by their escapes.

    Control characters, line breaks, marks that turn the direction of writing and bytes that are not
    UTF-8 become `\x1b` and the like; everything that can be seen stays as it is.

    >>> print(printable("camera\x1b[2J 1 ü"))
    camera\x1b[2J 1 ü
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def describe_error(error: BaseException) -> str:
    r"""What was wrong with values from outside, in one line; a `KeyError` names what is missing.

    >>> describe_error(KeyError("seed")), describe_error(ValueError("one,\ntwo"))
    ("'seed' is missing", 'one, two')
    """
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return " ".join(reason.split())
