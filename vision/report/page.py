"""What all pages share: one HTML file each, with style and pictures inside, that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from vision.utils.files import write_text

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
tr.total td { font-weight: 600; border-top: 2px solid #666; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
.figures div { border: 1px solid #ccc; border-radius: .5rem; padding: .5rem 1rem; min-width: 7rem; }
.figures b { display: block; font-size: 1.5rem; }
.wide { overflow-x: auto; } img { max-width: 100%; height: auto; }
.key span { display: inline-block; padding: 0 .5rem; margin-right: .7rem; border: 3px solid; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; } li { overflow-wrap: anywhere; }
"""


def write_html(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page.

    Args:
        path: of the .html file.
        title: its heading.
        parts: HTML below that.
    """
    write_text(
        path,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join([f"<h1>{escape(title)}</h1>", *parts])
        + "\n</body></html>\n",
    )


def facts_list(facts: Mapping[str, str]) -> str:
    """Lay out facts by their names."""
    return (
        "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()) + "</dl>"
    )


def figure_boxes(figures: Mapping[str, str]) -> str:
    """Lay out a few figures by their names, large."""
    cells = "".join(f"<div>{escape(name)}<b>{escape(value)}</b></div>" for name, value in figures.items())
    return f'<div class="figures">{cells}</div>'


def table(rows: Iterable[Sequence[str]], total: bool = False) -> str:
    """Lay out a table whose first row is its head, and whose last is that of all."""
    head, *body = ([escape(cell) for cell in row] for row in rows)
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    for number, row in enumerate(body, start=1):
        kind = ' class="total"' if total and number == len(body) else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return '<div class="wide"><table>' + "\n".join(lines) + "</table></div>"


def picture(path: Path, alt: str) -> str:
    """Put a PNG or JPEG file in."""
    kind = {".png": "png", ".jpg": "jpeg"}[path.suffix]
    return picture_of(path.read_bytes(), kind, alt)


def picture_of(content: bytes, kind: str, alt: str) -> str:
    """Put an encoded picture in."""
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'
