"""Writes the table of options in docs/options.md: `python3 -m vision.options.page`."""

from __future__ import annotations

from pathlib import Path

from vision.options.fields import quote_options, table_rows
from vision.options.training import GROUPS
from vision.utils.files import write_text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "options.md"

#: The table stands between these lines.
BEGIN = "<!-- options of train_ssd.py, written by `make options-page` -->"
END = "<!-- end of the options -->"


def table() -> str:
    """Return the options of train_ssd.py as a table in Markdown."""
    lines = ["| option | default | |", "|---|---|---|"]
    for values in GROUPS:
        title, _, note = values.group.partition(" (")
        lines.append(_row(f"**{title}**", "", quote_options(note.removesuffix(")"))))
        lines += [_row(*cells) for cells in table_rows(values)]
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def updated(text: str) -> str:
    """Return the page with the table as the options are now.

    Args:
        text: of the page, with the lines `BEGIN` and `END`.
    """
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def main() -> None:
    """Write the table."""
    write_text(PAGE, updated(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
