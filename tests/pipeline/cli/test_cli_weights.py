"""The command `pipeline weights`."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torchvision.models.optical_flow import raft_small

from extractors.networks.downloads import Checksum, RemoteFile, sha256_of
from extractors.networks.weights import NAMED
from pipeline.cli import main


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKAROUND_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # offline
    monkeypatch.setenv("no_proxy", "")
    return tmp_path


@pytest.fixture
def small_raft(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small RAFT's file in the cache, with made-up numbers and their checksum."""
    file = NAMED["raft-small"].files["flow"]
    path = cache / "raft-small" / file.name
    path.parent.mkdir()
    torch.save(raft_small(weights=None).state_dict(), path)
    checksum = Checksum("sha256", sha256_of(path)[:8])
    monkeypatch.setitem(NAMED["raft-small"].files, "flow", RemoteFile(file.address, checksum))
    return path


def test_the_list_names_source_license_checksum_and_place(cache: Path) -> None:
    result = CliRunner().invoke(main, ["weights", "list"])
    assert result.exit_code == 0
    for name, named in NAMED.items():
        assert f"{name}: {named.source}" in result.stdout
        assert named.license in result.stdout
        for file in named.files.values():
            assert file.address in result.stdout
            assert f"to be put at {cache / name / file.name}" in result.stdout
    assert "git blob 73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a" in result.stdout
    assert "its publisher gives no checksum" in result.stdout


@pytest.mark.usefixtures("cache")
def test_what_cannot_be_fetched_takes_one_line() -> None:
    result = CliRunner().invoke(main, ["weights", "fetch", "kinetics-r50"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert NAMED["kinetics-r50"].files["rgb"].address in result.stderr
    result = CliRunner().invoke(main, ["weights", "fetch", "imagenet"])
    assert result.exit_code == 1
    assert "imagenet: no such weights (known names: kinetics, kinetics-r50, raft-" in result.stderr


def test_what_is_there_is_checked_without_a_download(small_raft: Path) -> None:
    result = CliRunner().invoke(main, ["weights", "check"])
    assert result.exit_code == 0, result.output
    assert f"raft-small flow: whole, {small_raft}" in result.stdout
    assert "kinetics rgb: not there" in result.stdout
    result = CliRunner().invoke(main, ["weights", "fetch", "raft-small"])
    assert f"sha256 {sha256_of(small_raft)}" in result.stdout


def test_what_is_damaged_or_asked_for_and_absent_is_an_error(small_raft: Path) -> None:
    small_raft.write_bytes(b"damaged")
    result = CliRunner().invoke(main, ["weights", "check"])
    assert result.exit_code == 1
    assert f"{small_raft}: not the expected weights" in result.stderr
    result = CliRunner().invoke(main, ["weights", "check", "kinetics"])
    assert result.exit_code == 1
    assert "not there; try `pipeline weights fetch kinetics`" in result.stderr
