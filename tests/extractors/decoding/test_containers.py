"""Whether a file is shorter than its container says, by its first bytes."""

from pathlib import Path

import pytest

from extractors.decoding.containers import is_cut_off

EBML = bytes.fromhex("1a45dfa3 84") + bytes(4)
SEGMENT = bytes.fromhex("18538067")


def riff(n_bytes: int, n_there: int | None = None) -> bytes:
    return b"RIFF" + n_bytes.to_bytes(4, "little") + bytes(n_bytes if n_there is None else n_there)


@pytest.mark.parametrize(
    ("container", "content", "expected"),
    [
        ("avi", riff(100), False),
        ("avi", riff(100, 99), True),
        ("avi", riff(101) + b"\0" + riff(30), False),
        ("avi", riff(101) + b"\0" + riff(30, 29), True),
        ("avi", riff(101), False),
        ("avi", riff(100) + b"anything", False),
        ("avi", riff(0), False),
        ("matroska,webm", EBML + SEGMENT + b"\x8a" + bytes(10), False),
        ("matroska,webm", EBML + SEGMENT + b"\x8a" + bytes(9), True),
        ("matroska,webm", EBML + SEGMENT + b"\x40\x0a" + bytes(9), True),
        ("matroska,webm", EBML + SEGMENT + b"\x01" + bytes(5) + b"\1\0" + bytes(256), False),
        ("matroska,webm", EBML + SEGMENT + b"\x01" + bytes(5) + b"\1\0" + bytes(255), True),
        ("matroska,webm", EBML + SEGMENT + b"\x01" + b"\xff" * 7 + bytes(9), False),
        ("matroska,webm", EBML + SEGMENT + b"\xff" + bytes(9), False),
        ("matroska,webm", b"anything else", False),
        ("matroska,webm", EBML[:4], False),
        ("mpegts", riff(100, 9), False),
    ],
)
def test_a_file_is_cut_off_if_it_is_shorter_than_its_headers_say(
    tmp_path: Path, container: str, content: bytes, expected: bool
) -> None:
    path = tmp_path / "clip"
    path.write_bytes(content)
    assert is_cut_off(path, container) == expected
