"""Self-contained HTML pages: templates, inlined scripts and styles, and what a page may load."""

import base64
import hashlib
import os
from functools import cache
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.outputs import resolved, write_output


def write_page(
    path: Path,
    template: str,
    *,
    scripts: tuple[str, ...],
    styles: tuple[str, ...],
    **values: object,
) -> None:
    """Render a template and write it as a page that loads nothing from the network.

    Args:
        path: The HTML file, which appears whole or not at all.
        template: A file of `assets/`. Besides the values it gets `script`, `style` and `policy`.
        scripts: Files of `assets/`, run in this order.
        styles: Files of `assets/`.
        **values: What the template shows; texts are escaped.

    Raises:
        OSError: If the page cannot be written.
    """
    script, style = ("\n".join(map(read_asset, names)) for names in (scripts, styles))
    page = (
        _environment()
        .get_template(template)
        .render(policy=_policy(script, style), script=Markup(script), style=Markup(style), **values)
    )
    write_output(path, page.encode("utf-8"))


def relative_href(target: Path, page: Path) -> str:
    """The address of a file as seen from a page; every character that could mean more is quoted."""
    folder = resolved(page).parent
    return quote(os.fsencode(os.path.relpath(resolved(target), folder)))


def format_seconds(seconds: float) -> str:
    """A duration as minutes and seconds, with hours where there are any.

    >>> format_seconds(9.26), format_seconds(3725)
    ('0:09.3', '1:02:05.0')
    """
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{rest // 10:02d}.{rest % 10}"


def format_count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> format_count(1, "event"), format_count(1234, "event")
    ('1 event', '1,234 events')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


@cache
def read_asset(name: str) -> str:
    """The text of a file of `assets/`."""
    return resources.files("pipeline.reports").joinpath("assets", name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """A content security policy under which nothing but the page's own parts is loaded or run."""
    return (
        f"default-src 'none'; script-src {_hash_source(script)}; style-src {_hash_source(style)}; "
        "img-src data:; media-src 'self' file: blob:"
    )


def _hash_source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline.reports", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
