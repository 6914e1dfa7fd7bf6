"""What is said of long work, where stderr is not a terminal."""

from pipeline.cli.display import MAX_FAILURES_LISTED, show_extraction
from pipeline.extraction.extract_records import (
    FramesDone,
    VideoDone,
    VideoFailed,
    VideoKept,
    VideoTaken,
)
from pipeline.extraction.status import Failure


def test_an_extraction_is_summed_up_with_its_failures():
    records = [
        VideoKept("a"),
        FramesDone("b", 16, 0.4),
        VideoDone("b", n_frames=40, n_missing=0),
        VideoFailed(Failure("c", "VideoError", "c.mp4: no video stream", is_quarantined=False)),
        VideoFailed(Failure("d", "DecoderDied", "d.mp4: died", True), is_earlier=True),
        VideoTaken("e"),
    ]
    summary = show_extraction(iter(records), n_videos=5)
    assert summary.describe().splitlines() == [
        "1 extracted (40 frames), 1 there already, 1 being extracted by another process, 2 failed",
        "failed: c: c.mp4: no video stream",
        "quarantined: d: d.mp4: died",
        "1 of them failed earlier and were left alone; --retry-failed tries them again",
    ]


def test_frames_that_are_missing_are_said(capsys):
    show_extraction(iter([VideoDone("b", n_frames=28, n_missing=22)]), n_videos=1)
    assert "b: 22 frames could not be decoded" in capsys.readouterr().err


def test_many_failures_are_counted_and_not_all_listed():
    failures = [
        VideoFailed(Failure(str(i), "VideoError", "gone", is_quarantined=False))
        for i in range(MAX_FAILURES_LISTED + 5)
    ]
    lines = show_extraction(iter(failures), n_videos=len(failures)).describe().splitlines()
    assert lines[0] == "0 extracted (0 frames), 0 there already, 25 failed"
    assert len(lines) == 1 + MAX_FAILURES_LISTED + 1
    assert lines[-1] == "and 5 more failed"
