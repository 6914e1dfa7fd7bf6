import functools
import hashlib
import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from extractors.inception_i3d import InceptionI3D
from extractors.weights import (
    NAMED,
    WeightsError,
    WeightsFile,
    cache_folder,
    fetch,
    git_blob_id,
    load_weights,
)

CONTENT = b"made-up weights\n" * 1000


class ShortAnswer(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; of `interrupted.pt` it sends half and hangs up."""

    def do_GET(self) -> None:
        if not self.path.endswith("interrupted.pt"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "weights.pt").write_bytes(CONTENT)
    handler = functools.partial(ShortAnswer, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def rgb_state_dict() -> dict[str, Tensor]:
    return InceptionI3D(3).state_dict()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_a_blob_id_is_the_one_that_git_gives(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    printed = subprocess.run(["git", "hash-object", path], capture_output=True, check=True)
    assert git_blob_id(path) == printed.stdout.decode().strip()


def test_a_download_is_verified_and_kept(server: str, tmp_path: Path) -> None:
    file = WeightsFile(f"{server}/weights.pt", blob_id(CONTENT))
    path = tmp_path / "cache" / "kinetics" / "weights.pt"
    fetch(file, path)
    assert path.read_bytes() == CONTENT
    fetch(WeightsFile("http://127.0.0.1:9/gone.pt", file.git_blob), path)  # no second download
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("name", ["weights.pt", "interrupted.pt", "absent.pt"])
def test_a_wrong_or_broken_download_leaves_nothing(server: str, tmp_path: Path, name: str) -> None:
    expected = blob_id(CONTENT if name == "interrupted.pt" else b"something else")
    path = tmp_path / "cache" / name
    with pytest.raises(WeightsError, match=expected) as caught:
        fetch(WeightsFile(f"{server}/{name}", expected), path)
    assert f"{server}/{name}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_a_cached_file_is_verified_before_use(server: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"weights.pt: not the expected weights; remove it"):
        fetch(WeightsFile(f"{server}/weights.pt", blob_id(CONTENT)), path)
    assert path.read_bytes() == b"damaged"


def test_offline_the_message_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(WeightsError) as caught:
        load_weights("kinetics", ("rgb", "flow"), cache=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'kinetics' / 'rgb_imagenet.pt'}: not there")
    assert NAMED["kinetics"].files["rgb"].address in message
    assert "73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a" in message
    assert "\n" not in message


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKAROUND_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/own")
    monkeypatch.delenv("LOOKAROUND_CACHE")
    assert cache_folder() == Path("/shared/lookaround")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/home/me/.cache/lookaround")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_file_of_the_port_loads_and_its_classifier_is_dropped(
    tmp_path: Path, rgb_state_dict: dict[str, Tensor], suffix: str
) -> None:
    content = {
        name: tensor
        for name, tensor in rgb_state_dict.items()
        if not name.endswith("num_batches_tracked")  # as in files from before torch 0.4.1
    }
    content["logits.conv3d.weight"] = torch.zeros(400, 1024, 1, 1, 1)
    content["logits.conv3d.bias"] = torch.zeros(400)
    path = tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    loaded = load_weights(str(path), ("rgb",))
    assert (loaded.name, loaded.has_semantics) == (path.name, True)
    assert loaded.sha256 == {"rgb": hashlib.sha256(path.read_bytes()).hexdigest()}
    network = InceptionI3D(3)
    network.load_state_dict(loaded.state_dicts["rgb"], strict=True)
    assert torch.equal(
        network.Mixed_4c.b1b.conv3d.weight, rgb_state_dict["Mixed_4c.b1b.conv3d.weight"]
    )


def test_a_folder_holds_one_file_for_each_stream(
    tmp_path: Path, rgb_state_dict: dict[str, Tensor]
) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    torch.save(rgb_state_dict, folder / "rgb_imagenet.pt")
    with pytest.raises(WeightsError, match=r"one of flow.pt, .*flow_imagenet.safetensors .* none"):
        load_weights(str(folder), ("rgb", "flow"))
    safetensors.torch.save_file(InceptionI3D(2).state_dict(), folder / "flow.safetensors")
    loaded = load_weights(str(folder), ("rgb", "flow"))
    assert loaded.name == "two"
    assert tuple(loaded.state_dicts) == tuple(loaded.sha256) == ("rgb", "flow")
    (folder / "rgb.pth").touch()
    with pytest.raises(WeightsError, match=r"exactly one .* got rgb.pth, rgb_imagenet.pt"):
        load_weights(str(folder), ("rgb",))


def test_one_file_does_not_do_for_two_streams(tmp_path: Path) -> None:
    path = tmp_path / "rgb.pt"
    path.touch()
    with pytest.raises(WeightsError, match=r"rgb.pt: one file holds one stream; for rgb and flow"):
        load_weights(str(path), ("rgb", "flow"))


def test_weights_of_another_network_are_refused_by_name(
    tmp_path: Path, rgb_state_dict: dict[str, Tensor]
) -> None:
    path = tmp_path / "other.pt"
    content = dict(rgb_state_dict)
    content["Mixed_3b.b0.bn.bias"] = torch.zeros(65)
    del content["Mixed_5c.b0.bn.bias"]
    content["fc.weight"] = torch.zeros(1)
    torch.save(content, path)
    with pytest.raises(
        WeightsError,
        match=r"1 missing \(Mixed_5c.b0.bn.bias\); 1 unknown \(fc.weight\); "
        r"1 of another shape \(Mixed_3b.b0.bn.bias \(65,\) for \(64,\)\)$",
    ):
        load_weights(str(path), ("rgb",))
    torch.save(rgb_state_dict, path)
    with pytest.raises(WeightsError, match=r"\(Conv3d_1a_7x7.conv3d.weight \(64, 3, 7, 7, 7\) for"):
        load_weights(str(path), ("flow",))
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"285 missing \(Conv3d_1a\S+ \S+ \S+, ...\); 1 unknown"):
        load_weights(str(path), ("rgb",))


@pytest.mark.parametrize("name", ["broken.pt", "broken.pth", "broken.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"words\nand more words", bytes(range(256)) * 9, b"PK\3\4"]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name}: not a file of weights") as caught:
        load_weights(str(path), ("rgb",))
    assert "\n" not in str(caught.value)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pickle.pt"
    torch.save({"x": Path("/")}, path)
    with pytest.raises(WeightsError, match=r"pickle.pt: not a file of weights"):
        load_weights(str(path), ("rgb",))


def test_a_file_of_other_values_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.pt"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match=r"list.pt: a dictionary of tensors expected"):
        load_weights(str(path), ("rgb",))


def test_random_weights_say_that_they_mean_nothing() -> None:
    loaded = load_weights("random:07", ("flow",))
    assert (loaded.name, loaded.has_semantics) == ("random:7", False)
    assert tuple(loaded.state_dicts) == tuple(loaded.sha256) == ("flow",)


@pytest.mark.parametrize("spec", ["random:", "random:-1", "random:one", "random:²"])
def test_a_seed_is_a_whole_number(spec: str) -> None:
    with pytest.raises(WeightsError, match="a seed of 0 or above expected, as in random:0"):
        load_weights(spec, ("rgb",))


def test_an_unknown_name_is_taken_for_a_path_and_the_names_are_told() -> None:
    with pytest.raises(
        WeightsError, match=r"kinetcs: no such file or folder .* \(known names: kinetics, random:"
    ):
        load_weights("kinetcs", ("rgb",))
