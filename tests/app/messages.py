#!/usr/bin/env python3
"""What a run says where the model's derivatives are not what its user thinks: gradients that stop on their way, numbers
that are not finite, and a trace of zero. The models are exported here, by PyTorch alone."""

import unittest
import warnings

import h5py
import torch
import torch.nn as nn
from harness import LONG, Case, hesspect

BAD_INPUT = 4
BATCH = torch.export.Dim("batch", min=1, max=4096)


def exported(folder, model, arrays, batch=True):
    """model.pt2 and data.h5: every array but `target` is an input of the model, whose first four rows are exported."""
    inputs = {k: v[:4] for k, v in arrays.items() if k != "target"}
    shapes = {k: {0: BATCH} for k in inputs} if batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model.eval(), (), inputs, dynamic_shapes=shapes, strict=False)
    torch.export.save(program, folder / "model.pt2")
    with h5py.File(folder / "data.h5", "w") as f:
        for key, value in arrays.items():
            f[key] = value.detach().numpy()


class Messages(Case):
    def setUp(self):
        super().setUp()
        torch.manual_seed(3)

    def run_model(self, *more, loss="mse", ranks=1, command="analyze"):
        self.result = self.folder / "r.h5"
        return hesspect(command, "--model", self.folder / "model.pt2", "--data", self.folder / "data.h5", "--loss", loss, "--dtype", "float64",
                        "--output", self.result, "--force", *more, ranks=ranks)

    def warnings_of(self, ended):
        """On stderr, in the result, and by `inspect`: the same, once each."""
        said = [line.removeprefix("hesspect: warning: ") for line in ended.err.splitlines() if "warning" in line]
        with h5py.File(self.result) as f:
            kept = [w.decode() if isinstance(w, bytes) else w for w in f["entry/diagnostics/warnings"][()]] if "warnings" in f["entry/diagnostics"] else []
        self.assertEqual(said, [w for w in kept if w])
        shown = [line.removeprefix("warning: ") for line in hesspect("inspect", self.folder / "model.pt2").out.splitlines() if line.startswith("warning")]
        self.assertEqual(shown, [line for line in said if "parameter" in line])
        return said


class Traced(nn.Module):
    """What make_fx leaves behind of h · h: one factor through `detach`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.out = nn.Linear(4, 1)

    def forward(self, x):
        h = torch.tanh(self.fc(x))
        saved = h.detach()
        return self.out(h * saved) + 0.1 * h.detach().sum(1, keepdim=True)


class PartlyOff(nn.Module):
    """A block under no_grad beside one that is not, as a reentrant checkpoint leaves it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.block = nn.Linear(4, 4)
        self.out = nn.Linear(4, 1)

    def forward(self, x):
        h = torch.tanh(self.fc(x))
        with torch.no_grad():
            b = torch.tanh(self.block(h))
        return self.out(h + b)


class AllOff(PartlyOff):
    @torch.no_grad()
    def forward(self, x):
        return self.out(torch.tanh(self.fc(x)))


class AllDetached(PartlyOff):
    def forward(self, x):
        return self.out(self.fc(x)).detach()


class ByItem(PartlyOff):
    def forward(self, x):
        return self.out(torch.tanh(self.fc(x))) * self.block.weight.square().sum().item()


class NothingToTell(nn.Module):
    """Detaches of data and buffers, masks and shapes, results that nothing needs; frozen and unused parameters; and
    writes in place into what gradients then flow through."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.frozen = nn.Linear(3, 4).requires_grad_(False)
        self.unused = nn.Linear(2, 2)
        self.out = nn.Linear(4, 1)
        self.register_buffer("scale", torch.rand(4))

    def forward(self, x):
        h = torch.tanh(self.fc(x.detach()) * self.scale.detach())
        with torch.no_grad():
            mask = (h > -0.5) & (h.argmax(1, keepdim=True) >= 0)
            shift = torch.tanh(self.frozen(x))
        like = torch.zeros_like(h.detach())
        like[:, :2] = h[:, :2]
        forgotten = h.detach() * 2
        chosen = torch.where(h.detach() > 0, h, 0.1 * h)
        return self.out(chosen * mask + shift + like) + 0 * x.sum(1, keepdim=True)


class LostGradients(Messages):
    def data(self):
        return {"x": torch.randn(12, 3), "target": torch.randn(12, 1)}

    def test_detach_is_told(self):
        exported(self.folder, Traced(), self.data())
        for ranks in (1, 2) if LONG else (2,):
            ended = self.run_model(ranks=ranks)
            self.assertDone(ended)
            said = self.warnings_of(ended)
            self.assertEqual(len(said), 1, said)
            for word in ("detach", "node 'detach'", "saved = h.detach()", "1 more node", "held constant", "make_fx", "replace_all_uses_with"):
                self.assertIn(word, said[0])

    def test_parameters_under_no_grad_are_told(self):
        exported(self.folder, PartlyOff(), self.data())
        for ranks in (1, 2) if LONG else (2,):
            ended = self.run_model(ranks=ranks)
            self.assertDone(ended)
            said = self.warnings_of(ended)
            self.assertEqual(len(said), 2, said)
            for word in ("no_grad", "self.block(h)"):
                self.assertIn(word, said[0])
            for word in ("no_grad", "2 of 6 parameter tensors", "'block.", "use_reentrant=False"):
                self.assertIn(word, said[1])

    def test_numbers_read_from_tensors_are_told(self):
        exported(self.folder, ByItem(), self.data())
        ended = self.run_model()
        self.assertDone(ended)
        said = self.warnings_of(ended)
        self.assertEqual(len(said), 2, said)
        self.assertIn("item", said[0])
        self.assertIn("1 of 6 parameter tensors, such as 'block.weight'", said[1])

    def test_no_gradient_at_all_is_refused(self):
        for model, words in ((AllOff(), ("no_grad", "inference_mode", "use_reentrant=False")), (AllDetached(), ("detach", "node '"))):
            exported(self.folder, model, self.data())
            for ranks in (1, 2) if LONG else (2,):
                ended = self.run_model(ranks=ranks)
                self.assertEqual(ended.code, BAD_INPUT, ended.err)
                self.assertEqual(len(ended.errors), 1, ended.err)
                for word in ("does not depend on its parameters", *words):
                    self.assertIn(word, ended.errors[0])

    def test_nothing_is_said_of_other_detaches(self):
        exported(self.folder, NothingToTell(), self.data())
        graph = torch.export.load(self.folder / "model.pt2").graph
        self.assertGreaterEqual(sum("detach" in node.name for node in graph.nodes), 4)
        self.assertTrue(any("set_grad_enabled" in str(node.target) for node in graph.nodes))
        ended = self.run_model()
        self.assertDone(ended)
        self.assertEqual(self.warnings_of(ended), [])


class Distance(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, a, b):
        return torch.linalg.vector_norm(self.f(a) - self.f(b), dim=1)


class MeanDistance(Distance):
    def forward(self, a, b):
        return super().forward(a, b).mean()


class Logarithm(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 1)

    def forward(self, x):
        h = torch.log(x.abs())
        return self.fc(h * 0.1)


class Root(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 1)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        h = self.fc(x)
        return torch.where(h == 0, torch.zeros_like(h), torch.sqrt(h.abs()))


class NotFinite(Messages):
    def refused(self, words, **options):
        for ranks in (1, 2) if LONG else (2,):
            ended = self.run_model(ranks=ranks, **options)
            self.assertEqual(ended.code, BAD_INPUT, ended.err)
            self.assertEqual(len(ended.errors), 1, ended.err)
            for word in words:
                self.assertIn(word, ended.errors[0])

    def pairs(self):
        a, b = torch.randn(20, 4), torch.randn(20, 4)
        b[17] = a[17]
        return {"a": a, "b": b}

    NORM = ("a product with the Hessian is not finite", "in row 17,", "node 'linalg_vector_norm'", "second derivative", "torch.linalg.vector_norm(", "epsilon")

    def test_a_product(self):
        exported(self.folder, Distance(), {**self.pairs(), "target": torch.rand(20)})
        self.refused(self.NORM)

    def test_with_a_fixed_batch(self):
        exported(self.folder, Distance(), {**self.pairs(), "target": torch.rand(20)}, batch=False)
        self.refused(self.NORM)

    def test_with_the_models_own_loss(self):
        exported(self.folder, MeanDistance(), self.pairs())
        self.refused(self.NORM, loss="output")

    def test_a_loss(self):
        x = torch.randn(12, 3)
        x[5, 1] = 0
        exported(self.folder, Logarithm(), {"x": x, "target": torch.randn(12, 1)})
        self.refused(("the loss is not finite", "in row 5,", "node 'log' (aten.log.default", "torch.log(x.abs())", "gives infinity", "clamp"))

    def test_a_gradient(self):
        """sqrt at 0, its value discarded by where(): 0 · ∞ on the way back."""
        x = torch.randn(12, 3)
        x[9] = 0
        exported(self.folder, Root(), {"x": x, "target": torch.randn(12, 1)})
        self.refused(("the gradient of the loss is not finite", "in row 9,", "node 'sqrt'", "torch.sqrt(h.abs())", "torch.where discards"))


class TwoLayers(nn.Module):
    """Linear, at zero: the Hessian's eigenvalues are pairs ±s, and its trace is zero."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 6, bias=False)
        self.b = nn.Linear(6, 3, bias=False)
        nn.init.zeros_(self.a.weight)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        return self.b(self.a(x))


class MeanOutput(nn.Module):
    """Linear in its parameters: the Hessian is zero."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(x).mean()


class ZeroTrace(Messages):
    def test_pairs_of_eigenvalues(self):
        x, y = torch.randn(40, 5), torch.randn(40, 3)
        exported(self.folder, TwoLayers(), {"x": x, "target": y})
        # The mean loss's second derivatives: −2/(N·3) Σ y xᵀ couples the layers, for each hidden unit alike.
        s = torch.linalg.svdvals(2 / y.numel() * y.double().T @ x.double())
        for ranks in (1, 2):
            for more in ((), ("--block", 4)) if LONG or ranks == 2 else ((),):
                ended = self.run_model("--top", 4, "--bottom", 4, *more, ranks=ranks)
                self.assertDone(ended)
                self.assertIn("positive and negative eigenvalues cancel", ended.err)
                with h5py.File(self.result) as f:
                    found = f["entry/eigenvalues/eigenvalue"][()]
                    self.assertLess(abs(f["entry/trace/value"][()]), 1e-10)
                    self.assertEqual(f["entry/trace/converged"][()], 1)
                    self.assertLess(f["entry/diagnostics/hvp_count"][()], 600)
                for value in found:
                    self.assertAlmostEqual(abs(value), s[0].item(), places=8)

    def test_no_curvature(self):
        exported(self.folder, MeanOutput(), {"x": torch.randn(10, 5)})
        for command in ("analyze", "trace", "eigs", "density"):
            ended = self.run_model(loss="output", command=command)
            self.assertDone(ended)
            if command in ("analyze", "trace"):
                with h5py.File(self.result) as f:
                    self.assertEqual(f["entry/trace/value"][()], 0)


class Python(Case):
    """The commands that live in the Python package are the program's too."""

    def test_where_it_cannot_be(self):
        ended = hesspect("tables", "--help", env={"HESSPECT_PYTHON": "/no/such/python"})
        self.assertEqual(ended.code, 4)
        self.assertEqual(len(ended.errors), 1)
        self.assertIn("HESSPECT_PYTHON", ended.errors[0])
        ended = hesspect("tables", "--help", ranks=2)
        self.assertEqual(ended.code, 2)
        self.assertIn("run it without mpirun", ended.err)


if __name__ == "__main__":
    unittest.main()
