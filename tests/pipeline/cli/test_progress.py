"""Progress: counts, rates and the time left, by a clock that the test moves."""

import re

import pytest

from pipeline.cli import progress as progress_module
from pipeline.cli.display import show_extraction, show_training
from pipeline.cli.progress import ProgressDisplay, Stopwatch
from pipeline.extraction.extract_records import FramesDone, VideoDone
from pipeline.training.trainer import EpochRecord


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


@pytest.fixture
def lines(capsys):
    """A function that takes the lines of stderr since it was last called."""
    return lambda: capsys.readouterr().err.splitlines()


def test_a_stopwatch_shows_seconds_since_it_was_made_and_never_zero(clock):
    clock.now = 1000.0
    watch = Stopwatch()
    assert 0 < watch.seconds < 1e-6
    clock.now = 1012.5
    assert watch.seconds == 12.5


def test_a_log_gets_a_line_every_ten_seconds_and_not_more(clock, lines):
    with ProgressDisplay("extract", total=8, unit="videos") as display:
        written_at = []
        for second in range(1, 35):
            clock.now = 1000.0 + second
            display.update(second / 10)
            if lines():
                written_at.append(second)
    assert written_at == [10, 20, 30]


@pytest.mark.parametrize(
    ("seconds", "completed", "left"),
    [
        (10, 4, "10 s"),  # half is done
        (10, 1, "70 s"),
        (10, 0.5, "2 min"),  # 150 s
        (600, 1, "70 min"),
        (3600, 2, "3.0 h"),
        (50, 8, "0 s"),
    ],
)
def test_the_time_left_is_what_the_rest_takes_at_the_rate_so_far(
    clock, lines, seconds, completed, left
):
    with ProgressDisplay("extract", total=8, unit="videos") as display:
        clock.now += seconds
        display.update(completed, "5.0 frames/s")
    assert lines() == [f"extract: {int(completed)}/8 videos, 5.0 frames/s, {left} left"]


def test_before_anything_is_done_no_time_left_is_claimed(clock, lines):
    with ProgressDisplay("extract", total=8, unit="videos") as display:
        clock.now += 60
        display.update(0)
    assert lines() == ["extract: 0/8 videos"]


def test_what_is_said_in_a_log_is_there_at_once(clock, lines):
    with ProgressDisplay("extract", total=8, unit="videos") as display:
        display.say("a: [red] 3 frames could not be decoded")
        assert lines() == ["a: [red] 3 frames could not be decoded"]


def test_a_terminal_gets_a_bar_and_keeps_what_was_said(monkeypatch, lines):
    monkeypatch.setenv("FORCE_COLOR", "1")  # stderr passes for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with ProgressDisplay("extract", total=8, unit="videos") as display:
        display.update(2.5, "5.0 frames/s")
        display.say("a: [red] lost")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", "\n".join(lines()))
    assert "extract" in shown
    assert "2/8 videos" in shown
    assert "5.0 frames/s" in shown
    assert "a: [red] lost" in shown


def test_an_extraction_shows_frames_per_second_and_counts_parts_of_videos(clock, lines):
    def records():
        clock.now += 5
        yield VideoDone("a", n_frames=100, n_missing=0)
        clock.now += 5
        yield FramesDone("b", 60, 0.5)

    show_extraction(records(), n_videos=3)
    # 160 frames in 10 s; 1.5 of 3 videos are through.
    assert lines() == ["extract: 1/3 videos, 16.0 frames/s, 10 s left"]


def test_a_training_shows_its_loss_its_speed_and_the_time_left(clock, lines):
    def records():
        clock.now += 20
        yield EpochRecord(
            epoch=4,
            step=400,
            loss=0.625,
            losses={"mil": 0.5, "gate": 0.125},
            learning_rate=1e-3,
            grad_norm=1.0,
            steps_per_second=20.0,
        )

    show_training(records(), "seed 0", n_epochs=10)
    assert lines() == ["train seed 0: 4/10 epochs, loss 0.6250, 20.0 steps/s, 30 s left"]
