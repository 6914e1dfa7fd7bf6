"""The table and the JSON of an evaluation."""

import json
import math

import pytest

from pipeline.evaluation.alarms import AlarmMetrics
from pipeline.evaluation.metrics import FrameMetrics
from pipeline.evaluation.results import Evaluation, Measurement, Row, as_json, as_table, write_json
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
FLOOR = Row("floor", "control", (measured(0.5, abnormal=math.nan, alarms=None),))
CLASS = Row("fall", "class", (measured(0.6, alarms=None),), n_videos=7)


def test_the_table_gives_percent_with_mean_and_spread_over_seeds():
    lines = as_table(make(MODEL, FLOOR, CLASS)).splitlines()
    assert lines[0] == "mine: 4 test videos, 1000 frames, 250 of them anomalous (25.0%)"
    assert lines[1].split("  ")[-1].strip() == "AP abnormal"
    # The sample standard deviation of 70, 80, 90 is 10.
    assert lines[2].split()[:5] == ["model", "3", "80.0", "±", "10.0"]
    assert lines[3].split() == ["floor", "1", "50.0", "-", "25.0", "12.5", "6.2"]
    assert lines[4].split()[:4] == ["fall", "(7)", "1", "60.0"]
    assert len({len(line.rstrip()) for line in lines[1:5]}) == 1  # columns stand below heads


def test_alarms_stand_in_a_table_of_their_own_for_those_that_have_scores():
    *_, title, heads, row = as_table(make(MODEL, FLOOR, CLASS)).splitlines()
    assert title == "alarms at 0.5, released below 0.4, joined within 1 s"
    assert heads.split()[:5] == ["seeds", "%", "of", "normal", "frames"]
    assert " ".join(row.split()) == ("model 3 12.5 ± 0.0 2.5 ± 0.0 50.0 ± 0.0 75.0 ± 0.0 -")


def test_the_table_owns_up_to_videos_that_could_not_be_scored():
    table = as_table(make(MODEL, n_absent=2))
    assert "4 test videos (2 more have no features), 1000 frames" in table


def test_the_json_holds_each_seed_its_mean_and_its_spread(tmp_path):
    write_json(make(MODEL, FLOOR), tmp_path / "e.json")
    values = json.loads((tmp_path / "e.json").read_text())
    assert values == json.loads(json.dumps(as_json(make(MODEL, FLOOR))))
    assert (values["dataset"], values["trained_on"], values["seeds"]) == (
        "mine",
        "yours",
        [0, 1, 2],
    )
    auc = values["rows"][0]["metrics"]["auc"]
    assert auc["per_seed"] == [0.7, 0.8, 0.9]
    assert (auc["mean"], auc["std"]) == (pytest.approx(0.8), pytest.approx(0.1))
    assert values["rows"][0]["metrics"]["delay_seconds"]["mean"] is None
    floor = values["rows"][1]
    assert floor["kind"] == "control"
    assert floor["metrics"]["auc_abnormal"] == {"mean": None, "std": None, "per_seed": [None]}
    assert "event_recall" not in floor["metrics"]
