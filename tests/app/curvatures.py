#!/usr/bin/env python3
"""--curvature ggn, fisher and empirical_fisher against dense matrices that PyTorch forms in float64, gradient by gradient."""

import os
import sys
import unittest
from pathlib import Path

import h5py
import numpy as np
import torch
from harness import LONG, Case, arguments, hesspect

sys.path.insert(0, str(Path(os.environ["HESSPECT_SOURCE"]) / "tests" / "fixtures"))
import cases  # noqa: E402

FIXED = {"rtol_trace": 0, "density_w1": 0, "dtype": "float64"}


def outer_products(name, model_targets):
    """The mean over rows of g g', g the gradient of -log p of a row's class: of the data's, or of each by its probability."""
    torch.manual_seed(cases.seed_of(name))
    case = cases.CASES[name]()
    model = case.model.double().eval()
    parameters = list(model.parameters())
    n = sum(p.numel() for p in parameters)
    total = torch.zeros(n, n, dtype=torch.float64)
    rows = len(case.target)
    for row in range(rows):
        log_p = torch.log_softmax(model(case.inputs["x"][row : row + 1].double())[0], 0)
        for c in range(len(log_p)):
            weight = float(log_p[c].detach().exp()) if model_targets else float(case.target[row] == c)
            if weight == 0:
                continue
            g = torch.cat([g.reshape(-1) for g in torch.autograd.grad(log_p[c], parameters, retain_graph=True)])
            total += weight * torch.outer(g, g)
    return (total / rows).numpy()


class Curvatures(Case):
    def spectrum(self, curvature, ranks=1, verb="analyze", **options):
        output = self.folder / f"{curvature}.{ranks}.{verb}.h5"
        ended = hesspect(verb, *arguments("mlp_ce", output, "cross_entropy", curvature=curvature, **{**FIXED, **options}), ranks=ranks)
        self.assertDone(ended)
        return output, ended

    def test_dense(self):
        for curvature, of_model in (("ggn", True), ("fisher", True), ("empirical_fisher", False)):
            exact = outer_products("mlp_ce", of_model)
            values = np.linalg.eigvalsh(exact)[::-1]
            for ranks in (1, 3) if LONG else (3,):
                with self.subTest(curvature, ranks=ranks):
                    output, ended = self.spectrum(curvature, ranks, top=8, bottom=1, rtol_eigs=1e-10, probes=2, steps=30)
                    with h5py.File(output) as f:
                        found = f["entry/eigenvalues/eigenvalue"][()]
                        np.testing.assert_allclose(found[:8], values[:8], rtol=1e-9, atol=1e-10 * values[0])
                        self.assertLess(abs(found[-1]), 1e-12 * values[0])
                        self.assertEqual(f["entry/process/curvature"][()].decode(), curvature)
                        self.assertIn(curvature, f["entry/density/title"][()].decode())
                        trace = f["entry/trace/value"][()]
                        self.assertAlmostEqual(trace, np.trace(exact), delta=3 * f["entry/trace/half_width"][()] + 1e-9 * trace)
                    self.assertNotIn("no negative eigenvalues", ended.err)
                    self.assertIn(f"{curvature} of the loss", hesspect("inspect", output).out)

    def test_xnystrace(self):
        for curvature, of_model in (("fisher", True), ("empirical_fisher", False)):
            exact = np.trace(outer_products("mlp_ce", of_model))
            for ranks in (1, 2) if LONG else (2,):
                output, _ = self.spectrum(curvature, ranks, "trace", trace_method="xnystrace", rtol_trace=1e-6)
                with h5py.File(output) as f:
                    trace = f["entry/trace"]
                    self.assertEqual(trace["method"][()].decode(), "xnystrace")
                    self.assertTrue(trace["converged"][()])
                    self.assertAlmostEqual(trace["value"][()], exact, delta=2e-6 * exact)
                    self.assertLessEqual(trace["products"][()], 194)

    def test_refused(self):
        def refused(code, parts, loss="cross_entropy", name="mlp_ce", **options):
            ended = hesspect("trace", *arguments(name, self.folder / "r.h5", loss, **options))
            self.assertEqual((ended.code, len(ended.errors)), (code, 1), ended.err)
            for part in parts:
                self.assertIn(part, ended.errors[0])

        refused(2, ["xnystrace", "positive semi-definite"], trace_method="xnystrace")
        refused(2, ["--curvature fisher with --loss output", "no distribution"], "output", "own_loss", curvature="fisher")
        refused(2, ["--curvature empirical_fisher with --product autograd"], curvature="empirical_fisher", product="autograd")
        refused(2, ["--micro-batch 5", "one loss a row"], "output", "own_loss", curvature="empirical_fisher", micro_batch=5)
        refused(2, ["--fisher-unit"], fisher_unit="row")


if __name__ == "__main__":
    unittest.main()
