"""Records in columns: each is what the reader yielded, and other processes share them."""

import io
import multiprocessing
import pickle
from multiprocessing.context import set_spawning_popen
from pathlib import Path

import numpy as np
import pytest

from vision.datasets import DetectionDataset
from vision.datasets.packed import Records
from vision.datasets.records import LeftOut, Record
from vision.utils.array_file import ArrayFile, nameless_file, write_arrays

PLACES = ("object 1", "line 10", "07", "annotation 123456789012", "shape b", "0")


def records() -> list[Record]:
    """Images as readers yield them, and as nobody should."""
    return [
        Record(
            "train/été \ud800",
            Path("/data/a b.jpg"),
            (640, 480),
            np.array([[0, 1, 2.5, 3], *[[4, 5, 6, 7]] * 5], np.float32),
            ("cat", "dog", "cat", "two words", "", "cat"),
            (False, True, False, False, True, False),
            orientation=6,
            source=Path("/data/a.xml"),
            places=PLACES,
            digest="00ff",
            crowds=(False, True, False, False, False, False),
            left_out=(
                LeftOut("box-no-area", "cat", (0.1, 1e300, -5.0, float("inf"))),
                LeftOut("name-missing", "", (0.0,) * 4),
            ),
            picture="cGljdHVyZQ==",
            listed_in=Path("/data/train.txt"),
        ),
        Record("b", Path("b.png"), (1, 1), np.zeros((0, 4), np.float32), (), ()),
        Record("c", Path("c.png"), (9, 8), np.ones((1, 4), np.float32), ("dog",), (True,), source=Path("/data/a.xml")),
    ]


def facts(record: Record) -> tuple:
    """All of a record in values that can be compared."""
    return (*record._replace(boxes=record.boxes.tobytes()), record.boxes.dtype, record.boxes.shape)  # type: ignore[arg-type]


def all_facts(several) -> list[tuple]:
    return [facts(record) for record in several]


def test_a_record_is_what_was_packed():
    packed = Records.of(records())
    assert all_facts(packed) == all_facts(records())
    assert facts(packed[-1]) == facts(records()[-1])
    with pytest.raises(IndexError):
        packed[3]


def test_records_keep_any_order_and_join_without_being_copied():
    packed, plain = Records.of(records()), records()
    assert all_facts(packed[::-1]) == all_facts(plain[::-1])
    assert all_facts(packed.take([2, 0, 2])) == all_facts([plain[2], plain[0], plain[2]])
    assert all_facts(packed[1:].repeated(2)) == all_facts(plain[1:] * 2)
    joined = Records.joined([packed[::-1], Records.of(plain[:1]), packed]).take([4, 3, 0])
    expected = [plain[0], plain[0], plain[2]]
    assert all_facts(joined) == all_facts(expected)
    assert joined.texts("image_id") == [record.image_id for record in expected]
    assert joined.texts("source") == ["/data/a.xml"] * 3
    assert joined.sizes.tolist() == [list(record.size) for record in expected]
    objects = joined.objects()
    assert [objects.names[name] for name in objects.name] == [name for record in expected for name in record.names]
    assert objects.boxes.tolist() == [box for record in expected for box in record.boxes.tolist()]
    assert objects.difficult.tolist() == [hard for record in expected for hard in record.difficult]
    assert list(zip(objects.record, objects.number, strict=True)) == [
        (place, number) for place, record in enumerate(expected) for number in range(len(record.names))
    ]


def test_objects_of_classes_are_left_out_with_their_place():
    packed = Records.of(records()).without({"cat"})
    record = packed[0]
    assert (record.names, record.places) == (("dog", "two words", ""), ("line 10", PLACES[3], "shape b"))
    assert [(item.kind, item.name, item.box) for item in record.left_out[2:]] == [
        ("class-unknown", "cat", box) for box in [(0.0, 1.0, 2.5, 3.0), *[(4.0, 5.0, 6.0, 7.0)] * 2]
    ]
    objects = packed.objects()
    assert [objects.names[name] for name in objects.name] == ["dog", "two words", "", "dog"]
    assert objects.number.tolist() == [0, 1, 2, 0]


def test_records_from_a_file_are_the_same_and_cannot_be_written_to():
    file = nameless_file(Records.of(records()).columns("a/"))
    packed = Records.of_file(file, "a/")
    assert all_facts(packed) == all_facts(records())
    assert not any(array.flags.writeable for array in file.arrays.values())
    packed[0].boxes[:] = 0  # a record's own


class _Starting:
    """Stands for a process that is being started."""

    def duplicate_for_child(self, handle: int) -> int:
        return handle

    DupFd = staticmethod(lambda handle: handle)


def test_a_dataset_for_another_process_is_the_open_file_not_its_content():
    many = records()[:1] * 2000
    dataset = DetectionDataset(Records.of_file(nameless_file(Records.of(many).columns("")), ""), ("BACKGROUND", "cat"))
    in_full = len(pickle.dumps(dataset))
    set_spawning_popen(_Starting())
    try:
        content = io.BytesIO()
        multiprocessing.reduction.ForkingPickler(content).dump(dataset)
    finally:
        set_spawning_popen(None)
    assert len(content.getvalue()) < 5_000 < 500_000 < in_full


def _answer(dataset: DetectionDataset, queue) -> None:
    queue.put(all_facts(dataset.records))


def test_a_spawned_process_reads_the_same_records():
    packed = Records.of_file(nameless_file(Records.of(records()).columns("")), "")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_answer, args=(DetectionDataset(packed[::-1], ("BACKGROUND", "cat")), queue))
    process.start()
    assert queue.get(timeout=60) == all_facts(records()[::-1])
    process.join()


@pytest.mark.parametrize("damage", ["cut", "a bit", "the magic", "empty"])
def test_a_damaged_file_is_noticed(tmp_path, damage):
    path = tmp_path / "arrays"
    with open(path, "wb") as file:
        write_arrays(file, {"a": np.arange(100), "b": np.zeros((0, 2), np.float32)}, {"what": [1, "é"]})
    with open(path, "rb") as file:
        whole = ArrayFile(file)
        assert (whole.arrays["a"].tolist(), whole.arrays["b"].shape) == (list(range(100)), (0, 2))
        assert whole.about == {"what": [1, "é"]}
    content = bytearray(path.read_bytes())
    if damage == "a bit":
        content[-50] ^= 1
    damaged = {"cut": content[:-100], "the magic": b"x" + content[1:], "empty": b""}.get(damage, content)
    path.write_bytes(damaged)
    with open(path, "rb") as file, pytest.raises(ValueError):
        ArrayFile(file)
