"""Results in TensorBoard, Weights & Biases and MLflow, read back by their own libraries where these are installed."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import write_blocks, write_result

import hesspect
from hesspect import track


@pytest.fixture
def two(tmp_path):
    return [write_result(tmp_path / "a.h5", layout=2), write_blocks(tmp_path / "b.h5")]


def test_metrics(two, tmp_path):
    first, second = map(hesspect.read, two)
    found = track.metrics(first)
    assert found["trace/value"] == 118.7 and found["diagnostics/n_parameters"] == 24058 and found["diagnostics/products/total"] == 82
    assert [found[f"eigenvalue/{i}"] for i in (1, 2, 10, -1, -3)] == [12.4, 9.1, 1.5, -1.3, -0.4] and "eigenvalue/11" not in found
    assert found["layer/stem.weight/mean"] == 0.1 and all(np.isfinite(list(found.values())))
    found = track.metrics(second)
    assert found["block/layer.0/largest"] == 12 and "block/head/largest" not in found and "block/embed/smallest" not in found
    assert track.settings(first)["curvature"] == "hessian" and track.settings(first)["model"] == "runs/cnn/model.pt2"
    edges, counts = track.histogram(first)
    assert len(edges) == 1025 and abs(counts.sum() / 24058 - 1) < 0.01
    coarse = track._coarse(edges, counts)
    assert len(coarse[1]) == 512 and len(coarse[0]) == 513 and np.isclose(coarse[1].sum(), counts.sum()) and set(coarse[0]) <= set(edges)
    assert track.histogram(hesspect.read(write_result(tmp_path / "e.h5", density=False))) is None


def test_refused(two, tmp_path, capsys, monkeypatch):
    for arguments in (["--to", "paper", "d"], ["--to", "mlflow", "d", "--steps", "3"], ["--to", "mlflow", "d", "--steps", "3,2"]):
        with pytest.raises(SystemExit) as stopped:
            track.main([*map(str, two), *arguments])
        assert stopped.value.code == 2
    capsys.readouterr()
    assert track.main([str(tmp_path / "none.h5"), "--to", "mlflow", str(tmp_path)]) == 4 and "no such file" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for tracker in track.TRACKERS:
        assert track.main([str(two[0]), "--to", tracker, str(tmp_path / "t")]) == 4
        assert capsys.readouterr().err == f"hesspect: error: --to {tracker} needs its library: pip install {tracker}\n"


def test_tensorboard(two, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    pytest.importorskip("torch")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert track.main([*map(str, two), "--to", "tensorboard", str(tmp_path / "runs"), "--name", "mine", "--steps", "10,200"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'runs' / 'mine'}\n"
    events = EventAccumulator(str(tmp_path / "runs" / "mine"), size_guidance={"scalars": 0, "images": 0, "histograms": 0, "tensors": 0})
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("eigenvalue/1")] == [(10, np.float32(12.4)), (200, np.float32(12.4))]
    assert [e.step for e in events.Scalars("block/embed/largest")] == [200]
    expected = track.metrics(hesspect.read(two[0]))
    found = {tag: events.Scalars(tag)[0].value for tag in expected}
    assert all(np.isclose(found[tag], value, rtol=1e-6) for tag, value in expected.items())
    spectrum = events.Histograms("eigenvalues")[0].histogram_value
    assert np.isclose(spectrum.num, 24058, rtol=0.01) and {"density", "eigenvalues", "layers"} <= set(events.Tags()["images"])


def test_mlflow(two, tmp_path, capsys):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    assert track.main([*map(str, two), "--to", "mlflow", str(tmp_path / "m"), "--steps", "10,200"]) == 0
    client = MlflowClient(tracking_uri=(tmp_path / "m").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("hesspect").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "b" and run.data.params["curvature"] == "hessian"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "trace/value")] == [(10, 118.7), (200, 118.7)]
    assert run.data.metrics.items() >= {track._mlflow_name(k): v for k, v in track.metrics(hesspect.read(two[1])).items()}.items()
    kept = {f.path for f in client.list_artifacts(run.info.run_id, "200")}
    assert {"200/eigenvalues.csv", "200/density.png", "200/blocks.png"} <= kept


def wandb_records(log):
    """Records of LevelDB's log format: blocks of 32 KiB, parts of a record with checksum, length and type (1 whole, 2 first, 3 middle, 4 last)."""
    at, parts = 7, b""
    while at + 7 <= len(log):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(log[at + 4:at + 6], "little"), log[at + 6]
        parts += log[at + 7:at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def test_wandb(two, tmp_path):
    pytest.importorskip("wandb")
    environment = {**os.environ, "WANDB_SILENT": "true", "HOME": str(tmp_path), "WANDB_CACHE_DIR": str(tmp_path / "cache")}
    found = subprocess.run([sys.executable, "-m", "hesspect", "track", str(two[0]), "--to", "wandb", str(tmp_path / "w"), "--step", "7"], env=environment,
                           capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    (log,) = (tmp_path / "w").glob("wandb/offline-run-*/*.wandb")
    assert found.stdout.strip() == str(log.parent)
    from wandb.proto.wandb_internal_pb2 import Record

    logged = {}
    for data in wandb_records(log.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        for item in record.history.item:
            logged["/".join(item.nested_key) or item.key] = item.value_json
    expected = track.metrics(hesspect.read(two[0]))
    assert expected and all(float(logged[name]) == value for name, value in expected.items()) and logged["_step"] == "7"
    media = {name: [key for key in logged if key == name or key.startswith(f"{name}/")] for name in ("picture/density", "eigenvalues", "table/layers")}
    assert all(media.values()), sorted(logged)
