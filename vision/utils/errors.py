"""Errors as people read them."""

from __future__ import annotations


def error_line(err: BaseException) -> str:
    """One line; of an error that a loader's worker wrapped in its traceback, the line that counts."""
    if isinstance(err, OSError) and err.filename:
        return f"{err.filename}: {err.strerror}"
    if isinstance(err, UnicodeEncodeError):  # of names of files alone: their contents are UTF-8, the output is escaped
        lacking = err.object[err.start : err.end]
        if "utf" in err.encoding:  # no locale helps; the name may stand in a whole file's text
            line = err.object[: err.start].rpartition("\n")[2] + err.object[err.start :].partition("\n")[0]
            return f"{line.strip()}: the name of this file has bytes that are not UTF-8 ({lacking!r}); rename the file"
        return (
            f"{err.object}: no name of a file in this locale, whose encoding, {err.encoding}, lacks {lacking!r}; set "
            "PYTHONUTF8=1, or a locale with UTF-8 such as LC_ALL=C.UTF-8"
        )
    text = str(err).strip()
    if "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
