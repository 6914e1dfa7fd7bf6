"""Loading, renaming, downloading and refusing weights."""

import functools
import hashlib
import http.server
import math
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pytorchvideo.models.hub.resnet import checkpoint_paths, i3d_r50
from torch import Tensor
from torchvision.models.optical_flow import (
    Raft_Large_Weights,
    Raft_Small_Weights,
    raft_large,
    raft_small,
)

from extractors.networks.downloads import (
    Checksum,
    RemoteFile,
    cache_folder,
    fetch,
    git_blob_id,
    verify,
)
from extractors.networks.inception_i3d import InceptionI3D
from extractors.networks.resnet_i3d import ResNetI3D
from extractors.networks.weights import NAMED, WeightsError, load_weights

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
    file = RemoteFile(f"{server}/weights.pt", Checksum("git blob", blob_id(CONTENT)))
    path = tmp_path / "cache" / "kinetics" / "weights.pt"
    fetch(file, path)
    assert path.read_bytes() == CONTENT
    fetch(RemoteFile("http://127.0.0.1:9/gone.pt", file.checksum), path)  # no second download
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("name", ["weights.pt", "interrupted.pt", "absent.pt"])
def test_a_wrong_or_broken_download_leaves_nothing(server: str, tmp_path: Path, name: str) -> None:
    expected = blob_id(CONTENT if name == "interrupted.pt" else b"something else")
    path = tmp_path / "cache" / name
    with pytest.raises(WeightsError, match=expected) as caught:
        fetch(RemoteFile(f"{server}/{name}", Checksum("git blob", expected)), path)
    assert f"{server}/{name}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_a_cached_file_is_verified_before_use(server: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"weights.pt: not the expected weights; remove it"):
        fetch(RemoteFile(f"{server}/weights.pt", Checksum("git blob", blob_id(CONTENT))), path)
    assert path.read_bytes() == b"damaged"


@pytest.mark.parametrize("n_digits", [8, 64])
def test_the_first_digits_of_a_sha256_do(server: str, tmp_path: Path, n_digits: int) -> None:
    digits = hashlib.sha256(CONTENT).hexdigest()[:n_digits]
    path = tmp_path / "weights.pt"
    fetch(RemoteFile(f"{server}/weights.pt", Checksum("sha256", digits)), path)
    assert path.read_bytes() == CONTENT
    path.write_bytes(CONTENT + b".")
    with pytest.raises(WeightsError, match=f"sha256 {digits} expected, instead got"):
        fetch(RemoteFile(f"{server}/weights.pt", Checksum("sha256", digits)), path)


def test_without_a_checksum_the_first_download_holds(server: str, tmp_path: Path) -> None:
    file = RemoteFile(f"{server}/weights.pt", None)
    path = tmp_path / "cache" / "weights.pt"
    fetch(file, path)
    fetch(file, path)
    assert {entry.name for entry in path.parent.iterdir()} == {"weights.pt", "weights.pt.sha256"}
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"not the expected weights; remove it .*pt.sha256\)"):
        fetch(file, path)


def test_an_empty_record_of_the_first_download_is_written_again(tmp_path: Path) -> None:
    path, record = tmp_path / "weights.pt", tmp_path / "weights.pt.sha256"
    path.write_bytes(CONTENT)
    record.touch()
    verify(RemoteFile("http://127.0.0.1:9/weights.pt", None), path)
    assert record.read_text().strip() == hashlib.sha256(CONTENT).hexdigest()


def test_a_download_that_ends_early_is_refused_without_a_checksum_too(
    server: str, tmp_path: Path
) -> None:
    path = tmp_path / "cache" / "interrupted.pt"
    with pytest.raises(WeightsError, match=r"interrupted.pt: .*its publisher gives no checksum"):
        fetch(RemoteFile(f"{server}/interrupted.pt", None), path)
    assert list(path.parent.iterdir()) == []


def test_several_processes_may_fetch_one_file_at_once(server: str, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "weights.pt"
    file = RemoteFile(f"{server}/weights.pt", Checksum("git blob", blob_id(CONTENT)))
    with ThreadPoolExecutor(8) as pool:  # threads share a process id, and so may two containers
        list(pool.map(lambda _: fetch(file, path), range(16)))
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.pt"]


def test_offline_the_message_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(WeightsError) as caught:
        load_weights("kinetics", "i3d", ("rgb", "flow"), cache=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'kinetics' / 'rgb_imagenet.pt'}: missing")
    assert NAMED["kinetics"].files["rgb"].address in message
    assert "73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a" in message
    assert "\n" not in message
    assert "cannot be downloaded (Connection refused); try again" in message
    assert message.endswith(
        "or name your own file or folder with --weights; "
        "for a trial --weights random:0, without meaning"
    )
    with pytest.raises(WeightsError) as caught:
        load_weights("raft-small", "raft-small", ("flow",), cache=tmp_path)
    assert str(caught.value).endswith("or name your own file or folder with --flow-weights")


def test_of_a_download_that_a_server_refuses_its_answer_is_told(
    server: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"cannot be downloaded \(404 Client Error: File not f"):
        fetch(RemoteFile(f"{server}/absent.pt", None), tmp_path / "cache" / "absent.pt")


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
    loaded = load_weights(str(path), "i3d", ("rgb",))
    assert (loaded.name, loaded.is_pretrained) == (path.name, True)
    assert loaded.sha256 == {"rgb": hashlib.sha256(path.read_bytes()).hexdigest()}
    network = InceptionI3D(3)
    network.load_state_dict(loaded.state_dicts["rgb"], strict=True)
    assert torch.equal(
        network.Mixed_4c.b1b.conv3d.weight, rgb_state_dict["Mixed_4c.b1b.conv3d.weight"]
    )


HASSONY2_UNITS = {
    "b0": "branch_0",
    "b1a": "branch_1.0",
    "b1b": "branch_1.1",
    "b2a": "branch_2.0",
    "b2b": "branch_2.1",
    "b3b": "branch_3.1",
}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_under_hassony2s_names_gives_the_same_features(
    tmp_path: Path, rgb_state_dict: dict[str, Tensor], prefix: str
) -> None:
    content = {}
    for name, tensor in rgb_state_dict.items():
        parts = name.replace("Conv3d_", "conv3d_").replace("Mixed_", "mixed_").split(".")
        renamed = [{"bn": "batch3d", **HASSONY2_UNITS}.get(part, part) for part in parts]
        content[prefix + ".".join(renamed)] = tensor
    assert f"{prefix}conv3d_1a_7x7.batch3d.running_var" in content
    assert f"{prefix}mixed_4c.branch_3.1.conv3d.weight" in content
    content[f"{prefix}conv3d_0c_1x1.conv3d.weight"] = torch.zeros(400, 1024, 1, 1, 1)
    content[f"{prefix}conv3d_0c_1x1.conv3d.bias"] = torch.zeros(400)
    torch.save(content, tmp_path / "i3d_rgb.pth")
    ours, theirs = InceptionI3D(3).eval(), InceptionI3D(3).eval()
    ours.load_state_dict(rgb_state_dict)
    theirs.load_state_dict(
        load_weights(str(tmp_path / "i3d_rgb.pth"), "i3d", ("rgb",)).state_dicts["rgb"]
    )
    clip = torch.rand(1, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(ours(clip), theirs(clip))


def test_a_name_that_is_almost_hassony2s_is_unknown(
    tmp_path: Path, rgb_state_dict: dict[str, Tensor]
) -> None:
    content = {**rgb_state_dict, "mixed_3b.branch_1.2.conv3d.weight": torch.zeros(1)}
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"1 unknown \(mixed_3b.branch_1.2.conv3d.weight\)"):
        load_weights(str(tmp_path / "other.pt"), "i3d", ("rgb",))


def test_a_folder_holds_one_file_for_each_stream(
    tmp_path: Path, rgb_state_dict: dict[str, Tensor]
) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    torch.save(rgb_state_dict, folder / "rgb_imagenet.pt")
    with pytest.raises(WeightsError, match=r"one of flow.pt, .*flow_imagenet.safetensors .* none"):
        load_weights(str(folder), "i3d", ("rgb", "flow"))
    safetensors.torch.save_file(InceptionI3D(2).state_dict(), folder / "flow.safetensors")
    loaded = load_weights(str(folder), "i3d", ("rgb", "flow"))
    assert loaded.name == "two"
    assert tuple(loaded.state_dicts) == tuple(loaded.sha256) == ("rgb", "flow")
    (folder / "rgb.pth").touch()
    with pytest.raises(WeightsError, match=r"exactly one .* got rgb.pth, rgb_imagenet.pt"):
        load_weights(str(folder), "i3d", ("rgb",))


def test_one_file_does_not_do_for_two_streams(tmp_path: Path) -> None:
    path = tmp_path / "rgb.pt"
    path.touch()
    with pytest.raises(WeightsError, match=r"rgb.pt: one file holds one stream; for rgb and flow"):
        load_weights(str(path), "i3d", ("rgb", "flow"))


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
        load_weights(str(path), "i3d", ("rgb",))
    torch.save(rgb_state_dict, path)
    with pytest.raises(WeightsError, match=r"\(Conv3d_1a_7x7.conv3d.weight \(64, 3, 7, 7, 7\) for"):
        load_weights(str(path), "i3d", ("flow",))


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_weights_that_are_not_finite_are_refused(
    value: float, tmp_path: Path, rgb_state_dict: dict[str, Tensor]
) -> None:
    path = tmp_path / "damaged.pt"
    damaged = rgb_state_dict["Mixed_3b.b0.bn.bias"].clone()
    damaged[3] = value
    torch.save(rgb_state_dict | {"Mixed_3b.b0.bn.bias": damaged}, path)
    with pytest.raises(WeightsError, match=r"1 with NaN or infinity \(Mixed_3b.b0.bn.bias\)$"):
        load_weights(str(path), "i3d", ("rgb",))
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"285 missing \(Conv3d_1a\S+ \S+ \S+, ...\); 1 unknown"):
        load_weights(str(path), "i3d", ("rgb",))


@pytest.mark.parametrize("name", ["broken.pt", "broken.pth", "broken.safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"words\nand more words", bytes(range(256)) * 9, b"PK\3\4", b"\x80\2junk", b"\x80\2"],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name}: not a file of weights") as caught:
        load_weights(str(path), "i3d", ("rgb",))
    assert "\n" not in str(caught.value)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pickle.pt"
    torch.save({"x": Path("/")}, path)
    with pytest.raises(WeightsError, match=r"pickle.pt: not a file of weights") as caught:
        load_weights(str(path), "i3d", ("rgb",))
    assert "weights_only" not in str(caught.value)  # torch's advice, which would run the code


def test_a_file_of_other_values_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.pt"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match=r"list.pt: a dictionary of tensors expected"):
        load_weights(str(path), "i3d", ("rgb",))


def test_random_weights_say_that_they_mean_nothing() -> None:
    loaded = load_weights("random:07", "i3d", ("flow",))
    assert (loaded.name, loaded.is_pretrained) == ("random:7", False)
    assert tuple(loaded.state_dicts) == tuple(loaded.sha256) == ("flow",)


@pytest.mark.parametrize("spec", ["random:", "random:-1", "random:one", "random:²"])
def test_a_seed_is_a_whole_number(spec: str) -> None:
    with pytest.raises(WeightsError, match="expected random: and a seed of at least 0, as in"):
        load_weights(spec, "i3d", ("rgb",))


def test_an_unknown_name_is_taken_for_a_path_and_the_names_are_told() -> None:
    with pytest.raises(
        WeightsError, match=r"kinetcs: no such file or folder .* \(known names: kinetics, random:"
    ):
        load_weights("kinetcs", "i3d", ("rgb",))


def test_names_of_another_network_are_refused() -> None:
    with pytest.raises(
        WeightsError, match=r"^kinetics: weights of the Inception-I3D; the ResNet-50 I3D takes kin"
    ):
        load_weights("kinetics", "i3d_r50", ("rgb",))
    with pytest.raises(WeightsError, match="the small RAFT takes a file or raft-small, no random"):
        load_weights("random:0", "raft-small", ("flow",))


def test_the_addresses_are_those_that_the_libraries_name() -> None:
    assert NAMED["kinetics-r50"].files["rgb"].address == checkpoint_paths["i3d_r50"]
    for name, enum in (("raft-small", Raft_Small_Weights), ("raft-large", Raft_Large_Weights)):
        file = NAMED[name].files["flow"]
        assert file.address == enum.DEFAULT.url
        assert file.checksum is not None
        assert f"-{file.checksum.digest}.pth" in file.address


def test_a_checkpoint_of_pytorchvideo_loads_without_its_head(tmp_path: Path) -> None:
    published = i3d_r50(pretrained=False).state_dict()
    path = tmp_path / "I3D_8x8_R50.pyth"
    torch.save({"model_state": published}, path)
    loaded = load_weights(str(path), "i3d_r50", ("rgb",)).state_dicts["rgb"]
    assert set(published) - set(loaded) == {"blocks.6.proj.weight", "blocks.6.proj.bias"}
    ResNetI3D().load_state_dict(loaded, strict=True)


def princeton_names(content: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's large RAFT under the names that its authors' classes give its modules."""
    renamed = {}
    for name, tensor in content.items():
        parts = name.split(".")
        if parts[0] in ("feature_encoder", "context_encoder"):
            kinds = ("conv", "norm")
            if parts[1] == "convnormrelu":
                parts[1:3] = [f"{kinds[int(parts[2])]}1"]
            elif parts[1] == "conv":
                parts[1] = "conv2"
            elif parts[3].startswith("convnormrelu"):
                parts[3:5] = [f"{kinds[int(parts[4])]}{parts[3][-1]}"]
            parts[0] = {"feature_encoder": "fnet", "context_encoder": "cnet"}[parts[0]]
        elif parts[0] == "mask_predictor":
            parts = ["update_block", "mask", "0" if parts[1] == "convrelu" else "2", parts[-1]]
        elif parts[1] == "motion_encoder":
            places = {"convcorr": "convc", "convflow": "convf", "conv": "conv"}
            kind = parts[2].rstrip("12")
            parts = ["update_block", "encoder", places[kind] + parts[2][len(kind) :], parts[-1]]
        elif parts[1] == "recurrent_block":
            parts = ["update_block", "gru", parts[3] + parts[2][-1], parts[-1]]
        renamed[".".join(["module", *parts])] = tensor
        if "downsample.1" in name:
            renamed[".".join(["module", *parts[:3], "norm3", parts[-1]])] = tensor
    return renamed


def test_a_large_raft_of_its_authors_loads_under_torchvisions_names(tmp_path: Path) -> None:
    expected = raft_large(weights=None).state_dict()
    path = tmp_path / "raft-things.pth"
    torch.save(princeton_names(expected), path)
    loaded = load_weights(str(path), "raft-large", ("flow",)).state_dicts["flow"]
    assert set(loaded) == set(expected)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    torch.save(expected, path)  # torchvision's own names do, too
    assert set(load_weights(str(path), "raft-large", ("flow",)).state_dicts["flow"]) == set(
        expected
    )


@pytest.mark.real
def test_the_authors_small_raft_loads_strictly_into_torchvisions(shared_folder: Path) -> None:
    path = shared_folder / "weights" / "raft-small.pth"
    loaded = load_weights(str(path), "raft-small", ("flow",)).state_dicts["flow"]
    raft_small(weights=None).load_state_dict(loaded, strict=True)
    original = torch.load(path, map_location="cpu", weights_only=True)
    # Both list their modules in the order of the paper's figure.
    for (_, tensor), (_, expected) in zip(loaded.items(), original.items(), strict=True):
        assert torch.equal(tensor, expected)
