"""Fixtures that several test files share."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from extractors.features import Features

# A keyframe every 12 frames and nowhere else.
KEYFRAMES = {"g": "12", "sc_threshold": "0"}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip `gpu` tests where there is none; with REQUIRE_CUDA=1 that is a failure."""
    if item.get_closest_marker("gpu") is None or torch.cuda.is_available():
        return
    if os.environ.get("REQUIRE_CUDA") == "1":
        pytest.fail("REQUIRE_CUDA=1 is set, but there is no CUDA device")
    pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of real videos and annotations that tests marked `real` read."""
    folder = os.environ.get("LOOKAROUND_SHARED")
    if not folder:
        pytest.skip("LOOKAROUND_SHARED is not set: it names the folder of real videos")
    return Path(folder)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch with one thread: networks as small as those of tests only wait for a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Clock:
    """Stands for the module `time` where only `monotonic` is used; a test sets `now`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], Clock]:
    """A function that gives a module a clock that only the test moves."""

    def set_clock(module: ModuleType) -> Clock:
        clock = Clock()
        monkeypatch.setattr(module, "time", clock)
        return clock

    return set_clock


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every matplotlib figure that is saved, in order."""
    # Only here, because most tests draw nothing.
    from matplotlib.figure import Figure  # noqa: PLC0415

    saved = []
    save = Figure.savefig

    def save_and_keep(figure: Any, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", save_and_keep)
    return saved


@pytest.fixture(scope="session")
def find_decoders() -> Callable[[], list[int]]:
    """A function that lists this process's decoding processes that are alive, by their ids."""
    return _find_decoders


@pytest.fixture(scope="session")
def write_clip() -> Callable[..., Path]:
    """A function that writes a clip whose frame i shows the number i."""
    return _write_clip


@pytest.fixture(scope="session")
def read_number() -> Callable[[NDArray[np.uint8]], int]:
    """A function that reads the number off a frame (H, W, 3) of such a clip."""
    return _read_number


@pytest.fixture(scope="session")
def write_image() -> Callable[..., None]:
    """A function that writes one image of random blocks, in the format of its suffix."""
    return _write_image


@pytest.fixture(scope="session")
def write_frames() -> Callable[..., Path]:
    """A function that writes a folder of frames `000.jpg`, `001.jpg`, ..., all different."""
    return _write_frames


@pytest.fixture(scope="session")
def counting_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An H.264 mp4 of 40 frames 64x48 at 25 fps; frame i shows the number i."""
    return _write_clip(tmp_path_factory.mktemp("clips") / "counting.mp4")


@pytest.fixture(scope="session")
def features_of() -> Callable[..., Features]:
    """A function that makes features of given streams, at a constant frame rate."""
    return _features_of


@pytest.fixture
def brightness_scorer() -> Any:
    """A `Scorer` whose features are the brightness of frames: as good as any, and fast."""
    # Only here, because most tests need no model.
    from models.clav_como import ClavComo, ClavComoConfig  # noqa: PLC0415
    from pipeline.runs.checkpoints import Checkpoint  # noqa: PLC0415
    from pipeline.scoring.scorer import Scorer  # noqa: PLC0415

    sizes = {"embedding_dim": 8, "class_code_dim": 4, "relation_dim": 4, "scorer_dim": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ClavComo(ClavComoConfig(stream_dims=(("rgb", 3),), **sizes)).eval()
    provenance = {"extractor": "brightness", "is_pretrained": False}
    checkpoint = Checkpoint(model, "clav-como", provenance, dataset="small", seed=0, step=1)
    return Scorer(checkpoint, BrightnessExtractor(), torch.device("cpu"))


class BrightnessExtractor:
    """The mean of each color over a snippet, and half of it as a second crop. An `Extractor`."""

    snippet_len = 16
    n_crops = 2
    n_snippets_per_batch = 4
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.tail_policy = "repeat last frame"
        self.stream_dims = {"rgb": 3}

    def provenance(self) -> dict[str, Any]:
        return {"extractor": "brightness", "is_pretrained": False}

    def prepare(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"rgb": frames[:-1].float().mean(dim=(0, 1, 2)) / 255}

    def embed(self, snippets: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        means = torch.stack([snippet["rgb"] for snippet in snippets])
        return {"rgb": torch.stack([means, means / 2], dim=1)}


def _features_of(
    streams: dict[str, NDArray[np.float32]],
    n_frames: int | None = None,
    *,
    snippet_len: int = 16,
    fps: float = 25.0,
    **others: Any,
) -> Features:
    """Features without missing frames; of whole snippets where `n_frames` is not given."""
    if n_frames is None:
        n_frames = snippet_len * len(next(iter(streams.values())))
    timestamps = np.arange(n_frames) / fps
    fields = {"n_missing": 0, "decoder": "none", **others}
    return Features(streams, snippet_len, n_frames, fps=fps, timestamps=timestamps, **fields)


def _find_decoders() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            is_mine = int(parent) == os.getpid() and state != "Z"
            if is_mine and b"decode_worker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def _write_clip(
    path: Path,
    *,
    n_frames: int = 40,
    pts: Sequence[int] | None = None,
    fps: int = 25,
    width: int = 64,
    height: int = 48,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    is_fast_start: bool = True,
) -> Path:
    """Write a clip; `pts` are times in units of 1/fps seconds, by default 0, 1, 2, ..."""
    muxing = {"movflags": "+faststart"} if is_fast_start and path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=muxing) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or KEYFRAMES)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.thread_count = 1
        for i in range(n_frames):
            frame = av.VideoFrame.from_ndarray(_draw_number(i, width, height), format="rgb24")
            frame.pts, frame.time_base = i if pts is None else pts[i], Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _write_image(path: Path, seed: int = 0, *, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, pix_fmt = ("png", "rgb24") if path.suffix == ".png" else ("mjpeg", "yuvj420p")
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = width, height, pix_fmt
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
    packets = [*context.encode(frame), *context.encode(None)]
    path.write_bytes(b"".join(map(bytes, packets)))


def _write_frames(folder: Path, n_frames: int = 5, suffix: str = ".jpg", first: int = 0) -> Path:
    for number in range(first, first + n_frames):
        _write_image(folder / f"{number:03d}{suffix}", number)
    return folder


def _draw_number(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """(H, W, 3): the eight bits of a number as black and white blocks, two rows of four."""
    bits = (number >> np.arange(8)) & 1
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 4 // width
    gray = (bits.reshape(2, 4)[rows][:, columns] * 255).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def _read_number(frame: NDArray[np.uint8]) -> int:
    height, width = frame.shape[:2]
    middle_rows = [height // 4, height * 3 // 4]
    middle_columns = [width * (2 * i + 1) // 8 for i in range(4)]
    bits = frame[middle_rows][:, middle_columns].mean(2).ravel() > 128
    return int((bits << np.arange(8)).sum())
