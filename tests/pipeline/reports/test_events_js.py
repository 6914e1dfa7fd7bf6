"""The rule for events in a report's page gives the events that the rule in Python gives."""

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import playwright
import pytest

from pipeline.reports.curve import make_curve
from pipeline.scoring.events import RELEASE_FRACTION, EventRule, describe_events
from pipeline.scoring.frame_scores import Scores

# The package that drives browsers brings a JavaScript engine along.
BUNDLED_NODE = Path(playwright.__file__).parent / "driver" / "node"
RUN_CASES = """
const cases = JSON.parse(require("fs").readFileSync(0, "utf8"));
const events = cases.map((c) => findEvents(decodeCurve(c.curve), c.rule));
const described = events.map((of) => of.map((e) => ({ ...e, words: describeParts(e) })));
console.log(JSON.stringify(described));
"""


def events_of_the_page(cases):
    """Run events.js on (scores, rule) pairs."""
    node = str(BUNDLED_NODE) if BUNDLED_NODE.exists() else shutil.which("node")
    assert node is not None, "playwright without its JavaScript engine, and no node installed"
    script = resources.files("pipeline.reports").joinpath("assets", "events.js").read_text()
    given = [
        {
            "curve": make_curve(scores).to_json(),
            "rule": {
                "threshold": rule.threshold,
                "releaseFraction": RELEASE_FRACTION,
                "mergeSeconds": rule.merge_seconds,
                "minSeconds": rule.min_seconds,
            },
        }
        for scores, rule in cases
    ]
    run = subprocess.run(
        [node, "-e", script + RUN_CASES],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def random_case(rng):
    n_frames = int(rng.integers(1, 120))
    snippet_len = int(rng.choice([1, 4, 16]))
    n_scores = -(-n_frames // snippet_len)
    # Rounded to tenths, so that scores meet the threshold and the release exactly.
    per_snippet = rng.random(n_scores).round(int(rng.integers(1, 4))).astype(np.float32)
    times = np.cumsum(rng.uniform(0.02, 0.4, n_frames)) + rng.uniform(-1, 1)
    threshold = float(np.round(rng.uniform(0.01, 1), 2))
    rule = EventRule(threshold, float(rng.choice([0, 0.2, 1])), float(rng.choice([0, 0, 0.5])))
    return Scores(per_snippet, snippet_len, times), rule


def test_the_page_finds_the_events_that_python_finds_on_random_curves():
    rng = np.random.default_rng(0)
    cases = [random_case(rng) for _ in range(500)]
    found = events_of_the_page(cases)
    n_events = 0
    for (scores, rule), of_page in zip(cases, found, strict=True):
        expected = describe_events(scores.per_frame, scores.timestamps, rule)
        n_events += len(expected)
        assert len(of_page) == len(expected)
        for event, other in zip(expected, of_page, strict=True):
            assert other["startFrame"] == event.start_frame
            assert other["stopFrame"] == event.stop_frame
            assert other["startSeconds"] == event.start_seconds
            assert other["stopSeconds"] == event.stop_seconds
            assert other["peak"] == event.peak
            assert other["peakFrame"] == event.peak_frame
            assert other["mean"] == pytest.approx(event.mean, abs=1e-9)
    assert n_events > 500


def test_the_page_compares_as_float32():
    # As float64, 0.7 is above float32's nearest number, which is 0.699999988.
    scores = Scores(np.array([0.7], np.float32), 1, np.array([0.0]))
    ((event,),) = events_of_the_page([(scores, EventRule(0.7))])
    assert (event["startFrame"], event["stopFrame"]) == (0, 1)


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ({"context": 0.2, "motion": 0.8}, "rests on context"),
        ({"context": 0.8, "motion": 0.1}, "rests on motion"),
        ({"context": 0.2, "motion": 0.4}, "rests on context and motion"),
        ({"context": 0.85, "motion": 0.95}, "rests on no part alone"),
        ({}, ""),
    ],
)
def test_an_event_says_which_part_of_the_model_its_peak_rests_on(without, words):
    values = {name: np.array([0, score], np.float32) for name, score in without.items()}
    scores = Scores(np.array([0, 0.9], np.float32), 1, np.arange(2.0), without=values)
    ((event,),) = events_of_the_page([(scores, EventRule(0.5))])
    assert event["without"] == pytest.approx(without)
    assert event["words"] == words
