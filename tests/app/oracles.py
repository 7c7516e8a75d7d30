#!/usr/bin/env python3
"""The program against independent solvers: ARPACK and LAPACK on Hessians that PyTorch computes in float64, its own autograd
alone; and against the float64 references of bench/versus where the workloads are there (python -m hesspect.workloads)."""

import hashlib
import json
import os
import sys
import unittest
from pathlib import Path

import h5py
import numpy as np
import torch
from harness import FIXTURES, LONG, Case, arguments, hesspect
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.stats import t as student

SOURCE = Path(os.environ["HESSPECT_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "fixtures"))
import cases  # noqa: E402
import reference  # noqa: E402

SEEDS = 10


def rebuilt(name):
    """The fixture's model and data, as make_fixtures.py made them."""
    torch.manual_seed(cases.seed_of(name))
    case = cases.CASES[name]()
    with h5py.File(FIXTURES / f"{name}.ref.h5") as f:
        loss, _, _, hv = reference.products(case, torch.float64, {k: torch.as_tensor(v[()]) for k, v in leaves(f["f64/v"]).items()})
        expected = leaves(f["f64/hv"])
        assert abs(loss - f["f64/loss"][()]) < 1e-12, "not the fixture's model"
        for key, value in hv.items():
            np.testing.assert_allclose(value, expected[key][()], atol=1e-10)
    return case


def leaves(group):
    """Name of parameter -> dataset."""
    return {key: group[key] for key in group}


def on_products(case, solve):
    """solve(LinearOperator of v -> Hv in float64)."""
    with reference.evaluation(case, torch.float64) as (params, run):
        parameters = list(params.values())
        loss = reference.loss_of(case, run(), reference.in_dtype(case.target, torch.float64))
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        sizes = [p.numel() for p in parameters]

        def product(v):
            pieces = torch.as_tensor(np.ascontiguousarray(v).reshape(-1)).split(sizes)
            dot = sum((g.reshape(-1) * piece).sum() for g, piece in zip(gradients, pieces))
            hv = torch.autograd.grad(dot, parameters, retain_graph=True, materialize_grads=True)
            return torch.cat([h.reshape(-1) for h in hv]).numpy()

        return solve(LinearOperator((sum(sizes), sum(sizes)), matvec=product, dtype=np.float64))


def arpack(operator, count, which):
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    return eigsh(operator, k=count, which=which, tol=1e-12, ncv=min(operator.shape[0], 6 * count + 10), v0=start)


def flat(path, order):
    """[k, n] the vectors of an eigenvector or diagonal file."""
    with h5py.File(path) as f:
        found = f["vectors"]
        return np.concatenate([found[key][()].reshape(len(found[key]), -1) for key in order], axis=1)


def steps(values, at):
    return np.searchsorted(np.sort(values), at, side="right") / len(values)


class Arpack(Case):
    """Extreme eigenpairs of a batch-norm CNN and of a BERT of 22,000 parameters."""

    def pairs(self, name, loss, **options):
        result, vectors = self.folder / f"{name}.h5", self.folder / f"{name}.vectors.h5"
        ended = hesspect("eigs", *arguments(name, result, loss, dtype="float64", eigenvectors=vectors, rtol_eigs=1e-8, **options), "--force")
        self.assertDone(ended)
        vectors.rename(self.folder / "vectors.h5")
        with h5py.File(result) as f, h5py.File(FIXTURES / f"{name}.ref.h5") as ref:
            e = f["entry/eigenvalues"]
            self.assertTrue(e["converged"][()].all())
            found = {k: e[k][()] for k in ("eigenvalue", "error", "true_residual")}
            return found, flat(self.folder / "vectors.h5", list(ref.attrs["param_order"]))

    def check(self, found, vectors, values, exact_vectors):
        """In the order of `values`."""
        scale = np.abs(values).max()
        np.testing.assert_allclose(found["eigenvalue"], values, rtol=0, atol=1e-9 * scale)
        self.assertTrue((np.abs(found["eigenvalue"] - values) <= found["error"] + 1e-13 * scale).all())
        self.assertTrue((found["true_residual"] <= 2e-8 * scale).all())
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-12)
        cosines = np.abs(np.sum(vectors * exact_vectors.T, axis=1))
        np.testing.assert_array_less(1 - cosines, 1e-8)

    def solve(self, name, loss):
        case = rebuilt(name)
        (top, v_top), (low, v_low), (large, v_large) = on_products(case, lambda a: [arpack(a, k, w) for k, w in ((6, "LA"), (3, "SA"), (8, "LM"))])
        found, vectors = self.pairs(name, loss, top=6, bottom=3)
        self.check(found, vectors, np.concatenate([top[::-1], low[::-1]]), np.concatenate([v_top[:, ::-1], v_low[:, ::-1]], axis=1))
        found, vectors = self.pairs(name, loss, magnitude=8)
        order = np.argsort(-np.abs(large))
        self.check(found, vectors, large[order], v_large[:, order])

    def test_cnn(self):
        self.solve("cnn_bn", "cross_entropy")

    def test_bert(self):
        self.solve("bert", "cross_entropy")


class Dense(Case):
    """Trace, layers, diagonal and density against whole Hessians, from so few products that sampling counts."""

    def analyze(self, name, loss, seed, **options):
        result = self.folder / f"{name}.{seed}.h5"
        args = arguments(name, result, loss, dtype="float64", seed=seed, top=2, bottom=1, rtol_eigs=1e-3, steps=16, max_steps=16, **options)
        ended = hesspect("analyze", *args)
        self.assertIn(ended.code, (0, 3), ended.err)  # 3: sixteen steps may be too few for the eigenvalues
        return result

    def scores(self, name, loss, hessian):
        """Over SEEDS seeds: how often the trace's interval and W1's bound held, how much of the band, the layers' z."""
        exact = np.linalg.eigvalsh((hessian + hessian.T) / 2)
        sizes, order = self.layout(name)
        layers = [part.sum() for part in np.split(np.diagonal(hessian), np.cumsum(sizes)[:-1])]
        held, within, band, z = 0, 0, [], []
        for seed in range(SEEDS):
            with h5py.File(self.analyze(name, loss, seed, rtol_trace=0, density_w1=0, probes=16)) as f:
                e = f["entry"]
                trace = {k: e[f"trace/{k}"][()] for k in ("value", "half_width", "deflated", "samples")}
                self.assertLess(trace["deflated"], 17)
                self.assertGreaterEqual(trace["samples"], 16)
                held += abs(trace["value"] - exact.sum()) <= trace["half_width"]
                c = {k: e[f"cumulative/{k}"][()] for k in ("lambda", "cumulative", "cumulative_lower", "cumulative_upper", "w1")}
                grid = np.sort(np.concatenate([exact, c["lambda"]]))
                found = np.concatenate([[0], c["cumulative"]])[np.searchsorted(c["lambda"], grid, side="right")]
                within += np.sum(np.abs(steps(exact, grid) - found)[:-1] * np.diff(grid)) <= c["w1"]
                truth = steps(exact, c["lambda"][:-1] + np.diff(c["lambda"]) / 2)
                band.append(np.mean((truth >= c["cumulative_lower"][:-1] - 1e-12) & (truth <= c["cumulative_upper"][:-1] + 1e-12)))
                self.assertEqual(list(e["layers/name"].asstr()), order)
                z += list((e["layers/trace"][()] - layers) / e["layers/trace_error"][()])
                self.assertAlmostEqual(e["layers/trace"][()].sum(), trace["value"], delta=1e-10 * np.abs(exact).sum())
        return held, within, np.mean(band), z

    def layout(self, name):
        with h5py.File(FIXTURES / f"{name}.ref.h5") as f:
            order = list(f.attrs["param_order"])
            return [f[f"f64/grad/{key}"].size for key in order], order

    def check(self, name, loss, hessian):
        held, within, band, z_layers = self.scores(name, loss, hessian)
        diagonal_file = self.folder / "diagonal.h5"
        result = self.analyze(name, loss, SEEDS, rtol_trace=0.2, density_w1=0, diagonal=diagonal_file)
        with h5py.File(result) as f:
            samples = f["entry/trace/samples"][()]
        value, error = flat(diagonal_file, self.layout(name)[1])
        z_diagonal = (value - np.diagonal(hessian))[error > 0] / error[error > 0]
        rms = lambda z: float(np.sqrt(np.mean(np.square(z))))
        print(f"{name}: trace held in {held}, W1 in {within} of {SEEDS}, band {band:.3f}, z of layers {rms(z_layers):.2f}, "
              f"of the diagonal {rms(z_diagonal):.2f} ({samples} samples)", flush=True)
        self.assertGreaterEqual(held, 8)  # of ten at a nominal 90 %
        self.assertGreaterEqual(within, 9)
        self.assertGreaterEqual(band, 0.85)
        self.assertTrue(0.7 < rms(z_layers) < 1.5, z_layers)
        self.assertGreaterEqual(samples, 16)
        self.assertTrue(0.8 < rms(z_diagonal) < 1.3)
        self.assertGreater(len(z_diagonal), 0.9 * len(hessian))

    def test_mlp(self):
        with h5py.File(FIXTURES / "mlp_ce.ref.h5") as f:
            self.check("mlp_ce", "cross_entropy", f["f64/dense_hessian"][()])

    @unittest.skipUnless(LONG, "with HESSPECT_LONG=1")
    def test_cnn(self):
        self.check("cnn_bn", "cross_entropy", reference.dense_hessian(rebuilt("cnn_bn")))


class GradientDescent(Case):
    def test_the_edge_of_stability_of_a_quadratic_loss(self):
        """Linear regression: gradient descent on the loss itself converges at 1.99/λmax and diverges at 2.01/λmax."""
        result = self.folder / "r.h5"
        self.assertDone(hesspect("eigs", *arguments("linreg", result, "mse", dtype="float64", top=1, bottom=0)))
        with h5py.File(result) as f:
            largest = f["entry/eigenvalues/eigenvalue"][0]
        with h5py.File(FIXTURES / "linreg.data.h5") as f:
            x, y = f["input"][()].astype(np.float64), f["target"][()].astype(np.float64)[:, 0]
        loss = lambda w: np.mean((x @ w - y) ** 2)
        least = loss(np.linalg.lstsq(x, y, rcond=None)[0])
        excess = {}
        for factor in (1.99, 2.01):
            w = np.ones(x.shape[1])
            before = loss(w) - least
            for _ in range(2000):
                w -= factor / largest * 2 / len(x) * (x.T @ (x @ w - y))
            excess[factor] = (loss(w) - least) / before
        self.assertLess(excess[1.99], 0.1)  # the smallest eigenvalues are 1e-6 of the largest: their part takes longer
        self.assertGreater(excess[2.01], 1e6)


class Workloads(Case):
    """Against bench/versus/references/NAME.json (PyTorch and SciPy, float64), on the same rows and weights."""

    def against(self, name, dtype, tolerance, **options):
        made, known = SOURCE / "runs" / name, SOURCE / "bench" / "versus" / "references" / f"{name}.json"
        if not (made / "model.pt2").exists() or not known.exists():
            self.skipTest(f"runs/{name} or its reference is not there")
        exact = json.loads(known.read_text())
        if hashlib.sha256((made / "weights.safetensors").read_bytes()).hexdigest() != exact["weights_sha256"]:
            self.skipTest(f"runs/{name} has other weights than the reference")
        result = self.folder / "r.h5"
        ended = hesspect("analyze", "--model", made / "model.pt2", "--weights", made / "weights.safetensors", "--data", made / "data.h5",
                         "--samples", exact["rows"], "--dtype", dtype, "--rtol-eigs", "1e-5", "--density-w1", "0.05", "--output", result,
                         *(part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)), timeout=3000)
        self.assertIn(ended.code, (0, 3), ended.err)
        with h5py.File(result) as f:
            e = f["entry"]
            self.assertEqual(e["diagnostics/n_parameters"][()], exact["dimensions"])
            values = np.concatenate([exact["top10"], exact["bottom3"]])
            scale = np.abs(values).max()
            found, error = e["eigenvalues/eigenvalue"][()], e["eigenvalues/error"][()]
            np.testing.assert_allclose(found, values, rtol=0, atol=tolerance * scale)
            self.assertTrue((np.abs(found - values) <= error + 1e-10 * scale).all(), np.abs(found - values) - error)
            off = abs(e["trace/value"][()] - exact["trace"])
            self.assertLessEqual(off, e["trace/half_width"][()] + 2 * exact["trace_standard_error"])
            layers = dict(zip(e["layers/name"].asstr()[()], zip(e["layers/trace"][()], e["layers/trace_error"][()])))
            self.assertEqual(set(layers), set(exact["layers"]))
            quantile = student.ppf(1 - 1e-4, e["trace/samples"][()] - 1)  # errors of few samples have long tails
            for key, value in exact["layers"].items():
                self.assertLessEqual(abs(layers[key][0] - value), quantile * layers[key][1] + 1e-6 * scale, key)

    def test_widedeep(self):
        self.against("widedeep", "float64", 1e-8, loss="bce_with_logits", micro_batch=2500, rtol_trace=0.01)

    @unittest.skipUnless(LONG, "with HESSPECT_LONG=1")
    def test_cnn(self):
        self.against("cnn", "float32", 1e-6, loss="cross_entropy", micro_batch=50, rtol_trace=0.05)

    @unittest.skipUnless(LONG, "with HESSPECT_LONG=1")
    def test_minilm(self):
        self.against("minilm", "float32", 1e-5, loss="cross_entropy", micro_batch=4, rtol_trace=0.05)


if __name__ == "__main__":
    unittest.main(verbosity=2)
