"""Decoding in other processes: what comes out, and what happens when one of them fails."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import av
import numpy as np
import pytest

from extractors.decoding import decode_pool, decode_worker
from extractors.decoding.decode_pool import (
    DecodePool,
    SnippetDecoded,
    VideoEnded,
    VideoLost,
    VideoOpened,
)


def numbers_and_times(events, read_number):
    """By video: the number on every frame of every snippet, and the times, after the last start."""
    numbers, times = defaultdict(list), defaultdict(list)
    for event in events:
        match event:
            case VideoOpened(path=path):
                numbers[path], times[path] = [], []
            case SnippetDecoded(path=path):
                numbers[path].append([read_number(frame) for frame in event.frames])
                times[path].extend(event.timestamps)
    return numbers, times


@pytest.mark.parametrize("n_workers", [1, 3])
def test_every_frame_comes_once_and_in_order_with_the_frame_after_its_snippet(
    write_clip, read_number, tmp_path, n_workers
):
    lengths = {write_clip(tmp_path / f"{n}.mp4", n_frames=n): n for n in (1, 15, 16, 17, 40, 150)}
    with DecodePool(n_workers, 16) as pool:
        numbers, times = numbers_and_times(pool.decode(lengths), read_number)
    for path, n_frames in lengths.items():
        n_snippets = -(-n_frames // 16)
        first = 16 * np.arange(n_snippets)[:, None]
        expected = np.minimum(first + np.arange(17), n_frames - 1)
        np.testing.assert_array_equal(numbers[path], expected)
        np.testing.assert_allclose(times[path], np.arange(n_frames) / 25, atol=1e-6)


def test_videos_of_different_sizes_follow_each_other_in_one_worker(
    write_clip, read_number, tmp_path
):
    sizes = [(64, 48), (160, 120), (32, 32), (96, 64)]
    paths = [
        write_clip(tmp_path / f"{w}x{h}.mp4", n_frames=20, width=w, height=h) for w, h in sizes
    ]
    with DecodePool(1, 16) as pool:
        shapes = {
            event.path: event.frames.shape
            for event in pool.decode(paths)
            if isinstance(event, SnippetDecoded)
        }
    assert shapes == {
        path: (17, height, width, 3) for path, (width, height) in zip(paths, sizes, strict=True)
    }


def test_a_slow_reader_never_sees_a_frame_overwritten(write_clip, read_number, tmp_path):
    path = write_clip(tmp_path / "long.mp4", n_frames=250)
    seen = []
    with DecodePool(1, 16) as pool:
        for event in pool.decode([path]):
            if isinstance(event, SnippetDecoded):
                before = event.frames.copy()
                time.sleep(0.02)  # time enough to decode all the rest
                np.testing.assert_array_equal(event.frames, before)
                seen.append(read_number(event.frames[0]))
    assert seen == list(range(0, 250, 16))


def test_what_cannot_be_read_is_said_in_one_line_and_the_rest_goes_on(counting_clip, tmp_path):
    broken, absent = tmp_path / "broken.mp4", tmp_path / "absent.mp4"
    broken.write_bytes(b"no video\nat all")
    with DecodePool(1, 16) as pool:
        events = list(pool.decode([broken, absent, counting_clip]))
    lost = [event for event in events if isinstance(event, VideoLost)]
    assert [(event.path, event.kind, event.is_quarantined) for event in lost] == [
        (broken, "VideoError", False),
        (absent, "VideoError", False),
    ]
    assert all(str(event.path) in event.reason and "\n" not in event.reason for event in lost)
    assert isinstance(events[-1], VideoEnded)


def test_a_ribbon_is_refused_before_memory_is_set_aside_for_it(write_clip, tmp_path):
    path = write_clip(tmp_path / "ribbon.mp4", n_frames=3, width=270, height=16)
    with DecodePool(1, 16) as pool:
        (event,) = pool.decode([path])
    assert isinstance(event, VideoLost)
    assert f"{path}: frames must have a long side of at most 8 times the short side" in event.reason


def test_memory_that_is_not_there_is_the_failure_of_one_video(
    counting_clip, write_clip, tmp_path, monkeypatch
):
    video = decode_worker.Video(counting_clip)
    task = decode_worker.Task(0, counting_clip, None, 16)
    with (tmp_path / "slots").open("w+b") as memory:

        def refuse(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(OSError, match="No space left") as caught:
            decode_worker._open_slots(video, task, memory.fileno())
    refusal = decode_worker._refusal(task, caught.value)
    assert str(counting_clip) in refusal.reason
    assert "No space left" in refusal.reason
    assert refusal.is_machine_error


@pytest.mark.parametrize("way", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_decoder_that_dies_once_costs_nothing(
    write_clip, read_number, find_decoders, tmp_path, way
):
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=200) for i in range(3)]
    killed = []

    def with_a_death(events):
        for event in events:
            yield event
            if isinstance(event, SnippetDecoded) and event.path == paths[1] and not killed:
                killed.extend(find_decoders())
                os.kill(killed[0], way)

    with DecodePool(1, 16) as pool:
        numbers, times = numbers_and_times(with_a_death(pool.decode(paths)), read_number)
    assert killed
    for path in paths:
        assert [snippet[0] for snippet in numbers[path]] == list(range(0, 200, 16))
        assert len(times[path]) == 200


def test_a_video_that_kills_its_decoder_twice_is_quarantined_and_the_others_are_whole(
    write_clip, find_decoders, tmp_path
):
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=200) for i in range(3)]
    events = []
    with DecodePool(1, 16) as pool:
        for event in pool.decode(paths):
            events.append(event)
            if isinstance(event, VideoOpened) and event.path == paths[1]:
                os.kill(find_decoders()[0], signal.SIGSEGV)
    (lost,) = [event for event in events if isinstance(event, VideoLost)]
    assert (lost.path, lost.kind, lost.is_quarantined) == (paths[1], "DecoderDied", True)
    assert "killed by SIGSEGV, twice" in lost.reason
    assert {event.path for event in events if isinstance(event, VideoEnded)} == {
        paths[0],
        paths[2],
    }
    opened = [event.opened for event in events if isinstance(event, VideoOpened)]
    versions = [one.decoder_version.split()[0] for one in opened]
    assert versions == ["decord", "decord", "pyav", "decord"]  # the second try is the other decoder


def test_a_decoder_that_hangs_is_killed_and_not_waited_for(write_clip, find_decoders, tmp_path):
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=200) for i in range(3)]
    events, stopped = [], set()
    with DecodePool(1, 16, patience_seconds=1.5) as pool:
        for event in pool.decode(paths):
            events.append(event)
            if isinstance(event, VideoOpened) and event.path == paths[1]:
                stopped.update(find_decoders())
                os.kill(find_decoders()[0], signal.SIGSTOP)
    (lost,) = [event for event in events if isinstance(event, VideoLost)]
    assert (lost.path, lost.kind, lost.is_quarantined) == (paths[1], "DecoderHung", True)
    assert "sent nothing for 1.5 s, twice" in lost.reason
    assert len(stopped) == 2
    assert {event.path for event in events if isinstance(event, VideoEnded)} == {
        paths[0],
        paths[2],
    }


def test_a_busy_reader_is_not_taken_for_a_hanging_decoder(write_clip, tmp_path):
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=64) for i in range(2)]
    with DecodePool(2, 16, patience_seconds=1.0) as pool:
        events = []
        for event in pool.decode(paths):
            events.append(event)
            if len(events) in (3, 5):
                time.sleep(1.5)
    assert not any(isinstance(event, VideoLost) for event in events)
    assert sum(isinstance(event, VideoEnded) for event in events) == 2


def test_leaving_the_pool_ends_its_processes(write_clip, find_decoders, tmp_path):
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=200) for i in range(4)]
    n_files = len(list(Path("/proc/self/fd").iterdir()))
    with DecodePool(2, 16) as pool:
        next(iter(pool.decode(paths)))
        assert len(find_decoders()) == 2
    assert not find_decoders()
    assert len(list(Path("/proc/self/fd").iterdir())) == n_files


def test_when_the_parent_is_killed_its_decoders_end_and_leave_nothing_in_shared_memory(
    write_clip, tmp_path
):
    path = write_clip(tmp_path / "long.mp4", n_frames=250)
    code = f"""
import os, signal
from pathlib import Path
from extractors.decoding.decode_pool import DecodePool, SnippetDecoded
if __name__ == "__main__":
    with DecodePool(1, 16) as pool:
        for event in pool.decode([Path({str(path)!r})]):
            if isinstance(event, SnippetDecoded):
                print(pool._workers[0].process.pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
"""
    before = set(Path("/dev/shm").iterdir())
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, check=False
    )
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    decoder = Path("/proc", parent.stdout.strip())
    deadline = time.monotonic() + 10
    while decoder.exists() and "zombie" not in (decoder / "status").read_text():
        assert time.monotonic() < deadline, "the decoder outlived its parent"
        time.sleep(0.05)
    assert set(Path("/dev/shm").iterdir()) <= before


def test_a_damaged_packet_leaves_the_video_to_the_other_decoder(write_clip, read_number, tmp_path):
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=200) for i in range(3)]
    damage_packet(paths[1], 190)
    events = []
    with DecodePool(1, 16) as pool:
        numbers, _ = numbers_and_times(
            (events.append(event) or event for event in pool.decode(paths)), read_number
        )
    versions = defaultdict(list)
    for event in events:
        if isinstance(event, VideoOpened):
            versions[event.path].append(event.opened.decoder_version.split()[0])
    # decord fails only half-way.
    assert [versions[path] for path in paths] == [["decord"], ["decord", "pyav"], ["decord"]]
    missing = {event.path: event.n_missing for event in events if isinstance(event, VideoEnded)}
    n_shown = len(np.unique(numbers[paths[1]]))
    assert [missing[path] for path in paths] == [0, 200 - n_shown, 0]
    assert 0 < missing[paths[1]] < 12
    for path in (paths[0], paths[2]):
        assert [snippet[0] for snippet in numbers[path]] == list(range(0, 200, 16))


def damage_packet(path, index):
    """Overwrite most of one packet of an mp4 with zeros."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = packets[index]
    data = bytearray(path.read_bytes())
    kept = 5 + int(0.3 * (size - 5))
    data[position + kept : position + size] = bytes(size - kept)
    path.write_bytes(data)


def test_modules_in_the_current_folder_are_not_imported(write_clip, tmp_path):
    hostile, videos = tmp_path / "hostile", tmp_path / "videos"
    hostile.mkdir()
    videos.mkdir()
    write_clip(videos / "a.mp4", n_frames=20)
    (videos / "small.csv").write_text("path,split,label,anomalies\na.mp4,test,0,\n")
    names = ("signal", "struct", "socket", "pickle", "selectors", "numpy", "extractors")
    for name in names:
        (hostile / f"{name}.py").write_text("open('imported', 'w'); raise SystemExit(9)\n")
    command = Path(sys.executable).parent / "pipeline"
    arguments = ["extract", videos / "small.csv", "--features", tmp_path / "features"]
    arguments += ["--flow", "none", "--crops", "1", "--weights", "random:0"]
    done = subprocess.run(
        [command, *arguments, "--device", "cpu"],
        cwd=hostile,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "features/small/a.h5").is_file()
    assert not (hostile / "imported").exists()


def test_the_main_module_is_not_run_again_in_a_worker(counting_clip, tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        f"""
from pathlib import Path
from extractors.decoding.decode_pool import DecodePool
print("main")
with DecodePool(2, 16) as pool:
    list(pool.decode([Path({str(counting_clip)!r})]))
"""
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (0, "main\n"), done.stderr


def test_a_worker_that_dies_while_it_is_idle_is_charged_to_no_video(
    write_clip, find_decoders, tmp_path
):
    paths = [write_clip(tmp_path / f"{i}.mp4", n_frames=20) for i in range(4)]
    events = []
    with DecodePool(1, 16) as pool:
        for event in pool.decode(paths):
            events.append(event)
            if isinstance(event, VideoEnded) and event.path != paths[-1]:
                os.kill(find_decoders()[0], signal.SIGKILL)
    assert [event.path for event in events if isinstance(event, VideoEnded)] == paths
    opened = [event.opened for event in events if isinstance(event, VideoOpened)]
    assert [one.decoder_version.split()[0] for one in opened] == ["decord"] * 4


def test_a_process_that_a_kill_does_not_end_is_not_waited_for(
    counting_clip, find_decoders, monkeypatch, caplog
):
    monkeypatch.setattr(decode_pool, "END_SECONDS", 0.1)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: None)
    with DecodePool(1, 16) as pool:
        next(pool.decode([counting_clip]))
        (decoder,) = find_decoders()
        os.kill(decoder, signal.SIGSTOP)
    assert f"decoding process {decoder} was killed and is still there after 0.1 s" in caplog.text
    os.kill(decoder, signal.SIGKILL)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOSPC, "no space"), True),
        (OSError(errno.EMFILE, "too many files"), True),
        (OSError(errno.EIO, "of the disk"), True),
        (av.error.MemoryError(errno.ENOMEM, "of FFmpeg"), True),
        (av.error.OSError(errno.EIO, "of FFmpeg, which says so of cut files"), False),
        (FileNotFoundError(errno.ENOENT, "no such file"), False),
        (ValueError("bad data"), False),
        (None, False),
    ],
)
def test_what_the_machine_lacks_is_told_from_what_the_file_lacks(tmp_path, cause, expected):
    task = decode_worker.Task(0, tmp_path / "a.mp4", None, 16)
    error = decode_worker.VideoError("a.mp4: cannot be read")
    error.__cause__ = cause
    assert decode_worker._refusal(task, error).is_machine_error == expected


def test_a_pool_without_workers_is_refused():
    with pytest.raises(ValueError, match="n_workers must be at least 1, instead got 0"):
        DecodePool(0, 16)
