"""What all pages share: one HTML file each, with style and pictures inside, that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from vision.utils.files import write_text

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.4rem; } h3 { font-size: 1.05rem; margin-top: 1.6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .45rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff;
  min-width: 5.5rem; max-width: 14rem; overflow-wrap: break-word; }
tr.total td { font-weight: 600; border-top: 2px solid #666; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.6rem 0; }
.figures div { border: 1px solid #ccc; border-radius: .5rem; padding: .5rem 1rem; min-width: 7rem; }
.figures b { display: block; font-size: 1.4rem; line-height: 1.3; }
.wide { overflow-x: auto; margin: 1.2rem 0; } img { display: block; max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem; margin: 1.2rem 0; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; } li { overflow-wrap: anywhere; }
summary { cursor: pointer; } ul { padding-left: 1.2rem; }
@media (max-width: 44rem) {
  body { margin: 1rem auto; } dl { grid-template-columns: minmax(0, 1fr); } dd { margin-bottom: .5rem; }
  .figures { gap: .6rem; } .figures div { padding: .3rem .7rem; min-width: 5.5rem; }
  th, td { padding: .25rem .5rem; } th:first-child, td:first-child { max-width: 7rem; }
  .wide img { max-width: none; width: max(100%, min(60rem, var(--width))); }
}
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
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
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
    """Lay out a few figures by their names, large; a figure may have several lines."""
    values = {name: "<br>".join(map(escape, value.split("\n"))) for name, value in figures.items()}
    cells = "".join(f"<div>{escape(name)}<b>{value}</b></div>" for name, value in values.items())
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
    """Put an encoded picture in; on a narrow screen it is scrolled sideways, instead of being too small to read."""
    with Image.open(io.BytesIO(content)) as image:
        width = image.width
    data = base64.b64encode(content).decode()
    return (
        f'<div class="wide"><img alt="{escape(alt)}" style="--width: {width}px" src="data:image/{kind};base64,{data}">'
        "</div>"
    )
