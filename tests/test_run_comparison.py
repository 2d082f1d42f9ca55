"""plot_logs.py over several model folders: which run to ship, and what differs between them."""

import csv
import json
import logging
import os
import re
import shutil
import subprocess
import sys

from conftest import ROOT, assert_refused

import plot_logs
from vision.deploy.torch_session import TorchSession, load_net
from vision.report.run_comparison import (
    ComparedRun,
    class_table,
    comparability,
    disk_use,
    figures_table,
    settings_table,
    summarize,
    verdict,
)


def rows_of(*aps: float | str, **more: list) -> list[dict]:
    return [
        {
            "epoch": str(epoch),
            "seconds": str(10 + epoch),
            "COCO AP/val": ap,
            "COCO AP50/val": f"0.{epoch}5",
            "Mean Average Precision/val": "0.5",
            **{name: values[epoch] for name, values in more.items()},
        }
        for epoch, ap in enumerate(aps)
    ]


def run_of(name: str, *aps: float | str, **more) -> ComparedRun:
    return ComparedRun(name, rows_of(*aps), **more)


def write_run(folder, aps, *, validation="v", training="t", best=b"w" * 2_500_000, **options):
    """A model folder as training leaves it."""
    folder.mkdir(parents=True)
    rows = rows_of(*aps, **{"Class Average Precision/<cat>": aps, "Class Average Precision/dog": ["", *aps[1:]]})
    with open(folder / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    arguments = {"lr": 0.01, "resolution": 300, "ema": False, "clip_grad": None, "data": ["a", "b"]}
    record = {
        "command": f"train_ssd.py --model-dir={folder}",
        "arguments": {**arguments, **options, "model_dir": str(folder), "net_by_default": False},
        "seed": 1,
        "fingerprints": {"training": training, "validation": validation},
        "versions": {"ssd-retrain": "1.0"},
    }
    (folder / "args.json").write_text(json.dumps(record))
    (folder / "best.pth").write_bytes(best)
    return folder


def test_the_best_epoch_is_that_of_best_pth():
    assert run_of("a", "", 0.3, "nan", 0.3, 0.2).best["epoch"] == "3", "of equal ones the last"
    losses = [{"epoch": 0, "Loss/val": 2.0}, {"epoch": 1, "Loss/val": 1.0}, {"epoch": 2, "Loss/val": float("nan")}]
    assert ComparedRun("log", losses).best["epoch"] == 1
    assert ComparedRun("log", [{"epoch": 0}, {"epoch": 1}]).best["epoch"] == 1
    assert run_of("a", 0.0, "").best["epoch"] == "0", "nothing found is a result"


def test_only_settings_that_differ_are_shown(tmp_path):
    one = write_run(tmp_path / "one", [0.1, 0.2])
    two = write_run(tmp_path / "two", [0.1, 0.2], lr=0.03, ema=True, clip_grad=10.0, data=["a", "c"])
    old = write_run(tmp_path / "old", [0.1, 0.2], warmup=3)
    runs = [summarize(path.name, rows_of(0.1), path) for path in (one, two, old)]
    log = run_of("log", 0.1)
    assert settings_table([*runs, log]) == [
        ["", "one", "two", "old", "log"],
        ["lr", "0.01", "0.03", "0.01", "-"],
        ["ema", "off", "on", "off", "-"],
        ["clip grad", "default", "10.0", "default", "-"],
        ["data", "a, b", "a, c", "a, b", "-"],
    ]
    assert settings_table([runs[0], log]) == [["", "one", "log"]]


def test_different_images_are_said_first():
    same = {"training": "t", "validation": "v"}
    a, b = (run_of(name, 0.5, fingerprints=same) for name in "ab")
    assert comparability([a, b]) == []
    other = run_of("c", 0.9, fingerprints={"training": "t", "validation": "w"})
    (line,) = comparability([a, b, other])
    assert line == "The figures cannot be compared: validated on different images or labels were a, b / c."
    assert verdict([a, b, other]) == ["Which run has the best AP cannot be said."]
    (line,) = comparability([a, run_of("d", 0.9, fingerprints={**same, "training": "u"})])
    assert line.startswith("Trained on different images or labels were a / d: ")
    assert comparability([a, run_of("log", 0.1)]) == ["Not known is which images were used by log: compare with care."]


def test_the_verdict_names_the_best_the_fastest_and_the_nearly_as_good():
    big = run_of("big", 0.3, 0.51, model_bytes=9_000_000, milliseconds=12.0)
    small = run_of("small", 0.5, model_bytes=4_000_000, milliseconds=5.0)
    tiny = run_of("tiny", 0.49, model_bytes=1_000_000, milliseconds=7.0)
    assert verdict([tiny, big, small]) == [
        "big has the best AP: 0.5100, at epoch 1.",
        "small is within 0.01 AP of it (0.5000) and smaller: 4.0 MB instead of 9.0 MB.",
        "small is within 0.01 AP of it (0.5000) and faster: 5.0 ms instead of 12.0 ms.",
        "small is the fastest: 5.0 ms an image; big takes 12.0 ms.",
    ]
    assert verdict([big, tiny])[1:3] == [f"No {word} one is within 0.01 AP of it." for word in ("smaller", "faster")]
    assert verdict([run_of("log", ""), run_of("other", "")]) == []
    assert verdict([run_of("a", 0.2), run_of("log", "")]) == ["a has the best AP: 0.2000, at epoch 0."]


def test_figures_are_those_of_the_best_epoch(tmp_path):
    folder = write_run(tmp_path / "one", [0.1, 0.4, 0.2], resolution=[320, 240])
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events").write_bytes(b"x" * 1_000_000)
    os.link(folder / "best.pth", folder / "again.pth")
    run = summarize("one", plot_logs.read_run(folder), folder)
    others = sum((folder / name).stat().st_size for name in ("args.json", "results.csv"))
    assert disk_use(folder) == 3_500_000 + others
    assert figures_table([run])[1] == [
        *("one", "0.4000", "0.1500", "0.5000", "1", "3", "11.0", "320x240", "2.5 MB", "3.5 MB", "-")
    ]
    assert class_table([run]) == [["class", "one"], ["<cat>", "0.4000"], ["dog", "0.4000"], ["mean", "0.5000"]]


def test_the_page_is_one_file_with_all_of_it(script, tmp_path):
    one = write_run(tmp_path / "one", [0.1, 0.2])
    two = write_run(tmp_path / "two", [0.1, 0.3], lr=0.5, validation="w")
    done = script(plot_logs.main, one, two, f"--output={tmp_path / 'runs.html'}")
    assert (done.code, done.err) == (0, "")
    page = (tmp_path / "runs.html").read_text()
    assert page.index("The figures cannot be compared") < page.index("<h2>")
    assert (
        page.index("At the best epoch") < page.index("Settings that differ") < page.index("11-point AP of each class")
    )
    assert "<td>lr</td><td>0.01</td><td>0.5</td>" in page
    assert "<td>&lt;cat&gt;</td><td>0.2000</td><td>0.3000</td>" in page
    assert 'src="data:image/png;base64,' in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    for line in ("The figures cannot be compared", r"lr +0\.01 +0\.5$", "run +AP"):
        assert re.search(f"^{line}", done.out, re.MULTILINE), line
    assert done.out.index("cannot be compared") < done.out.index("0.3000")


def test_logs_and_damaged_files_stay_readable(script, tmp_path, caplog):
    one = write_run(tmp_path / "one", [0.1, 0.2])
    (one / "args.json").write_text("{")
    log = tmp_path / "upstream.log"
    log.write_text(
        "Epoch: 0, Validation Loss: 5.5, Validation Regression Loss 2.0, Validation Classification Loss: 3.5\n"
    )
    with caplog.at_level(logging.WARNING):
        runs = [summarize("one", plot_logs.read_run(one), one), summarize("log", plot_logs.read_run(log), None)]
    assert "args.json: cannot be read" in caplog.text
    assert figures_table(runs)[2] == ["log", "-", "-", "-", "0", "1", "-", "-", "-", "-", "-"]
    assert script(plot_logs.main, one, log, f"--output={tmp_path / 'r.html'}").code == 0
    assert script(plot_logs.main, log, f"--output={tmp_path / 'c.png'}").code == 0


def test_nothing_is_timed_unless_asked_for_and_then_in_turns(script, model_dir, tmp_path, monkeypatch):
    turns = []
    real = plot_logs.milliseconds_of

    def watched(folders):
        run = TorchSession.run

        def counted(session, images):
            turns.append(id(session))
            return run(session, images)

        monkeypatch.setattr(TorchSession, "run", counted)
        return real(folders)

    monkeypatch.setattr(plot_logs, "milliseconds_of", watched)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("results.csv", "args.json"):
        shutil.copy(model_dir / name, other)
    load_net(model_dir / "best.pth").save(str(other / "best.pth"))
    monkeypatch.setattr(plot_logs, "_TURNS", 4)
    monkeypatch.setattr(plot_logs, "draw_runs", lambda *_: None)
    argv = (model_dir, other, f"--output={tmp_path / 'c.png'}")
    assert script(plot_logs.main, *argv).code == 0
    assert turns == []
    done = script(plot_logs.main, *argv, "--time")
    assert (done.code, done.err) == (0, "")
    assert turns == turns[:2] * 7
    assert turns[0] != turns[1]
    assert re.search(r"(model|other) is the fastest: [\d.]+ ms an image", done.out)
    (other / "best.pth").unlink()
    assert_refused(script(plot_logs.main, other, "--time", argv[2]), "--time", "best.pth")


def test_comparing_loads_no_torch():
    code = "import sys, plot_logs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
