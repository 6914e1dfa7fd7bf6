"""The table of metrics."""

import math

from pipeline.evaluate import Evaluation, Row, as_table
from pipeline.metrics import FrameMetrics


def metrics(auc, abnormal=0.5):
    return FrameMetrics(auc=auc, auc_abnormal=abnormal, ap_trapezoid=0.25, ap_step=0.125)


def test_the_table_gives_percent_with_mean_and_spread_over_seeds():
    rows = (
        Row("model", (metrics(0.7), metrics(0.8), metrics(0.9))),
        Row("floor", (metrics(0.5, abnormal=math.nan),)),
    )
    table = as_table(Evaluation("mine", 4, 0, 1000, 250, rows)).splitlines()
    assert table[0] == "mine: 4 test videos, 1000 frames, 250 of them anomalous (25.0%)"
    assert table[1].split() == ["seeds", "AUC", "AUC", "abnormal", "AP", "trapezoid", "AP", "step"]
    # The sample standard deviation of 70, 80, 90 is 10.
    assert table[2].split()[:5] == ["model", "3", "80.0", "±", "10.0"]
    assert table[3].split() == ["floor", "1", "50.0", "-", "25.0", "12.5"]


def test_the_table_owns_up_to_videos_that_could_not_be_scored():
    table = as_table(Evaluation("mine", 4, 2, 1000, 250, (Row("model", (metrics(0.7),)),)))
    assert "4 test videos (2 more have no features), 1000 frames" in table
