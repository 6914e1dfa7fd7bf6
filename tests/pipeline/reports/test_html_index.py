"""The index of reports: the worst first, links that lead to the reports, names that are text."""

from urllib.parse import unquote

import numpy as np
import pytest

from pipeline.reports.html_index import write_index
from pipeline.reports.html_report import write_report
from pipeline.scoring.frame_scores import Scores


@pytest.fixture
def summarize(tmp_path, counting_clip, run_facts):
    """A function that writes the report of a video with a name and a highest score."""

    def write(name, peak, truth=None):
        video = tmp_path / "videos" / name
        video.parent.mkdir(exist_ok=True)
        video.write_bytes(counting_clip.read_bytes())
        scores = Scores(np.array([0.1, peak, 0.2], np.float32), 16, np.arange(40) / 25)
        index = tmp_path / "index.html"
        path = tmp_path / "reports" / f"{name}.html"
        return write_report(path, video, scores, run_facts, truth=truth, index=index)

    return write


def links(page):
    return [attributes["href"] for tag, attributes in page.elements if tag == "a"]


def test_videos_without_labels_are_ordered_by_their_highest_score(
    tmp_path, summarize, run_facts, read_page
):
    summaries = [summarize("low.mp4", 0.3), summarize("high.mp4", 0.9), summarize("mid.mp4", 0.6)]
    write_index(tmp_path / "index.html", "cameras", summaries, run_facts)
    page = read_page(tmp_path / "index.html")
    assert page.texts["strong"] == ["high.mp4", "mid.mp4", "low.mp4"]
    assert "3 videos · 0:04.8 · 2 events" in page.texts["p"]
    assert "Highest score first." in page.texts["p"]
    assert [text for text in page.texts["span"] if text.startswith("0.")] == [
        "0.90",
        "0.60",
        "0.30",
    ]


def test_videos_with_labels_are_ordered_by_their_largest_mistake(
    tmp_path, summarize, run_facts, read_page
):
    summaries = [
        summarize("right.mp4", 0.9, truth=[(16, 32)]),
        summarize("missed.mp4", 0.3, truth=[(16, 32)]),
        summarize("false alarm.mp4", 0.8, truth=[]),
    ]
    write_index(tmp_path / "index.html", "cameras", summaries, run_facts)
    page = read_page(tmp_path / "index.html")
    assert page.texts["strong"] == ["false alarm.mp4", "missed.mp4", "right.mp4"]
    assert "miss 0.70" in page.texts["span"]
    assert "false alarm 0.80" in page.texts["span"]
    assert sum(attributes.get("class") == "truth-band" for _, attributes in page.elements) == 2


def test_the_links_lead_to_the_reports_and_back(tmp_path, summarize, run_facts, read_page):
    summaries = [summarize("camera 1%.mp4", 0.9)]
    write_index(tmp_path / "index.html", "cameras", summaries, run_facts)
    (link,) = links(read_page(tmp_path / "index.html"))
    report = tmp_path / unquote(link)
    assert report.is_file()
    assert links(read_page(report)) == ["../index.html"]


def test_hostile_names_are_only_text(tmp_path, summarize, run_facts, read_page):
    name = 'a"<img src=x onerror=alert(1)>.mp4'
    write_index(tmp_path / "index.html", f"<b>{name}</b>", [summarize(name, 0.5)], run_facts)
    page = read_page(tmp_path / "index.html")
    assert page.texts["strong"] == [name]
    assert page.texts["h1"] == [f"<b>{name}</b>"]
    assert [a["alt"] for tag, a in page.elements if tag == "img"] == [""]
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert not any(tag == "script" for tag, _ in page.elements)


def test_an_index_of_nothing_says_so(tmp_path, run_facts, read_page):
    write_index(tmp_path / "index.html", "cameras", [], run_facts)
    assert "0 videos · 0:00.0 · 0 events" in read_page(tmp_path / "index.html").texts["p"]
