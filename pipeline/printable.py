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
