"""Frame-level metrics, as the field computes them: ROC AUC and average precision.

All but one take the frames of all test videos pooled into one array ("micro"), in any order. The
macro AUC is the mean of each video's own; UBnormal's results are reported by both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

FloatArray = NDArray[np.float32] | NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MAX_CURVE_POINTS = 1000
MACRO_AUC_DATASETS = frozenset({"ubnormal"})  # whose results are reported by the macro AUC, too


@dataclass(frozen=True, slots=True)
class FrameMetrics:
    """How well scores rank anomalous frames above normal ones.

    Attributes:
        auc: Area under the ROC curve over all frames, in [0, 1].
        auc_abnormal: The same over the frames of abnormal videos only. The pooled AUC is
            dominated by long normal videos; this one measures whether anomalies are *localized*.
        ap_trapezoid: Area under the precision-recall curve by the trapezoidal rule, as in
            XDVioDet, RTFM, UR-DMU and PEL4VAD.
        ap_step: Average precision without interpolation (scikit-learn's definition), as in VadCLIP.
        ap_abnormal: `ap_trapezoid` over the frames of abnormal videos only.
        auc_macro: As from `macro_auc`; NaN for datasets that are not reported by it.
    """

    auc: float
    auc_abnormal: float
    ap_trapezoid: float
    ap_step: float
    ap_abnormal: float
    auc_macro: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """The ROC and precision-recall curves, with as many points as a plot can show.

    Attributes:
        false_positive_rate: (n,) in [0, 1], rising.
        true_positive_rate: (n,) in [0, 1], rising.
        recall: (m,) in [0, 1], falling.
        precision: (m,) in [0, 1].
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]


def frame_metrics(
    scores: FloatArray, labels: BoolArray, in_abnormal_video: BoolArray
) -> FrameMetrics:
    """Compute all frame-level metrics of one test set.

    Args:
        scores: (n_frames,) higher is more anomalous.
        labels: (n_frames,) True where the frame is anomalous.
        in_abnormal_video: (n_frames,) True where the frame's video holds an anomaly.

    Raises:
        ValueError: If the shapes differ, a score is not finite, or there is only one class.
    """
    if not scores.shape == labels.shape == in_abnormal_video.shape or scores.ndim != 1:
        raise ValueError(
            "scores, labels and in_abnormal_video must be (n_frames,) alike, instead got "
            f"{scores.shape}, {labels.shape}, {in_abnormal_video.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite, instead got NaN or infinity among them")
    if labels.all() or not labels.any():
        raise ValueError(
            "frames of both classes are needed, instead got "
            f"{int(labels.sum())} anomalous among {labels.size}"
        )
    abnormal_scores, abnormal_labels = scores[in_abnormal_video], labels[in_abnormal_video]
    # Without a normal frame the metrics of abnormal videos are not defined.
    is_mixed = not abnormal_labels.all()
    return FrameMetrics(
        auc=ranking_auc(scores, labels),
        auc_abnormal=ranking_auc(abnormal_scores, abnormal_labels) if is_mixed else math.nan,
        ap_trapezoid=_trapezoid_ap(scores, labels),
        ap_step=float(average_precision_score(labels, scores)),
        ap_abnormal=_trapezoid_ap(abnormal_scores, abnormal_labels) if is_mixed else math.nan,
    )


def macro_auc(scores: Sequence[FloatArray], labels: Sequence[BoolArray]) -> float:
    """The mean over videos of each one's own AUC, as UBnormal's authors compute it.

    As in their `scripts/compute_auc_score.py`, every video gets a normal frame of score 0 and an
    anomalous one of score 1 in addition, without which a video of one class would have no AUC. So
    even equal scores of a video rank better than chance, and the values cannot be compared with
    those of `FrameMetrics.auc`.

    Args:
        scores: Of each video (n_frames,).
        labels: Of each video (n_frames,) True where the frame is anomalous.

    Returns:
        In [0, 1]; NaN where a score is not in [0, 1], to whose ends the two frames belong.

    >>> macro_auc([np.array([0.2, 0.4])], [np.array([False, False])])
    1.0
    >>> macro_auc([np.array([0.2, 0.4])], [np.array([True, False])])
    0.75
    """
    if any(of_video.min() < 0 or of_video.max() > 1 for of_video in scores):
        return math.nan
    aucs = [
        ranking_auc(np.append(of_video, [0, 1]), np.append(is_anomalous, [False, True]))
        for of_video, is_anomalous in zip(scores, labels, strict=True)
    ]
    return float(np.mean(aucs))


def mean_metrics(several: Sequence[FrameMetrics]) -> FrameMetrics:
    """The mean of each metric over several measurements."""
    return FrameMetrics(
        **{
            field.name: float(np.mean([getattr(metrics, field.name) for metrics in several]))
            for field in fields(FrameMetrics)
        }
    )


def ranking_auc(scores: FloatArray, labels: BoolArray) -> float:
    """Area under the ROC curve: the fraction of pairs ranked correctly; ties count half.

    Args:
        scores: (n,)
        labels: (n,) of both classes.
    """
    return float(roc_auc_score(labels, scores))


def curves(scores: FloatArray, labels: BoolArray) -> Curves:
    """The ROC and the precision-recall curve.

    Args:
        scores: (n_frames,) higher is more anomalous.
        labels: (n_frames,) True where the frame is anomalous; of both classes.
    """
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    return Curves(*_thinned(false_positive_rate, true_positive_rate), *_thinned(recall, precision))


def _trapezoid_ap(scores: FloatArray, labels: BoolArray) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(auc(recall, precision))


def _thinned(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Evenly spaced points of the curve, both ends included."""
    places = np.linspace(0, len(x) - 1, min(len(x), MAX_CURVE_POINTS)).round().astype(int)
    return x[places], y[places]
