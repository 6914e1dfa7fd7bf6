"""The table and the JSON of an evaluation."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from pipeline.evaluation.alarms import AlarmMetrics
from pipeline.evaluation.metrics import FrameMetrics
from pipeline.evaluation.paired_jackknife import JackknifedAuc
from pipeline.evaluation.results import (
    Evaluation,
    LeftOut,
    Measurement,
    Row,
    alarms_table,
    as_json,
    controls_table,
    metrics_table,
    write_json,
)
from pipeline.evaluation.verdict import describe_unbeaten
from pipeline.scoring.calibration import Calibration
from pipeline.scoring.events import EventRule

ALARMS = AlarmMetrics(0.125, 2.5, 0.5, 0.75, math.nan)


def measured(auc, abnormal=0.5, alarms=ALARMS):
    return Measurement(FrameMetrics(auc, abnormal, 0.25, 0.125, 0.0625), alarms)


def make(*rows, n_absent=0):
    return Evaluation(
        trained_on="yours",
        dataset="mine",
        n_videos=4,
        n_absent=n_absent,
        n_frames=1000,
        n_anomalous=250,
        labels_sha256="ab",
        rule=EventRule(),
        seeds=tuple(range(len(rows[0].per_seed))),
        is_pretrained=True,
        rows=rows,
    )


MODEL = Row("model", "model", (measured(0.7), measured(0.8), measured(0.9)))
BASELINE = Row("baseline", "control", (measured(0.5, abnormal=math.nan, alarms=None),))
CLASS = Row("fall", "class", (measured(0.6, alarms=None),), n_videos=7)


def test_the_table_gives_percent_with_mean_and_spread_over_seeds():
    table = metrics_table(make(MODEL, BASELINE, CLASS))
    assert table.title == "mine: 4 test videos, 1000 frames, 250 of them anomalous (25.0%)"
    assert table.header[:3] == ("", "seeds", "AUC")
    assert table.header[-1] == "AP abnormal"
    model, baseline, of_class = table.rows
    # The sample standard deviation of 70, 80, 90 is 10.
    assert model[:3] == ("model", "3", "80.0 ± 10.0")
    assert baseline == ("baseline", "1", "50.0", "-", "25.0", "12.5", "6.2")
    assert of_class[:3] == ("  fall (7)", "1", "60.0")
    assert {len(row) for row in table.rows} == {len(table.header)}


def test_the_table_has_the_macro_auc_where_the_dataset_is_reported_by_it():
    macro = Measurement(FrameMetrics(0.5, 0.5, 0.5, 0.5, 0.5, auc_macro=0.8125))
    evaluation = make(Row("model", "model", (macro,)))
    assert "AUC macro" not in metrics_table(evaluation).header
    table = metrics_table(replace(evaluation, dataset="ubnormal"))
    assert (table.header[-1], table.rows[0][-1]) == ("AUC macro", "81.2")
    assert as_json(evaluation)["rows"][0]["metrics"]["auc_macro"]["mean"] == 0.8125


def test_alarms_have_a_table_of_their_own_for_rows_that_have_scores():
    table = alarms_table(make(MODEL, BASELINE, CLASS))
    told = "; % of frames, events per hour: of normal videos"
    assert table.title == f"alarms at 0.5, released below 0.4, merged within 1 s{told}"
    assert table.header[:4] == ("", "seeds", "% of frames", "events per hour")
    assert table.rows == (
        ("model", "3", "12.5 ± 0.0", "2.5 ± 0.0", "50.0 ± 0.0", "75.0 ± 0.0", "-"),
    )


@pytest.mark.parametrize(
    ("stride", "told"), [(16, "(calibrated)"), (4, "(calibrated with stride 4)")]
)
def test_alarms_say_with_which_other_stride_their_threshold_was_calibrated(stride, told):
    calibration = Calibration(0.5, 1.0, 0.0, stride, 0.5, 3, 12.5, 6, 0.9, 0.95)
    evaluation = replace(make(MODEL), calibration=calibration)
    assert alarms_table(evaluation).title.startswith(f"alarms at 0.5 {told}, released below 0.4")
    assert as_json(evaluation)["is_calibrated"] is True
    assert as_json(make(MODEL))["is_calibrated"] is False


def test_the_table_counts_videos_that_could_not_be_scored():
    title = metrics_table(make(MODEL, n_absent=2)).title
    assert "4 test videos (2 more have no features), 1000 frames" in title


def test_the_metrics_are_those_of_the_model_averaged_over_seeds():
    metrics = make(MODEL, BASELINE).metrics
    assert metrics["auc"] == pytest.approx(0.8)
    assert metrics["ap_step"] == 0.125
    assert metrics["false_alarms_per_hour"] == 2.5
    assert math.isnan(metrics["delay_seconds"])


def test_the_json_names_rows_that_were_left_out():
    evaluation = replace(make(MODEL), left_out=(LeftOut("motion energy", "a.mp4: is gone"),))
    assert json.loads(json.dumps(as_json(evaluation)))["left_out"] == [
        {"name": "motion energy", "reason": "a.mp4: is gone", "is_failure": True}
    ]


def test_the_json_holds_each_seed_its_mean_and_its_spread(tmp_path):
    write_json(make(MODEL, BASELINE), tmp_path / "e.json")
    values = json.loads((tmp_path / "e.json").read_text())
    assert values == json.loads(json.dumps(as_json(make(MODEL, BASELINE))))
    assert (values["dataset"], values["trained_on"], values["seeds"]) == (
        "mine",
        "yours",
        [0, 1, 2],
    )
    auc = values["rows"][0]["metrics"]["auc"]
    assert auc["per_seed"] == [0.7, 0.8, 0.9]
    assert (auc["mean"], auc["std"]) == (pytest.approx(0.8), pytest.approx(0.1))
    assert values["rows"][0]["metrics"]["delay_seconds"]["mean"] is None
    baseline = values["rows"][1]
    assert baseline["kind"] == "control"
    assert baseline["metrics"]["auc_abnormal"] == {"mean": None, "std": None, "per_seed": [None]}
    assert "event_recall" not in baseline["metrics"]


def test_below_the_table_stands_which_controls_the_model_does_not_beat():
    higher = Row("linear MIL, flow", "control", (measured(0.85),))
    equal = Row("motion energy", "control", (measured(0.8, alarms=None),))
    line = describe_unbeaten(as_json(make(MODEL, higher, BASELINE, equal))["rows"])
    assert line == "model (AUC 80.0) does not beat linear MIL, flow (85.0), motion energy (80.0)."
    assert describe_unbeaten(as_json(make(MODEL, BASELINE))["rows"]) == ""


def jackknifed(auc, spread, *, n_normal=3):
    """A measurement of three videos with anomalies, which matter by `spread`, and some without."""
    without = np.array([auc - spread, auc, auc + spread] + [auc] * n_normal)
    has_anomaly = np.arange(3 + n_normal) < 3
    metrics = FrameMetrics(auc, 0.5, 0.5, 0.5, 0.5)
    return Measurement(metrics, jackknifed=JackknifedAuc(auc, without, has_anomaly))


def test_a_table_says_how_far_the_model_is_above_each_control_and_how_sure_that_is():
    evaluation = make(
        Row("model", "model", (jackknifed(0.7, 0.02),)),
        Row("sure", "control", (jackknifed(0.5, 0.0),)),
        Row("open", "control", (jackknifed(0.65, 0.0),)),
        Row("better", "control", (jackknifed(0.9, 0.0),)),
        Row("not jackknifed", "control", (measured(0.5),)),
    )
    table = controls_table(evaluation)
    assert table.header == ("", "difference")
    # The variance is 2/3 * (2² + 2²); Student's quantile for three videos is 4.303.
    assert table.rows == (
        ("sure", "+20.0 [+10.1, +29.9] *"),
        ("open", "+5.0 [-4.9, +14.9]"),
        ("better", "-20.0 [-29.9, -10.1] *"),
    )
    assert describe_unbeaten(as_json(evaluation)["rows"]) == (
        "model (AUC 70.0) does not beat better (90.0). "
        "The test videos do not show model (AUC 70.0) above open (65.0)."
    )


def test_with_several_seeds_the_verdict_is_of_their_mean_score_which_users_get():
    evaluation = make(
        Row("model", "model", (jackknifed(0.6, 0.0), jackknifed(0.8, 0.0))),
        Row("model, 2 seeds averaged", "seeds averaged", (jackknifed(0.8, 0.02),)),
        Row("below", "control", (jackknifed(0.65, 0.0),)),
        Row("between", "control", (jackknifed(0.75, 0.0),)),
        Row("shuffled", "control", (jackknifed(0.6, 0.0), jackknifed(0.8, 0.0))),
        Row("shuffled, 2 seeds averaged", "averaged control", (jackknifed(0.82, 0.02),)),
        Row("fall", "class", (measured(0.9),)),
    )
    table = controls_table(evaluation)
    assert table.header == ("", "mean of 2 seeds", "2 seeds averaged: over test videos alone")
    # Two seeds that differ by 20 points leave everything open.
    assert table.rows == (
        ("below", "+5.0 [-100.0, +100.0]", "+15.0 [+5.1, +24.9] *"),
        ("between", "-5.0 [-100.0, +100.0]", "+5.0 [-4.9, +14.9]"),
        ("shuffled", "+0.0 [+0.0, +0.0]", ""),
        ("shuffled, 2 seeds averaged", "", "-2.0 [-2.0, -2.0] *"),
    )
    rows = as_json(evaluation)["rows"]
    assert rows[2]["averaged_lead"]["mean"] == pytest.approx(0.15)
    assert [set(row) & {"model_lead", "averaged_lead"} for row in rows] == [
        *(set(), set(), {"model_lead", "averaged_lead"}, {"model_lead", "averaged_lead"}),
        *({"model_lead"}, {"averaged_lead"}, set()),
    ]
    assert describe_unbeaten(rows) == (
        "model, 2 seeds averaged (AUC 80.0) does not beat shuffled, 2 seeds averaged (82.0). "
        "The test videos do not show model, 2 seeds averaged (AUC 80.0) above between (75.0)."
    )


def one_class_without_a_video(auc, spread):
    """A measurement of videos of which one holds all frames of a class."""
    found = jackknifed(auc, spread).jackknifed
    without = np.where(np.arange(6) == 0, np.nan, found.without)
    return Measurement(
        FrameMetrics(auc, 0.5, 0.5, 0.5, 0.5), jackknifed=replace(found, without=without)
    )


@pytest.mark.parametrize("of", [partial(jackknifed, n_normal=1), one_class_without_a_video])
def test_where_test_videos_allow_no_interval_the_table_has_a_dash_and_says_why(of):
    evaluation = make(
        Row("model", "model", (of(0.7, 0.02),)),
        Row("control", "control", (of(0.5, 0.0),)),
    )
    table = controls_table(evaluation)
    assert table.rows == (("control", "+20.0 [-]"),)
    why = (
        "; [-]: no interval; it needs two test videos with and two without anomalies, "
        "and frames of both classes without any one video"
    )
    assert table.title.endswith(why)
    values = as_json(evaluation)["rows"]
    lead = json.loads(json.dumps(values[1]["model_lead"]))
    assert lead == {"mean": pytest.approx(0.2), "low": None, "high": None}
    assert describe_unbeaten(values) == (
        "The test videos do not show model (AUC 70.0) above control (50.0)."
    )


def test_the_interval_is_of_the_mean_over_seeds():
    model = Row("model", "model", (jackknifed(0.7, 0.0), jackknifed(0.9, 0.0)))
    (row,) = controls_table(make(model, Row("c", "control", (jackknifed(0.6, 0.0),)))).rows
    mean, low, high = (float(value.strip("[],*")) for value in row[1].split()[:3])
    assert mean == 20.0
    assert low < 0 < 40 < high  # two seeds that differ by 20 points say little


def test_without_controls_that_were_resampled_there_is_no_such_table():
    assert controls_table(make(MODEL, BASELINE)).rows == ()
    assert "model_lead" not in as_json(make(MODEL, BASELINE))["rows"][1]
