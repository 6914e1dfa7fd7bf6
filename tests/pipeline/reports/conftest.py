"""Fixtures of the tests of reports: a page that can be read, and what is written into one."""

import json
import re
from html.parser import HTMLParser

import pytest

from pipeline.reports.html_report import RunFacts


@pytest.fixture
def run_facts():
    """A run with random weights."""
    note = "random weights: not pretrained"
    return RunFacts((("Model", "la-net"), ("Trained on", "cameras")), (("extractor", "i3d"),), note)


@pytest.fixture
def read_page():
    """A function that reads a page."""
    return lambda path: Page(path.read_text(encoding="utf-8"))


class Page(HTMLParser):
    """The elements of a page: (tag, attributes), and the text by tag."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.html = html
        self.elements, self.texts, self._open = [], {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def by_id(self, name):
        return next((attrs for _, attrs in self.elements if attrs.get("id") == name), None)

    @property
    def data(self):
        found = re.search(r'id="report-data">(.*?)</script>', self.html, re.DOTALL)
        return json.loads(found[1])
