"""Reading and writing beside computing: the same values in the same order, and nothing that goes wrong is lost."""

import threading

import pytest

from vision.utils.prefetch import WriteBehind, read_ahead
from vision.utils.timer import Stages


def test_values_come_in_order_from_another_thread():
    threads = set()

    def values():
        for number in range(20):
            threads.add(threading.current_thread())
            yield number

    assert list(read_ahead(values())) == list(range(20))
    assert len(threads) == 1
    assert threads != {threading.current_thread()}
    assert list(read_ahead([])) == []
    assert list(read_ahead([None, None])) == [None, None]


def test_so_many_are_made_ahead_and_no_more():
    made, may_go_on = [], threading.Event()

    def values():
        for number in range(10):
            made.append(number)
            if number == 3:
                may_go_on.set()
            yield number

    ahead = read_ahead(values(), depth=3)
    assert next(ahead) == 0
    assert may_go_on.wait(10), "three more are made while the first is looked at"
    assert next(ahead) == 1
    ahead.close()
    assert made in ([0, 1, 2, 3], [0, 1, 2, 3, 4])


def test_what_is_raised_in_reading_comes_in_its_place():
    def values():
        yield 1
        raise KeyError("two")

    ahead = read_ahead(values(), depth=4)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="two"):
        next(ahead)


def test_writing_is_done_in_order_when_the_block_ends():
    written, begin = [], threading.Event()

    def write(number: int) -> None:
        begin.wait(10)
        written.append((number, threading.current_thread()))

    with WriteBehind(write, depth=3) as write_soon:
        for number in range(3):
            write_soon(number)
        assert written == []
        begin.set()
        for number in range(3, 8):
            write_soon(number)
    assert [number for number, _ in written] == list(range(8))
    assert threading.current_thread() not in {thread for _, thread in written}


def test_what_is_raised_in_writing_comes_out():
    def fail(number: int) -> None:
        raise OSError(f"disk full at {number}")

    with pytest.raises(OSError, match="disk full at 0"), WriteBehind(fail) as write_soon:
        for number in range(10):
            write_soon(number)
    with pytest.raises(OSError, match="disk full at 5"), WriteBehind(fail) as write_soon:
        write_soon(5)
    with pytest.raises(ValueError, match="mine"), WriteBehind(fail) as write_soon:
        write_soon(5)
        raise ValueError("mine")


def test_stages_note_each_pass():
    stages = Stages()
    for _ in stages.each("read", [1, 2]):
        with stages("run"):
            pass
    assert {stage: len(times) for stage, times in stages.seconds.items()} == {"read": 2, "run": 2}
    assert min(map(min, stages.seconds.values())) >= 0
    with pytest.raises(KeyError), stages("run"):
        raise KeyError
    assert len(stages.seconds["run"]) == 2, "a pass that failed does not count"
