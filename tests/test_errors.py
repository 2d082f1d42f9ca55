"""Errors as people read them."""

import pytest

from vision.utils.errors import error_line


def test_name_that_is_not_utf8_is_one_line_within_a_text():
    text = "<annotation>\n  <filename>\udcff.jpg</filename>\n  <size/>\n</annotation>\n"
    with pytest.raises(UnicodeEncodeError) as caught:
        text.encode("utf-8")
    line = error_line(caught.value)
    assert line.startswith("<filename>\udcff.jpg</filename>: ") and "\n" not in line
    assert line.endswith("rename the file") and "PYTHONUTF8" not in line
