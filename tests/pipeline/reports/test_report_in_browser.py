"""The report in a browser: it loads alone, seeks, follows the video, and finds events by slider."""

import contextlib
import re
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import Error, expect, sync_playwright

from extractors.decoding.frame_folder import FrameFolder
from pipeline.reports import html_player
from pipeline.reports.html_index import write_index
from pipeline.reports.html_report import write_report
from pipeline.scoring.events import EventRule, describe_events
from pipeline.scoring.frame_scores import Scores

pytestmark = pytest.mark.slow

HOSTILE = 'a"<img src=x onerror=alert(1)>.mp4'
# Debian's and Google's; Playwright's own browser is taken where it is installed.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    installed = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            # Without a sandbox, which a browser cannot have as root. It opens only our own files.
            opened = playwright.chromium.launch(
                executable_path=installed,
                args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
            )
        except Error as error:
            if installed is None:
                pytest.skip(f"no Chromium is installed ({', '.join(BROWSERS)})")
            raise error
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    """A function that opens a file and returns its page; at the end nothing may have gone wrong."""
    problems, requests, contexts = [], [], []

    def open_file(path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        wait_until(page, "document.readyState === 'complete'")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert problems == []
    outside = [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
    assert outside == []


@pytest.fixture
def long_clip(tmp_path, write_clip):
    """200 frames at 10 fps: 20 seconds."""
    return write_clip(tmp_path / "long.mp4", n_frames=200, fps=10, width=160, height=120)


@pytest.fixture
def long_scores():
    """Ten snippets of 2 seconds: events of 2 to 4 s, 8 to 12 s and 16 to 18 s at 0.5."""
    per_snippet = [0.1, 0.7, 0.1, 0.2, 0.9, 0.8, 0.3, 0.2, 0.55, 0.1]
    return Scores(np.array(per_snippet, np.float32), 20, np.arange(200) / 10)


@pytest.fixture
def report(tmp_path, long_clip, long_scores, run_facts):
    write_report(tmp_path / "report.html", long_clip, long_scores, run_facts)
    return tmp_path / "report.html"


def wait_until(page, condition):
    """Wait until a JavaScript expression is true; the page itself may not evaluate any."""
    deadline = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def wait_for_video(page):
    wait_until(page, "document.getElementById('video').readyState >= 2")


def video_time(page):
    wait_until(page, "!document.getElementById('video').seeking")
    return page.evaluate("document.getElementById('video').currentTime")


def click_curve(page, fraction):
    box = page.locator("#plot .u-over").bounding_box()
    page.mouse.click(box["x"] + box["width"] * fraction, box["y"] + box["height"] / 2)


def set_slider(page, value):
    page.locator("#threshold").fill(str(value))


def playhead_seconds(page):
    return float(page.locator("#plot").get_attribute("aria-valuenow"))


def playhead_x(page):
    return page.locator(".playhead").bounding_box()["x"]


def listed_events(page):
    """The events' times as "start stop" without their minutes, which are 0."""
    texts = page.locator("#event-list strong").all_text_contents()
    return [" ".join(re.findall(r"0:0?(\d+\.\d)", text)) for text in texts]


def test_the_curve_is_drawn_and_the_events_are_listed(open_page, report):
    page = open_page(report)
    wait_for_video(page)
    expect(page.locator("#event-list li")).to_have_count(3)
    assert listed_events(page) == ["2.0 4.0", "8.0 12.0", "16.0 18.0"]
    assert page.locator("#event-list img").count() == 3
    assert page.locator("#event-count").text_content() == "3 events · 0:08.0 in all"
    # The curve and the bands are pixels of a canvas: blue ones and reddish ones.
    is_colored = page.evaluate(
        """() => {
            const canvas = document.querySelector("#plot canvas");
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let blue = 0, red = 0;
            for (let i = 0; i < data.length; i += 4) {
                if (data[i + 3] > 200 && data[i + 2] > data[i] + 100) blue++;
                if (data[i + 3] > 20 && data[i] > data[i + 2] + 100) red++;
            }
            return [blue > 500, red > 500];
        }"""
    )
    assert is_colored == [True, True]


@pytest.mark.parametrize("embedded_bytes", [0, 10**9])
def test_a_click_on_the_curve_seeks_the_video(
    open_page, tmp_path, long_clip, long_scores, run_facts, monkeypatch, embedded_bytes
):
    monkeypatch.setattr(html_player, "MAX_EMBEDDED_BYTES", embedded_bytes)
    write_report(tmp_path / "report.html", long_clip, long_scores, run_facts)
    page = open_page(tmp_path / "report.html")
    wait_for_video(page)
    for fraction in (0.5, 0.9, 0.1):
        click_curve(page, fraction)
        assert video_time(page) == pytest.approx(20 * fraction, abs=0.1)
        assert playhead_seconds(page) == pytest.approx(20 * fraction, abs=0.15)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_preview_of_a_folder_of_frames_plays_and_seeks_also_on_a_phone(
    open_page, tmp_path, long_scores, run_facts, write_frames, scheme
):
    folder = FrameFolder(write_frames(tmp_path / "frames", 200), 10)
    warning = "its features are unlike those that the run was trained on " * 2
    write_report(tmp_path / "report.html", folder, long_scores, run_facts, warning=warning)
    size = {"width": 390, "height": 844}
    page = open_page(tmp_path / "report.html", viewport=size, is_mobile=True, color_scheme=scheme)
    wait_for_video(page)
    assert page.evaluate("document.getElementById('video').duration") == pytest.approx(20, abs=0.1)
    for fraction in (0.5, 0.1):
        click_curve(page, fraction)
        assert video_time(page) == pytest.approx(20 * fraction, abs=0.2)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    # No corner of a note of several lines is rounder than its padding is wide.
    radius = page.evaluate(
        "getComputedStyle([...document.querySelectorAll('header .note')].at(-1)).borderRadius"
    )
    assert float(radius.removesuffix("px")) <= 16


def test_the_playhead_follows_the_video(open_page, report):
    page = open_page(report)
    wait_for_video(page)
    start = playhead_x(page)
    page.evaluate("document.getElementById('video').muted = true")
    page.evaluate("document.getElementById('video').play()")
    wait_until(page, "document.getElementById('video').currentTime > 1.5")
    page.evaluate("document.getElementById('video').pause()")
    page.wait_for_timeout(200)
    assert playhead_seconds(page) == pytest.approx(video_time(page), abs=0.1)
    width = page.locator("#plot .u-over").bounding_box()["width"]
    assert playhead_x(page) - start == pytest.approx(video_time(page) / 20 * width, abs=3)


@pytest.mark.parametrize("threshold", [0.05, 0.25, 0.6, 0.75, 0.95])
def test_the_slider_changes_the_events(open_page, report, long_scores, threshold):
    page = open_page(report)
    set_slider(page, threshold)
    rule = EventRule(threshold)
    expected = describe_events(long_scores.per_frame, long_scores.timestamps, rule)
    expect(page.locator("#event-list li")).to_have_count(len(expected))
    assert listed_events(page) == [f"{e.start_seconds:.1f} {e.stop_seconds:.1f}" for e in expected]
    assert page.locator("#threshold-value").text_content() == f"{threshold:.2f}"


def test_a_click_on_an_event_seeks_its_beginning(open_page, report):
    page = open_page(report)
    wait_for_video(page)
    page.locator("#event-list button").nth(1).click()
    assert video_time(page) == pytest.approx(8.0, abs=0.05)
    expect(page.locator("#event-list li").nth(1)).to_have_attribute("aria-current", "true")


def test_the_report_can_be_used_by_keyboard(open_page, report):
    page = open_page(report)
    wait_for_video(page)
    page.locator("#plot").focus()
    steps = [
        ("ArrowRight", 1.0), ("Shift+ArrowRight", 11.0), ("ArrowLeft", 10.0), ("n", 16.0),
        ("p", 8.0), ("p", 2.0), ("End", 20.0), ("Home", 0.0),
    ]  # fmt: skip
    for key, expected in steps:
        page.keyboard.press(key)
        assert playhead_seconds(page) == pytest.approx(expected, abs=0.11), key
    page.evaluate("document.getElementById('video').muted = true")
    page.keyboard.press("Space")
    wait_until(page, "!document.getElementById('video').paused")
    page.keyboard.press("Space")
    wait_until(page, "document.getElementById('video').paused")
    page.locator("#threshold").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#threshold-value").text_content() == "0.51"


def test_every_control_can_be_reached_by_tab_and_has_a_name(open_page, report):
    page = open_page(report)
    names = page.evaluate(
        """() => [...document.querySelectorAll("button, input, [tabindex='0'], summary")].map(
            (e) => e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent)"""
    )
    assert len(names) >= 11
    assert all(name.strip() for name in names)


def test_a_drag_zooms_and_a_button_shows_the_whole_video_again(open_page, report):
    page = open_page(report)
    wait_for_video(page)
    box = page.locator("#plot .u-over").bounding_box()
    y = box["y"] + 40
    page.mouse.move(box["x"] + box["width"] * 0.4, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=5)
    page.mouse.up()
    assert playhead_seconds(page) == 0  # a drag is no click
    expect(page.locator("#zoom-all")).to_be_enabled()
    click_curve(page, 0.5)
    assert video_time(page) == pytest.approx(10, abs=0.1)
    click_curve(page, 0.75)
    assert video_time(page) == pytest.approx(11, abs=0.1)
    page.locator("#zoom-all").click()
    expect(page.locator("#zoom-all")).to_be_disabled()
    click_curve(page, 0.25)
    assert video_time(page) == pytest.approx(5, abs=0.1)


def test_a_hostile_file_name_is_shown_and_runs_nothing(
    open_page, tmp_path, long_clip, long_scores, run_facts, monkeypatch
):
    monkeypatch.setattr(html_player, "MAX_EMBEDDED_BYTES", 0)
    video = tmp_path / HOSTILE
    video.write_bytes(long_clip.read_bytes())
    write_report(tmp_path / "report.html", video, long_scores, run_facts)
    page = open_page(tmp_path / "report.html")
    wait_for_video(page)  # the link to it works, too
    assert page.locator("h1").text_content() == HOSTILE


def test_a_video_that_the_browser_cannot_play_is_replaced_by_thumbnails(
    open_page, tmp_path, write_clip, scores, run_facts
):
    video = write_clip(tmp_path / "old.avi", codec="mpeg4", options={})
    write_report(tmp_path / "report.html", video, scores, run_facts)
    page = open_page(tmp_path / "report.html")
    expect(page.locator("#still")).to_be_visible()
    expect(page.locator("#still")).to_contain_text("Browsers cannot play mpeg4 in avi")
    before = page.locator("#still-image").get_attribute("src")
    click_curve(page, 0.9)
    assert playhead_seconds(page) == pytest.approx(1.44, abs=0.02)
    assert page.locator("#still-image").get_attribute("src") != before


def test_a_video_that_is_gone_is_replaced_by_thumbnails(
    browser, tmp_path, long_clip, long_scores, run_facts, monkeypatch
):
    monkeypatch.setattr(html_player, "MAX_EMBEDDED_BYTES", 0)
    write_report(tmp_path / "report.html", long_clip, long_scores, run_facts)
    long_clip.unlink()
    with contextlib.closing(browser.new_page()) as page:
        page.goto((tmp_path / "report.html").as_uri())
        expect(page.locator("#still")).to_be_visible()
        expect(page.locator("#video")).to_be_hidden()
        click_curve(page, 0.5)
        assert playhead_seconds(page) == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_phones_and_screens_in_light_and_dark(open_page, report, scheme, width):
    page = open_page(report, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colors = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    background, text = (sum(map(int, color[4:-1].split(", "))) / 3 for color in colors)
    assert (background < 60 and text > 200) if scheme == "dark" else (background > 200 > text)


def test_a_video_of_one_frame_has_a_report(open_page, tmp_path, write_clip, run_facts):
    clip = write_clip(tmp_path / "one.mp4", n_frames=1)
    scores = Scores(np.array([0.7], np.float32), 16, np.array([0.0]))
    write_report(tmp_path / "report.html", clip, scores, run_facts)
    page = open_page(tmp_path / "report.html")
    expect(page.locator("#event-list li")).to_have_count(1)
    click_curve(page, 0.9)
    assert playhead_seconds(page) == pytest.approx(0.036, abs=0.01)
    assert page.locator("header p").first.text_content() == "0:00.0 · 1 frame"


def test_a_day_of_scores_can_be_zoomed_to_a_second(open_page, tmp_path, write_clip, run_facts):
    clip = write_clip(tmp_path / "old.avi", codec="mpeg4", options={})  # stills stand for a day
    per_snippet = np.zeros(135_000, np.float32)
    per_snippet[100_000] = 0.97
    scores = Scores(per_snippet, 16, np.arange(2_160_000) / 25)
    write_report(tmp_path / "report.html", clip, scores, run_facts)
    page = open_page(tmp_path / "report.html")
    expect(page.locator("#event-list li")).to_have_count(1)
    assert page.locator("#event-list strong").text_content().startswith("17:46:40.0")
    page.locator("#event-list button").click()
    for _ in range(15):
        page.locator("#zoom-in").click()
    box = page.locator("#plot .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 5, box["y"] + 20)
    expect(page.locator(".tip")).to_contain_text("17:46:40.0 · score 0.970")


def test_a_tap_on_a_phone_seeks(open_page, report):
    page = open_page(report, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    wait_for_video(page)
    box = page.locator("#plot .u-over").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 30)
    assert video_time(page) == pytest.approx(10, abs=0.2)


def test_the_index_leads_to_the_report_and_back(
    open_page, tmp_path, long_clip, long_scores, run_facts
):
    index = tmp_path / "index.html"
    report = tmp_path / "reports" / "1.html"
    summary = write_report(report, long_clip, long_scores, run_facts, index=index)
    write_index(index, "cameras", [summary], run_facts)
    page = open_page(index)
    page.locator("a.video").click()
    expect(page.locator("#event-list li")).to_have_count(3)
    page.get_by_text("all videos").click()
    expect(page.locator("h1")).to_have_text("cameras")


@pytest.mark.parametrize("width", [390, 1280])
def test_an_event_says_what_its_peak_rests_on(
    tmp_path, long_clip, long_scores, run_facts, open_page, width
):
    halves = {"context": long_scores.per_snippet / 9, "motion": long_scores.per_snippet}
    scores = replace(long_scores, without=halves)
    write_report(tmp_path / "report.html", long_clip, scores, run_facts)
    page = open_page(tmp_path / "report.html", viewport={"width": width, "height": 800})
    first = page.locator("#event-list li").first
    expect(first).to_contain_text("rests on context")
    expect(first).to_contain_text("without context 0.08 · without motion 0.70")
    expect(page.locator("#events .parts")).to_be_visible()


def test_a_model_without_parts_says_nothing_of_them(report, open_page):
    page = open_page(report)
    expect(page.locator("#event-list li").first).not_to_contain_text("rests")
    assert page.locator("#events .parts").count() == 0
