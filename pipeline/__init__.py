"""From raw video to anomaly scores: five functions, and everything that has a path.

    import pipeline

    pipeline.extract("cameras.csv", flow="dis", crops=1)
    run = pipeline.train("cameras.csv")
    print(pipeline.evaluate(run).metrics["auc"])
    scores = pipeline.score("video.mp4", run=run)
    scores.to_csv("scores.csv")
    pipeline.watch("rtsp://camera/stream", print, run=run)

Each is documented where it is defined. Importing this package loads neither torch nor a decoder:
that happens when one of the functions is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.evaluation.evaluate import evaluate as evaluate
    from pipeline.extraction.extract import extract as extract
    from pipeline.scoring.live import watch as watch
    from pipeline.scoring.score import score as score
    from pipeline.training.train import train as train

__version__ = "0.1.0"

_DEFINED_IN = {
    "extract": "pipeline.extraction.extract",
    "train": "pipeline.training.train",
    "evaluate": "pipeline.evaluation.evaluate",
    "score": "pipeline.scoring.score",
    "watch": "pipeline.scoring.live",
}

__all__ = ["__version__", "evaluate", "extract", "score", "train", "watch"]


def __getattr__(name: str) -> Any:
    if name in _DEFINED_IN:
        return getattr(import_module(_DEFINED_IN[name]), name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
