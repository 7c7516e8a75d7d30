#!/usr/bin/env python3
"""Tables of which the data use few rows: vectors shrink to the rows in use, and every result is the whole model's, as the
dense Hessian that PyTorch computes in float64 by its own double reverse mode has it, and as the same run with
--rows-in-use off has it. HESSPECT_LONG=1 takes more ranks and orders."""

import copy
import json
import os
import shutil
import subprocess
import tempfile
import unittest
import warnings
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from dense import hessian_of
from harness import BIN, LONG, Case, environment, hesspect
from safetensors.numpy import load_file
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
BATCH = torch.export.Dim("batch", min=1, max=4096)
ROWS = 24


class Recommender(nn.Module):
    """Looks rows up in every way: embedding with a padding row, a bag, index_select, a negative index, gather."""

    spelled_out = False  # the bag, of which PyTorch has no second derivative

    def __init__(self):
        super().__init__()
        self.user = nn.Embedding(60, 3, padding_idx=5)
        self.item = nn.Embedding(50, 3)
        self.genre = nn.EmbeddingBag(20, 2, mode="mean")
        self.bias = nn.Parameter(torch.randn(30))
        self.scale = nn.Parameter(torch.randn(25, 1))
        self.rows = nn.Parameter(torch.randn(15, 2))
        self.net = nn.Linear(10, 4)
        self.out = nn.Linear(4, 1)

    def forward(self, user, item, genres):
        rows = self.rows.index_select(0, item.remainder(15))
        scale = self.scale.gather(0, (item // 2)[:, None])
        bag = self.genre.weight[genres].mean(1) if self.spelled_out else self.genre(genres)
        h = torch.cat([self.user(user), self.item(item), bag, rows], dim=1) * scale
        h = torch.tanh(self.net(h)) * (1 + self.bias[-1 - user.remainder(30)][:, None])
        return self.out(h).squeeze(-1)


def recommender_data():
    """Ids grow with the rows, so that ranks use different ones. User 5 is the padding row."""
    row = torch.arange(ROWS)
    return {"user": (row * 2 + 1) % 60, "item": row // 2 + 3, "genres": torch.stack([row % 7, (row + 3) % 11 + 2], 1)}


# Of user 24 rows, of item 12, of genre those below, of bias and scale and rows what these make.
def in_use(data):
    user, item, genres = data["user"].numpy(), data["item"].numpy(), data["genres"].numpy()
    rows = {"user.weight": user, "item.weight": item, "genre.weight": genres, "bias": 29 - user % 30, "scale": item // 2, "rows": item % 15}
    return {k: np.unique(v) for k, v in rows.items()}


def save(folder, model, inputs, target, name="model"):
    shapes = {k: {0: BATCH} for k in inputs}
    first = {k: v[:4].clone() for k, v in inputs.items()}
    torch.export.save(torch.export.export(model.eval(), (), first, dynamic_shapes=shapes, strict=False), folder / f"{name}.pt2")
    with h5py.File(folder / f"{name}.h5", "w") as f:
        for key, value in {**inputs, "target": target}.items():
            f[key] = value.numpy()


class RowsInUse(Case):
    @classmethod
    def setUpClass(cls):
        """The recommender's files, its Hessian and state: exported and differentiated once for all tests."""
        cls.made = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="hesspect_rows_")))
        torch.manual_seed(20261129)
        cls.whole, cls.data = Recommender().double(), recommender_data()
        target = torch.rand(ROWS, dtype=torch.float64)
        save(cls.made, cls.whole, cls.data, target)
        cls.whole.spelled_out = True
        cls.hessian = hessian_of(F.mse_loss(cls.whole(**cls.data), target), cls.whole)
        cls.target = target

    def setUp(self):
        super().setUp()
        torch.manual_seed(20261129)

    def recommender(self):
        for name in ("model.pt2", "model.h5"):
            shutil.copy(self.made / name, self.folder)
        self.model = copy.deepcopy(self.whole)
        self.n = self.hessian.shape[0]
        sizes = {k: v.numel() // v.shape[0] for k, v in self.model.named_parameters()}
        rows = in_use(self.data)
        self.used = self.n - sum((v.shape[0] - len(rows[k])) * sizes[k] for k, v in self.model.named_parameters() if k in rows)
        self.assertLess(self.used, 0.7 * self.n)

    def run_it(self, command, *options, mode="auto", ranks=1, name="model", loss="mse", code=0):
        output = self.folder / f"result-{len(list(self.folder.glob('result-*')))}.h5"
        ended = hesspect(command, "--model", self.folder / f"{name}.pt2", "--data", self.folder / f"{name}.h5", "--loss", loss, "--dtype", "float64",
                         "--rows-in-use", mode, "--output", output, *options, ranks=ranks)
        self.assertDone(ended, code)
        return h5py.File(output)["entry"], ended

    def both(self, command, *options, **more):
        return self.run_it(command, *options, **more)[0], self.run_it(command, *options, mode="off", **more)[0]

    def test_extreme_eigenvalues_by_ranks(self):
        self.recommender()
        spectrum = np.linalg.eigvalsh(self.hessian)
        expected = [*spectrum[::-1][:4], *spectrum[:2][::-1]]
        for ranks in (1, 2, 3) if LONG else (3,):
            entry, ended = self.run_it("eigs", "--top", 4, "--bottom", 2, "--rtol-eigs", 1e-10, ranks=ranks)
            np.testing.assert_allclose(entry["eigenvalues/eigenvalue"][()], expected, atol=1e-10 * spectrum[-1])
            self.assertEqual(entry["diagnostics/n_parameters"][()], self.n)
            self.assertEqual(entry["diagnostics/n_parameters_in_use"][()], self.used)
            self.assertIn(f"{self.n} parameters, {self.used} of them in use", ended.err)
            self.assertIn("rows in use: user.weight: 24 of 60 rows", ended.err)
            self.assertEqual(len(entry["diagnostics/rows_in_use"]), 6)
        entry, _ = self.run_it("eigs", "--top", 4, "--bottom", 2, "--rtol-eigs", 1e-10, mode="off")
        np.testing.assert_allclose(entry["eigenvalues/eigenvalue"][()], expected, atol=1e-10 * spectrum[-1])
        self.assertEqual(entry["diagnostics/n_parameters_in_use"][()], self.n)

    def test_parameters_that_are_chosen(self):
        """--params and --exclude beside tables of which rows are left out: one chosen, the others held fixed."""
        self.recommender()
        chosen = np.concatenate([np.full(p.numel(), k.startswith(("user", "net"))) for k, p in self.model.named_parameters()])
        spectrum = np.linalg.eigvalsh(self.hessian[np.ix_(chosen, chosen)])
        expected = [*spectrum[::-1][:4], *spectrum[:2][::-1]]
        for ranks, mode, way in ((1, "auto", "auto"), (2, "auto", "auto"), (1, "off", "auto"), (3, "auto", "sharded")):
            entry, _ = self.run_it("eigs", "--params", "^(user|net|rows)", "--exclude", "rows", "--top", 4, "--bottom", 2, "--rtol-eigs", 1e-10,
                                   "--parameters", way, ranks=ranks, mode=mode)
            np.testing.assert_allclose(entry["eigenvalues/eigenvalue"][()], expected, atol=1e-10 * spectrum[-1])
            self.assertEqual(entry["diagnostics/n_parameters"][()], chosen.sum())
            self.assertEqual(entry["diagnostics/n_model_parameters"][()], self.n)
            self.assertEqual(entry["diagnostics/n_parameters_in_use"][()], chosen.sum() - (36 * 3 if mode == "auto" else 0))
        options = ("--params", "^(user|net)", "--trace-method", "hutchinson", "--probes", 6, "--rtol-trace", 0)
        held, whole = self.both("trace", *options)
        np.testing.assert_allclose(held["trace/sample"][()], whole["trace/sample"][()], rtol=1e-11)

    def test_whole_spectrum_with_its_zeros(self):
        self.recommender()
        spectrum = np.linalg.eigvalsh(self.hessian)
        for options, expected in (
            (("--top", self.n, "--bottom", 0), spectrum[::-1]),
            (("--top", self.used, "--bottom", 7), np.r_[spectrum[::-1][: self.used], spectrum[:7][::-1]]),
            *([(("--top", 0, "--bottom", self.n), spectrum[::-1])] if LONG else []),
            (("--top", 0, "--bottom", 0, "--magnitude", self.used + 9), None),
        ):
            entry, _ = self.run_it("eigs", *options, "--rtol-eigs", 1e-9, "--max-steps", 2 * self.n)
            found = entry["eigenvalues/eigenvalue"][()]
            if expected is None:
                expected = spectrum[np.argsort(-np.abs(spectrum), kind="stable")][: self.used + 9]
                found, expected = np.abs(found), np.abs(expected)
            np.testing.assert_allclose(found, expected, atol=1e-9 * spectrum[-1])
            self.assertEqual(entry["eigenvalues/all_converged"][()], 1)
        # Of a matrix without negative eigenvalues the smallest are zeros of unused rows.
        entry, _ = self.run_it("eigs", "--curvature", "ggn", "--top", 2, "--bottom", 5, "--max-steps", 2 * self.n)
        self.assertTrue(np.all(entry["eigenvalues/eigenvalue"][2:] <= 0) and np.all(np.abs(entry["eigenvalues/eigenvalue"][2:]) < 1e-12))

    def test_traces_layers_and_samples(self):
        self.recommender()
        options = ("--trace-method", "hutchinson", "--probes", 12, "--rtol-trace", 0, "--layers")
        held, whole = self.both("trace", *options)
        for name in ("trace/sample", "trace/value", "trace/stderr", "layers/trace", "layers/trace_error", "layers/mean"):
            np.testing.assert_allclose(held[name][()], whole[name][()], rtol=1e-11, atol=1e-13, err_msg=name)
        self.assertEqual(list(held["layers/size"]), [p.numel() for p in self.model.parameters()])
        for method in ("deflated", "xtrace", "hutch++"):
            entry, _ = self.run_it("trace", "--trace-method", method, "--rtol-trace", 0.001)
            self.assertLess(abs(entry["trace/value"][()] - np.trace(self.hessian)), max(entry["trace/half_width"][()], 1e-9))
        for ranks in (2, 3) if LONG else (3,):
            other, _ = self.run_it("trace", *options, ranks=ranks)
            np.testing.assert_allclose(other["trace/sample"][()], held["trace/sample"][()], rtol=1e-11)

    def test_density_of_all_parameters(self):
        self.recommender()
        spectrum = np.linalg.eigvalsh(self.hessian)
        entry, _ = self.run_it("density", "--max-steps", 2 * self.n, "--density-w1", 1e-6, "--max-hvps", 0)
        lam, cumulative = entry["cumulative/lambda"][()], entry["cumulative/cumulative"][()]
        points = np.unique(np.r_[lam, spectrum])
        mine = np.r_[0, cumulative][np.searchsorted(lam, points, side="right")]
        theirs = np.searchsorted(spectrum, points + 1e-13, side="right") / self.n
        w1 = np.sum(np.abs(mine - theirs)[:-1] * np.diff(points))
        self.assertLess(w1, 1e-6 * (spectrum[-1] - spectrum[0]) + 1e-9)
        self.assertAlmostEqual(entry["cumulative/weight_at_zero"][()], np.mean(np.abs(spectrum) <= 1e-6 * spectrum[-1]), delta=1e-9)
        for k, moment in enumerate(entry["cumulative/moments"][()], 1):
            self.assertAlmostEqual(moment, np.mean(spectrum**k), delta=1e-8 * np.mean(np.abs(spectrum) ** k))
        # A wide kernel: the density is the sum of Gaussians over all n eigenvalues.
        sigma = 0.1 * spectrum[-1]
        smoothed = self.folder / "smoothed.h5"
        self.assertDone(hesspect("density", "--from", entry.file.filename, "--sigma", sigma, "--output", smoothed))
        for result in (self.run_it("density", "--sigma", sigma, "--density-w1", 1e-6, "--max-steps", 2 * self.n, "--max-hvps", 0)[0], h5py.File(smoothed)["entry"]):
            lam, density = result["density/lambda"][()], result["density/density"][()]
            exact = np.exp(-0.5 * ((lam[:, None] - spectrum) / sigma) ** 2).sum(1) / (self.n * sigma * np.sqrt(2 * np.pi))
            np.testing.assert_allclose(density, exact, atol=1e-7 * exact.max())
        # A rough density of few steps: nothing of the unused rows is left to chance.
        rough, _ = self.run_it("density", "--steps", 8, "--density-w1", 0, "--probes", 2)
        self.assertGreaterEqual(rough["cumulative/weight_at_zero"][()], 1 - self.used / self.n - 1e-12)
        lam, density = rough["density/lambda"][()], rough["density/density"][()]
        self.assertAlmostEqual(np.trapezoid(density, lam) if hasattr(np, "trapezoid") else np.trapz(density, lam), 1, delta=1e-5)

    def test_figures_of_the_report(self):
        """By the probes' quadratures, which are of the rows in use, and of all parameters all the same."""
        self.recommender()
        spectrum = np.linalg.eigvalsh(self.hessian)
        entry, _ = self.run_it("analyze", "--max-steps", 2 * self.n, "--density-w1", 1e-6, "--rtol-trace", 1e-3, "--max-hvps", 0, "--rtol-eigs", 1e-9)
        ended = hesspect("report", entry.file.filename, "--format", "json")
        self.assertDone(ended)
        figures = {}
        for figure in json.loads(ended.out)["results"][0]["figures"]:
            figures.setdefault(figure["key"], figure)
        damping = float(figures["effective_dimension"]["of"].split("=")[1])
        above = spectrum[spectrum > 0]
        for key, exact in (("frobenius", np.linalg.norm(spectrum)), ("effective_dimension", np.sum(above / (above + damping))),
                           ("lambda_min", spectrum[0]), ("trace", spectrum.sum()), ("mean_eigenvalue", spectrum.mean())):
            self.assertAlmostEqual(figures[key]["value"], exact, delta=1e-3 * abs(exact), msg=key)

    def test_sharpness_at_looked_up_inputs(self):
        self.recommender()
        outputs = []
        for mode in ("auto", "off"):
            output = self.folder / f"inputs-{mode}.h5"
            self.assertDone(hesspect("inputs", "--model", self.folder / "model.pt2", "--data", self.folder / "model.h5", "--loss", "mse",
                                     "--dtype", "float64", "--rows-in-use", mode, "--output", output))
            with h5py.File(output) as f:
                self.assertEqual(f["entry/diagnostics/n_parameters"][()], self.n)
                outputs.append({k: f[f"entry/inputs/rows/{k}"][()] for k in ("row", "largest", "gradient_norm", "change")})
        for name, values in outputs[0].items():
            np.testing.assert_allclose(values, outputs[1][name], rtol=1e-9, atol=1e-12, err_msg=name)

    def test_blocks(self):
        """Blocks are of all their parameters, whatever rows vectors hold: as the dense block has them, and in both modes the same."""
        self.recommender()
        starts = np.cumsum([0, *(v.numel() for v in self.model.parameters())])
        places = {k: np.arange(a, b).reshape(v.shape) for (k, v), a, b in zip(self.model.named_parameters(), starts, starts[1:])}
        blocks = {"users": places["user.weight"].ravel(),
                  "some": np.r_[places["user.weight"][:10].ravel(), places["net.bias"]],  # of which some rows are used
                  "none": places["item.weight"][[0, 1, 40]].ravel(),
                  "column": places["genre.weight"][:, 1]}
        options = ["--block", "users=user[.]weight", "--block", "some=user[.]weight@rows=0-9", "--block", "some=net[.]bias",
                   "--block", "none=item[.]weight@rows=0-1,40", "--block", "column=genre[.]weight@columns=1"]
        more = ("--sigma", 0.05, "--top", 3, "--bottom", 2, "--rtol-eigs", 1e-10, "--max-steps", 2 * self.n, "--block-hvps", 2000, "--max-hvps", 0,
                "--density-w1", 1e-6)
        held, ended = self.run_it("analyze", *options, *more, ranks=2)
        whole, _ = self.run_it("analyze", *options, *more, mode="off")
        self.assertEqual(held["diagnostics/n_parameters_in_use"][()], self.used)
        self.assertIn("4 blocks: at most", ended.err)
        rows = in_use(self.data)
        unused = {"users": 3 * (60 - len(rows["user.weight"])), "some": 3 * (10 - np.sum(rows["user.weight"] < 10)), "none": 9,
                  "column": 20 - len(rows["genre.weight"])}
        sigma = 0.05
        for name, at in blocks.items():
            exact = self.hessian[np.ix_(at, at)]
            spectrum = np.linalg.eigvalsh(exact)
            scale = max(np.abs(spectrum).max(), 1e-6)
            groups = [entry["blocks"][name] for entry in (held, whole)]
            self.assertEqual([group["unused"][()] for group in groups], [unused[name], 0])
            for group in groups:
                self.assertEqual(group["parameters"][()], len(at))
                np.testing.assert_allclose(group["eigenvalues/eigenvalue"][()], [*spectrum[::-1][:3], *spectrum[:2][::-1]], atol=1e-9 * scale)
                self.assertAlmostEqual(group["trace/value"][()], np.trace(exact), delta=1e-9 * scale)
                self.assertAlmostEqual(group["norm_sq"][()], np.sum(exact**2), delta=1e-9 * scale**2)
                self.assertAlmostEqual(group["cumulative/weight_at_zero"][()], np.mean(np.abs(spectrum) <= 1e-6 * scale), delta=1e-9)
                for k, moment in enumerate(group["cumulative/moments"][()], 1):
                    self.assertAlmostEqual(moment, np.mean(spectrum**k), delta=1e-9 * scale**k)
                lam, density = group["density/lambda"][()], group["density/density"][()]
                exact_density = np.mean(np.exp(-0.5 * ((lam[:, None] - spectrum) / sigma) ** 2), 1) / (sigma * np.sqrt(2 * np.pi))
                np.testing.assert_allclose(density, exact_density, atol=1e-6 * exact_density.max())
        for name in ("rest_parameters", "off_block_obstacle"):
            self.assertEqual(held["block_summary"][name][()], whole["block_summary"][name][()])
        self.assertIn("overlap in 'user.weight'", held["block_summary/off_block_obstacle"].asstr()[()])
        for name in ("js_distance", "js_distance_mean"):
            np.testing.assert_allclose(held["block_summary"][name][()], whole["block_summary"][name][()], atol=1e-3)
        # Apart, and all of them: samples of more blocks than can be found whole are the same numbers too.
        options = ("--blocks", "per-tensor", "--trace-method", "hutchinson", "--probes", 2, "--block-hvps", 12, "--steps", 4, "--rtol-trace", 0)
        held, whole = self.both("trace", *options, code=0)
        self.assertEqual(held["block_summary/rest_parameters"][()], 0)
        for name in ("off_block_share", "norm_sq"):
            error = 5 * np.hypot(held["block_summary"][name + "_error"][()], whole["block_summary"][name + "_error"][()])
            self.assertLess(abs(held["block_summary"][name][()] - whole["block_summary"][name][()]), error + 1e-9)

    def test_files_of_vectors(self):
        self.recommender()
        shapes = {k: p.shape for k, p in self.model.named_parameters()}
        rows = in_use(self.data)
        options = ("--trace-method", "hutchinson", "--probes", 6, "--rtol-trace", 0, "--top", 3, "--bottom", 1, "--rtol-eigs", 1e-10, "--steps", 12,
                   "--density-w1", 0)
        flat = {}
        for suffix in (".h5", ".safetensors"):
            for mode, ranks in ((*([("auto", 1)] if LONG else []), ("auto", 2), ("off", 1)) if suffix == ".h5" else (("auto", 2),)):
                diagonal, vectors = (self.folder / f"{what}-{mode}-{ranks}{suffix}" for what in "dv")
                self.run_it("analyze", *options, "--diagonal", diagonal, "--eigenvectors", vectors, mode=mode, ranks=ranks)
                for what, path in (("d", diagonal), ("v", vectors)):
                    if suffix == ".h5":
                        with h5py.File(path) as f:
                            arrays = {k: f["vectors"][k][()] for k in shapes}
                    else:
                        arrays = load_file(path)
                    for name, shape in shapes.items():
                        self.assertEqual(arrays[name].shape[1:], tuple(shape))
                        if name in rows:
                            unused = np.setdiff1d(np.arange(shape[0]), rows[name])
                            self.assertTrue(mode == "off" or np.all(arrays[name][:, unused] == 0))
                    count = arrays["bias"].shape[0]
                    flat[what, suffix, mode, ranks] = np.concatenate([arrays[k].reshape(count, -1) for k in shapes], 1)
        for (what, *key), found in flat.items():
            expected = flat[what, ".h5", "off", 1]
            if what == "v":
                found = found * np.sign(np.sum(found * expected, 1, keepdims=True))
            np.testing.assert_allclose(found, expected, atol=1e-9 if what == "v" else 1e-13, err_msg=str(key))
        # Zeros of unused rows have vectors, too: units, of an orthonormal set.
        path = self.folder / "all.h5"
        entry, _ = self.run_it("eigs", "--top", self.n, "--bottom", 0, "--max-steps", 2 * self.n, "--rtol-eigs", 1e-9, "--eigenvectors", path)
        with h5py.File(path) as f:
            v = np.concatenate([f["vectors"][k][()].reshape(self.n, -1) for k in shapes], 1)
            np.testing.assert_array_equal(f["values"][()], entry["eigenvalues/eigenvalue"][()])
            np.testing.assert_allclose(v @ v.T, np.eye(self.n), atol=1e-8)
            np.testing.assert_allclose(self.hessian @ v.T, v.T * f["values"][()], atol=1e-8 * np.abs(self.hessian).max())

    def test_tables_that_stay_whole(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(40, 4)

            def forward(self, ids):
                return F.linear(torch.tanh(self.table(ids)), self.table.weight)

        class Chosen(nn.Module):
            """The second table's index depends on the first one's values."""

            def __init__(self):
                super().__init__()
                self.first, self.second, self.head = nn.Embedding(40, 4), nn.Embedding(4, 30), nn.Linear(30, 3)

            def forward(self, ids):
                h = self.first(ids)
                return self.head(torch.tanh(self.second(h.argmax(1)) * h.sum(1, keepdim=True)))

        ids = torch.arange(ROWS) % 11
        for name, model, used in (("tied", Tied().double(), 160), ("chosen", Chosen().double(), 11 * 4 + 120 + 93)):
            target = torch.randint(0, 3, (ROWS,))
            save(self.folder, model, {"ids": ids}, target, name)
            entry, _ = self.run_it("eigs", "--top", 3, "--bottom", 2, "--rtol-eigs", 1e-10, name=name, loss="cross_entropy")
            spectrum = np.linalg.eigvalsh(hessian_of(F.cross_entropy(model(ids), target), model))
            np.testing.assert_allclose(entry["eigenvalues/eigenvalue"][()], [*spectrum[::-1][:3], *spectrum[:2][::-1]], atol=1e-9 * spectrum[-1])
            self.assertEqual(entry["diagnostics/n_parameters_in_use"][()], used)

    def test_an_id_that_is_no_row(self):
        self.recommender()
        with h5py.File(self.folder / "model.h5", "r+") as f:
            f["user"][3] = 60
        errors = []
        for mode in ("auto", "off"):
            ended = hesspect("eigs", "--model", self.folder / "model.pt2", "--data", self.folder / "model.h5", "--loss", "mse", "--rows-in-use", mode,
                             "--output", self.folder / "r.h5")
            self.assertEqual(ended.code, 4, ended.err)
            self.assertEqual(len(ended.errors), 1)
            errors += ended.errors
        self.assertEqual(*errors)
        self.assertIn("index out of range", errors[0])

    def test_weights_from_a_state_dict(self):
        self.recommender()
        expected, _ = self.run_it("eigs", "--top", 3)
        state = {k: v.contiguous() for k, v in self.model.state_dict().items()}
        save_file(state, self.folder / "w.safetensors")
        torch.save(state, self.folder / "w.pt")
        with torch.device("meta"):
            empty = Recommender().double()
        shapes = {k: {0: BATCH} for k in self.data}
        with torch.device("meta"):
            program = torch.export.export(empty.eval(), (), {k: v[:4].to("meta") for k, v in self.data.items()}, dynamic_shapes=shapes, strict=False)
        torch.export.save(program, self.folder / "empty.pt2")
        os.link(self.folder / "model.h5", self.folder / "empty.h5")
        further = (("model", "w.pt"), ("empty", "w.safetensors")) if LONG else ()
        for name, weights in (("model", "w.safetensors"), ("empty", "w.pt"), *further):
            entry, _ = self.run_it("eigs", "--top", 3, "--weights", self.folder / weights, name=name)
            np.testing.assert_array_equal(entry["eigenvalues/eigenvalue"][()], expected["eigenvalues/eigenvalue"][()])
            self.assertEqual(entry["diagnostics/n_parameters_in_use"][()], self.used)
        # What is not finite in a row that is not used takes no part; in one that is, it does.
        for row, code in ((2, 0), (3, 4)):
            broken = {k: v.clone() for k, v in state.items()}
            broken["user.weight"][row, 1] = float("nan")
            save_file(broken, self.folder / "broken.safetensors")
            ended = hesspect("eigs", "--model", self.folder / "model.pt2", "--data", self.folder / "model.h5", "--loss", "mse", "--output",
                             self.folder / f"broken-{row}.h5", "--weights", self.folder / "broken.safetensors")
            self.assertEqual(ended.code, code, ended.err)
            self.assertTrue(code == 0 or "'user.weight' holds 1 non-finite value" in ended.err, ended.err)

    def test_stopped_and_resumed(self):
        self.recommender()
        options = ("--steps", 12, "--density-w1", 0, "--probes", 3, "--max-steps", 60, "--eigenvectors", self.folder / "v.h5", "--top", 3)
        whole, _ = self.run_it("analyze", *options, ranks=2)
        output = self.folder / "resumed.h5"
        command = ("analyze", "--model", self.folder / "model.pt2", "--data", self.folder / "model.h5", "--loss", "mse", "--dtype", "float64",
                   "--output", output, *options[:-4], *options[-2:], "--resume")
        ended = hesspect(*command, "--max-hours", 1e-9, ranks=2)
        self.assertEqual(ended.code, 75, ended.err)
        refused = hesspect(*command, "--rows-in-use", "off", ranks=2)
        self.assertEqual(refused.code, 2, refused.err)
        self.assertIn("another configuration", refused.err)
        self.assertDone(hesspect(*command, ranks=2))
        with h5py.File(output) as f:
            entry = f["entry"]
            self.assertGreater(entry["diagnostics/starts"][()], 1)
            for name in ("eigenvalues/eigenvalue", "quadrature/alpha", "trace/value", "cumulative/cumulative"):
                np.testing.assert_allclose(entry[name][()], whole[name][()], rtol=1e-9, atol=1e-12, err_msg=name)

    def test_plan_counts_what_is_in_use(self):
        self.recommender()
        ended = hesspect("plan", "--model", self.folder / "model.pt2", "--data", self.folder / "model.h5", "--loss", "mse")
        self.assertDone(ended)
        self.assertIn(f"of {self.n} parameters {self.used} are in use", ended.out)

    def test_a_huge_table_costs_what_is_used_of_it(self):
        """1e8 entries in a file of holes, of which 1,600 are used."""

        class Huge(nn.Module):
            def __init__(self, rows):
                super().__init__()
                self.table, self.net, self.out = nn.Embedding(rows, 16), nn.Linear(16, 8), nn.Linear(8, 1)

            def forward(self, ids):
                return self.out(torch.tanh(self.net(self.table(ids)))).squeeze(-1)

        rows = 6_250_000
        ids = torch.arange(100) * 62_003 + 7
        values = torch.randn(100, 16)
        torch.manual_seed(3)
        small = Huge(100)
        with torch.no_grad():
            small.table.weight.copy_(values)
        target = torch.rand(100)
        peaks, found = [], []
        for name, count, index in (("small", 100, torch.arange(100)), ("huge", rows, ids)):
            with torch.device("meta"):
                program = torch.export.export(Huge(count).eval(), (), {"ids": ids[:4].to("meta")}, dynamic_shapes={"ids": {0: BATCH}}, strict=False)
            torch.export.save(program, self.folder / f"{name}.pt2")
            with h5py.File(self.folder / f"{name}.h5", "w") as f:
                f["ids"], f["target"] = index.numpy(), target.numpy()
            write_sparse(self.folder / f"{name}.safetensors", small, count, index.numpy(), values.numpy())
            output = self.folder / f"{name}-result.h5"
            process = subprocess.Popen([BIN, "eigs", "--model", self.folder / f"{name}.pt2", "--weights", self.folder / f"{name}.safetensors", "--data",
                                        self.folder / f"{name}.h5", "--loss", "mse", "--top", "3", "--bottom", "1", "--output", output],
                                       stderr=subprocess.PIPE, text=True, env=environment())
            with process.stderr:
                err = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
            self.assertEqual(status, 0, err)
            peaks.append(usage.ru_maxrss / 1024)
            with h5py.File(output) as f:
                found.append(f["entry/eigenvalues/eigenvalue"][()])
                self.assertEqual(f["entry/diagnostics/n_parameters"][()], count * 16 + 145)
                self.assertEqual(f["entry/diagnostics/n_parameters_in_use"][()], 1600 + 145)
        np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6 * found[0][0])
        print(f"peak memory {peaks[0]:.0f} MiB of the small table, {peaks[1]:.0f} MiB of the huge one")
        self.assertLess(peaks[1], peaks[0] + 60)  # its entries alone are 381 MiB


def write_sparse(path, model, rows, used, values):
    """safetensors of the model with a table of so many rows, zero but for those in use, which the file has as holes."""
    tensors = {k: v.detach().numpy() for k, v in model.state_dict().items() if k != "table.weight"}
    header, at = {"table.weight": {"dtype": "F32", "shape": [rows, 16], "data_offsets": [0, rows * 64]}}, rows * 64
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        begin = f.tell()
        f.truncate(begin + at)
        for row, value in zip(used, values):
            f.seek(begin + int(row) * 64)
            f.write(value.astype("<f4").tobytes())
        for name, tensor in tensors.items():
            f.seek(begin + header[name]["data_offsets"][0])
            f.write(tensor.astype("<f4").tobytes())


if __name__ == "__main__":
    unittest.main(verbosity=2)
