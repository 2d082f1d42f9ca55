"""What libraries in C say on standard error: caught with its file, and nothing else is lost."""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from conftest import ROOT

from vision.datasets.images import read_image, try_decoding
from vision.structures import DataError
from vision.utils.native_words import catch_words

WORDS = re.compile(rb"bad: [^\n]*\n?")


def say(text):
    return lambda: os.write(2, text)


def test_what_is_caught_is_not_shown_and_all_else_is(capfd):
    assert catch_words(say(b"10%|bad: one\nbad: two\nnext"), WORDS) == (26, "bad: one")
    assert catch_words(say(b"hello"), WORDS) == (5, "")
    assert catch_words(lambda: 7, WORDS) == (7, "")
    assert capfd.readouterr().err == "10%|nexthello"


def test_more_than_a_pipe_holds_is_no_reason_to_wait():
    done, words = catch_words(lambda: [attempt(b"bad: x\n" * 1000) for _ in range(40)], WORDS)
    assert (len(done), words) == (40, "bad: x")


def attempt(text):
    try:
        return os.write(2, text)
    except BlockingIOError:
        return 0


def test_standard_error_is_as_before_after_an_exception(capfd):
    with pytest.raises(ZeroDivisionError):
        catch_words(lambda: os.write(2, b"bad: x") // 0, WORDS)
    assert catch_words(lambda: 7, WORDS) == (7, ""), "what the call before said is not of this one"
    os.write(2, b"as before")
    assert capfd.readouterr().err == "as before"


def test_without_standard_error_words_are_caught_all_the_same():
    code = (
        "import os, re\n"
        "from vision.utils.native_words import catch_words\n"
        "os.close(2); os.close(0)\n"
        "for _ in range(2): print(catch_words(lambda: os.write(2, b'bad: x'), re.compile(b'bad: .*')))\n"
        "print([os.readlink(f'/proc/self/fd/{number}') for number in (0, 2)])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "(6, 'bad: x')\n" * 2 + "['/dev/null', '/dev/null']\n", "and never a file of the run's"


def test_a_process_that_is_forked_meanwhile_does_not_wait(capfd):
    def fork():
        child = os.fork()
        if not child:
            os._exit(catch_words(say(b"bad: child"), WORDS) != (10, "bad: child"))
        return os.waitpid(child, 0)[1]

    assert catch_words(fork, WORDS) == (0, "")


def test_threads_never_share_words():
    def decode(number):
        text = f"bad: {number}\n".encode() if number % 3 == 0 else b""
        return number, catch_words(lambda: (text and os.write(2, text), time.sleep(0.001)), WORDS)[1]

    with ThreadPoolExecutor(8) as pool:
        for number, words in pool.map(decode, range(60)):
            assert words == (f"bad: {number}" if number % 3 == 0 else "")


@pytest.fixture
def jpeg():
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8), (9, 9), 3)
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.mark.parametrize("reduction", [1, 2, 8])
def test_a_jpeg_that_ends_early_is_named_instead_of_shown(jpeg, tmp_path, capfd, reduction):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg[: len(jpeg) // 2] + b"\xff\xd9")
    error = "truncated or damaged within (Corrupt JPEG data: premature end of data segment)"
    with pytest.raises(DataError) as refused:
        read_image(path, reduction=reduction)
    assert str(refused.value) == f"{path}: {error}; replace the file or take it out of the dataset"
    assert try_decoding(path) == (error, None, "")
    assert capfd.readouterr().err == ""


def test_bytes_that_belong_to_nothing_are_a_doubt(jpeg, tmp_path, capfd):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg[:-2] + bytes(40) + jpeg[-2:])
    (tmp_path / "whole.jpg").write_bytes(jpeg)
    np.testing.assert_array_equal(read_image(path), read_image(tmp_path / "whole.jpg"))
    error, doubt, _ = try_decoding(path)
    assert error is None
    assert re.fullmatch(r"Corrupt JPEG data: \d+ extraneous bytes before marker 0xd9", doubt)
    assert try_decoding(tmp_path / "whole.jpg")[:2] == (None, None)
    assert capfd.readouterr().err == ""


def test_a_damaged_png_says_nothing_on_its_own(jpeg, tmp_path, capfd):
    content = cv2.imencode(".png", cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1))[1].tobytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.png: truncated"):
        read_image(tmp_path / "a.png")
    assert capfd.readouterr().err == ""
