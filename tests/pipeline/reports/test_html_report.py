"""The HTML report: what is in the file, and what cannot get into it."""

import base64
import io
import re
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from extractors.decoding.seeking import StreamKind
from models.clav_como import ClavComo, ClavComoConfig
from pipeline.reports import html_player
from pipeline.reports.html_player import is_playable
from pipeline.reports.html_report import (
    Mistakes,
    RunFacts,
    describe_run,
    find_mistakes,
    write_report,
)
from pipeline.runs.checkpoints import Checkpoint
from pipeline.scoring.events import EventRule
from pipeline.scoring.frame_scores import Scores

HOSTILE = 'a"<img src=x onerror=alert(1)>.mp4'


@pytest.fixture
def report(tmp_path, counting_clip, scores, run_facts, read_page):
    """The page of a report about the counting clip."""
    write_report(tmp_path / "report.html", counting_clip, scores, run_facts)
    return read_page(tmp_path / "report.html")


def test_the_report_names_the_video_its_length_and_the_run(report):
    assert report.texts["h1"] == ["counting.mp4"]
    assert report.texts["p"][0] == "0:01.6 · 40 frames · 25 fps"
    assert report.texts["dt"] == ["Model", "Trained on", "extractor"]
    assert report.texts["dd"] == ["la-net", "cameras", "i3d"]


def test_random_weights_are_said_at_the_head(report):
    assert "random weights: not pretrained" in report.texts["p"]


def test_a_report_without_a_warning_has_no_note(
    tmp_path, counting_clip, scores, run_facts, read_page
):
    trained = RunFacts(run_facts.facts, run_facts.provenance, note="")
    write_report(tmp_path / "report.html", counting_clip, scores, trained)
    notes = [a for _, a in read_page(tmp_path / "report.html").elements if a.get("class") == "note"]
    assert len(notes) == 1  # the one that asks for JavaScript


def test_nothing_is_loaded_from_outside(report):
    addresses = [a[key] for _, a in report.elements for key in ("src", "href", "data") if key in a]
    assert addresses == []  # the video and the thumbnails are in the page's data
    assert "@import" not in report.html
    assert not re.search(r"url\(", report.html)
    (policy,) = [a["content"] for _, a in report.elements if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy
    assert "unsafe" not in policy


def test_the_report_is_small(tmp_path, counting_clip, scores, run_facts):
    write_report(tmp_path / "report.html", counting_clip, scores, run_facts)
    assert (tmp_path / "report.html").stat().st_size < 300_000


def test_the_report_of_a_day_of_changing_scores_is_below_6_megabytes(
    tmp_path, counting_clip, run_facts
):
    n_frames = 24 * 3600 * 25
    per_frame = np.random.default_rng(0).random(n_frames).astype(np.float32)
    scores = Scores(per_frame, 1, np.arange(n_frames) / 25)
    write_report(tmp_path / "report.html", counting_clip, scores, run_facts)
    assert (tmp_path / "report.html").stat().st_size < 6_000_000


def test_a_small_video_is_inside_byte_for_byte(report, counting_clip):
    assert report.by_id("video") is not None
    found = re.search(r'data-type="video/mp4">([^<]*)</script>', report.html)
    assert base64.b64decode(found[1]) == counting_clip.read_bytes()


def test_a_large_video_is_linked_relative_to_the_report(
    tmp_path, counting_clip, scores, run_facts, read_page, monkeypatch
):
    monkeypatch.setattr(html_player, "MAX_EMBEDDED_BYTES", 100)
    video = tmp_path / "day 1" / "camera:3 #ü?.mp4"
    video.parent.mkdir()
    video.write_bytes(counting_clip.read_bytes())
    write_report(tmp_path / "reports" / "one.html", video, scores, run_facts)
    page = read_page(tmp_path / "reports" / "one.html")
    assert page.by_id("video")["src"] == "../day%201/camera%3A3%20%23%C3%BC%3F.mp4"
    assert unquote(page.by_id("video")["src"]) == "../day 1/camera:3 #ü?.mp4"
    assert page.by_id("video-data") is None


@pytest.mark.parametrize("limit", [100, 10**9])
def test_a_hostile_file_name_is_only_text(
    tmp_path, counting_clip, scores, run_facts, read_page, monkeypatch, limit
):
    monkeypatch.setattr(html_player, "MAX_EMBEDDED_BYTES", limit)
    video = tmp_path / HOSTILE
    video.write_bytes(counting_clip.read_bytes())
    write_report(tmp_path / "report.html", video, scores, run_facts)
    page = read_page(tmp_path / "report.html")
    assert page.texts["h1"] == [HOSTILE]
    assert page.texts["title"] == [f"{HOSTILE}: anomaly scores"]
    assert [a for tag, a in page.elements if tag == "img"] == [
        {"id": "still-image", "alt": "The nearest thumbnail"}
    ]
    assert not any("onerror" in attributes for _, attributes in page.elements)


def test_a_hostile_dataset_name_is_only_text(tmp_path, counting_clip, scores, read_page):
    run = RunFacts((("Trained on", "</dd><script>alert(1)</script>"),), (), "<b>note</b>")
    write_report(tmp_path / "report.html", counting_clip, scores, run)
    page = read_page(tmp_path / "report.html")
    assert page.texts["dd"] == ["</dd><script>alert(1)</script>"]
    assert len([1 for tag, attributes in page.elements if tag == "script" and not attributes]) == 1
    assert not any(tag == "b" for tag, _ in page.elements)


def test_the_thumbnails_show_their_frames(report, read_number):
    thumbnails = report.data["thumbnails"]
    assert {8, 32} <= {thumbnail["frame"] for thumbnail in thumbnails}  # the peaks of the events
    for thumbnail in thumbnails:
        assert thumbnail["seconds"] == thumbnail["frame"] / 25
        jpeg = base64.b64decode(thumbnail["src"].removeprefix("data:image/jpeg;base64,"))
        assert read_number(np.asarray(Image.open(io.BytesIO(jpeg)))) == thumbnail["frame"]


def test_the_slider_begins_at_the_threshold_of_the_rule(
    tmp_path, counting_clip, scores, run_facts, read_page
):
    ruled = replace(scores, rule=EventRule(0.37, merge_seconds=2.5, min_seconds=0.5))
    write_report(tmp_path / "report.html", counting_clip, ruled, run_facts)
    page = read_page(tmp_path / "report.html")
    assert page.by_id("threshold")["value"] == "0.37"
    assert page.data["rule"] == {
        "threshold": 0.37,
        "releaseFraction": 0.8,
        "mergeSeconds": 2.5,
        "minSeconds": 0.5,
    }


def test_labels_are_stored_in_seconds(tmp_path, counting_clip, scores, run_facts, read_page):
    truth = [(5, 10), (30, 40)]
    write_report(tmp_path / "report.html", counting_clip, scores, run_facts, truth=truth)
    assert read_page(tmp_path / "report.html").data["truth"] == [[0.2, 0.4], [1.2, 1.6]]


def test_the_summary_has_what_an_index_shows(tmp_path, counting_clip, scores, run_facts):
    summary = write_report(tmp_path / "report.html", counting_clip, scores, run_facts)
    assert (summary.name, summary.seconds) == ("counting.mp4", pytest.approx(1.6))
    assert [(event.start_frame, event.stop_frame) for event in summary.events] == [(8, 40)]
    assert summary.peak == summary.badness == pytest.approx(0.9)
    assert summary.thumbnail.frame == 8


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ([(8, 16)], Mistakes(miss=0.1, false_alarm=0.6)),
        ([(8, 16), (24, 30)], Mistakes(miss=0.8, false_alarm=0.6)),
        ([], Mistakes(miss=0.0, false_alarm=0.9)),
        ([(0, 40)], Mistakes(miss=0.1, false_alarm=0.0)),
    ],
)
def test_mistakes_are_the_worst_miss_and_the_worst_false_alarm(scores, truth, expected):
    found = find_mistakes(scores, truth)
    assert found.miss == pytest.approx(expected.miss)
    assert found.false_alarm == pytest.approx(expected.false_alarm)


def test_a_codec_that_browsers_cannot_play_gets_thumbnails_and_says_so(
    tmp_path, write_clip, scores, run_facts, read_page
):
    video = write_clip(tmp_path / "old.avi", codec="mpeg4", options={})
    write_report(tmp_path / "report.html", video, scores, run_facts)
    page = read_page(tmp_path / "report.html")
    assert page.by_id("video") is None
    assert "Browsers cannot play mpeg4 in avi" in " ".join(page.texts["p"])
    assert len(page.data["thumbnails"]) > 10


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (StreamKind("mov,mp4,m4a,3gp,3g2,mj2", "h264", "yuv420p"), True),
        (StreamKind("mov,mp4,m4a,3gp,3g2,mj2", "h264", "yuv422p10le"), False),
        (StreamKind("mov,mp4,m4a,3gp,3g2,mj2", "mpeg4", "yuv420p"), False),
        (StreamKind("matroska,webm", "vp9", "yuv420p10le"), True),
        (StreamKind("avi", "h264", "yuv420p"), False),
        (StreamKind("mpegts", "h264", "yuv420p"), False),
    ],
)
def test_playable_is_what_browsers_play(kind, expected):
    assert is_playable(kind) is expected


def test_a_run_is_described_by_its_checkpoint():
    config = ClavComoConfig()
    provenance = {"extractor": "i3d", "flow_method": "dis", "crops": 5, "is_pretrained": False}
    checkpoint = Checkpoint(ClavComo(config), "clav-como", provenance, "cameras", seed=3, step=400)
    run = describe_run(checkpoint)
    assert dict(run.facts) == {
        "Model": "clav-como",
        "Trained on": "cameras, 400 steps, seed 3",
        "Features": "i3d, random weights: not pretrained",
        "Optical flow": "dis",
        "Crops per frame": "5",
    }
    assert ("is_pretrained", "False") in run.provenance
    assert run.note == "random weights: not pretrained"


@pytest.mark.parametrize(
    ("provenance", "weights", "note"),
    [
        ({"is_pretrained": True}, "pretrained weights", ""),
        ({}, "weights not known to be pretrained", "weights not known to be pretrained"),
    ],
)
def test_a_report_says_what_is_known_of_the_weights(provenance, weights, note):
    model = ClavComo(ClavComoConfig())
    run = describe_run(Checkpoint(model, "clav-como", provenance, "cameras", seed=3, step=400))
    assert dict(run.facts)["Features"] == f"unknown, {weights}"
    assert run.note == note


def test_a_report_that_cannot_be_made_leaves_nothing(tmp_path, scores, run_facts):
    video = tmp_path / "gone.mp4"
    with pytest.raises(OSError, match=r"gone\.mp4"):
        write_report(tmp_path / "report.html", video, scores, run_facts)
    assert list(tmp_path.iterdir()) == []
