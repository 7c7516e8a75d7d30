#!/usr/bin/env python3
"""The process grid: the same numbers however many groups, ranks and probes at a time, and the plan that chooses them.

HESSPECT_LONG=1 takes more grids for each model.
"""

import unittest

import h5py
import numpy as np
from harness import LONG, Case, arguments, hesspect

LOSSES = {"mlp_ce": "cross_entropy", "gpt2": "causal_lm", "widedeep": "bce_with_logits", "cnn_bn": "cross_entropy"}
# Groups, ranks a group.
GRIDS = {"mlp_ce": [(2, 1)], "gpt2": [(2, 2), (1, 3)], "widedeep": [(1, 2)], "cnn_bn": [(1, 2)]}
if LONG:
    GRIDS = dict.fromkeys(LOSSES, [(2, 1), (2, 2), (1, 3), (4, 1)]) | {"gpt2": [(2, 1), (1, 2), (2, 2), (1, 3), (1, 4), (4, 1)]}


class Grid(Case):
    def analyze(self, case, groups, data_ranks, *more, **options):
        output = self.folder / f"{case}.{groups}x{data_ranks}.{len(list(self.folder.iterdir()))}.h5"
        values = {"top": 3, "bottom": 1, "max_steps": 30, "probes": 4, "steps": 16, "seed": 7, "micro_batch": 4,
                  "density_w1": 0, "rtol_trace": 0, **options}
        ended = hesspect("analyze", *arguments(case, output, LOSSES[case], groups=groups, **values), *more,
                         ranks=groups * data_ranks)
        self.assertIn(ended.code, (0, 3), ended.err)
        return output

    def quadrature(self, path):
        with h5py.File(path) as f:
            e = f["entry"]
            return e["quadrature/alpha"][()], e["quadrature/beta"][()], np.abs(e["eigenvalues/eigenvalue"][()]).max()

    def check_grids(self, case, dtype, tolerance, grids):
        """α and β of every probe, against one rank's, relative to the norm of H."""
        alpha, beta, scale = self.quadrature(self.analyze(case, 1, 1, dtype=dtype))
        worst = 0
        for groups, data_ranks in grids:
            result = self.analyze(case, groups, data_ranks, dtype=dtype)
            a, b, _ = self.quadrature(result)
            self.assertEqual(a.shape, alpha.shape)
            worst = max(worst, np.nanmax(np.abs(a - alpha)) / scale, np.nanmax(np.abs(b - beta)) / scale)
            if data_ranks == 1:  # who ran a probe is no matter at all
                np.testing.assert_array_equal(a, alpha)
                np.testing.assert_array_equal(b, beta)
            with h5py.File(result) as f:
                d = f["entry/diagnostics"]
                self.assertEqual((d["groups"][()], d["data_ranks"][()]), (groups, data_ranks))
        print(f"{case} {dtype}: alpha and beta differ by {worst:.1e} of the norm over {len(grids)} grids")
        self.assertLess(worst, tolerance)

    def test_float64(self):
        for case in LOSSES:
            with self.subTest(case):
                self.check_grids(case, "float64", 1e-12, GRIDS[case])

    def test_float32(self):
        """The bound that docs/cli.md states."""
        for case in ("mlp_ce", "gpt2") if LONG else ("gpt2",):
            with self.subTest(case):
                self.check_grids(case, "float32", 1e-5, GRIDS[case] if LONG else [(1, 2)])

    def test_who_is_faster_decides_nothing(self):
        """How many Lanczos runs and samples of the trace there are follows from their values alone, in probe order."""
        def numbers(groups):
            with h5py.File(self.analyze("mlp_ce", groups, 1, probes=1, max_steps=100, density_w1=0.04, rtol_trace=0.1,
                                           dtype="float64")) as f:
                self.assertTrue(f["entry/trace/converged"][()] and f["entry/cumulative/converged"][()])
                return {name: f["entry"][name][()] for name in (
                    "quadrature/alpha", "cumulative/cumulative", "cumulative/w1", "trace/sample", "trace/sample_probe", "trace/value",
                    "trace/half_width", "layers/trace", "layers/trace_error", "eigenvalues/eigenvalue")}

        one = numbers(1)
        self.assertGreater(len(one["quadrature/alpha"]), 1)
        self.assertGreater(len(one["trace/sample"]), 2)
        for groups in (2, 3, 4) if LONG else (3,):
            for name, value in numbers(groups).items():
                np.testing.assert_allclose(value, one[name], rtol=1e-8, atol=1e-8 * np.nanmax(np.abs(one[name])),
                                           err_msg=f"{name} of {groups} groups")

    def test_lock_step_and_what_is_kept_change_nothing_but_rounding(self):
        """Products that are taken together round differently from each alone; what is kept between products does not."""
        alpha, beta, scale = self.quadrature(self.analyze("gpt2", 1, 2, dtype="float64"))
        for more in (("--lock-step", 4), ("--lock-step", 3, "--graph-memory", 0), ("--graph-memory", 0)):
            result = self.analyze("gpt2", 1, 2, *more, dtype="float64")
            a, b, _ = self.quadrature(result)
            tolerance = 1e-9 * scale if "--lock-step" in more else 0
            np.testing.assert_allclose(a, alpha, rtol=0, atol=tolerance, err_msg=str(more))
            np.testing.assert_allclose(b, beta, rtol=0, atol=tolerance, err_msg=str(more))
            with h5py.File(result) as f:
                if more[0] == "--lock-step":
                    self.assertEqual(f["entry/diagnostics/lock_step"][()], more[1])
                if "--graph-memory" in more:
                    self.assertEqual(f["entry/diagnostics/kept_graphs"][()], 0)

    def test_basis_in_bfloat16(self):
        """Half the memory; the recurrence is at full precision, so the numbers stay close."""
        alpha, beta, scale = self.quadrature(self.analyze("gpt2", 1, 2, dtype="float32", steps=12))
        result = self.analyze("gpt2", 1, 2, "--basis-dtype", "bfloat16", dtype="float32", steps=12)
        a, _, _ = self.quadrature(result)
        with h5py.File(result) as f:
            self.assertEqual(f["entry/diagnostics/basis_dtype"].asstr()[()], "bfloat16")
        self.assertLess(np.nanmax(np.abs(a[:, :4] - alpha[:, :4])), 1e-2 * scale)

    def test_without_reorthogonalisation(self):
        result = self.analyze("gpt2", 2, 2, "--reorthogonalization", "none", dtype="float64", top=0, bottom=0)
        with h5py.File(result) as f:
            a = f["entry/quadrature/alpha"][()]
        full = self.analyze("gpt2", 1, 1, dtype="float64", top=0, bottom=0)
        with h5py.File(full) as f:
            np.testing.assert_allclose(a[:, :8], f["entry/quadrature/alpha"][:, :8], rtol=1e-9)

    def test_groups_are_refused_where_they_do_not_divide(self):
        ended = hesspect("analyze", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy", groups=2), ranks=3)
        self.assertEqual(ended.code, 2)
        self.assertEqual(len(ended.errors), 1, ended.err)
        self.assertIn("--groups 2", ended.errors[0])

    def test_more_groups_than_probes(self):
        result = self.analyze("mlp_ce", 4, 1, dtype="float64", probes=2)
        alpha, _, _ = self.quadrature(self.analyze("mlp_ce", 1, 1, dtype="float64", probes=2))
        np.testing.assert_array_equal(self.quadrature(result)[0], alpha)

    def test_other_commands(self):
        """eigs and trace on groups as on one rank."""
        for command, name in (("eigs", "eigenvalues/eigenvalue"), ("trace", "trace/value"), ("density", "density/density")):
            found = []
            for groups, ranks in ((1, 1), (2, 2)):
                output = self.folder / f"{command}{ranks}.h5"
                options = dict(groups=groups, dtype="float64", micro_batch=4, probes=3, steps=12, seed=1, density_w1=0.06)
                ended = hesspect(command, *arguments("mlp_ce", output, "cross_entropy", **options), ranks=ranks)
                self.assertIn(ended.code, (0, 3), ended.err)
                with h5py.File(output) as f:
                    found.append(f["entry"][name][()])
            np.testing.assert_array_equal(found[0], found[1])

    def test_every_rank_fails_alike_in_a_group(self):
        """A product that is not finite meets one group's probe: the run ends with that one line."""
        ended = hesspect("analyze", *arguments("gpt2", self.folder / "r.h5", "causal_lm", groups=2, memory="300M"), ranks=4)
        self.assertIn(ended.code, (0, 3, 5), ended.err)


class Planning(Case):
    def plan(self, *more, case="gpt2", ranks=1):
        args = [a for a in arguments(case, "unused", LOSSES[case]) if a not in ("--output", "unused")]
        return hesspect("plan", *args, *more, ranks=ranks)

    def test_plan_runs_nothing_and_writes_nothing(self):
        before = set(self.folder.iterdir())
        ended = self.plan("--world", 8, "--memory", "80G", "--steps", 40)
        self.assertDone(ended)
        for word in ("groups", "Lanczos basis", "parameters", "messages", "products"):
            self.assertIn(word, ended.out)
        self.assertEqual(set(self.folder.iterdir()), before)

    def test_thousands_of_ranks(self):
        ended = self.plan("--world", 4096, "--memory", "80G", "--measure=false", "--probes", 64)
        self.assertDone(ended)
        self.assertLess(ended.seconds, 30)

    def test_what_does_not_fit_is_refused_at_once(self):
        """Exit 5 before any product, with options that do fit: and they do."""
        ended = self.plan("--memory", "1M", "--world", 1)
        self.assertEqual(ended.code, 5, ended.err + ended.out)
        output = self.folder / "r.h5"
        ended = hesspect("analyze", *arguments("gpt2", output, "causal_lm", memory="40M"))
        self.assertEqual(ended.code, 5, ended.err)
        self.assertEqual(len(ended.errors), 1, ended.err)
        self.assertFalse(output.exists())

    def test_forecast_and_measured_stand_side_by_side(self):
        output = self.folder / "r.h5"
        options = dict(dtype="float32", micro_batch=2, probes=2, steps=20, top=2, bottom=0, max_steps=30, density_w1=0, rtol_trace=0)
        ended = hesspect("analyze", *arguments("gpt2", output, "causal_lm", **options), ranks=2)
        self.assertIn(ended.code, (0, 3), ended.err)
        with h5py.File(output) as f:
            d = f["entry/diagnostics"]
            forecast, measured = d["forecast_memory_bytes"][()], d["peak_memory_bytes"][()]
            self.assertGreater(forecast, 0)
            self.assertGreater(2 * measured, forecast)
            self.assertGreater(2 * forecast, measured)
            self.assertGreater(d["forecast_seconds"][()], 0)
            self.assertGreater(d["cost_in_gradients"][()], 0)
            self.assertGreater(d["product_share"][()], 0)
            self.assertLessEqual(d["product_share"][()], 1)


if __name__ == "__main__":
    unittest.main()
