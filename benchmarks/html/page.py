"""The page itself: sections of tables, figures and notes, turned into one HTML file that needs nothing else.

What stands in a block came from files that a teacher, a user or a stranger's model may have written, so the template
escapes all of it; only figures, which this package draws, go in as they are. The page's own policy forbids scripts and
requests, so that a mistake here would show as something missing and not as something fetched. Every figure carries its
message in words, and every table has headers, for readers who do not see them. Not covered: pages in other languages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar

from jinja2 import Environment, StrictUndefined, Template


@dataclass(frozen=True)
class Table:
    """Rows under headers. The first cell of a row names it; `right` numbers the columns of figures."""

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Iterable[int] = ()
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A drawing and what it says in words; `svg` is empty where nothing can draw."""

    kind: ClassVar[str] = "figure"
    title: str
    svg: str
    words: str


@dataclass(frozen=True)
class Note:
    """A paragraph; `warning` for what a reader must not miss."""

    kind: ClassVar[str] = "note"
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Text:
    """Text to be shown as it is, folded away under its title."""

    kind: ClassVar[str] = "text"
    title: str
    text: str


Block = Table | Figure | Note | Text


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; `name` is its anchor."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole report. `facts` are the few figures at its head: (what, value, remark)."""

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str, str]]
    sections: Sequence[Section]


@cache
def _template() -> tuple[Template, str]:
    folder = resources.files("bridge_edge.benchmarks.html")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    return template, (folder / "style.css").read_text(encoding="utf-8")


def render(page: Page) -> str:
    """The page as HTML; sections and tables without content are left out."""
    kept = []
    for section in page.sections:
        blocks = [b for b in section.blocks if not (isinstance(b, Table) and not b.rows)]
        if blocks:
            kept.append(Section(section.name, section.title, blocks))
    template, style = _template()
    return template.render(page=page, sections=kept, style=style) + "\n"
