"""Frame-level figures of merit, as the field computes them.

All of them take the frames of all test videos pooled into one array ("micro"), in any order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    silhouette_score,
)

FloatArray = NDArray[np.float32] | NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FrameMetrics:
    """How well scores rank anomalous frames above normal ones.

    Attributes:
        auc: Area under the ROC curve over all frames, in [0, 1].
        auc_abnormal: The same over the frames of abnormal videos only. The pooled figure is
            dominated by long normal videos; this one tells whether anomalies are *localised*.
        ap_trapezoid: Area under the precision-recall curve by the trapezoidal rule, as in
            XDVioDet, RTFM, UR-DMU and PEL4VAD.
        ap_step: Average precision without interpolation (scikit-learn's definition), as in VadCLIP.
    """

    auc: float
    auc_abnormal: float
    ap_trapezoid: float
    ap_step: float


def frame_metrics(
    scores: FloatArray, labels: BoolArray, in_abnormal_video: BoolArray
) -> FrameMetrics:
    """Compute all frame-level figures of one test set.

    Args:
        scores: (n_frames,) higher is more anomalous.
        labels: (n_frames,) True where the frame is anomalous.
        in_abnormal_video: (n_frames,) True where the frame's video holds an anomaly.

    Raises:
        ValueError: If the shapes differ, a score is not finite, or only one class is there.
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
    precision, recall, _ = precision_recall_curve(labels, scores)
    return FrameMetrics(
        auc=float(roc_auc_score(labels, scores)),
        auc_abnormal=_auc_or_nan(labels[in_abnormal_video], scores[in_abnormal_video]),
        ap_trapezoid=float(auc(recall, precision)),
        ap_step=float(average_precision_score(labels, scores)),
    )


def _auc_or_nan(labels: BoolArray, scores: FloatArray) -> float:
    """AUC, or NaN where abnormal videos are anomalous from end to end and it has no meaning."""
    if labels.all():
        return float("nan")
    return float(roc_auc_score(labels, scores))


def silhouette(vectors: FloatArray, labels: BoolArray) -> float:
    """How much nearer vectors are to their own class than to the other, in [-1, 1].

    Args:
        vectors: (n, E).
        labels: (n,) True where a vector is of the anomalous class; both classes occur.
    """
    return float(silhouette_score(vectors, labels))
