"""Links that lead out of a manifest's folder, at the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main


@pytest.fixture
def manifest(tmp_path: Path, write_clip: Callable[..., Path]) -> Path:
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "secret.mp4", n_frames=2)
    (tmp_path / "videos" / "link.mp4").symlink_to("../secret.mp4")
    path = tmp_path / "videos" / "mine.csv"
    path.write_text("path,split,label,anomalies\nlink.mp4,test,0,\n")
    return path


def test_extract_and_check_refuse_a_link_out_of_the_folder(manifest: Path) -> None:
    for command in (["datasets", "check"], ["extract"]):
        result = CliRunner().invoke(main, [*command, str(manifest)])
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert f"{manifest}, line 2: path 'link.mp4' is a link that leads out" in line
        assert "--allow-outside" in line


def test_check_accepts_the_link_if_it_is_allowed(manifest: Path) -> None:
    result = CliRunner().invoke(main, ["datasets", "check", str(manifest), "--allow-outside"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", ["extract", "evaluate"])
def test_the_commands_that_open_videos_can_allow_it(command: str) -> None:
    assert "--allow-outside" in CliRunner().invoke(main, [command, "--help"]).stdout


def test_training_opens_no_video_and_does_not_ask(manifest: Path, tmp_path: Path) -> None:
    arguments = ["train", str(manifest), "--features", str(tmp_path / "none")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "leads out" not in result.output
