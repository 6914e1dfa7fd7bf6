"""Live sources: which frames come in which snippet, what is dropped, and what may be named."""

import os
import pickle
import threading
import time
from itertools import pairwise
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from extractors.decoding import live_decoder
from extractors.decoding.live_decoder import (
    LiveDecoder,
    LiveSnippet,
    SourceLost,
    SourceOpened,
)
from extractors.decoding.live_frames import LiveFrame
from extractors.decoding.live_messages import LiveSlotFilled, LiveSlotFree, SnippetDropped
from extractors.decoding.live_source import LiveSource, LiveSourceError
from extractors.decoding.live_worker import PlayClock, SnippetWriter
from extractors.decoding.video import Video

B_FRAMES = {"g": "12", "sc_threshold": "0", "bf": "2", "b_strategy": "0"}


def never() -> bool:
    return False


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/status").exists()


def read(path, read_number, *, stall_seconds=0.5, max_lag_seconds=60.0, **options):
    """The numbers and times of each snippet's frames, and how the source was lost."""
    snippets, lost = [], None
    with LiveDecoder(
        LiveSource.parse(str(path)),
        16,
        stall_seconds=stall_seconds,
        max_lag_seconds=max_lag_seconds,
        **options,
    ) as decoder:
        for event in decoder.read(never):
            if isinstance(event, LiveSnippet):
                numbers = [read_number(frame) for frame in event.frames]
                snippets.append((numbers, event.times))
            elif isinstance(event, SourceLost):
                lost = event
    return snippets, lost


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtsp://admin:secret@camera:554/live", "rtsp://camera:554/live"),
        ("rtsp://admin:sec/r@et@camera/live", "rtsp://camera/live"),
        ("rtsp://admin:sec?ret#@camera/live", "rtsp://camera/live"),
        ("http://camera/video.cgi?user=admin&pwd=secret", "http://camera/video.cgi"),
        ("HTTPS://secret@camera/a#secret", "https://camera/a"),
    ],
)
def test_no_password_of_an_address_is_in_its_name(text, name):
    source = LiveSource.parse(text)
    assert source.name == name
    assert "ret" not in repr(source)
    assert source.address.partition("://")[2] == text.partition("://")[2]
    assert pickle.loads(pickle.dumps(source)) == source  # as it is sent to the process


@pytest.mark.parametrize(
    "text",
    [
        "tcp://secret@host:1",
        "concat://secret",
        "file:///secret",
        "rtsp://admin:secret@",
        "http://",
        "no such file",
        "/tmp",
        "a\0b",
    ],
)
def test_what_is_no_source_is_refused_in_one_line_without_the_address(text):
    with pytest.raises(LiveSourceError, match="expected a camera") as error:
        LiveSource.parse(text)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_named_pipe_is_no_source(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LiveSourceError, match="neither a camera nor a file"):
        LiveSource.parse(str(tmp_path / "pipe"))


@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv"])
@pytest.mark.parametrize("options", [None, B_FRAMES], ids=["IP", "IBP"])
def test_a_file_gives_the_frames_and_times_that_the_decoder_of_files_gives(
    write_clip, read_number, tmp_path, name, options
):
    path = write_clip(tmp_path / name, n_frames=40, options=options)
    snippets, lost = read(path, read_number)
    assert [numbers for numbers, _ in snippets] == [
        list(range(17)),
        list(range(16, 33)),
        [*range(32, 40), *[39] * 9],
    ]
    expected = np.concatenate([chunk.timestamps for chunk in Video(path).read(16)])
    found = np.concatenate([times.timestamps for _, times in snippets])
    assert found.tolist() == expected.tolist()
    assert [times.has_following for _, times in snippets] == [True, True, False]
    stops = [times.stop_seconds for _, times in snippets]
    assert stops == pytest.approx([expected[16], expected[32], expected[39] + 0.04])
    assert lost is not None
    assert (lost.reason, lost.n_packets) == ("has ended", 40)


def test_a_growing_file_is_read_as_it_grows_and_goes_on_where_it_ended(
    write_clip, read_number, tmp_path
):
    whole = write_clip(tmp_path / "whole.ts", n_frames=100, options=B_FRAMES).read_bytes()
    growing = tmp_path / "growing.ts"
    cuts = [len(whole) * i // 8 // 188 * 188 for i in range(5)]
    growing.write_bytes(whole[: cuts[1]])

    def grow():
        for start, stop in pairwise(cuts[1:]):
            time.sleep(0.2)
            with growing.open("ab") as file:
                file.write(whole[start:stop])

    writer = threading.Thread(target=grow)
    writer.start()
    first, lost = read(growing, read_number, stall_seconds=1.0)
    writer.join()
    with growing.open("ab") as file:
        file.write(whole[cuts[-1] :])
    assert lost is not None
    second, end = read(growing, read_number, n_packets_read=lost.n_packets)
    assert end is not None
    assert end.n_packets == 100

    def shown(snippets):
        return [n for numbers, times in snippets for n in numbers[: len(times.timestamps)]]

    assert len(shown(first)) > 30
    # The frame that was written in part at the end of the first part may be lost.
    gap = shown(second)[0] - shown(first)[-1]
    assert gap in (1, 2)
    assert shown(first) == list(range(shown(first)[-1] + 1))
    assert shown(second) == list(range(shown(second)[0], 100))


@pytest.mark.parametrize("is_back", [True, False], ids=["back", "forward"])
def test_no_snippet_spans_a_jump_of_the_times(write_clip, read_number, tmp_path, is_back):
    path = tmp_path / "clip.ts"
    if is_back:  # as when a camera has been restarted
        part = write_clip(path, n_frames=20, options={"bf": "0"}).read_bytes()
        path.write_bytes(part + part)
        second = list(range(20))
    else:
        pts = [i + (5000 if i >= 20 else 0) for i in range(40)]
        write_clip(path, n_frames=40, pts=pts, options={"bf": "0"})
        second = list(range(20, 40))
    snippets, _ = read(path, read_number)
    assert [numbers for numbers, _ in snippets] == [
        list(range(17)),
        [*range(16, 20), *[19] * 13],
        second[:17],
        [*second[16:], *[second[-1]] * 13],
    ]
    assert [times.part for _, times in snippets] == [0, 0, 1, 1]


def frame(number: int, seconds: float, part: int = 0) -> LiveFrame:
    return LiveFrame(
        seconds, part, "h264", 2, 2, lambda: np.full((2, 2, 3), number, dtype=np.uint8)
    )


def received(connection):
    while connection.poll():
        yield connection.recv()


def test_where_no_slot_is_free_in_time_a_whole_snippet_is_dropped_and_the_next_one_is_whole():
    ours, theirs = Pipe()
    slots = np.zeros((3, 5, 2, 2, 3), np.uint8)  # snippets of 4
    writer = SnippetWriter(slots, theirs, max_lag_seconds=0.0)
    begin = time.monotonic()

    def add(numbers):
        for number in numbers:
            while time.monotonic() < begin + number / 1000:  # no frame is early
                time.sleep(0.0005)
            writer.add(frame(number, number / 1000))

    add(range(18))  # the three slots are full with 12 frames; 12 to 15 are dropped
    messages = list(received(ours))
    assert [type(message) for message in messages] == [*[LiveSlotFilled] * 3, SnippetDropped]
    assert [message.slot for message in messages[:3]] == [2, 1, 0]
    ours.send(LiveSlotFree(1))
    add(range(18, 26))  # 16 to 19 have no slot either, 20 to 23 have
    kinds = list(received(ours))
    assert [type(message) for message in kinds] == [SnippetDropped, LiveSlotFilled]
    assert slots[1, :, 0, 0, 0].tolist() == [20, 21, 22, 23, 24]
    assert kinds[1].times.timestamps.tolist() == [0.020, 0.021, 0.022, 0.023]


def test_frames_that_come_before_their_time_wait_for_a_slot():
    ours, theirs = Pipe()
    writer = SnippetWriter(np.zeros((3, 5, 2, 2, 3), np.uint8), theirs, max_lag_seconds=0.0)

    def free_later():
        time.sleep(0.2)
        ours.send(LiveSlotFree(2))

    threading.Thread(target=free_later).start()
    for number in range(17):
        writer.add(frame(number, number / 20))  # twenty frames a second, all at once
    assert [type(message) for message in received(ours)] == [LiveSlotFilled] * 4


def test_the_last_snippet_is_due_when_the_source_is_known_to_have_ended():
    ours, theirs = Pipe()
    writer = SnippetWriter(np.zeros((3, 5, 2, 2, 3), np.uint8), theirs, max_lag_seconds=0.0)
    for number in range(3):
        writer.add(frame(number, number / 1000))
    time.sleep(0.2)
    ended = time.monotonic()
    writer.finish()
    (message,) = received(ours)
    assert message.times.due >= ended
    assert message.times.timestamps.tolist() == [0.0, 0.001, 0.002]


def test_the_clock_of_a_player_follows_a_late_source_and_forgets_a_burst():
    clock = PlayClock()
    # Six seconds at once, then one frame a second: those are due when they come, in the end.
    assert [clock.due(second, 100.0) - 100 for second in range(6)] == [0, 1, 2, 3, 4, 5]
    ahead = [clock.due(second, 95.0 + second) - (95 + second) for second in range(6, 100)]
    assert ahead == sorted(ahead, reverse=True)
    assert 4 < ahead[0] < 5
    assert ahead[-1] < 0.01
    assert clock.due(100, 210.0) == 210.0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("crash", "its decoding process was killed by SIGSEGV"), ("hang", "sent nothing for 1 s")],
)
def test_a_decoder_that_crashes_or_hangs_is_a_source_that_is_lost(
    write_clip, read_number, tmp_path, monkeypatch, fault, reason
):
    monkeypatch.setenv("LIVE_FAULT", fault)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(live_decoder, "PATIENCE_SECONDS", 0.5)
    path = write_clip(tmp_path / "clip.ts")
    snippets, lost = read(path, read_number, worker_module="faulty_live_worker")
    assert [numbers for numbers, _ in snippets] == [list(range(17))]
    assert lost is not None
    assert reason in lost.reason


def test_a_snippet_that_is_asked_for_too_late_is_dropped(write_clip, tmp_path):
    path = write_clip(tmp_path / "clip.ts", n_frames=40)
    events = []
    with LiveDecoder(
        LiveSource.parse(str(path)), 16, stall_seconds=0.2, max_lag_seconds=-100.0
    ) as decoder:
        events = [type(event) for event in decoder.read(never)]
    assert events == [SourceOpened, *[SnippetDropped] * 3, SourceLost]


def test_leaving_ends_the_process_even_while_it_waits_for_its_source(write_clip, tmp_path):
    path = write_clip(tmp_path / "clip.ts")
    began = time.monotonic()
    with LiveDecoder(LiveSource.parse(str(path)), 16, stall_seconds=60.0) as decoder:
        pid = decoder._process.pid
        for event in decoder.read(lambda: time.monotonic() - began > 1.5):
            assert not isinstance(event, SourceLost)
    assert time.monotonic() - began < 6
    assert not is_alive(pid)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"no video at all" * 100, "cannot be opened"), (b"", "cannot be open")]
)
def test_what_is_no_video_is_lost_at_once_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "clip.ts"
    path.write_bytes(content)
    with LiveDecoder(LiveSource.parse(str(path)), 16, stall_seconds=0.2) as decoder:
        (event,) = decoder.read(never)
    assert isinstance(event, SourceLost)
    assert reason in event.reason
    assert "`pipeline score` reads finished ones" in event.reason


def test_an_mp4_with_its_index_at_the_end_is_lost_with_the_formats_that_can_be_watched(
    write_clip, tmp_path
):
    padded = {"nal-hrd": "cbr", "b": "1M", "maxrate": "1M", "bufsize": "1M"}
    path = write_clip(tmp_path / "clip.mp4", n_frames=100, options=padded, is_fast_start=False)
    assert path.stat().st_size > 1 << 17  # more than FFmpeg holds in memory and can search
    with LiveDecoder(LiveSource.parse(str(path)), 16, stall_seconds=0.2) as decoder:
        (event,) = decoder.read(never)
    assert isinstance(event, SourceLost)
    assert "Invalid data" in event.reason
    assert "must be MPEG-TS, Matroska or fragmented MP4" in event.reason
    assert "`pipeline score` reads finished ones" in event.reason
