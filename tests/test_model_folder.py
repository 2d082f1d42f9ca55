"""One run, one folder: a second is refused, and a new one says what it replaces."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, assert_refused, train_argv

import train_ssd
from vision import console
from vision.engine import checkpoint, model_folder, trainer
from vision.engine.model_folder import describe_previous_run, locked
from vision.structures import DataError


def start_run(data, folder) -> subprocess.Popen:
    argv = train_argv(data, folder, "--epochs=500", "--debug-steps=1", "--workers=1")
    command = [sys.executable, str(ROOT / "train_ssd.py"), *map(str, argv)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_lock(script, voc_root, tmp_path):
    with start_run(voc_root, tmp_path) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        for line in process.stdout:
            if "Step: " in line:
                break
        for more in ((), ("--dry-run",), ("--auto-resume",)):
            done = script(train_ssd.main, *train_argv(voc_root, tmp_path, *more))
            assert_refused(
                done,
                f"--model-dir={tmp_path}: in use by another run, process {process.pid} on ",
                "--epochs=500",
                "wait for it, stop it, or name another folder",
            )
        assert "--epochs=500" in (tmp_path / "args.json").read_text(), "the first run's files are left alone"
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
    done = script(train_ssd.main, *train_argv(voc_root, tmp_path, "--epochs=1"))
    assert done.code == 0, done.err


def is_locked(folder) -> bool:
    """Whether another process finds a folder locked; a lock does not keep out its own process."""
    code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    found = subprocess.run([sys.executable, "-c", code, folder / model_folder.LOCK], stderr=subprocess.PIPE, text=True)
    assert found.returncode == 0 or "BlockingIOError" in found.stderr
    return found.returncode != 0


def test_the_lock_is_let_go_of_with_its_context(tmp_path):
    for _ in range(2):
        with locked(tmp_path, ["--data=a b"]):
            assert is_locked(tmp_path)
            assert re.fullmatch(
                rf"process {os.getpid()} on \S+ since [\d: -]+ \(\S+ '--data=a b'\)",
                (tmp_path / model_folder.LOCK).read_text(),
            )
        assert not is_locked(tmp_path)
        assert (tmp_path / model_folder.LOCK).read_text() == ""


def test_a_lock_of_another_user_is_said_and_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with locked(tmp_path, []):
            pass
    assert "a second run there would not be noticed" in caplog.text


def test_what_is_no_utf_8_and_a_full_disk_do_not_end_the_run(tmp_path, monkeypatch):
    with locked(tmp_path, ["--data=\udcff"]):
        assert r"\udcff" in (tmp_path / model_folder.LOCK).read_text()

    def pwrite(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with locked(tmp_path, []):
        assert is_locked(tmp_path)


def test_a_folder_that_cannot_be_locked_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    import fcntl

    def lockf(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with locked(tmp_path, []):
        pass
    assert "cannot be locked ([Errno 37] No locks available)" in caplog.text


def test_an_error_within_the_lock_is_that_of_the_run(tmp_path):
    with pytest.raises(DataError, match="of the run"), locked(tmp_path, []):
        raise DataError("of the run")


def test_a_new_run_says_what_it_replaces(script, model_dir, voc_root, tmp_path):
    import shutil

    folder = tmp_path / "m"
    shutil.copytree(model_dir, folder)
    done = script(train_ssd.main, *train_argv(voc_root, folder, "--epochs=1", "--keep-checkpoints=1"))
    assert done.code == 0, done.err
    assert re.search(
        rf"{folder}: holds another run \(.*--epochs=2 .*\); this one will replace its last.pth, last.state, "
        "results.csv, labels.txt",
        done.out,
    )
    assert f"{folder}: its 2 checkpoints of epochs will be removed in time, as --keep-checkpoints says" in done.out
    assert re.search(
        r"best.pth: is that of the other run \(mb1-ssd-lite, epoch \d, mean ap [\d.e-]+\) until the first validation of "
        "this, then it becomes previous_best.pth",
        done.out,
    )
    assert (folder / "previous_best.pth").read_bytes() == (model_dir / "best.pth").read_bytes()
    left = [checkpoint.parse_name(path.name).epoch for path in folder.glob("*Epoch*.pth")]
    assert left == [0], "the newest is kept, not the one of the highest epoch"
    assert (
        "holds another run" not in script(train_ssd.main, *train_argv(voc_root, folder, "--epochs=1", "--resume")).out
    )
    elsewhere = script(train_ssd.main, *train_argv(voc_root, folder, "--epochs=1", f"--resume={model_dir}"))
    assert "holds another run" in elsewhere.out, "a run of another folder goes on here, over this one's files"


def test_a_run_that_is_refused_announces_nothing(script, model_dir, voc_root, tmp_path):
    done = script(train_ssd.main, *train_argv(tmp_path / "none", model_dir))
    assert done.code == 2
    assert "holds another run" not in done.out
    done = script(train_ssd.main, *train_argv(voc_root, tmp_path / "m", "--net=vgg16-ssd", "--resolution=100"))
    assert_refused(done, "too small for this net")
    assert not (tmp_path / "m").exists()


def test_what_cannot_be_read_of_another_run_is_left_out(tmp_path):
    assert describe_previous_run(tmp_path) == []
    (tmp_path / "best.pth").write_bytes(b"no weights")
    (tmp_path / "args.json").write_text("[]")
    (tmp_path / "mb1-ssd-Epoch-3-Loss-1.5.pth").touch()
    assert describe_previous_run(tmp_path) == [
        f"{tmp_path}: holds another run; this one will replace its files",
        f"{tmp_path}: its 1 checkpoints of epochs stay",
        f"{tmp_path / 'best.pth'}: is that of the other run until the first validation of this, then it becomes "
        "previous_best.pth",
    ]
    (tmp_path / "previous_best.pth").touch()
    assert describe_previous_run(tmp_path)[0].endswith("will replace its previous_best.pth")


def test_a_model_folder_that_is_the_data_folder_is_named_and_so_is_the_list_that_a_run_left_there(
    script, own_voc, monkeypatch
):
    monkeypatch.setattr(trainer, "train_epochs", lambda *args, **rest: iter(()))
    argv = train_argv(own_voc, own_voc, "--epochs=1")
    (own_voc / "labels.txt").unlink(missing_ok=True)
    done = script(train_ssd.main, *argv)
    assert done.code == 0, done.err
    assert f"{own_voc}: is both --model-dir and a folder of --data, so labels.txt" in done.out
    path = next(path for path in sorted((own_voc / "Annotations").iterdir()) if "<name>ball<" in path.read_text())
    path.write_text(path.read_text().replace("<name>ball<", "<name>zebra<"))
    done = script(train_ssd.main, *argv)
    assert re.search(rf"class 'zebra' is not in the list \[.*\] of {own_voc / 'labels.txt'}; first", done.out)
    assert "is not in the list" not in script(train_ssd.main, *argv, "--labels-from-data").out
    assert "zebra" in (own_voc / "labels.txt").read_text(), "--labels-from-data is the way out"


@pytest.mark.parametrize("there", [False, True])
def test_a_start_that_fails_leaves_nothing(script, tmp_path, there):
    folder = tmp_path / "new" / "model"
    if there:
        folder.mkdir(parents=True)
    assert_refused(script(train_ssd.main, *train_argv(tmp_path / "none", folder)), "none")
    assert list(tmp_path.rglob("*")) == ([folder.parent, folder] if there else [])


def test_a_start_that_fails_leaves_what_others_put_there(tmp_path):
    with pytest.raises(DataError), console.writable_folder(tmp_path / "a" / "b", "--model-dir"):
        (tmp_path / "a" / "file").touch()
        raise DataError
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "file"]
    (tmp_path / model_folder.LOCK).touch()
    with pytest.raises(DataError), locked(tmp_path, []):
        raise DataError
    assert (tmp_path / model_folder.LOCK).exists(), "it was there before"


def test_a_lock_that_its_run_has_removed_meanwhile_locks_nothing(tmp_path, monkeypatch):
    import fcntl

    def lockf(*_):
        (tmp_path / model_folder.LOCK).unlink()

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.raises(DataError, match="has failed this very moment; wait"), locked(tmp_path, []):
        pass
