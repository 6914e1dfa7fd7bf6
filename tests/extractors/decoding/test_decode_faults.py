"""Faults at every step between a decoding worker and its parent, at random."""

import json
import os
from itertools import count as count_up
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extractors.decoding import decode_pool, decode_process
from extractors.decoding.decode_pool import (
    DecodePool,
    DecoderStartError,
    SnippetDecoded,
    VideoEnded,
    VideoLost,
    VideoOpened,
)
from pipeline.cli import main

N_SLOW_EXAMPLES = int(os.environ.get("FAULT_EXAMPLES", "2000"))
SNIPPET_LEN = 4
LENGTHS = {"a.mp4": 41, "b.mp4": 60, "c.mp4": 7}  # "a" and "b" have more snippets than slots
example_ids = count_up()
ENDS_PROCESS = ("exit", "kill", "stop")


@pytest.fixture(scope="module")
def faults_folder(tmp_path_factory):
    """Where the faults are written; new workers find the module that reads them."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTS_FOLDER", str(folder))
        patch.syspath_prepend(Path(__file__).parent)
        yield folder


@pytest.fixture(scope="module")
def paths(write_clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: write_clip(folder / name, n_frames=n_frames) for name, n_frames in LENGTHS.items()
    }


@pytest.fixture(scope="module")
def pool(faults_folder):
    """One for all examples: what an earlier fault left behind must not matter either."""
    with pytest.MonkeyPatch.context() as patch:
        # A new worker may be told to stop before it begins: that is waited for.
        patch.setattr(decode_pool, "START_SECONDS", 60.0)
        with DecodePool(
            2, SNIPPET_LEN, patience_seconds=3.0, worker_module="faulty_worker"
        ) as pool:
            yield pool


def fault(decoder):
    return st.fixed_dictionaries(
        {
            "decoder": st.just(decoder),
            "message": st.sampled_from(["Begun", "VideoOpened", "SlotFilled", "VideoEnded"]),
            "is_after": st.booleans(),
            "how": st.sampled_from(["error", "memory", "exit", "kill", "stop", "slow"]),
        }
    )


def write_faults(folder, faults, name, count=1):
    # Each example has its own: a worker may still be failing after the end of the one before.
    example = next(example_ids)
    listed = [
        one
        | {"name": name, "count": count if one["message"] == "SlotFilled" else 1}
        | {"flag": f"{example}-{one['decoder']}.happened"}
        for one in faults
    ]
    (folder / "faults.json").write_text(json.dumps(listed))


def expected_end(faults):
    """What reads the video, or the kind of its loss; whether that quarantines it, or is passing."""
    for one, decoder in zip(faults, ("decord", "pyav"), strict=True):
        step = one["message"], one["is_after"]
        # Before its task is begun and after its end a fault is nobody's.
        if step in (("Begun", False), ("VideoEnded", True)) or one["how"] == "slow":
            return decoder
        # Around the first message there is nobody yet to catch an error.
        is_death = one["how"] in ENDS_PROCESS or one["message"] == "Begun"
        if one["how"] == "memory" and not is_death:
            return "MemoryError", False, True
        kind = "DecoderHung" if one["how"] == "stop" else "DecoderDied"
        end = (kind, True, False) if is_death else ("DecoderFailure", False, False)
    return end


def read_all(pool, paths, read_number):
    """By file name: what its decoder is, or how it was lost; its frames' numbers; its times."""
    decoders, ends, numbers, times = {}, {}, {}, {}
    for event in pool.decode(paths):
        name = event.path.name
        assert name not in ends
        match event:
            case VideoOpened():
                decoders[name] = event.decoder_version.split()[0]
                numbers[name], times[name] = [], []
            case SnippetDecoded():
                numbers[name].append([read_number(frame) for frame in event.frames])
                times[name].extend(event.timestamps)
            case VideoEnded():
                ends[name] = decoders[name]
            case VideoLost():
                ends[name] = event.kind, event.is_quarantined, event.is_machine_error
    return ends, numbers, times


def check_faults(pool, folder, paths, read_number, faults, name, order, count):
    write_faults(folder, faults, name, count)
    ends, numbers, times = read_all(pool, [paths[one] for one in order], read_number)
    assert ends == {one: "decord" for one in LENGTHS} | {name: expected_end(faults)}
    for one, end in ends.items():
        if isinstance(end, str):
            n_frames = LENGTHS[one]
            first = SNIPPET_LEN * np.arange(-(-n_frames // SNIPPET_LEN))[:, None]
            expected = np.minimum(first + np.arange(SNIPPET_LEN + 1), n_frames - 1)
            np.testing.assert_array_equal(numbers[one], expected)
            np.testing.assert_allclose(times[one], np.arange(n_frames) / 25, atol=1e-6)


random_faults = given(
    faults=st.tuples(fault(None), fault("pyav")),
    name=st.sampled_from(["a.mp4", "b.mp4"]),
    order=st.permutations(list(LENGTHS)),
    count=st.integers(1, 11),
)
bounds = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@random_faults
@settings(max_examples=10, derandomize=True, **bounds)
def test_a_fault_anywhere_concerns_the_video_that_was_being_read_and_no_other(
    pool, faults_folder, paths, read_number, faults, name, order, count
):
    check_faults(pool, faults_folder, paths, read_number, faults, name, order, count)


@pytest.mark.slow
@random_faults
@settings(max_examples=N_SLOW_EXAMPLES, **bounds)
def test_thousands_of_faults_concern_the_video_that_was_being_read_and_no_other(
    pool, faults_folder, paths, read_number, faults, name, order, count
):
    check_faults(pool, faults_folder, paths, read_number, faults, name, order, count)


def test_a_decoder_that_fails_half_way_leaves_the_video_to_the_other_and_nothing_behind(
    pool, faults_folder, paths, read_number
):
    half_way = {"decoder": None, "message": "SlotFilled", "is_after": True, "how": "error"}
    never = {"decoder": "pyav", "message": "VideoEnded", "is_after": True, "how": "slow"}
    faults = half_way, never
    check_faults(pool, faults_folder, paths, read_number, faults, "a.mp4", list(LENGTHS), 3)


def write_worker(folder, monkeypatch, name, code):
    (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)


def test_workers_that_never_begin_end_the_run_in_one_line(paths, tmp_path, monkeypatch):
    write_worker(tmp_path, monkeypatch, "stillborn", "def main():\n    raise SystemExit(7)\n")
    with (
        DecodePool(2, SNIPPET_LEN, worker_module="stillborn") as pool,
        pytest.raises(
            DecoderStartError, match=r"3 decoding .* the last one ended with exit code 7"
        ),
    ):
        list(pool.decode(paths.values()))


def test_a_worker_that_does_not_start_in_time_is_said_to_be_silent(paths, tmp_path, monkeypatch):
    write_worker(tmp_path, monkeypatch, "sleeper", "import time\nmain = lambda: time.sleep(60)\n")
    monkeypatch.setattr(decode_pool, "START_SECONDS", 0.2)
    with (
        DecodePool(1, SNIPPET_LEN, worker_module="sleeper") as pool,
        pytest.raises(DecoderStartError, match=r"the last one sent nothing for 0\.2 s"),
    ):
        list(pool.decode(paths.values()))


def test_a_worker_may_take_longer_to_start_than_to_decode(paths, tmp_path, monkeypatch):
    code = "import time\ntime.sleep(2.5)\nfrom extractors.decoding.decode_worker import main\n"
    write_worker(tmp_path, monkeypatch, "late_riser", code)
    with DecodePool(1, SNIPPET_LEN, patience_seconds=2, worker_module="late_riser") as pool:
        events = list(pool.decode(paths.values()))
    assert not any(isinstance(event, VideoLost) for event in events)
    assert sum(isinstance(event, VideoEnded) for event in events) == 3


def test_workers_that_are_killed_once_each_while_they_start_end_nothing(
    paths, tmp_path, monkeypatch
):
    code = (
        "import os, pathlib, signal\n"
        "def main():\n"
        f"    marks = [pathlib.Path({str(tmp_path)!r}, str(i)) for i in range(3)]\n"
        "    for mark in marks:\n"
        "        try:\n"
        "            mark.touch(exist_ok=False)\n"
        "        except FileExistsError:\n"
        "            continue\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    from extractors.decoding.decode_worker import main\n"
        "    main()\n"
    )
    write_worker(tmp_path, monkeypatch, "killed_once", code)
    with DecodePool(3, SNIPPET_LEN, worker_module="killed_once") as pool:
        events = list(pool.decode(paths.values()))
    assert sum(isinstance(event, VideoEnded) for event in events) == 3
    assert len(list(tmp_path.glob("[0-9]"))) == 3


def test_the_command_says_in_one_line_that_no_decoder_begins(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(decode_process, "CHILD_CODE", "raise SystemExit(7)")
    manifest = tmp_path / "small.csv"
    manifest.write_text("path,split,label,anomalies\na.mp4,test,0,\n")
    (tmp_path / "a.mp4").write_bytes(paths["a.mp4"].read_bytes())
    arguments = ["extract", str(manifest), "--features", str(tmp_path / "features")]
    arguments += ["--flow", "none", "--crops", "1", "--weights", "random:0", "--device", "cpu"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "3 decoding processes in a row could not begin" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
