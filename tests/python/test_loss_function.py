"""Losses that are Python functions become a part of the program: against PyTorch's dense Hessian; those that read across rows are refused."""

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import hesspect
from dense import eigenvalues_of
from hesspect.exporting import losses
from hesspect.exporting.objective import NAMED
from hesspect.running.calls import _loss

EXACT = {"dtype": "float64", "top": 4, "bottom": 2, "rtol_eigs": 1e-11, "command": "eigs", "micro_batch": 4, "progress": False}


class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, classes)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


def rows(n=17):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 3


def focal(logits, target):
    """Lin et al. 2017, with γ = 2."""
    log_p = torch.log_softmax(logits, 1).gather(1, target[:, None]).squeeze(1)
    return -((1 - log_p.exp()) ** 2 * log_p).mean()


def contrastive(embedding, target):
    """Each row against all others, as InfoNCE has it."""
    alike = F.normalize(embedding, dim=1) @ F.normalize(embedding, dim=1).T
    return F.cross_entropy(alike, torch.arange(target.shape[0]))


def dense(loss, classes=3, n=17):
    model, (x, y) = Net(classes).double(), rows(n)
    return eigenvalues_of(loss(model(x.double()), y), list(model.parameters()))


def assert_ends(result, exact):
    np.testing.assert_allclose(result.eigenvalues, [*exact[::-1][:4], *exact[:2][::-1]], atol=1e-10)


def test_a_focal_loss_on_two_ranks_and_in_micro_batches(tmp_path):
    """Batches that differ in size, and the last micro-batch is not full."""
    x, y = rows()
    result = hesspect.spectrum(Net(), list(zip(x.split(5), y.split(5))), focal, ranks=2, folder=tmp_path, **EXACT)
    assert_ends(result, dense(focal))
    assert result.n_rows == 17 and result.loss == pytest.approx(focal(Net().double()(x.double()), y).item(), abs=1e-12)


@pytest.mark.parametrize(("function", "options"), [
    (lambda out, y: focal(out, y) * y.shape[0], {"reduction": "sum"}),
    (lambda out, y: -torch.log_softmax(out, 1).gather(1, y[:, None]).squeeze(1) ** 3, {}),
    (lambda out, y: ((F.cross_entropy(out, y, reduction="none") * (y > 0)).sum() / (y > 0).sum(), (y > 0).sum()), {"count_output": 1}),
], ids=["sum", "one a row", "mean of some"])
def test_sums_and_rows_and_counts(tmp_path, function, options):
    """What the function gives is found out, and the run told."""
    x, y = rows()
    made = hesspect.export(Net(), x, tmp_path / "m.pt2", loss=function, target=y)
    assert made.options == options and made.inputs == {"x": "x", "target": "target"} and made.losses[0].startswith("output") and not made.warnings
    assert list(made.arrays(x, y)) == ["x", "target"]
    result = hesspect.spectrum(Net(), (x, y), function, folder=tmp_path / "runs", **EXACT)
    first = lambda value: value[0] if isinstance(value, tuple) else value
    assert_ends(result, dense(lambda out, y: first(function(out, y)).mean()))


def test_a_hinge_of_all_that_a_model_returns(tmp_path):
    """A loss module of one's own with a buffer, of two outputs; the target's name is the model's already."""

    class Two(Net):
        def forward(self, target):
            hidden = torch.tanh(self.first(target))
            return {"scores": self.last(hidden), "hidden": hidden}

    class Hinge(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("margins", torch.tensor([1.0, 2.0, 0.5]))

        def forward(self, returned, y):
            own = returned["scores"].gather(1, y[:, None])
            over = F.softplus(5 * (self.margins.to(own) + returned["scores"] - own)) * (1 - F.one_hot(y, 3))
            return over.sum(1).mean() + returned["hidden"].square().sum(1).mean()

    (x, y), loss = rows(), Hinge()
    model = Two().double()
    exact = eigenvalues_of(loss(model(x.double()), y), list(model.parameters()))
    assert hesspect.export(Two(), x, tmp_path / "m.pt2", loss=loss, target=y).inputs == {"target": "target", "loss_target": "loss_target"}
    assert_ends(hesspect.spectrum(Two(), (x, y), loss, folder=tmp_path / "runs", **EXACT), exact)


def test_a_loss_without_a_target(tmp_path):
    x, _ = rows()
    loss = lambda out: out.square().sum(1).mean()
    result = hesspect.spectrum(Net(), [x], loss, target=False, folder=tmp_path, **EXACT)
    assert_ends(result, dense(lambda out, y: loss(out)))


def test_losses_across_rows_are_refused(tmp_path):
    """In one line that says what was seen, before a file of the run is there. Units of rows are the program's to judge."""
    x, y = rows(16)
    for loss in (contrastive, lambda out, y: F.cross_entropy(out, y, weight=torch.tensor([1.0, 2.0, 5.0])), lambda out, y: focal(out - out.mean(0), y)):
        with pytest.raises(hesspect.UsageError, match=r"reads across rows: over 6 rows it is \S+, where the mean of the rows' own values is") as caught:
            hesspect.spectrum(Net(), (x, y), loss, folder=tmp_path / "runs", **EXACT)
        assert "\n" not in caught.value.line and "one loss a row" in caught.value.line
    assert not list((tmp_path / "runs").iterdir())
    result = hesspect.spectrum(Net(), (x, y), contrastive, unit_rows=4, folder=tmp_path / "units", **EXACT)
    of_units = lambda out, y: torch.stack([contrastive(part, y[:4]) for part in out.split(4)]).mean()
    assert_ends(result, dense(of_units, n=16))


def test_what_is_no_loss_is_one_line(tmp_path):
    x, y = rows()

    class Trained(nn.Linear):
        def forward(self, out, y):
            return super().forward(out).mean()

    cases = [(lambda out, y: out, r"the shape \[17, 3\] for 17 rows"), (lambda out, y: out.argmax(), "int64"), (lambda out, y: 1.0, "gives float"),
             (lambda out, y: out @ out, "fails on the example: RuntimeError"), (lambda out: out.mean(), "fails on the example: TypeError"),
             (Trained(3, 1), "trainable parameters"), (3, "a name, a module or a function"), (nn.CTCLoss(), "fails on the example")]
    for loss, words in cases:
        with pytest.raises(hesspect.UsageError, match=words) as caught:
            hesspect.spectrum(Net(), (x, y), loss, folder=tmp_path, **EXACT)
        assert "\n" not in caught.value.line
    with pytest.raises(hesspect.InputError, match=r"len\(x\) fixes it, x.shape\[0\] does not"):
        hesspect.spectrum(Net(), (x, y), lambda out, y: F.cross_entropy(out, y, reduction="sum") / len(y), folder=tmp_path, **EXACT)
    with pytest.raises(hesspect.UsageError, match="loss="):
        hesspect.export(Net(), x, tmp_path / "m.pt2", target=y)


def test_losses_that_the_program_has_are_named():
    """They are quicker in closed form; a class derived from one of them is another loss."""
    class Focal(nn.CrossEntropyLoss):
        pass

    for function, name in NAMED.items():
        assert _loss(function) == (losses.Loss(name), None)
    assert _loss(nn.HuberLoss(delta=2.0)) == (losses.Loss("huber", {"delta": 2.0}), None)
    own = Focal()
    assert _loss(own) == (losses.Loss("output"), own)
    assert all(losses.of_module(kind(delta=1.0) if kind is nn.HuberLoss else kind()).name for kind in losses.MODULES)


def test_a_scalar_with_its_count_is_no_warning(tmp_path):
    """Of a model that returns its own loss and what that is a mean over, and the same with a wrong count."""
    class Own(Net):
        def forward(self, x, y):
            each = F.cross_entropy(super().forward(x), y, reduction="none") * (y > 0)
            return {"loss": each.sum() / (y > 0).sum(), "count": (y > 0).sum(), "wrong": torch.ones(())}

    x, y = rows()
    assert not hesspect.export(Own(), (x, y), tmp_path / "m.pt2", output=("loss", "count")).warnings
    assert any("count" in line for line in hesspect.export(Own(), (x, y), tmp_path / "m.pt2", output=("loss", "wrong")).warnings)
    assert any("neither mean nor sum" in line for line in hesspect.export(Own(), (x, y), tmp_path / "m.pt2", output="loss").warnings)
