"""One call from a model and a loader to a result, against PyTorch's dense Hessian; errors, interruption, what a result shows."""

import os
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import hesspect
from conftest import write_result
from dense import eigenvalues_of
from hesspect.running import binary, process
from hesspect.running.batches import BatchReader


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


def data(n=17):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 3


def batches(n=17, size=5):
    x, y = data(n)
    return list(zip(x.split(size), y.split(size)))


def test_from_a_model_to_eigenvalues_on_two_ranks(tmp_path):
    """Batches that differ in size; a loss module with its settings; the same call again reads the result back."""
    model, loss = small(), nn.CrossEntropyLoss(label_smoothing=0.1)
    options = {"dtype": "float64", "top": 4, "bottom": 2, "rtol_eigs": 1e-11, "command": "eigs", "folder": tmp_path / "runs", "progress": False}
    result = hesspect.spectrum(model, batches(), loss, ranks=2, **options)
    x, y = data()
    double = small().double()
    exact = eigenvalues_of(loss(double(x.double()), y), list(double.parameters()))
    np.testing.assert_allclose(result.eigenvalues, [*exact[::-1][:4], *exact[:2][::-1]], atol=1e-10)
    assert result.n_rows == 17 and result.ranks == 2 and next(model.parameters()).dtype == torch.float32
    again = hesspect.spectrum(model, (x, y), loss, **options)  # all rows as one batch are the same rows
    assert again.path == result.path and again.ranks == 2
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == [result.path.parent.name]

    files = hesspect.analyze(result.path.parent / "model.pt2", data=result.path.parent / "data.h5", loss="cross_entropy", command="trace",
                             rtol_trace=0, dtype="float64", label_smoothing=0.1, output=tmp_path / "new" / "t.h5", progress=False)
    assert files.loss == pytest.approx(result.loss, abs=1e-12) and files.path == tmp_path / "new" / "t.h5"
    assert files.report("json").lstrip().startswith("{") and "eigenvalue" in result.report()
    with pytest.raises(hesspect.UsageError, match="did you mean 'momentum'"):
        result.report(momentun=1)


class Heads(nn.Module):
    """Attention as nn.MultiheadAttention of torch 2.12 exports it: its queries lie in memory by position first, the fast kernels keep that, and so a
    view of the output needs no copy."""

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        self.project, self.out, self.order = nn.Linear(4, 12), nn.Linear(4, 3), order

    def forward(self, x):
        rows, length, _ = x.shape
        query, key, value = (part.reshape(length, rows, 2, 2).permute(1, 2, 0, 3) for part in self.project(x.transpose(0, 1)).chunk(3, -1))
        h = F.scaled_dot_product_attention(query, key, value).permute(2, 0, 1, 3)
        return self.out(self.order(h, (length * rows, 4)).view(length, rows, 4).mean(0))


def test_a_view_of_what_lies_otherwise_in_memory(tmp_path):
    x, y = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
    hesspect.export(Heads(torch.Tensor.view), x, tmp_path / "model.pt2", batch_dim=None)
    ops = [str(node.target) for node in torch.export.load(tmp_path / "model.pt2").graph.nodes if node.op == "call_function"]
    assert ops[ops.index("aten.permute.default", ops.index("aten.scaled_dot_product_attention.default")) + 1] == "aten.view.default"
    hesspect.write_data(tmp_path / "data.h5", {"x": x, "target": y})
    result = hesspect.analyze(tmp_path / "model.pt2", data=tmp_path / "data.h5", loss="cross_entropy", command="eigs", dtype="float64", top=2, bottom=1,
                              rtol_eigs=1e-10, output=tmp_path / "r.h5", progress=False)
    double = Heads(torch.Tensor.reshape).double()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        exact = eigenvalues_of(F.cross_entropy(double(x.double()), y), list(double.parameters()))
    np.testing.assert_allclose(result.eigenvalues, [*exact[::-1][:2], exact[0]], atol=1e-9)


def test_options_and_values_that_there_are_not(tmp_path):
    """Found before a file is written, in the words of Python."""
    for options, word in (({"micro_batchs": 3}, "did you mean 'micro_batch'"), ({"ranks": 0}, "at least 1"), ({"verbose": 3}, "True or False"),
                          ({"top": True}, "takes N"), ({"command": "inspect"}, "makes a result"), ({"model_": "x"}, "no option")):
        with pytest.raises(hesspect.UsageError, match=word):
            hesspect.spectrum(small(), batches(), folder=tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()
    for loader, word in (([], "no batch"), (3, "gives no batches"), ([data()[0]], "no target")):
        with pytest.raises(hesspect.UsageError, match=word):
            hesspect.spectrum(small(), loader, folder=tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_errors_of_the_program_are_exceptions_without_the_launchers_frame(tmp_path, monkeypatch):
    with pytest.raises(hesspect.UsageError) as caught:
        hesspect.spectrum(small(), batches(), dtype="float16", folder=tmp_path, ranks=2, progress=False)
    assert caught.value.code == 2 and caught.value.line.startswith("--dtype float16: expected float32 or float64")
    with monkeypatch.context() as nowhere, pytest.raises(hesspect.UsageError, match="needs mpirun"):
        nowhere.setenv("PATH", str(tmp_path))
        hesspect.spectrum(small(), batches(), folder=tmp_path, ranks=2, progress=False)
    bad = [(data()[0], torch.full((17,), 7))]
    with pytest.raises(hesspect.InputError, match="7") as caught:
        hesspect.spectrum(small(), bad, folder=tmp_path, progress=False)
    assert caught.value.code == 4 and "\n" not in caught.value.line
    with pytest.raises(hesspect.InputError, match="no such file"):
        hesspect.analyze(tmp_path / "none.pt2", data=tmp_path / "none.h5", loss="mse")
    with pytest.warns(UserWarning, match="3 of 3 eigenvalues have not converged"):
        result = hesspect.spectrum(small(), batches(), folder=tmp_path, command="eigs", max_steps=3, top=5, progress=False)
    assert not result.converged.all()


def test_lines_are_passed_on_without_errors():
    shown = []
    lines = process.Lines(shown.append)
    for line in ("hesspect: 31 parameters\n", "hesspect: error: no such file\n", "\n", "\x1b[2Kdone\r\n"):
        lines.take(line)
    assert shown == ["hesspect: 31 parameters", "done"] and lines.errors == ["no such file"]


#: of files, for which no torch is imported
_SLOW = """
import sys
sys.path.insert(0, sys.argv[2])
import hesspect
hesspect.analyze(sys.argv[1] + "/m.pt2", data=sys.argv[1] + "/d.h5", loss="cross_entropy", folder=sys.argv[1] + "/runs", command="trace",
                 trace_method="hutchinson", probes=1500, rtol_trace=0, threads=1)
assert "torch" not in sys.modules
"""


def test_ctrl_c_leaves_a_checkpoint_and_the_same_call_goes_on(tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)), torch.randn(2000, 64)
    hesspect.export(model, x[:4], tmp_path / "m.pt2")
    hesspect.write_data(tmp_path / "d.h5", {"input": x, "target": torch.arange(2000) % 10}, targets="target")
    command = [sys.executable, "-c", _SLOW, tmp_path, os.path.dirname(os.path.dirname(hesspect.__file__))]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = []
    for line in child.stderr:
        said.append(line)
        if "2,000 rows" in line:
            time.sleep(0.3)
            child.send_signal(signal.SIGINT)
            break
    rest = child.stderr.read()
    assert child.wait(timeout=100) != 0 and "KeyboardInterrupt: stopped with a checkpoint" in rest, (said, rest)
    assert len(list((tmp_path / "runs").glob("*/result.h5.checkpoint"))) == 1
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=200)
    assert done.returncode == 0 and "resumed from" in done.stderr, done.stderr
    (result,) = (tmp_path / "runs").glob("*/result.h5")
    assert hesspect.read(result).trace_samples == 1500 and not list((tmp_path / "runs").glob("*/*.checkpoint"))


def test_where_the_program_is(tmp_path, monkeypatch):
    named = binary.find()
    program = tmp_path / "bin" / "hesspect"
    program.parent.mkdir()
    program.write_bytes(b"\x7fELF")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("HESSPECT_BIN", str(tmp_path / "none"))
    with pytest.raises(hesspect.ProgramNotFound, match="HESSPECT_BIN"):
        binary.find()
    monkeypatch.delenv("HESSPECT_BIN")
    monkeypatch.setattr(binary, "_places", lambda: [tmp_path / "none"])
    monkeypatch.setenv("PATH", str(program.parent))
    assert binary.find() == program
    program.write_bytes(b"#!/bin/sh\n")  # a script of that name is not the program
    with pytest.raises(hesspect.ProgramNotFound, match="pip install"):
        binary.find()
    assert named.exists()


class Words(nn.Module):
    def forward(self, input_ids, attention_mask=None):
        return F.one_hot(input_ids, 5).float()


def test_batches_of_every_form():
    ids, mask = torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]])
    read = BatchReader(Words(), "causal_lm", None, None)
    inputs, target = read({"input_ids": ids, "attention_mask": mask, "text": ["a"]})
    assert list(inputs.kwargs) == ["input_ids", "attention_mask"] and target.tolist() == [[1, 2, -100]] and "input ids themselves" in read.said
    inputs, target = BatchReader(Words(), "masked_lm", None, None)({"input_ids": ids, "labels": ids})
    assert list(inputs.kwargs) == ["input_ids"] and target is ids
    inputs, target = BatchReader(Words(), "masked_lm", None, None)(({"input_ids": ids}, np.array([[1]])))
    assert list(inputs.kwargs) == ["input_ids"] and target.tolist() == [[1]]
    inputs, target = BatchReader(Words(), "output", None, None)((ids, mask))
    assert len(inputs.args) == 2 and target is None
    inputs, target = BatchReader(Words(), "mse", [1], 0)((ids, mask))
    assert inputs.args[0] is mask and target is ids
    for batch, given, word in (({"input_ids": ids}, {"target": "y"}, "no target 'y'"), ({"ids": ids, "y": ids}, {}, "takes none"),
                               ({"input_ids": ids, "y": ids}, {"inputs": ["mask"]}, "no input 'mask'")):
        with pytest.raises(hesspect.UsageError, match=word):
            BatchReader(Words(), "mse", given.get("inputs"), given.get("target"))(batch)


def test_what_a_result_shows(tmp_path):
    result = hesspect.read(write_result(tmp_path / "r.h5", layout=2))
    assert "24,058 parameters" in repr(result) and "trace 118.7" in repr(result)
    page = result._repr_html_()
    assert "118.7 ± 7.5" in page and "2 not converged" in page and "data:image/png;base64," in page and page.count("<tr>") == 8
    assert result.plot().axes and result.plot("layers", theme="dark").axes
    with pytest.raises(hesspect.UsageError, match="did you mean 'layers'"):
        result.plot("layer")
    xarray = pytest.importorskip("xarray")
    dataset = result.to_xarray()
    assert isinstance(dataset, xarray.Dataset) and dataset["density"].dims == dataset["lambdas"].dims
    assert dataset["eigenvalues"].attrs["units"] == "loss/parameter^2" and dataset.attrs["trace"] == 118.7
    assert dataset["cumulative"].size == 4 and dataset["alpha"].shape == (3, 20)
    dataset.to_netcdf(tmp_path / "r.nc", engine="h5netcdf")
    pytest.importorskip("pandas")
    frames = result.to_pandas()
    assert frames["eigenvalues"]["eigenvalue"].iloc[0] == 12.4 and frames["eigenvalues"].attrs["units"]["eigenvalue"] == "loss/parameter^2"


def test_optional_packages_are_named(tmp_path, monkeypatch):
    result = hesspect.read(write_result(tmp_path / "r.h5"))
    for package in ("xarray", "pandas"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(hesspect.UsageError, match=f"pip install {package}"):
            getattr(result, f"to_{package}")()
