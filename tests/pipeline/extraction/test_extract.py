"""Stage 1 on small videos: resuming, failures, processes that share a folder, kills."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
import torch

from extractors.engine import FramesDecoded
from extractors.snippets import REPEAT_LAST_FRAME
from pipeline.datasets.catalog import Dataset, VideoEntry
from pipeline.extraction.extract_entries import extract_entries
from pipeline.extraction.feature_file import FeatureFileError, read_features
from pipeline.extraction.feature_folder import extract_into_folder, list_feature_files
from pipeline.extraction.shards import WHOLE
from pipeline.extraction.single_video import extract_video
from pipeline.extraction.status import read_failure
from pipeline.extraction.summary import VideoOutcome

REPOSITORY = Path(__file__).parents[3]


class Brightness:
    """An extractor that takes no time; its provenance can be changed."""

    snippet_len = 16
    n_crops = 1
    n_snippets_per_batch = 4
    tail_policy = REPEAT_LAST_FRAME
    device = torch.device("cpu")
    stream_dims = {"rgb": 3}  # noqa: RUF012

    def __init__(self, **choices):
        self.choices = {"extractor": "brightness", "is_pretrained": False} | choices

    def provenance(self):
        return dict(self.choices)

    def prepare(self, frames):
        return {"rgb": frames[:-1].float().mean(dim=(0, 1, 2))}

    def embed(self, snippets):
        return {"rgb": torch.stack([snippet["rgb"] for snippet in snippets])[:, None]}


@pytest.fixture
def dataset(write_clip, tmp_path):
    """Three videos of 200 frames."""
    paths = [write_clip(tmp_path / f"videos/{name}.mp4", n_frames=200) for name in "abc"]
    return Dataset("small", tuple(VideoEntry(path.stem, path, "train", 0) for path in paths))


@pytest.fixture(autouse=True)
def videos_folder(tmp_path):
    (tmp_path / "videos").mkdir()


def extract_dataset(dataset, features, extractor, *, shard=WHOLE, retry_failed=False):
    """All events of an extraction with an extractor that is there already."""
    folder = features / dataset.name

    def extract(entries):
        return extract_entries(entries, folder, extractor, shard=shard, retry_failed=retry_failed)

    return extract_into_folder(dataset, folder, extract)


def endings(events):
    """The outcomes of videos, by video; each video has one."""
    outcomes = [event for event in events if isinstance(event, VideoOutcome)]
    by_id = {outcome.video_id: outcome for outcome in outcomes}
    assert len(by_id) == len(outcomes)
    return by_id


def statuses(ends):
    """How the videos a, b and c ended."""
    return [ends[name].status for name in "abc"]


def kill_decoder_at(events, video_id, find_decoders):
    """Pass events on; whenever the video's frames begin to come, its decoder is killed."""
    for event in events:
        yield event
        if isinstance(event, FramesDecoded) and event.path.stem == video_id:
            for decoder in find_decoders():
                os.kill(decoder, signal.SIGSEGV)


def status_by_id(folder):
    lines = (folder / "status.csv").read_text().splitlines()[1:]
    return {line.split(",")[0]: line.split(",")[1] for line in lines}


def test_what_is_there_is_kept_and_not_touched(dataset, tmp_path):
    first = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert {end.status for end in first.values()} == {"done"}
    files = {path: path.stat().st_mtime_ns for path in list_feature_files(tmp_path / "small")}
    again = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert {end.status for end in again.values()} == {"kept"}
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert status_by_id(tmp_path / "small") == dict.fromkeys("abc", "done")


def test_a_changed_setting_is_refused_and_named_before_anything_is_extracted(dataset, tmp_path):
    first = Dataset("small", dataset.entries[2:])
    list(extract_dataset(first, tmp_path, Brightness(crops=5, flow_method="tvl1")))
    with pytest.raises(FeatureFileError, match=r"c\.h5.*crops: 1 expected, instead got 5"):
        list(extract_dataset(dataset, tmp_path, Brightness(crops=1, flow_method="tvl1")))
    assert [path.name for path in list_feature_files(tmp_path / "small")] == ["c.h5"]


def test_a_video_that_fails_is_left_alone_until_that_is_asked_for(dataset, tmp_path):
    broken = dataset.entries[1].path
    whole = broken.read_bytes()
    broken.write_bytes(b"no video")
    ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert statuses(ends) == ["done", "failed", "done"]
    assert not ends["b"].is_earlier
    assert status_by_id(tmp_path / "small")["b"] == "failed"
    broken.write_bytes(whole)
    again = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert again["b"] == replace(ends["b"], is_earlier=True)
    last = endings(extract_dataset(dataset, tmp_path, Brightness(), retry_failed=True))
    assert statuses(last) == ["kept", "done", "kept"]
    assert read_failure(tmp_path / "small", "b") is None
    assert status_by_id(tmp_path / "small")["b"] == "done"


def test_a_video_that_is_not_there_yet_is_tried_again_by_itself(dataset, tmp_path):
    absent = dataset.entries[1].path
    away = absent.rename(tmp_path / "away.mp4")
    ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert ends["b"].status == "failed"
    assert status_by_id(tmp_path / "small")["b"] == "missing"
    away.rename(absent)
    again = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert statuses(again) == ["kept", "done", "kept"]


def test_a_video_that_crashes_its_decoder_is_quarantined_and_the_others_are_done(
    dataset, find_decoders, tmp_path
):
    events = extract_dataset(dataset, tmp_path, Brightness())
    ends = endings(kill_decoder_at(events, "b", find_decoders))
    assert statuses(ends) == ["done", "failed", "done"]
    failure = ends["b"].failure
    assert (failure.kind, failure.is_quarantined) == ("DecoderDied", True)
    assert status_by_id(tmp_path / "small") == {"a": "done", "b": "quarantined", "c": "done"}
    again = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert again["b"].status == "failed"


def test_a_single_video_survives_the_crash_of_its_decoder(dataset, find_decoders):
    entry = dataset.entries[0]
    reports = []

    def kill_once(progress):
        if not reports:
            os.kill(find_decoders()[0], signal.SIGKILL)
        reports.append(progress)

    features = extract_video(entry.path, Brightness(), report=kill_once)
    assert features.n_frames == 200


def test_a_video_in_the_hands_of_another_process_is_left_to_it(dataset, tmp_path):
    code = (
        "import sys; from pathlib import Path; from pipeline.extraction.locks import VideoLocks\n"
        "with VideoLocks(Path(sys.argv[1])) as locks:\n"
        "    print(locks.lock('b'), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "small"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert other.stdout.readline() == b"True\n"
    ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
    other.communicate()
    assert statuses(ends) == ["done", "taken", "done"]
    assert status_by_id(tmp_path / "small")["b"] == "waiting"


def number_of(folder: Path, video_id: str) -> int:
    """The frames of a video's features."""
    return read_features(folder / f"{video_id}.h5", video_id=video_id).features.n_frames


def test_a_video_that_was_replaced_is_reported_and_extracted_anew(dataset, write_clip, tmp_path):
    list(extract_dataset(dataset, tmp_path, Brightness()))
    video = dataset.entries[1].path
    times = (video.stat().st_atime_ns, video.stat().st_mtime_ns)
    write_clip(video, n_frames=48)
    os.utime(video, ns=times)
    ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert [bool(ends[name].replaced_because) for name in "abc"] == [False, True, False]
    reason = ends["b"].replaced_because
    assert re.search(r"b\.mp4: is not the file that \S+b\.h5 was made from", reason)
    assert statuses(ends) == ["kept", "done", "kept"]
    assert number_of(tmp_path / "small", "b") == 48
    again = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert {end.status for end in again.values()} == {"kept"}


def test_two_lists_of_one_name_do_not_share_features_in_silence(write_clip, tmp_path):
    datasets = []
    for n_frames in (32, 64):
        path = write_clip(tmp_path / f"videos/{n_frames}.mp4", n_frames=n_frames)
        datasets.append(Dataset("cameras", (VideoEntry("yard", path, "train", 0),)))
    for dataset, n_frames in zip(datasets, (32, 64), strict=True):
        ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
        assert ends["yard"].status == "done"
        assert number_of(tmp_path / "cameras", "yard") == n_frames


def test_features_are_kept_where_the_videos_are_not_at_hand(dataset, tmp_path):
    list(extract_dataset(dataset, tmp_path, Brightness()))
    shutil.rmtree(tmp_path / "videos")
    again = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert {end.status for end in again.values()} == {"kept"}


def test_features_that_are_damaged_or_of_another_video_are_made_anew(dataset, tmp_path):
    list(extract_dataset(dataset, tmp_path, Brightness()))
    folder = tmp_path / "small"
    whole = (folder / "a.h5").read_bytes()
    (folder / "a.h5").write_bytes(whole[: len(whole) // 2])
    shutil.copy(folder / "c.h5", folder / "b.h5")
    ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
    reasons = {name: ends[name].replaced_because for name in "abc"}
    assert "a.h5: is not a whole feature file" in reasons["a"]
    assert "b.h5: holds the features of another video, 'c'" in reasons["b"]
    assert statuses(ends) == ["done", "done", "kept"]
    assert not reasons["c"]
    for name in "abc":
        assert number_of(folder, name) == 200


def test_features_of_another_file_do_not_stay_when_the_new_one_cannot_be_read(dataset, tmp_path):
    list(extract_dataset(dataset, tmp_path, Brightness()))
    dataset.entries[1].path.write_bytes(b"no video")
    ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert statuses(ends) == ["kept", "failed", "kept"]
    assert not (tmp_path / "small/b.h5").exists()
    assert status_by_id(tmp_path / "small")["b"] == "failed"


def test_videos_without_a_place_for_their_features_fail_and_the_others_go_on(write_clip, tmp_path):
    clip = write_clip(tmp_path / "videos/clip.mp4", n_frames=20)
    ids = ["index", "a", "a.h5/b", "x" * 245, "y" * 255, "status.csv/d", "good"]
    paths = [tmp_path / f"videos/{index}.mp4" for index in range(len(ids))]
    for path in paths:
        shutil.copy(clip, path)
    entries = [VideoEntry(i, path, "train", 0) for i, path in zip(ids, paths, strict=True)]
    dataset = Dataset("small", tuple(entries))
    for status in ("done", "kept"):
        ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
        for video_id in ("index", "a", "y" * 255, "status.csv/d"):
            assert "rename the video" in ends[video_id].failure.reason
        assert {i for i, end in ends.items() if end.status == status} == {
            "a.h5/b",
            "x" * 245,
            "good",
        }
    with h5py.File(tmp_path / "small/index.h5") as index:
        assert {"good", "a.h5", "x" * 245} == set(index)
    assert status_by_id(tmp_path / "small")["a"] == "failed"


def test_a_feature_file_that_cannot_be_written_is_its_videos_failure(write_clip, tmp_path):
    """Of an earlier list a file lies where a folder is needed, and a folder lies for a file."""
    ids = ["day/a", "b", "good"]
    entries = [
        VideoEntry(i, write_clip(tmp_path / f"videos/{n}.mp4", n_frames=20), "train", 0)
        for n, i in enumerate(ids)
    ]
    (tmp_path / "small/b.h5/deep").mkdir(parents=True)
    (tmp_path / "small/day").write_text("of the user")
    dataset = Dataset("small", tuple(entries))
    for status in ("done", "kept"):
        ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
        assert [ends[i].status for i in ids] == ["failed", "failed", status]
        assert not any(ends[i].is_earlier for i in ("day/a", "b"))  # nothing is remembered


def test_values_that_do_not_fit_are_their_videos_failure(dataset, tmp_path):
    class Bright(Brightness):
        def embed(self, snippets):
            features = super().embed(snippets)
            return {"rgb": torch.full_like(features["rgb"], 1e6)}

    ends = endings(extract_dataset(dataset, tmp_path, Bright()))
    assert {end.status for end in ends.values()} == {"failed"}
    assert "must fit float16" in ends["a"].failure.reason
    assert read_failure(tmp_path / "small", "a") == ends["a"].failure


def test_a_file_size_limit_is_reported_and_not_remembered(dataset, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    one = Dataset("small", dataset.entries[:1])
    ends = []
    try:
        for event in extract_dataset(one, tmp_path, Brightness()):
            if isinstance(event, FramesDecoded):  # the decoder has its memory by now
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                ends.append(event)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    (failed,) = ends
    assert "cannot be written (File too large)" in failed.failure.reason
    again = endings(extract_dataset(one, tmp_path, Brightness()))
    assert again["a"].status == "done"


def test_a_decoder_without_room_for_its_frames_is_reported_and_not_remembered(dataset, tmp_path):
    one = Dataset("small", dataset.entries[:1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        ends = endings(extract_entries(one.entries, tmp_path, Brightness(), retry_failed=False))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in ends["a"].failure.reason
    assert read_failure(tmp_path, "a") is None


def test_a_pipe_fails_at_once_each_time(dataset, tmp_path):
    pipe = dataset.entries[0].path
    pipe.unlink()
    os.mkfifo(pipe)
    ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert "is not a regular file, expected a video" in ends["a"].failure.reason
    assert [ends[name].status for name in "bc"] == ["done", "done"]


def test_a_damaged_note_on_a_failure_is_as_good_as_none(dataset, tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small/b.failed.json").write_bytes(b"{")
    ends = endings(extract_dataset(dataset, tmp_path, Brightness()))
    assert {end.status for end in ends.values()} == {"done"}
    assert not (tmp_path / "small/b.failed.json").exists()


def run_where(mounts: str, program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program where other file systems are mounted, seen by itself alone."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], check=False).returncode:
        pytest.skip("only who may mount file systems can fill one up")
    (folder / "program.py").write_text(program)
    return subprocess.run(
        [unshare, "-m", "sh", "-c", f"{mounts} && '{sys.executable}' program.py out"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def write_small_dataset(folder: Path, write_clip) -> None:
    lines = ["path,split,label,anomalies"]
    for i in range(8):
        write_clip(folder / f"videos/{i}.mp4", n_frames=10 + 7 * i, width=96, height=64)
        lines.append(f"videos/{i}.mp4,train,{i % 2},")
    (folder / "small.csv").write_text("\n".join(lines) + "\n")


def test_a_full_shared_memory_is_no_hindrance(write_clip, tmp_path):
    write_small_dataset(tmp_path, write_clip)
    full = "mount -t tmpfs -o size=4k tmpfs /dev/shm && ! head -c 9999 /dev/zero > /dev/shm/full"
    done = run_where(full, LIGHT_RUN, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list_feature_files(tmp_path / "out/small")) == 8


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("size=16k", "cannot be written (No space left on device)"),
        ("ro", "out/small: Read-only file system"),
    ],
)
def test_a_full_or_read_only_disk_ends_the_command_in_one_line(
    write_clip, tmp_path, options, complaint
):
    write_small_dataset(tmp_path, write_clip)
    (tmp_path / "out").mkdir()
    # The folder cannot be seen from outside: what is in it at the end is listed from within.
    mounts = f"mount -t tmpfs -o {options} tmpfs out && trap 'find out -name \"*.tmp\"' EXIT"
    done = run_where(mounts, REAL_RUN, tmp_path)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert complaint in errors[0]
    assert "Traceback" not in done.stderr
    assert not any(line.endswith(".tmp") for line in done.stdout.splitlines())


# A run like the command's, whose extractor takes next to no time but for a moment per snippet.
LIGHT_RUN = """
import sys, time
from pathlib import Path
import tests.pipeline.extraction.test_extract as here
from pipeline.datasets import load_dataset

class Slow(here.Brightness):
    def prepare(self, frames):
        time.sleep(0.05)
        return super().prepare(frames)

if __name__ == "__main__":
    shard = here.Shard.parse(sys.argv[2]) if sys.argv[2:] else here.WHOLE
    dataset = load_dataset("small.csv", None)
    for event in here.extract_dataset(dataset, Path(sys.argv[1]), Slow(), shard=shard):
        if isinstance(event, here.VideoOutcome) and event.status == "done":
            print(event.video_id, flush=True)
"""
REAL_RUN = """
import sys
from pipeline.cli import main
options = ["--flow", "none", "--crops", "1", "--weights", "random:0", "--device", "cpu"]
if __name__ == "__main__":
    main(["extract", "small.csv", *options, "--features", sys.argv[1]])
"""


def test_two_processes_share_one_folder_and_extract_each_video_once(write_clip, tmp_path):
    write_small_dataset(tmp_path, write_clip)
    both = [start(LIGHT_RUN, tmp_path, "shared", stdout=subprocess.PIPE) for _ in range(2)]
    done = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(done[0] + done[1]) == [f"videos/{i}".encode() for i in range(8)]
    for path in list_feature_files(tmp_path / "shared/small"):
        read_features(path)


@pytest.mark.parametrize(
    ("program", "n_kills"),
    [(LIGHT_RUN, 3), pytest.param(REAL_RUN, 30, marks=pytest.mark.slow)],
    ids=["light, 3 kills", "real, 30 kills"],
)
def test_kills_at_random_moments_change_nothing_in_the_features(
    write_clip, tmp_path, program, n_kills
):
    write_small_dataset(tmp_path, write_clip)
    started = time.monotonic()
    assert start(program, tmp_path, "whole").wait() == 0
    seconds = time.monotonic() - started
    moments = random.Random(n_kills)
    inodes: dict[Path, int] = {}
    n_killed = 0
    for _ in range(n_kills):
        run = start(program, tmp_path, "killed")
        try:
            run.wait(timeout=moments.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            n_killed += 1
        # What is there is whole, and stays what it is: nothing is extracted twice.
        for path in sorted((tmp_path / "killed").rglob("*.h5")):
            if path.name != "index.h5":
                read_features(path)
                assert inodes.setdefault(path, path.stat().st_ino) == path.stat().st_ino
    assert start(program, tmp_path, "killed").wait() == 0
    assert n_killed > 0
    assert not list((tmp_path / "killed").rglob("*.tmp"))
    for i in range(8):
        name = f"small/videos/{i}.h5"
        found = read_features(tmp_path / "killed" / name)
        expected = read_features(tmp_path / "whole" / name)
        assert found.provenance == expected.provenance
        assert (found.features.streams["rgb"] == expected.features.streams["rgb"]).all()
        assert (found.features.timestamps == expected.features.timestamps).all()


def start(
    program: str, folder: Path, features: str, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """A program, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, features],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
