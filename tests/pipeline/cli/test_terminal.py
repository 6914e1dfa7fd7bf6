"""Progress and tables: counts and the time left by a clock that the test moves; layout."""

import re

import pytest

from pipeline.cli import terminal
from pipeline.cli.terminal import format_table, show_progress
from pipeline.progress import Progress

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


@pytest.fixture
def clock(set_clock):
    return set_clock(terminal)


@pytest.fixture
def lines(capsys):
    """A function that takes the lines of stderr since it was last called."""
    return lambda: capsys.readouterr().err.splitlines()


def videos(done: float, detail: str = "", message: str = "", stage: str = "extract") -> Progress:
    return Progress(stage, done, 8, "videos", detail, message)


def test_a_log_gets_a_line_every_ten_seconds_and_not_more(clock, lines):
    with show_progress() as report:
        written_at = []
        for second in range(1, 35):
            clock.now = 1000.0 + second
            report(videos(second / 10))
            if lines():
                written_at.append(second)
    assert written_at == [10, 20, 30]


@pytest.mark.parametrize(
    ("seconds", "done", "left"),
    [
        (10, 4, "10 s"),  # half is done
        (10, 1, "70 s"),
        (10, 0.5, "2 min"),  # 150 s
        (600, 1, "70 min"),
        (3600, 2, "3.0 h"),
        (50, 8, "0 s"),
    ],
)
def test_the_time_left_is_what_the_rest_takes_at_the_rate_so_far(clock, lines, seconds, done, left):
    with show_progress() as report:
        clock.now += seconds
        report(videos(done, "5.0 frames/s"))
    assert lines() == [f"extract: {int(done)}/8 videos, 5.0 frames/s, {left} left"]


def test_before_anything_is_done_no_time_left_is_claimed(clock, lines):
    with show_progress() as report:
        clock.now += 60
        report(videos(0))
    assert lines() == ["extract: 0/8 videos"]


def test_the_time_before_a_stage_does_not_count_for_its_rate(clock, lines):
    with show_progress() as report:
        clock.now += 5
        report(videos(8, stage="read"))
        clock.now += 3600  # the weights are downloaded
        report(videos(0))
        clock.now += 20
        assert lines() == ["extract: 0/8 videos"]
        report(videos(2))
    assert lines() == ["extract: 2/8 videos, 60 s left"]


def test_a_stage_whose_first_report_has_something_done_began_with_the_report_before(clock, lines):
    with show_progress() as report:
        clock.now += 5
        report(videos(8, stage="read"))
        clock.now += 20
        report(videos(2, stage="train"))
    assert lines() == ["train: 2/8 videos, 60 s left"]


def test_a_message_is_in_a_log_at_once_and_in_one_line(clock, lines):
    with show_progress() as report:
        report(videos(0, message="a: [red] 3 frames\ncould not be decoded"))
        assert lines() == [r"a: [red] 3 frames\ncould not be decoded"]


def test_what_could_change_a_terminal_is_escaped_in_a_log(clock, lines):
    with show_progress() as report:
        clock.now += 10
        report(videos(0, detail="\x1b[2J", stage="score a\nb.mp4"))
    assert lines() == [r"score a\nb.mp4: 0/8 videos, \x1b[2J"]


def terminal_text(lines) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", "\n".join(lines()))


@pytest.fixture
def as_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # stderr passes for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.usefixtures("as_terminal")
def test_a_terminal_gets_a_bar_and_keeps_messages(lines):
    with show_progress() as report:
        report(videos(2.5, "5.0 frames/s, [bold]", "a: [red] lost"))
    shown = terminal_text(lines)
    assert "extract" in shown
    assert "2/8 videos" in shown
    assert "5.0 frames/s, [bold]" in shown
    assert "a: [red] lost" in shown


@pytest.mark.usefixtures("as_terminal")
def test_a_terminal_shows_the_bar_of_the_stage_that_was_reported_last(lines):
    with show_progress() as report:
        report(videos(8, stage="read"))
        lines()
        report(videos(2, stage="train"))
    shown = terminal_text(lines)
    assert "train" in shown
    assert "read" not in shown


@pytest.mark.usefixtures("as_terminal")
def test_a_terminal_has_its_cursor_again_after_an_error(capsys):
    def fail() -> None:
        with show_progress() as report:
            report(videos(2))
            raise ValueError("no such video")

    with pytest.raises(ValueError, match="no such video"):
        fail()
    shown = capsys.readouterr().err
    assert shown.rfind(SHOW_CURSOR) > shown.rfind(HIDE_CURSOR) >= 0


def test_a_table_has_a_title_and_its_numbers_to_the_right():
    rows = [["first", "72.3 ± 2.2", "8", "3 of 4"], ["b", "100", "", "no"], ["c"]]
    assert format_table("All runs", ["run", "AUC", "n", "note"], rows).splitlines() == [
        "All runs",
        "run            AUC   n   note",
        "─" * 31,
        "first   72.3 ± 2.2   8   3 of 4",
        "b              100       no",
        "c",
    ]


def test_a_table_is_never_wrapped_and_shows_every_cell_as_it_is():
    long = "x" * 500
    table = format_table("", ["name"], [[long], ["[bold]a[/bold]"], [":smile:"], ["a\x1b[2Jb"]])
    assert table.splitlines()[2:] == [long, "[bold]a[/bold]", ":smile:", r"a\x1b[2Jb"]


def test_a_row_with_more_cells_than_the_header_is_refused():
    with pytest.raises(ValueError, match="at most 1 cells, instead got 2"):
        format_table("", ["name"], [["a", "b"]])


def test_a_table_without_rows_is_its_header():
    assert format_table("", ["name", "AUC"], []).splitlines()[0] == "name   AUC"


def test_a_stage_that_others_interrupt_keeps_its_rate_and_one_that_begins_anew_has_its_own(
    clock, lines
):
    with show_progress() as report:
        report(videos(0))
        clock.now += 20
        report(videos(2))
        for n_seconds in (40, 20):  # the overlays of two videos
            report(videos(0, stage="overlay"))
            clock.now += n_seconds
            lines()
            report(videos(4, stage="overlay"))
            assert lines() == [f"overlay: 4/8 videos, {n_seconds} s left"]
        clock.now += 20
        report(videos(4))
    assert lines() == ["extract: 4/8 videos, 2 min left"]
