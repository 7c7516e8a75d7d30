"""Any module to a program: inputs, outputs, what is switched, whether rows stand alone, names."""

import dataclasses
import gc
import json
import zipfile

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import hesspect
from dense import assert_same_spectrum, eigenvalues_of, program, write_arrays
from hesspect.errors import by_code
from hesspect.exporting import losses


class Collecting(nn.Module):
    """Arguments by *args and **kwargs, as wrappers around a batch have them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 2)

    def forward(self, x, *rest, power=1, **more):
        y = self.first(x) ** power
        for value in (*rest, *more.values()):
            y = y * value
        return y


class Batch(Collecting):
    def forward(self, **batch):
        return super().forward(**batch)


class Parts(Collecting):
    def forward(self, *parts):
        return super().forward(*parts)


@dataclasses.dataclass
class Pair:
    left: torch.Tensor
    right: torch.Tensor


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    hidden: tuple


class Net(nn.Module):
    """Positional, keyword and nested inputs; a number and a flag that are baked in; outputs of every form."""

    def __init__(self, form="mapping"):
        super().__init__()
        self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.drop = nn.Dropout(0.5)
        self.form = form

    def forward(self, x, scale=1.0, *, extra=None, flag=False):
        h = torch.tanh(self.first(x)) * scale
        if extra is not None:
            h = h + extra["u"][0]
        y = self.head(self.drop(h))
        return {"mapping": lambda: {"logits": y, "hidden": (h, h.sum(1))}, "dataclass": lambda: Answer(y, (h, h.sum(1))),
                "tuple": lambda: (y, (h, h.sum(1))), "tensor": lambda: y}[self.form]()


def rows(n=6, seed=0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def test_positional_keyword_and_nested_inputs(tmp_path):
    """Up to the eigenvalues, with what `arrays` makes of a batch as data."""
    model = Net()
    model.train()
    call = hesspect.Inputs(rows(), 2.0, extra={"u": [torch.full((6, 4), 0.3)]}, flag=True)
    made = hesspect.export(model, call, tmp_path / "m.pt2")
    assert made.inputs == {"x": "x", "extra['u'][0]": "extra_u_0"}
    assert made.output == "logits" and made.shape == ("N", 2) and made.parameters == 26
    assert made.losses[0].startswith("cross_entropy") and any("1 dropout module" in note for note in made.notes)
    assert model.training and model.drop.training and "forward" not in vars(model)
    target = torch.arange(6) % 2
    model = model.eval().double()
    exact = eigenvalues_of(F.cross_entropy(model(rows().double(), 2.0, extra={"u": [torch.full((6, 4), 0.3)]})["logits"], target),
                           list(model.parameters()))
    data = write_arrays(tmp_path / "d.h5", **made.arrays(call), target=target)
    assert_same_spectrum(tmp_path / "m.pt2", data, "cross_entropy", tmp_path / "r.h5", exact)
    with pytest.raises(hesspect.InputError, match="extra"):
        made.arrays(hesspect.Inputs(rows()))


@pytest.mark.parametrize("form", ["mapping", "dataclass", "tuple", "tensor"])
def test_outputs_by_name_by_number_and_by_function(tmp_path, form):
    model, path = Net(form).eval(), tmp_path / "m.pt2"
    choices = {"mapping": ("hidden.0", 0, "1.1"), "dataclass": ("hidden.0", 0, "hidden.1"), "tuple": ("1.0", 0, "1.1"), "tensor": (None,) * 3}[form]
    expected = {"hidden.0": (6, 4), "1.0": (6, 4), 0: (6, 2), "1.1": (6,), "hidden.1": (6,), None: (6, 2)}
    for choice in choices:
        made = hesspect.export(model, rows(), path, output=choice)
        given = torch.export.load(path).module()(rows())
        assert given.shape == expected[choice] and made.shape == ("N", *given.shape[1:])
    double = hesspect.export(model, rows(), path, output=lambda out: 2 * (out if form == "tensor" else list(vars(out).values())[0]
                                                                        if form == "dataclass" else out["logits"] if form == "mapping" else out[0]))
    assert double.shape == ("N", 2)


def test_names_are_the_models_own(tmp_path):
    """A state dict of the model fits, whatever is around the module and whichever output is taken."""
    model = nn.Sequential(Net(), nn.Identity())
    hesspect.export(nn.DataParallel(torch.compile(model)), rows(), tmp_path / "m.pt2")
    made = torch.export.load(tmp_path / "m.pt2")
    assert list(made.state_dict) == list(model.state_dict())


def test_a_free_number_of_rows(tmp_path):
    """One row suffices; rows along another dimension; inputs without rows; a fixed number."""
    path = tmp_path / "m.pt2"
    made = hesspect.export(Net("tensor"), rows(1), path)
    assert torch.export.load(path).module()(rows(9)).shape == (9, 2) and any("one row" in note for note in made.notes)

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.RNN(3, 4)

        def forward(self, x, shift):
            return self.cell(x)[0] + shift

    hesspect.export(Recurrent(), (torch.randn(5, 4, 3), torch.ones(4)), path, batch_dim={"x": 1, "shift": None})
    assert torch.export.load(path).module()(torch.randn(5, 7, 3), torch.ones(4)).shape == (5, 7, 4)
    with pytest.raises(hesspect.UsageError, match="differ in their number of rows"):
        hesspect.export(Recurrent(), (torch.randn(5, 4, 3), torch.ones(4)), path)
    with pytest.raises(hesspect.UsageError, match="no input"):
        hesspect.export(Recurrent(), (torch.randn(5, 4, 3), torch.ones(4)), path, batch_dim={"z": 1})
    made = hesspect.export(Net("tensor"), rows(4), path, batch_dim=None)
    assert made.shape == (4, 2)


def test_dataclasses_as_inputs(tmp_path):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Linear(3, 2)

        def forward(self, pair):
            return self.w(pair.left) - self.w(pair.right)

    made = hesspect.export(Both(), (Pair(rows(), rows(seed=1)),), tmp_path / "m.pt2")
    assert list(made.inputs.values()) == ["pair_left", "pair_right"]


class Mixing(nn.Module):
    """A batch norm that takes its statistics from the batch in any mode, within a block."""

    def __init__(self, how):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.block = nn.Sequential(nn.Tanh(), nn.BatchNorm1d(3, track_running_stats=False) if how == "norm" else nn.Identity())
        self.how = how

    def forward(self, x):
        y = self.block(self.first(x))
        return {"norm": y, "mean": y.square().mean(), "sum": y.square().sum(), "other": y.square().sum().sqrt(), "rows": y,
                "pair": y - y.flip(0)}[self.how]


def test_rows_that_do_not_stand_alone_are_told_with_the_module(tmp_path, caplog):
    warned = {how: hesspect.export(Mixing(how), rows(), tmp_path / "m.pt2").warnings for how in ("norm", "mean", "sum", "other", "rows", "pair")}
    assert warned["rows"] == warned["mean"] == ()
    assert "block.1 (BatchNorm1d" in warned["norm"][0] and "statistics from the batch" in warned["norm"][0]
    assert "do not stand alone" in warned["pair"][0]
    assert "--reduction sum" in warned["sum"][0] and "neither mean nor sum" in warned["other"][0]
    assert "BatchNorm1d" in caplog.text
    norm = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    made = hesspect.export(norm, rows(), tmp_path / "m.pt2")
    assert not made.warnings and any("1 batch norm in training mode" in note for note in made.notes) and norm[1].training


class Saving(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.b(checkpoint(lambda y: torch.tanh(self.a(y)), x, use_reentrant=True))


def test_checkpointing_is_left_out(tmp_path):
    """Reentrant checkpointing would make a part of the Hessian zero without a word."""
    made = hesspect.export(Saving(), rows(), tmp_path / "m.pt2")
    assert any("checkpointing" in note for note in made.notes)
    assert "no_grad" not in program("inspect", tmp_path / "m.pt2").stdout
    assert checkpoint is torch.utils.checkpoint.checkpoint


def test_arguments_that_forward_collects(tmp_path):
    x, u, v, y = rows(), torch.rand(6, 1), torch.rand(6, 1), torch.arange(6) % 2
    path = tmp_path / "m.pt2"
    for model, call, inputs in ((Batch(), hesspect.Inputs(x=x, u=u), ["x", "u"]), (Parts(), hesspect.Inputs(x, u, v), ["parts_0", "parts_1", "parts_2"]),
                                (Collecting(), hesspect.Inputs(x, u, power=2, v=v), ["x", "rest_0", "v"]), (Collecting(), hesspect.Inputs(x, v=v), ["x", "v"])):
        made = hesspect.export(model, call, path)
        assert list(made.inputs.values()) == inputs and "forward" not in vars(model)
        torch.testing.assert_close(torch.export.load(path).module()(*call.args, **call.kwargs), model(*call.args, **call.kwargs))
    made = hesspect.export(Batch(), {"x": x, "u": u}, path, loss=lambda out, target: F.cross_entropy(out, target, reduction="none"), target=y)
    assert sorted(made.inputs.values()) == ["target", "u", "x"]


class Counting(nn.Module):
    """Writes to buffers: a counter, a mean that is read where `reads` says so, and a step that is assigned."""

    def __init__(self, reads):
        super().__init__()
        self.first, self.reads = nn.Linear(3, 2), reads
        for name in ("calls", "mean", "step"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, x):
        y = torch.tanh(self.first(x))
        self.calls += 1
        self.mean.mul_(0.9).add_(0.1 * y.detach().mean())
        self.step = self.step + 1
        return y + self.mean if self.reads else y


def test_buffers_that_are_written_to(tmp_path):
    model = Counting(reads=False)
    made = hesspect.export(model, rows(), tmp_path / "m.pt2")
    assert any("calls, mean, step are written to" in note for note in made.notes)
    assert all(float(buffer) == 0 for buffer in model.buffers())
    assert "_.Tensor" not in program("inspect", tmp_path / "m.pt2").stdout
    torch.testing.assert_close(torch.export.load(tmp_path / "m.pt2").module()(rows()), model(rows()))
    made = hesspect.export(Counting(reads=True), rows(), tmp_path / "n.pt2")
    assert any("calls, step are written to" in note for note in made.notes)
    data = write_arrays(tmp_path / "d.h5", x=rows(), target=rows()[:, :2])
    program("eigs", "--model", tmp_path / "n.pt2", "--data", data, "--loss", "mse", "--output", tmp_path / "r.h5", code=4)


class Cumulative(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 4)

    def forward(self, x):
        return self.first(x).logcumsumexp(1)


def test_an_op_whose_gradient_takes_the_logarithm_of_its_adjoint(tmp_path):
    """It has no rule of its own: its derivative in the adjoint, which is linear, is taken at some adjoint, but not at 0."""
    hesspect.export(Cumulative(), rows(), tmp_path / "m.pt2")
    target, double = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), Cumulative().double()
    exact = eigenvalues_of(F.mse_loss(double(rows().double()), target.double()), list(double.parameters()))
    assert_same_spectrum(tmp_path / "m.pt2", write_arrays(tmp_path / "d.h5", x=rows(), target=target), "mse", tmp_path / "r.h5", exact)


class Masked(nn.Module):
    """nn.Transformer, which looks whether its masks are causal: by their values, which an export does not have."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(7, 4)
        self.body, self.head = nn.Transformer(4, 2, 1, 1, 6, dropout=0.1, batch_first=True), nn.Linear(4, 1)
        self.register_buffer("source_mask", torch.triu(torch.full((3, 3), -torch.inf), 1))

    def forward(self, source, target):
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=self.table.weight.dtype)
        return self.head(self.body(self.table(source), self.table(target), src_mask=self.source_mask, tgt_mask=mask).mean(1))[:, 0]


def test_masks_of_nn_transformer(tmp_path):
    draw = torch.Generator().manual_seed(1)
    source, target, y = torch.randint(7, (6, 3), generator=draw), torch.randint(7, (6, 2), generator=draw), torch.randn(6, generator=draw)
    usual = nn.modules.transformer._detect_is_causal_mask
    hesspect.export(Masked(), (source, target), tmp_path / "m.pt2")
    assert nn.modules.transformer._detect_is_causal_mask is usual
    data = write_arrays(tmp_path / "d.h5", source=source, target=target, y=y)
    double = Masked().double().eval()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        exact = eigenvalues_of(F.mse_loss(double(source, target), y.double()), list(double.parameters()))
    assert_same_spectrum(tmp_path / "m.pt2", data, "mse", tmp_path / "r.h5", exact, "--target", "y")


def test_settings_of_hugging_face_are_switched_and_put_back(tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    config = transformers.MixtralConfig(vocab_size=7, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=2,
                                        num_key_value_heads=1, num_local_experts=2, bos_token_id=0, eos_token_id=0)
    model = transformers.MixtralForCausalLM(config)
    model.set_experts_implementation("eager")
    model.gradient_checkpointing_enable()
    model.config._attn_implementation_internal = "flash_attention_2"
    model.train()
    made = hesspect.export(model, {"input_ids": torch.randint(0, 7, (3, 5))}, tmp_path / "m.pt2")
    for word in ("flash_attention_2", "experts eager", "checkpointing", "use_cache"):
        assert any(word in note for note in made.notes), word
    assert model.config._attn_implementation == "flash_attention_2" and model.config._experts_implementation == "eager"
    assert model.config.use_cache and model.is_gradient_checkpointing and model.training
    assert made.losses == ("causal_lm: targets [N, 5], ids 0 to 6, which the loss shifts by one",)


class Slope(nn.Module):
    """As energy models and physics-informed ones: the output is a derivative in the input."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 1)

    def forward(self, x):
        z = x.clone().requires_grad_()
        return torch.autograd.grad(torch.tanh(self.first(z)).sum(), z, create_graph=True)[0]


def test_what_cannot_be_exported_is_one_line(tmp_path, capsys):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Linear(3, 1)

        def forward(self, x):
            return self.w(x) if float(x.sum()) > 0 else self.w(-x)

    with pytest.raises(hesspect.InputError, match="cannot be exported") as caught:
        hesspect.export(Branching(), rows(), tmp_path / "m.pt2")
    assert "\n" not in caught.value.line and caught.value.code == 4
    assert "decides by the values" in caught.value.line and "test_export.py" in caught.value.line and "if float(x.sum()) > 0" in caught.value.line
    assert capsys.readouterr().err == ""
    for output, word in (("logit", "did you mean 'logits'"), ("hidden", "no tensor"), (9, "no output '9'")):
        with pytest.raises(hesspect.UsageError, match=word):
            hesspect.export(Net(), rows(), tmp_path / "m.pt2", output=output)
    with pytest.raises(hesspect.UsageError, match="no tensor"):
        hesspect.export(Net(), 3, tmp_path / "m.pt2")
    for model, word in ((torch.jit.script(nn.Linear(3, 2)), "TorchScript"), (Slope(), "takes derivatives itself")):
        with pytest.raises(hesspect.InputError, match=word):
            hesspect.export(model, rows(), tmp_path / "m.pt2")
    with pytest.raises(hesspect.InputError, match="TorchScript"):
        hesspect.spectrum(torch.jit.trace(nn.Linear(3, 2), rows()), (rows(), rows()[:, :2]), loss="mse", folder=tmp_path / "runs")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_what_is_switched_off_meanwhile_is_as_it_was(tmp_path):
    """Python's collector, also after an export that fails; and the library's own check of what it writes, which is not made: the file is the same."""
    from torch._export.serde import serialize

    usual = serialize.canonicalize
    for collects in (False, True):
        (gc.enable if collects else gc.disable)()
        try:
            hesspect.export(nn.Linear(3, 2), rows(), tmp_path / "m.pt2")
            with pytest.raises(hesspect.InputError):
                hesspect.export(Fixed(), rows(), tmp_path / "n.pt2")
            assert gc.isenabled() == collects and serialize.canonicalize is usual
        finally:
            gc.enable()
    torch.export.save(torch.export.load(tmp_path / "m.pt2"), tmp_path / "again.pt2")
    assert graph_in(tmp_path / "m.pt2") == graph_in(tmp_path / "again.pt2")


class Fixed(nn.Module):
    def forward(self, x):
        return x * float(x.sum())


def graph_in(path):
    """The nodes as the file has them, without where in the source they are from."""
    with zipfile.ZipFile(path) as file:
        (name,) = [name for name in file.namelist() if name.endswith("models/model.json")]
        graph = json.loads(file.read(name))["graph_module"]["graph"]
    return [[node["target"], node["inputs"], node["outputs"]] for node in graph["nodes"]]


def test_losses_of_pytorch_by_the_programs_options():
    loss = losses.of_module(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]), label_smoothing=0.1, reduction="sum"))
    assert (loss.name, loss.options) == ("cross_entropy", {"reduction": "sum", "class_weights": [1.0, 2.0], "label_smoothing": 0.1})
    assert losses.of_module(nn.HuberLoss(delta=2.0)) == losses.Loss("huber", {"delta": 2.0})
    assert losses.of_module(nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]))).options == {"pos_weight": [3.0]}
    for wrong in (nn.TripletMarginLoss(), nn.MSELoss(reduction="none"), nn.BCELoss(weight=torch.ones(2))):
        with pytest.raises(hesspect.UsageError):
            losses.of_module(wrong)


def test_a_checkpoint_of_lightning(tmp_path):
    """A file in Lightning's form: weights below the network's attribute, hyper-parameters, an optimizer's state."""
    trained = Net("tensor")
    saved = {"epoch": 3, "global_step": 70, "pytorch-lightning_version": "2.5.0", "state_dict": {f"net.{k}": v for k, v in trained.state_dict().items()},
             "hparams_name": "kwargs", "hyper_parameters": {"form": "tensor", "lr": 0.1}, "optimizer_states": [{"state": {}}], "callbacks": {}}
    torch.save(saved, tmp_path / "last.ckpt")
    hesspect.export_lightning(tmp_path / "last.ckpt", Net, rows(), tmp_path / "m.pt2")
    given = torch.export.load(tmp_path / "m.pt2").module()(rows())
    np.testing.assert_allclose(given.detach(), trained.eval()(rows()).detach(), atol=1e-6)
    with pytest.raises(hesspect.InputError, match="lacks 4 of its weights"):
        hesspect.export_lightning(tmp_path / "last.ckpt", nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), rows(), tmp_path / "n.pt2")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(hesspect.InputError, match="no checkpoint of Lightning"):
        hesspect.export_lightning(tmp_path / "other.ckpt", Net, rows(), tmp_path / "n.pt2")


def test_torchvision_by_name(tmp_path):
    pytest.importorskip("torchvision")
    made = hesspect.export_torchvision("squeezenet1_1", tmp_path / "m.pt2", classes=3, size=32)
    assert made.shape == ("N", 3) and list(made.inputs) == ["x"] and not made.warnings
    with pytest.raises(hesspect.UsageError, match="did you mean 'resnet18'"):
        hesspect.export_torchvision("resnet81", tmp_path / "m.pt2")


def test_errors_carry_code_and_line():
    for code, kind in ((2, hesspect.UsageError), (4, hesspect.InputError), (5, hesspect.MemoryLimitError), (6, hesspect.CommError),
                       (70, hesspect.InternalError), (75, hesspect.Stopped)):
        error = by_code(code, "what was wrong")
        assert type(error) is kind and error.code == code and error.line == str(error) == "what was wrong"
    assert "SIGKILL" in str(by_code(137, "")) and by_code(-9, "").code == -9
