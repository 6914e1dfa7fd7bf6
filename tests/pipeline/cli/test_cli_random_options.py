"""Random options: every command ends with an exit code of its own, and harms no input."""

import shutil
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.extraction.feature_file import feature_path, write_features

pytestmark = pytest.mark.usefixtures("one_thread")

PROVENANCE = {"extractor": "i3d", "crops": 2, "weights": "random:0", "is_pretrained": False}
SMALL = (
    *("steps=2", "steps_per_epoch=2", "bags_per_class=2", "model.embedding_dim=8"),
    *("model.class_code_dim=4", "model.relation_dim=4", "model.scorer_dim=4"),
)
# What nobody means: numbers that are none, too large, of another kind; files that are inputs.
AWKWARD = [
    *(
        "",
        "-",
        "--",
        "0",
        "-1",
        "nan",
        "inf",
        "1e999",
        "99999999999999999999",
        "1/0",
        "a\nb",
        "\x1b[2J",
    ),
    *("cuda:99", "cpu,cpu", "..", "/", "/nonexistent/x", "videos", "videos/0.mp4", "small.csv"),
    *(
        "features",
        "runs",
        "x" * 300,
        "steps=nan",
        "model=" + "[" * 5000,
        "model.nothing=1",
        "ä%s{}",
    ),
]
FAST = ("train", "evaluate", "runs", "score", "extract", "datasets", "weights")


@pytest.fixture(scope="module")
def world(tmp_path_factory, write_clip, features_of) -> Path:
    """A manifest with features and a trained run; no file of a video can be decoded but one."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "videos").mkdir()
    rng, rows = np.random.default_rng(0), ["path,split,label,anomalies"]
    for index in range(8):
        (folder / f"videos/{index}.mp4").write_bytes(b"no video")
        split, label = ("test" if index > 5 else "train"), index % 2
        rows.append(f"videos/{index}.mp4,{split},{label},{'5-15' if label else ''}")
        features = features_of({"rgb": rng.standard_normal((3, 2, 6), dtype=np.float32)}, 40)
        path = feature_path(folder / "features/small", f"videos/{index}")
        name = f"videos/{index}"
        write_features(path, features, PROVENANCE, video_id=name, source_name=f"{index}.mp4")
    (folder / "small.csv").write_text("\n".join(rows) + "\n")
    given_settings = [word for setting in SMALL for word in ("--set", setting)]
    result = run(folder, "train", "small.csv", *given_settings)
    assert result.exit_code == 0, result.output
    return folder


def run(folder: Path, *arguments: str):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(main, list(arguments))


def leaves(command: click.Command, *names: str):
    """Every command that does something, with the words that call it."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, *names, name)
    elif names[0] in FAST and names != ("weights", "fetch"):  # which would ask a server
        yield names, command


@st.composite
def command_lines(draw) -> list[str]:
    names, command = draw(st.sampled_from(list(leaves(main))))
    words = list(names)
    usual = {
        "--dataset": "small.csv",
        "--model": "clav-como",
        "--device": "cpu",
        "--features": "features",
        "--runs": "runs",
        "--out": "out.csv",
        "--json": "out.json",
        "--plot": "out.png",
    }
    options = [p for p in command.params if isinstance(p, click.Option)]
    for option in draw(st.lists(st.sampled_from(options), max_size=4, unique=True)):
        name = option.opts[-1]
        if name in ("--tensorboard", "--help"):
            continue
        words.append(name)
        if not option.is_flag:
            values = st.sampled_from(AWKWARD)
            words.append(draw(st.just(usual[name]) | values if name in usual else values))
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            names_of_files = ["small.csv", "videos/0.mp4", "videos/7.mp4"]
            words.append(draw(st.sampled_from(AWKWARD + 5 * names_of_files)))
    if names == ("train",):
        words += [word for setting in SMALL for word in ("--set", setting)]
    return words


def contents(folder: Path) -> dict[str, bytes]:
    """The inputs: manifest, videos, features and the checkpoint of the first run."""
    paths = [folder / "small.csv", *folder.glob("videos/*.mp4")]
    paths += folder.glob("features/small/videos/*.h5")
    paths += sorted(folder.glob("runs/*/*/*/checkpoint.safetensors"))[:1]
    return {str(path): path.read_bytes() for path in paths}


def check(world: Path, words: list[str], folder: Path) -> None:
    shutil.copytree(world, folder)
    before = contents(folder)
    result = run(folder, *words)
    complaint = f"{words}: {result.output}"
    assert result.exception is None or isinstance(result.exception, SystemExit), complaint
    assert result.exit_code in (0, 1, 2, 3), complaint
    assert "Traceback" not in result.output, complaint
    assert "\x1b" not in result.output, complaint
    if result.exit_code == 1:
        assert sum(line.startswith("Error: ") for line in result.stderr.splitlines()) == 1, (
            complaint
        )
    assert contents(folder) == before, complaint


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=command_lines())
def test_random_options_end_in_an_exit_code_and_leave_the_inputs(words, world, tmp_path_factory):
    check(world, words, tmp_path_factory.mktemp("random") / "world")


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=command_lines())
def test_many_random_options_end_in_an_exit_code(words, world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("random") / "world"
    check(world, words, folder)
    shutil.rmtree(folder)
