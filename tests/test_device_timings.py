"""Timings of devices, from logs of trtexec old and new and of detect.py --benchmark, as a table."""

import pytest
from conftest import assert_refused

import detect
import plot_logs
from vision.report.device_timings import read_timing, timings_table, version_of

NEW = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # /usr/src/tensorrt/bin/trtexec --onnx=/home/me/m.int8.onnx --int8 --fp16
[11/30/2026-10:47:59] [I] Selected Device: Orin
[11/30/2026-10:47:59] [I] === Performance summary ===
[11/30/2026-10:47:59] [I] Throughput: 410.5 qps
[11/30/2026-10:47:59] [I] Latency: min = 2.3 ms, max = 3.3 ms, mean = 2.6 ms, median = 2.5 ms, percentile(99%) = 2.9 ms
[11/30/2026-10:47:59] [I] Enqueue Time: min = 0.7 ms, max = 5.0 ms, mean = 0.6 ms, median = 0.8 ms, percentile(99%) = 1 ms
[11/30/2026-10:47:59] [I] GPU Compute Time: min = 2.1 ms, max = 3.1 ms, mean = 2.4 ms, median = 2.25 ms, percentile(99%) = 2 ms
[11/30/2026-10:47:59] [I] Total GPU Compute Time: 2.96536 s
"""
OLD = """\
&&&& RUNNING TensorRT.trtexec # trtexec --loadEngine=m.engine
&&&& RUNNING TensorRT.trtexec [TensorRT v7103] # trtexec --loadEngine=m.engine
[12/03/2020-18:29:45] [I] Host Latency
[12/03/2020-18:29:45] [I] min: 25.6 ms (end to end 26.6 ms)
[12/03/2020-18:29:45] [I] median: 26.5 ms (end to end 27.0 ms)
[12/03/2020-18:29:45] [I] throughput: 0 qps
[12/03/2020-18:29:45] [I] Enqueue Time
[12/03/2020-18:29:45] [I] median: 1.5 ms
[12/03/2020-18:29:45] [I] GPU Compute
[12/03/2020-18:29:45] [I] min: 25.0 ms
[12/03/2020-18:29:45] [I] median: 25.75 ms
"""


def test_logs_of_trtexec_are_read():
    new = read_timing("orin.log", NEW)
    assert (new.model, new.runtime, new.precision) == ("m.int8.onnx", "TensorRT 8.5.2, Orin", "int8+fp16")
    assert (new.network, new.latency, new.rate) == (2.25, 2.5, 410.5)
    old = read_timing("nano.log", OLD)
    assert (old.model, old.runtime, old.precision) == ("m.engine", "TensorRT 7.1.3", "fp32")
    assert (old.network, old.latency, old.rate) == (25.75, 26.5, None)
    table = timings_table([old, new]).splitlines()
    titles = [cell.strip() for cell in table[0].strip("|").split("|")]
    assert titles == ["log", "model", "runtime", "precision", "network, ms", "with copies, ms", "images/s"]
    assert table[2].startswith("| orin.log | m.int8.onnx | TensorRT 8.5.2, Orin | int8+fp16 | 2.25 ")
    assert table[3].split()[-2:] == ["-", "|"]
    assert len({len(line) for line in table}) == 1
    assert read_timing("x", "Epoch: 0, Step: 1") is None


@pytest.mark.parametrize(("digits", "version"), [("7103", "7.1.3"), ("8003", "8.0.3"), ("100300", "10.3.0")])
def test_versions_of_tensorrt(digits, version):
    assert version_of(digits) == version


def test_output_of_detect_is_read(script, sure_model, voc_root, tmp_path):
    argv = (f"--model={sure_model}", f"--input={voc_root}/JPEGImages/test*.jpg", f"--output={tmp_path / 'o'}")
    done = script(detect.main, *argv, "--benchmark")
    (tmp_path / "cpu.log").write_text(done.out)
    (tmp_path / "orin.log").write_text(NEW)
    done = script(plot_logs.main, str(tmp_path / "cpu.log"), str(tmp_path / "orin.log"))
    assert (done.code, done.err) == (0, "")
    rows = {line.split()[1]: line for line in done.out.splitlines()[2:]}
    assert "| sure.pth (mb1-ssd-lite, " in rows["cpu.log"]
    assert " | cpu " in rows["cpu.log"]
    network, copies, rate = (cell.strip() for cell in rows["cpu.log"].split("|")[-4:-1])
    assert float(network) > 0
    assert copies == "-"
    assert float(rate) > 0
    assert "2.25" in rows["orin.log"]


def test_timings_and_runs_are_not_mixed(script, model_dir, tmp_path):
    (tmp_path / "orin.log").write_text(NEW)
    done = script(plot_logs.main, str(tmp_path / "orin.log"), str(model_dir))
    assert_refused(done, str(model_dir), "has no timing, as orin.log has")
