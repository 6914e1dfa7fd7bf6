"""Fixtures of the tests of commands."""

from collections.abc import Callable

import pytest
from click.testing import Result


@pytest.fixture(scope="session")
def assert_one_line_error() -> Callable[..., None]:
    """A function that asserts exit code 1 and one error line that has every expected text."""
    return _assert_one_line_error


def _assert_one_line_error(result: Result, *expected: str) -> None:
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    for text in expected:
        assert text in lines[0]
