"""The command line on real files: exit code and text of every way in which it can go wrong."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import av
import click
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.extraction.feature_file import read_features, write_features
from pipeline.runs.checkpoints import load_checkpoint, save_checkpoint

HEADER = "path,split,label,anomalies\n"


def run(*arguments: object, folder: Path | None = None):
    """Run the command as if typed in `folder`; returns exit code, stdout and stderr."""
    before = Path.cwd()
    if folder is not None:
        os.chdir(folder)
    try:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory, write_clip) -> Path:
    """A working folder with a manifest of six short videos, their features, and a run."""
    folder = tmp_path_factory.mktemp("world")
    clip = write_clip(folder / "clip.mp4", n_frames=20)
    rows = []
    for index in range(6):
        name = f"videos/{index}.mp4"
        (folder / "videos").mkdir(exist_ok=True)
        shutil.copy(clip, folder / name)
        label = index % 2
        split = "test" if index >= 4 else "train"
        rows.append(f"{name},{split},{label},{'5-15' if label else ''}\n")
    (folder / "small.csv").write_text(HEADER + "".join(rows))
    extracted = run("extract", "small.csv", *rgb_with_crops(1), folder=folder)
    assert extracted.exit_code == 0, extracted.output
    trained = run("train", "small.csv", "--set", "steps=4", "--seeds", "1", folder=folder)
    assert trained.exit_code == 0, trained.output
    return folder


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_help_answers_without_loading_torch():
    code = "import sys, pipeline.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def commands_below(group: click.Group, *names: str) -> list[tuple[str, ...]]:
    """Every command by the words that call it, such as ("datasets", "make")."""
    found = [names]
    for name, command in group.commands.items():
        is_group = isinstance(command, click.Group)
        found += commands_below(command, *names, name) if is_group else [(*names, name)]
    return found


@pytest.mark.parametrize("names", commands_below(main), ids=" ".join)
def test_the_help_of_every_command_says_what_it_does_and_names_its_options(names):
    result = run(*names, "--help")
    assert result.exit_code == 0
    usage, purpose = (" ".join(part.split()) for part in result.output.split("\n\n")[:2])
    assert usage.startswith(" ".join(["Usage: main", *names]))
    assert len(purpose.split()) >= 3
    assert not purpose.startswith(("Options:", "Commands:"))
    command: click.Command = main
    for name in names:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[-1] in result.output


def rgb_with_crops(n_crops: int) -> list[object]:
    """Options of an extraction that takes little time."""
    return ["--flow", "none", "--crops", n_crops, "--weights", "random:0"]


def test_every_command_is_in_the_readme():
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    shown = set(re.findall(r"\bpipeline ([a-z-]+)", readme))
    assert set(main.commands) <= shown


@pytest.mark.parametrize(("chosen", "n_spins"), [(None, "0"), ("ACTIVE", "30000000000")])
def test_openmp_threads_sleep_while_they_wait_unless_the_user_says_otherwise(chosen, n_spins):
    code = (
        "from pipeline.cli import main\n"
        "@main.command()\n"
        "def probe():\n"
        "    import torch\n"
        "main(['probe'])\n"
    )
    is_kept = {name: not name.startswith(("OMP_WAIT", "GOMP_SPIN")) for name in os.environ}
    variables = {name: value for name, value in os.environ.items() if is_kept[name]}
    variables["OMP_DISPLAY_ENV"] = "VERBOSE"  # the runtime prints what it has read
    if chosen:
        variables["OMP_WAIT_POLICY"] = chosen
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert f"GOMP_SPINCOUNT = '{n_spins}'" in done.stderr


def test_options_that_contradict_a_profile_or_each_other_take_one_line(
    world, assert_one_line_error
):
    result = run("extract", "small.csv", "--profile", "ucf-deepmil", "--crops", 5, folder=world)
    assert_one_line_error(result, "profile ucf-deepmil: crops is 10, instead got 5; leave out --cr")
    result = run("extract", "small.csv", "--extractor", "i3d_r50", folder=world)
    assert_one_line_error(result, "i3d_r50 has no flow stream, instead got flow tvl1; give --flow")
    options = ("--flow", "raft", "--flow-weights", "absent.pth", "--weights", "random:0")
    result = run("extract", "small.csv", *options, folder=world)
    assert_one_line_error(result, "absent.pth: no such file of weights")


def test_the_csv_has_one_row_per_frame(world):
    with av.open(str(world / "videos/1.mp4")) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    before = files_below(world)
    result = run(
        "score", "videos/1.mp4", "--out", "scores.csv", "--plot", "scores.png", folder=world
    )
    assert result.exit_code == 0, result.output
    assert files_below(world) - before == {world / "scores.csv", world / "scores.png"}
    with (world / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == list(range(len(times)))
    np.testing.assert_allclose([float(r["time_seconds"]) for r in rows], times, atol=5.1e-4)
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
    assert "random weights: not pretrained" in result.stderr
    assert "run:" in result.stderr


def test_without_out_the_csv_goes_to_stdout_and_nothing_else_does(world):
    result = run("score", "videos/1.mp4", folder=world)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("frame,time_seconds,score\n0,0.000,0.")


def test_what_is_there_is_not_extracted_again(world):
    result = run("extract", "small.csv", *rgb_with_crops(1), folder=world)
    assert result.exit_code == 0, result.output
    assert "0 extracted (0 frames), 6 there already, 0 failed" in result.stdout


def test_evaluate_prints_a_table_that_owns_up_to_random_weights(world):
    result = run("evaluate", "--controls", folder=world)
    assert result.exit_code == 0, result.output
    for text in ("2 test videos", "clav-como", "motion energy", "context shuffled"):
        assert text in result.stdout
    assert "random weights: not pretrained" in result.stdout


def test_a_video_that_cannot_be_read_is_exit_code_3_and_the_others_are_done(world, tmp_path):
    shutil.copy(world / "videos/0.mp4", tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    (tmp_path / "mixed.csv").write_text(HEADER + "bad.mp4,train,0,\ngood.mp4,train,0,\n")
    result = run("extract", "mixed.csv", *rgb_with_crops(1), folder=tmp_path)
    assert result.exit_code == 3, result.output
    assert "1 extracted (" in result.stdout
    assert "failed: bad: " in result.stdout
    assert (tmp_path / "features/mixed/good.h5").exists()
    assert not (tmp_path / "features/mixed/bad.h5").exists()


def test_features_extracted_with_different_settings_never_mix(world, assert_one_line_error):
    before = files_below(world)
    result = run("extract", "small.csv", *rgb_with_crops(5), folder=world)
    assert_one_line_error(
        result, "was extracted with different settings", "crops: 5 expected, instead got 1"
    )
    assert files_below(world) == before


def test_a_run_refuses_features_of_another_extractor(world, assert_one_line_error):
    rows = [
        line for line in (world / "small.csv").read_text().splitlines() if ",train," not in line
    ]
    (world / "other.csv").write_text("\n".join(rows))
    extracted = run(
        "extract",
        "other.csv",
        "--flow",
        "none",
        "--crops",
        1,
        "--weights",
        "random:1",
        folder=world,
    )
    assert extracted.exit_code == 0, extracted.output
    result = run("evaluate", "--dataset", "other.csv", folder=world)
    assert_one_line_error(result, "random:0 expected, instead got random:1")


@pytest.mark.parametrize(
    ("video", "expected"),
    [("absent.mp4", "absent.mp4"), ("runs", "runs: holds no video"), ("small.csv", "small.csv")],
)
def test_what_is_not_a_video_is_one_line(world, video, expected, assert_one_line_error):
    before = files_below(world)
    assert_one_line_error(run("score", video, "--out", "x.csv", folder=world), expected)
    assert files_below(world) == before


@pytest.mark.parametrize("out", ["absent/x.csv", "videos"])
def test_an_output_that_cannot_be_written_is_found_out_before_the_work(
    world, out, assert_one_line_error
):
    before = files_below(world)
    result = run("score", "videos/1.mp4", "--out", out, folder=world)
    assert_one_line_error(result, out)
    assert "frames" not in result.stderr  # no frame was read for nothing
    assert files_below(world) == before


def test_a_run_without_its_checkpoint_is_one_line(world, tmp_path, assert_one_line_error):
    empty = tmp_path / "run"
    empty.mkdir()
    result = run("score", "videos/1.mp4", "--run", empty, folder=world)
    assert_one_line_error(result, str(empty), "checkpoint")


@pytest.mark.parametrize(
    ("arguments", "missing", "remedy"),
    [
        (["extract", "xd_violence"], "data/xd_violence", "--videos"),
        (["train"], "xd_violence", "pipeline extract xd_violence"),
        (["score", "video.mp4", "--out", "scores.csv"], "runs", "pipeline train"),
        (["evaluate"], "runs", "pipeline train"),
        (["extract", "microworld"], "microworld", "pipeline datasets make microworld"),
    ],
)
def test_in_an_empty_folder_each_command_says_what_to_do_first(
    tmp_path, arguments, missing, remedy, assert_one_line_error
):
    assert_one_line_error(run(*arguments, folder=tmp_path), missing, remedy)
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ("path,split,label\na.mp4,train,0\n", "anomalies"),
        (HEADER + "a.mp4,train,2,\n", "label"),
        (HEADER + "a.mp4,train,1,20-10\n", "20-10"),
        (HEADER + "a.mp4,train,0,\na.mp4,train,0,\n", "a.mp4"),
        (HEADER + "../a.mp4,train,0,\n", "../a.mp4"),
    ],
)
def test_a_bad_manifest_is_one_line_that_names_the_place(
    tmp_path, manifest, expected, assert_one_line_error
):
    (tmp_path / "bad.csv").write_text(manifest)
    result = run("extract", "bad.csv", "--weights", "random:0", folder=tmp_path)
    assert_one_line_error(result, "bad.csv", expected)
    assert files_below(tmp_path) == {tmp_path / "bad.csv"}


def test_an_unknown_dataset_is_one_line_that_names_the_known(tmp_path, assert_one_line_error):
    assert_one_line_error(run("extract", "kinetics", folder=tmp_path), "kinetics", "xd_violence")


def test_an_interval_beyond_the_video_is_clipped_with_a_warning(world, caplog):
    manifest = (world / "small.csv").read_text()
    (world / "features/beyond").mkdir()
    for path in (world / "features/small").rglob("*.h5"):
        target = world / "features/beyond" / path.relative_to(world / "features/small")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    (world / "beyond.csv").write_text(manifest.replace("5-15", "5-2000"))
    result = run("evaluate", "--dataset", "beyond.csv", folder=world)
    assert result.exit_code == 0, result.output
    (line,) = [
        each for each in (caplog.text + result.stderr).splitlines() if "beyond their video" in each
    ]
    assert "intervals end beyond their video and are cut there, first " in line
    assert line.endswith(": 5-2000 of 20 frames")


def test_a_ground_truth_that_the_dataset_does_not_have_takes_one_line(world, assert_one_line_error):
    result = run("evaluate", "--ground-truth", "rtfm", folder=world)
    assert_one_line_error(result, "small: no ground-truth convention 'rtfm'", "expected annotation")


@pytest.mark.parametrize("command", ["train", "evaluate", "ablate", "score"])
@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "", "meta", "cuda:0;"])
def test_a_name_that_is_no_device_is_a_usage_error(command, device):
    arguments = ["video.mp4"] if command == "score" else []
    result = run(command, *arguments, "--device", device)
    assert result.exit_code == 2
    assert "Invalid value for '--device': device must be auto, cpu, cuda or cuda:N" in result.stderr


@pytest.mark.parametrize("command", ["train", "ablate", "runs"])
def test_a_name_that_is_no_model_is_a_usage_error_that_names_the_models(command):
    result = run(command, "--model", "comoo")
    assert result.exit_code == 2
    text = "model must be one of clav-como, la-net, cbcg, instead got 'comoo'"
    assert f"Invalid value for '--model': {text}" in result.stderr


@pytest.mark.parametrize("threshold", ["nan", "-NaN", "0", "1.1", "inf"])
def test_a_threshold_that_no_score_can_have_is_a_usage_error(threshold):
    result = run("evaluate", f"--threshold={threshold}")
    assert result.exit_code == 2
    assert "Invalid value for '--threshold'" in result.stderr


def all_commands(command=main, name="pipeline"):
    if isinstance(command, click.Group):
        for each, below in command.commands.items():
            yield from all_commands(below, f"{name} {each}")
    yield name, command


def test_every_option_of_every_command_has_a_description():
    commands = list(all_commands())
    assert len(commands) > 12
    missing = [
        f"{name} {option.opts[0]}"
        for name, command in commands
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert missing == []


def test_an_unknown_setting_is_one_line_with_the_nearest_known(world, assert_one_line_error):
    result = run("train", "small.csv", "--set", "learning_rat=1", folder=world)
    assert_one_line_error(result, "learning_rat", "did you mean learning_rate?")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--device", "cpu", "--precision", "bfloat16"], "precision must be float32 on a device"),
        (["--devices", "cpu,cpu"], "devices must be different ones, instead got 'cpu,cpu'"),
    ],
)
def test_choices_of_extraction_that_cannot_be_are_refused(
    world, monkeypatch, options, complaint, assert_one_line_error
):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {})
    before = files_below(world)
    result = run("extract", "small.csv", "--weights", "random:0", *options, folder=world)
    assert_one_line_error(result, complaint)
    assert files_below(world) == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--shard", "3/2"], "shard must be i/N with i from 1 to N, instead got 3/2"),
        (["--extractor", "c3d"], "'c3d' is not one of 'i3d', 'i3d_r50'"),
        (["--shard", "1/99999999999999999999"], "N below a million"),
        (["--shard", "one"], "shard must be i/N with i from 1 to N"),
        (["--device", "gpu"], "must be auto, cpu, cuda or cuda:N, instead got 'gpu'"),
        (["--device", "cuda:x"], "must be auto, cpu, cuda or cuda:N"),
        (["--devices", "cpu,tpu"], "must be auto, cpu, cuda or cuda:N, instead got 'tpu'"),
        (["--device", "cpu", "--devices", "cpu"], "--devices does not go together with --device"),
        (["--ray-address", "auto"], "--ray-address needs --engine ray"),
        (["--devices", "cpu", "--engine", "ray"], "--devices does not go together with --engine"),
    ],
)
def test_options_that_cannot_be_are_usage_errors(world, options, complaint):
    before = files_below(world)
    result = run("extract", "small.csv", "--weights", "random:0", *options, folder=world)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert files_below(world) == before


def test_a_step_of_zero_in_slurms_array_is_one_line(world, monkeypatch, assert_one_line_error):
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_STEP", "0")
    result = run("extract", "small.csv", "--weights", "random:0", folder=world)
    assert_one_line_error(result, "give --shard i/N")


FAST = ("--flow", "none", "--crops", 1, "--weights", "random:0", "--device", "cpu")


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_extraction_goes_on_in_the_precision_of_the_folder(
    world, tmp_path, monkeypatch, has_bfloat16
):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": has_bfloat16})
    folder = shutil.copytree(world / "videos", tmp_path / "videos").parent
    manifest = folder / "small.csv"
    manifest.write_text(HEADER + "videos/0.mp4,train,0,\n")
    first = run("extract", "small.csv", *FAST, "--precision", "float32", folder=folder)
    assert first.exit_code == 0, first.output
    manifest.write_text(HEADER + "videos/0.mp4,train,0,\nvideos/1.mp4,train,0,\n")
    result = run("extract", "small.csv", *FAST, folder=folder)
    assert result.exit_code == 0, result.output
    assert "precision: float32, as of the features in features/small" in result.stderr
    assert "1 extracted (20 frames), 1 there already" in result.stdout


def test_a_folder_in_a_precision_that_the_device_lacks_is_named(
    world, tmp_path, monkeypatch, assert_one_line_error
):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {})
    stored = read_features(world / "features/small/videos/0.h5")
    write_features(
        tmp_path / "small/videos/0.h5",
        stored.features,
        {**stored.provenance, "precision": "bfloat16"},
        video_id="videos/0",
        source_name="0.mp4",
    )
    result = run("extract", "small.csv", *FAST, "--features", tmp_path, folder=world)
    assert_one_line_error(
        result, "small: holds features in bfloat16, which cpu cannot", "--feature"
    )


def test_names_without_a_place_are_told_beforehand_and_cost_only_themselves(world, tmp_path):
    names = ["index.mp4", "a.mp4", "a.h5/b.mp4", "x" * 246 + ".mp4", "good.mp4"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(world / "clip.mp4", tmp_path / name)
    rows = "".join(f"{name},train,0,\n" for name in names)
    (tmp_path / "odd.csv").write_text(HEADER + rows)
    checked = run("datasets", "check", "odd.csv", folder=tmp_path)
    assert checked.exit_code == 3
    assert checked.stdout.count("no place for its features") == 2
    result = run("extract", "odd.csv", *FAST, folder=tmp_path)
    assert result.exit_code == 3, result.output
    assert "3 extracted (60 frames), 0 there already, 2 failed" in result.stdout
    assert len([line for line in result.stderr.splitlines() if "rename the video" in line]) == 2


def test_control_characters_of_names_reach_neither_terminal_nor_table(world, tmp_path):
    name = "red\x1b[31m\u202eevil"
    shutil.copy(world / "clip.mp4", tmp_path / f"{name}.mp4")
    (tmp_path / "broken\x1b]0;title\x07.mp4").write_bytes(b"no video")
    rows = f"{name}.mp4,train,0,\nbroken\x1b]0;title\x07.mp4,train,0,\ngone\x1bc.mp4,train,0,\n"
    (tmp_path / "odd.csv").write_text(HEADER + rows)
    outputs = [
        run(*arguments, folder=tmp_path).output
        for arguments in (
            ("datasets", "check", "odd.csv"),
            ("extract", "odd.csv", *FAST),
            ("extract", "odd.csv", *FAST),
        )
    ]
    outputs.append((tmp_path / "features/odd/status.csv").read_text())
    for output in outputs:
        assert not {"\x1b", "\u202e", "\x07"} & set(output)
        assert "\\x1b" in output


def test_an_error_of_a_manifest_does_not_wait_for_torch(tmp_path):
    (tmp_path / "bad.csv").write_text("path\n")
    (tmp_path / "absent.csv").write_text(HEADER + "a.mp4,train,0,\n")
    code = (
        "import sys; from pipeline.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print('torch' in sys.modules)"
    )
    for arguments in (
        ["extract", "bad.csv"],
        ["extract", "absent.csv"],
        ["datasets", "check", "bad.csv"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "Error: " in done.stderr
        assert done.stdout == "False\n"


def test_missing_frames_are_in_the_table(world):
    lines = (world / "features/small/status.csv").read_text().splitlines()
    assert lines[0] == "video_id,status,n_missing,error,message"
    assert lines[1] == "videos/0,done,0,,"


@pytest.mark.parametrize("seconds", [1.5, 8.0])
def test_ctrl_c_is_exit_code_130_and_no_traceback(tmp_path, write_clip, seconds):
    """Before and after the libraries are loaded."""
    write_clip(tmp_path / "long.mp4", n_frames=3000)
    (tmp_path / "long.csv").write_text(HEADER + "long.mp4,train,0,\n")
    running = subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli import main; main()", "extract", "long.csv"]
        + [str(option) for option in FAST],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with suppress(subprocess.TimeoutExpired):
        running.wait(timeout=seconds)
    os.killpg(running.pid, signal.SIGINT)
    _, stderr = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in stderr


def test_a_shard_begins_with_its_part_and_goes_on_with_the_others_and_the_table_knows_all(
    world, tmp_path
):
    options = ["--flow", "none", "--crops", 1, "--weights", "random:0", "--features", tmp_path]
    for shard, counts in (
        ("1/2", "6 extracted (120 frames), 0 there already"),
        ("2/2", "0 extracted (0 frames), 6 there already"),
    ):
        result = run("extract", "small.csv", *options, "--shard", shard, folder=world)
        assert result.exit_code == 0, result.output
        assert f"shard {shard}: begins with 3 of 6 videos" in result.stderr
        assert counts in result.stdout
    lines = (tmp_path / "small/status.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == ["done"] * 6


def test_score_never_replaces_its_video_its_run_or_its_other_output(world, assert_one_line_error):
    (run_folder,) = world.glob("runs/*/*/*")
    (world / "link.csv").symlink_to("videos/1.mp4")
    contents = {path: path.read_bytes() for path in files_below(world)}
    checkpoint = run_folder / "checkpoint.safetensors"
    for options, text in (
        (["--out", "videos/1.mp4"], "--out must not replace an input"),
        (["--out", "link.csv"], "--out must not replace an input"),
        (["--plot", "videos/1.mp4"], "--plot must not replace an input"),
        (["--out", checkpoint], "--out must not"),
        (["--plot", run_folder / "new.png"], "--plot must not write into the run"),
        (["--out", "x", "--plot", "x"], "is named by --out and by --plot"),
        (["--plot", "-"], "is named by --out and by --plot"),
    ):
        assert_one_line_error(run("score", "videos/1.mp4", *options, folder=world), text)
    (world / "link.csv").unlink()
    contents.pop(world / "link.csv")
    assert {path: path.read_bytes() for path in files_below(world)} == contents


def test_a_dash_is_stdout_and_a_device_is_written_to(world):
    before = files_below(world)
    plain = run("score", "videos/1.mp4", folder=world)
    dashed = run("score", "videos/1.mp4", "--out", "-", folder=world)
    assert dashed.exit_code == 0, dashed.output
    assert dashed.stdout == plain.stdout
    plotted = run("score", "videos/1.mp4", "--out", os.devnull, "--plot", "-", folder=world)
    assert plotted.exit_code == 0, plotted.output
    assert plotted.stdout_bytes.startswith(b"\x89PNG")
    assert Path(os.devnull).is_char_device()
    assert files_below(world) == before


def as_typed(command: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a line of bash in which `pipeline` stands for the command."""
    code = "from pipeline.cli import main; main()"
    script = f"pipeline() {{ '{sys.executable}' -c '{code}' \"$@\"; }}\n{command}"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, check=False, capture_output=True, timeout=120
    )


def test_a_closed_stdout_is_said_before_the_work(world):
    done = as_typed("pipeline score videos/1.mp4 >&-", world)
    assert done.returncode == 1
    assert b"stdout is closed; name a file with --out" in done.stderr
    assert b"Traceback" not in done.stderr
    done = as_typed("pipeline runs >&-", world)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("command", ["score videos/1.mp4", "runs", "datasets list"])
def test_a_reader_that_has_enough_ends_the_command_without_a_word(world, command):
    # `true` reads nothing and is gone long before the first line.
    done = as_typed(f"pipeline {command} | true; echo ${{PIPESTATUS[0]}}", world)
    assert done.stdout == b"141\n"
    for word in (b"Traceback", b"Error", b"Exception", b"Broken"):
        assert word not in done.stderr


def test_a_video_whose_name_is_no_text_is_scored_and_plotted(world, tmp_path):
    name = os.fsdecode(b"day\xff$x.mp4")
    shutil.copy(world / "videos/1.mp4", tmp_path / name)
    options = ["--runs", world / "runs", "--out", "s.csv", "--plot", "s.png"]
    result = run("score", name, *options, folder=tmp_path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 21


def test_a_test_video_that_changed_its_length_costs_only_its_control(world, tmp_path, write_clip):
    shutil.copytree(world, tmp_path / "copy")
    write_clip(tmp_path / "copy/videos/5.mp4", n_frames=33)
    result = run("evaluate", "--controls", "--dataset", "small.csv", folder=tmp_path / "copy")
    assert result.exit_code == 3, result.output
    (line,) = [line for line in result.stderr.splitlines() if "left out" in line]
    assert "5.mp4: has 33 frames now, its features are of 20; extract it again" in line
    assert "context shuffled" in result.stdout
    assert "motion energy" not in result.stdout


def test_a_run_of_bfloat16_features_scores_in_float32_with_a_notice(world, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {})
    (run_folder,) = world.glob("runs/*/*/*")
    path = run_folder / "checkpoint.safetensors"
    exact = load_checkpoint(path)
    for precision, notice in (("float32", False), ("bfloat16", True)):
        changed = replace(exact, provenance={**exact.provenance, "precision": precision})
        (tmp_path / "run").mkdir(exist_ok=True)
        save_checkpoint(tmp_path / "run/checkpoint.safetensors", changed)
        result = run("score", "videos/1.mp4", "--run", tmp_path / "run", folder=world)
        assert result.exit_code == 0, result.output
        assert ("precision: features are in float32" in result.stderr) is notice


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"precision": None}, "'precision' is missing"),
        ({"crops": "many"}, "invalid literal"),
        ({"extractor": "c3d"}, "extractor must be one of"),
    ],
)
def test_a_checkpoint_whose_provenance_is_incomplete_is_one_line(
    world, tmp_path, change, text, assert_one_line_error
):
    (run_folder,) = world.glob("runs/*/*/*")
    exact = load_checkpoint(run_folder / "checkpoint.safetensors")
    changed = {**exact.provenance, **change}
    provenance = {key: value for key, value in changed.items() if value is not None}
    save_checkpoint(tmp_path / "checkpoint.safetensors", replace(exact, provenance=provenance))
    result = run("score", "videos/1.mp4", "--run", tmp_path, folder=world)
    assert_one_line_error(result, text)
