"""Outcomes of videos: the summary at the end, progress on the way, several processes."""

from pathlib import Path

import pytest

from extractors.engine import FramesDecoded
from pipeline.datasets.catalog import VideoEntry
from pipeline.extraction import summary as summary_module
from pipeline.extraction.status import Failure
from pipeline.extraction.summary import MAX_FAILURES_LISTED, Tally, VideoOutcome
from pipeline.progress import no_report

FOLDER = Path("features/small")


@pytest.fixture
def clock(set_clock):
    return set_clock(summary_module)


def entries(names: str) -> list[VideoEntry]:
    return [VideoEntry(name, Path(f"{name}.mp4"), "train", 0) for name in names]


def done(name: str, n_frames: int, n_missing: int = 0, reason: str = "") -> VideoOutcome:
    return VideoOutcome(name, "done", n_frames, n_missing, reason)


def failed(name: str, is_earlier: bool = False) -> VideoOutcome:
    failure = Failure(name, "VideoError", f"{name}.mp4: no video stream", is_quarantined=False)
    return VideoOutcome(name, "failed", failure=failure, is_earlier=is_earlier)


def test_an_extraction_is_summed_up_with_its_failures() -> None:
    tally = Tally(entries("abcde"), no_report)
    died = Failure("d", "DecoderDied", "d.mp4: died", is_quarantined=True)
    for event in (
        VideoOutcome("a", "kept"),
        FramesDecoded(Path("b.mp4"), 16, 40),
        done("b", n_frames=40),
        failed("c"),
        VideoOutcome("d", "failed", failure=died, is_earlier=True),
        VideoOutcome("e", "taken"),
    ):
        tally.add(event)
    summary = tally.summary(FOLDER)
    assert summary.describe().splitlines() == [
        "1 extracted (40 frames), 1 there already, 1 being extracted by another process, 2 failed",
        "failed: c: c.mp4: no video stream",
        "quarantined: d: d.mp4: died",
        "1 of them failed earlier and were not tried again; --retry-failed tries them again",
        "features are in features/small",
    ]
    counts = (summary.n_done, summary.n_kept, summary.n_taken, summary.n_frames, summary.n_earlier)
    assert counts == (1, 1, 1, 40, 1)
    assert [failure.video_id for failure in summary.failures] == ["c", "d"]


def test_frames_that_are_missing_are_counted_in_the_summary_too() -> None:
    tally = Tally(entries("abc"), no_report)
    for event in (done("a", 38, 2), done("b", 40), done("c", 35, 5)):
        tally.add(event)
    assert tally.summary(FOLDER).describe().splitlines()[1:] == [
        "7 frames of 2 videos could not be decoded; status.csv says of which",
        "features are in features/small",
    ]


def test_many_failures_are_counted_and_not_all_listed() -> None:
    names = [str(i) for i in range(MAX_FAILURES_LISTED + 5)]
    tally = Tally([VideoEntry(name, Path(name), "train", 0) for name in names], no_report)
    for name in names:
        tally.add(failed(name))
    lines = tally.summary(FOLDER).describe().splitlines()
    assert lines[0] == "0 extracted (0 frames), 0 there already, 25 failed"
    assert len(lines) == 1 + MAX_FAILURES_LISTED + 2
    assert lines[-2] == "and 5 more failed"


def test_progress_has_frames_per_second_and_counts_parts_of_videos(clock) -> None:
    reports = []
    tally = Tally(entries("abc"), reports.append)
    clock.now += 5
    tally.add(done("a", n_frames=100))
    clock.now += 5
    tally.add(FramesDecoded(Path("b.mp4"), 60, 120))
    last = reports[-1]
    assert (last.stage, last.done, last.total, last.unit) == ("extract", 1.5, 3, "videos")
    assert last.detail == "16.0 frames/s"  # 160 frames in 10 s
    clock.now += 10
    tally.add(done("b", n_frames=120))
    assert (reports[-1].done, reports[-1].detail) == (2, "11.0 frames/s")


def test_what_a_user_should_know_of_a_video_is_a_message() -> None:
    reports = []
    tally = Tally(entries("abcd"), reports.append)
    tally.add(done("a", 28, n_missing=22, reason="a.mp4: is not the file it was"))
    tally.add(failed("b"))
    tally.add(failed("c", is_earlier=True))
    tally.add(done("d", 28))
    tally.note("device: cpu")
    assert [report.message for report in reports if report.message] == [
        "extracted again: a.mp4: is not the file it was",
        "a: 22 frames could not be decoded",
        "failed: b: b.mp4: no video stream",
        "device: cpu",
    ]


def test_of_several_processes_outcomes_the_one_that_says_most_counts() -> None:
    outcomes = [
        VideoOutcome("a", "taken"),
        failed("a", is_earlier=True),
        failed("a"),
        VideoOutcome("a", "kept"),
        done("a", n_frames=40),
    ]
    for i, better in enumerate(outcomes):
        for worse in outcomes[:i]:
            for order in ([worse, better], [better, worse]):
                tally = Tally(entries("a"), no_report)
                for outcome in order:
                    tally.add(outcome)
                assert tally.summary(FOLDER).outcomes == (better,)


def test_a_video_that_one_process_decodes_and_another_leaves_to_it_is_not_counted_twice() -> None:
    reports = []
    tally = Tally(entries("ab"), reports.append)
    tally.add(FramesDecoded(Path("a.mp4"), 20, 40))
    tally.add(VideoOutcome("a", "taken"))
    assert reports[-1].done == 0.5


def test_a_failure_is_given_exactly_for_failed_videos() -> None:
    failure = Failure("a", "VideoError", "a.mp4: gone", is_quarantined=False)
    with pytest.raises(ValueError, match="failure must be given exactly for failed videos"):
        VideoOutcome("a", "done", failure=failure)
    with pytest.raises(ValueError, match="failure must be given exactly for failed videos"):
        VideoOutcome("a", "failed")
