"""Class names in any script: fonts that have the letters are used, and what none has is said in one line."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib import get_data_path

from vision.report import fonts
from vision.report.drawing import draw_boxes
from vision.report.plots import figure_file

FOLDER = Path(get_data_path()) / "fonts" / "ttf"
#: Of matplotlib: mathematics only, and many scripts.
NARROW, WIDE = (str(FOLDER / name) for name in ("cmr10.ttf", "DejaVuSans.ttf"))


@pytest.fixture(autouse=True)
def nothing_said_yet():
    fonts.say_missing.cache_clear()
    fonts._font_with.cache_clear()


def test_the_first_fonts_that_have_the_letters_are_chosen():
    assert fonts.fonts_for("cat", [NARROW, WIDE]) == ([NARROW], set())
    assert fonts.fonts_for("cat \u0436", [NARROW, WIDE]) == ([NARROW, WIDE], set())
    assert fonts.fonts_for("\u0436", [NARROW, WIDE]) == ([WIDE], set())
    assert fonts.fonts_for("\u0436 \u732b", [str(FOLDER / "none.ttf"), NARROW, WIDE]) == ([WIDE], {"\u732b"})


@pytest.mark.parametrize(("name", "is_said"), [("\u0447\u0430\u0448\u043a\u0430", False), ("\u732b", True)])
def test_plots_have_names_in_any_script(tmp_path, monkeypatch, caplog, name, is_said):
    monkeypatch.setattr(fonts, "system_fonts", lambda: (WIDE, NARROW))
    with caplog.at_level("INFO"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(2):
            with figure_file(tmp_path / f"{number}.png", 3, 2) as figure:
                figure.subplots().bar([name, "cat"], [1, 2])
    assert caplog.text.count("no font here has all letters of '\u732b'") == is_said
    assert (tmp_path / "1.png").stat().st_size > 1000


def test_captions_have_names_in_any_script(monkeypatch, caplog):
    def drawn(caption: str) -> np.ndarray:
        return draw_boxes(
            np.zeros((200, 300, 3), np.uint8), np.float32([[20, 80, 280, 180]]), [(255, 255, 0)], [caption]
        )

    monkeypatch.setattr(fonts, "system_fonts", lambda: (NARROW, WIDE))
    cyrillic, other = drawn("\u0436\u0436\u0436"), drawn("\u0448\u0448\u0448")
    label = np.abs(cyrillic.astype(int) - other).max(axis=2) > 100
    assert label.sum() > 20, "letters, not the same question mark for each"
    rows, columns = np.nonzero(label)
    assert rows.max() < 85
    assert columns.min() >= 20
    assert caplog.text == ""
    with caplog.at_level("INFO"):
        for number in range(3):
            drawn(f"\u732b 0.9{number}")
    assert caplog.text.count("no font here has all letters of '\u732b'") == 1
    monkeypatch.setattr(fonts, "system_fonts", lambda: ())
    assert np.array_equal(drawn("cat"), drawn("cat")), "plain names need no font"
