#!/usr/bin/env python3
"""From a model file to a result file, against dense Hessians that PyTorch computed.

HESSPECT_LONG=1 takes several ranks throughout; else one, but for a test of each kind (tests/app/grid.py holds ranks against one).
"""

import json
import os
import shutil
import subprocess
import unittest
from pathlib import Path

import h5py
import numpy as np
from harness import BIN, FIXTURES, LONG, MPIRUN, Case, arguments, environment, hesspect

SOURCE = Path(os.environ["HESSPECT_SOURCE"])
FIXED = {"rtol_trace": 0, "density_w1": 0}  # as many probes and steps as are given, no more
SOME = 2 if LONG else 1  # ranks, where they are not what is looked at
LOSSES = {"mlp_ce": "cross_entropy", "mlp_mse": "mse", "relu_mse": "mse", "linreg": "mse", "softmax_zero": "cross_entropy",
          "mlp_bce": "bce_with_logits", "deep_scalar": "output", "ce_weights": "cross_entropy",
          "ce_row_weights": "cross_entropy", "bce_pos_weight": "bce_with_logits"}


def reference(case):
    with h5py.File(FIXTURES / f"{case}.ref.h5") as f:
        return f["f64/eigenvalues"][()], float(f["f64/trace"][()]), float(f["f64/loss"][()])


class Analyze(Case):
    def analyze(self, case, ranks, command="analyze", **options):
        output = self.folder / f"{case}.{command}.{ranks}.h5"
        ended = hesspect(command, *arguments(case, output, LOSSES[case], dtype="float64", **options), ranks=ranks)
        self.assertDone(ended)
        self.assertIn(str(output), ended.err)
        return output

    def check_eigenvalues(self, result, case, top, bottom, rtol=1e-9):
        exact, _, _ = reference(case)
        n = len(exact)
        top, bottom = min(top, n), min(bottom, n - min(top, n))
        expected = np.concatenate([exact[::-1][:top], exact[:bottom][::-1]])
        with h5py.File(result) as f:
            found, residual = f["entry/eigenvalues/eigenvalue"][()], f["entry/eigenvalues/residual"][()]
            self.assertTrue(f["entry/eigenvalues/converged"][()].all())
        self.assertEqual(len(found), len(expected))
        scale = np.abs(exact).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * scale)
        self.assertTrue((residual <= 1e-9 * scale).all())

    def test_spectrum_at_every_rank_count(self):
        """Eigenvalues to 1e-9, the same α and β, on 1 to 4 ranks: 23 rows and 194 parameters divide by none of them."""
        runs = {}
        for ranks in (1, 2, 3, 4) if LONG else (1, 3):
            result = self.analyze("mlp_ce", ranks, top=10, bottom=3, rtol_eigs=1e-11, probes=3, steps=60, seed=5, **FIXED)
            self.check_eigenvalues(result, "mlp_ce", 10, 3)
            with h5py.File(result) as f:
                e = f["entry"]
                runs[ranks] = e["quadrature/alpha"][()], e["quadrature/beta"][()]
                self.assertEqual(e["process/ranks"][()], ranks)
                self.assertEqual(len(e["process/hosts"]), ranks)
                np.testing.assert_allclose(np.nansum(e["quadrature/weight"][()], 1), 1, rtol=1e-12)
                x, d = e["density/lambda"][()], e["density/density"][()]
                self.assertAlmostEqual(np.trapezoid(d, x), 1, delta=1e-5)
                self.assertAlmostEqual(e["diagnostics/loss"][()], reference("mlp_ce")[2], delta=1e-12)
                self.assertLess(e["diagnostics/symmetry_error"][()], 1e-14)
                self.assertLess(e["diagnostics/orthogonality_loss"][()], 1e-12)
                self.assertEqual(e["diagnostics/n_parameters"][()], 194)
                alpha, steps = e["quadrature/alpha"][()], e["quadrature/steps_taken"][()]
                self.assertEqual(alpha.shape, (3, steps.max()))
                self.assertGreaterEqual(steps[0], 60)  # it goes on as far as its eigenvalues need
                np.testing.assert_array_equal(steps[1:], 60)
                np.testing.assert_array_equal(np.isfinite(alpha).sum(1), steps)
                self.assertEqual(e["diagnostics/hvp_count"][()], 2 + steps.sum() + 13)  # symmetry, Lanczos, residuals
                self.assertEqual(len(e["process/model_sha256"].asstr()[0]), 64)
                self.assertEqual(e["trace/samples"][()], 4)  # of the symmetry check and of probes 1 and 2
                self.assertGreater(e["trace/deflated"][()], 13)
                self.assertLess(abs(e["trace/value"][()] - reference("mlp_ce")[1]), 3 * e["trace/stderr"][()])
        for found in runs.values():  # rounding grows along the run: the start must agree tightly
            for mine, one in zip(found, runs[1]):
                np.testing.assert_allclose(mine[:, :20], one[:, :20], rtol=1e-9, atol=1e-12)

    def test_known_spectra(self):
        for case in ("mlp_mse", "relu_mse", "linreg", "mlp_bce"):
            with self.subTest(case):
                result = self.analyze(case, 2 if LONG or case == "mlp_mse" else 1, top=6, bottom=2, rtol_eigs=1e-11, probes=1, steps=30, **FIXED)
                self.check_eigenvalues(result, case, 6, 2)

    def test_multiple_and_zero_eigenvalues(self):
        """Krylov spaces that close early: whole blocks of equal eigenvalues, one eigenvalue among zeros."""
        for case, top in (("softmax_zero", 8), ("deep_scalar", 5)):
            with self.subTest(case):
                result = self.analyze(case, SOME, top=top, bottom=0, rtol_eigs=1e-11, probes=2, steps=20, **FIXED)
                exact, _, _ = reference(case)
                with h5py.File(result) as f:
                    found = f["entry/eigenvalues/eigenvalue"][()]
                    np.testing.assert_allclose(found, exact[::-1][:top], atol=1e-9 * np.abs(exact).max())

    def test_weights_and_options_of_losses(self):
        """Weights from the command line, and from the data file."""
        of = {}
        for case in ("ce_weights", "ce_row_weights", "bce_pos_weight"):
            with h5py.File(FIXTURES / f"{case}.ref.h5") as f:
                of[case] = f["pos_weight" if "pos" in case else "class_weights"][()]
        listed = lambda case: ",".join(map(repr, of[case].tolist()))
        data = self.folder / "with_weights.h5"
        shutil.copy(FIXTURES / "ce_weights.data.h5", data)
        with h5py.File(data, "a") as f:
            f["of/classes"] = of["ce_weights"]
        for case, ranks, options in (
                ("ce_weights", 2, {"data": data, "class_weights": "of/classes", "label_smoothing": 0.13}),
                ("ce_row_weights", 3, {"class_weights": listed("ce_row_weights"), "label_smoothing": 0.2, "loss_weight": "weight"}),
                ("bce_pos_weight", 1, {"pos_weight": listed("bce_pos_weight")})):
            with self.subTest(case):
                result = self.analyze(case, ranks, command="eigs", top=4, bottom=2, rtol_eigs=1e-11, **options)
                self.check_eigenvalues(result, case, 4, 2)
                with h5py.File(result) as f:
                    self.assertAlmostEqual(f["entry/diagnostics/loss"][()], reference(case)[2], delta=1e-12)

    def test_eigenvalues_alone(self):
        result = self.analyze("mlp_mse", 1, command="eigs", top=4, bottom=2, rtol_eigs=1e-11)
        self.check_eigenvalues(result, "mlp_mse", 4, 2)
        with h5py.File(result) as f:
            self.assertNotIn("density", f["entry"])
            self.assertEqual(f["entry"].attrs["default"], "eigenvalues")

    def test_trace_alone(self):
        _, exact, _ = reference("relu_mse")
        result = self.analyze("relu_mse", SOME, command="trace", trace_method="hutchinson", probes=300, rtol_trace=0)
        with h5py.File(result) as f:
            value, error, samples = (f[f"entry/trace/{k}"][()] for k in ("value", "stderr", "samples"))
            self.assertEqual(f["entry/diagnostics/hvp_count"][()], 300)  # those of the symmetry check are among them
            self.assertAlmostEqual(f["entry/trace/sample"][()].mean(), value, delta=1e-12 * abs(value))
        self.assertEqual(samples, 300)
        self.assertLess(error, 0.2 * abs(exact))
        self.assertLess(abs(value - exact), 4 * error)

    def test_trace_to_its_accuracy(self):
        """By default: deflated, until the interval is narrow, with fewer products than Hutchinson's 300 above."""
        _, exact, _ = reference("relu_mse")
        with h5py.File(self.analyze("relu_mse", 2, command="trace")) as f:
            e = f["entry"]
            value, half_width = e["trace/value"][()], e["trace/half_width"][()]
            self.assertTrue(e["trace/converged"][()])
            self.assertGreater(e["trace/deflated"][()], 0)
            self.assertLess(e["diagnostics/hvp_count"][()], 300)
        self.assertLessEqual(half_width, 0.02 * abs(value))
        self.assertLess(abs(value - exact), 2 * half_width)

    def test_a_trace_of_products_that_were_made_anyway(self):
        """z'Hz of every Lanczos run's first product, and of the symmetry check, which `trace` with two probes has alone."""
        with h5py.File(self.analyze("mlp_ce", SOME, command="trace", trace_method="hutchinson", probes=2, seed=5, rtol_trace=0)) as f:
            of_check = f["entry/trace/sample"][()]
            self.assertEqual(f["entry/diagnostics/hvp_count"][()], 2)
        result = self.analyze("mlp_ce", SOME, trace_method="hutchinson", top=0, bottom=0, probes=3, steps=4, seed=5, **FIXED)
        with h5py.File(result) as f:
            e = f["entry"]
            of_runs = e["quadrature/alpha"][:, 0] * e["quadrature/norm_sq"][()]
            expected = np.concatenate([of_check, of_runs])
            np.testing.assert_allclose(e["trace/sample"][()], expected, rtol=1e-12)
            self.assertAlmostEqual(e["trace/value"][()], expected.mean(), delta=1e-12 * np.abs(expected).max())
            self.assertEqual(e["diagnostics/hvp_count"][()], 2 + 3 * 4)

    def test_float32(self):
        output = self.folder / "r.h5"
        self.assertDone(hesspect("eigs", *arguments("mlp_ce", output, "cross_entropy", top=3, bottom=1), ranks=SOME))
        exact, _, _ = reference("mlp_ce")
        with h5py.File(output) as f:
            np.testing.assert_allclose(f["entry/eigenvalues/eigenvalue"][:3], exact[::-1][:3], rtol=1e-4)

    def test_not_converged_is_a_result_and_exit_3(self):
        output = self.folder / "r.h5"
        ended = hesspect("eigs", *arguments("mlp_ce", output, "cross_entropy", max_steps=5), ranks=2)
        self.assertDone(ended, code=3)
        with h5py.File(output) as f:
            self.assertFalse(f["entry/eigenvalues/all_converged"][()])
            self.assertEqual(len(f["entry/diagnostics/warnings"]), 1)

    def test_less_accurate_than_asked_for_is_a_result_and_exit_3(self):
        for command, part, options, words in (("trace", "trace", {"rtol_trace": 1e-6}, ["trace", "--rtol-trace"]),
                                              ("density", "cumulative", {"density_w1": 1e-4, "steps": 5}, ["Wasserstein-1", "--density-w1"])):
            with self.subTest(command):
                output = self.folder / f"{command}.h5"
                ended = hesspect(command, *arguments("mlp_ce", output, "cross_entropy", max_hvps=12, **options), ranks=SOME)
                self.assertDone(ended, code=3)
                with h5py.File(output) as f:
                    self.assertFalse(f[f"entry/{part}/converged"][()])
                    self.assertLessEqual(f["entry/diagnostics/hvp_count"][()], 12)
                    warnings = list(f["entry/diagnostics/warnings"].asstr())
                self.assertEqual(len(warnings), 1)
                for word in words:
                    self.assertIn(word, warnings[0])
                    self.assertIn(word, ended.err)

    def test_a_density_to_its_accuracy(self):
        """As many runs as its bound needs, which holds: the area between the cumulative densities, found and exact."""
        exact, _, _ = reference("mlp_ce")
        with h5py.File(self.analyze("mlp_ce", 2, command="density", density_w1=0.03, max_steps=100)) as f:
            e = f["entry"]
            lo, hi = e["cumulative/range"][()]
            w1, runs = e["cumulative/w1"][()], e["cumulative/probes"][()]
            x, cdf = e["cumulative/lambda"][()], e["cumulative/cumulative"][()]
            self.assertTrue(e["cumulative/converged"][()])
        self.assertGreater(runs, 1)
        self.assertLessEqual(w1, 0.03 * (hi - lo))
        grid = np.linspace(exact[0], exact[-1], 20001)
        off = np.abs(np.interp(grid, x, cdf, left=0, right=1) - np.searchsorted(exact, grid, side="right") / len(exact))
        self.assertLess(np.trapezoid(off, grid), w1)

    def test_few_dimensions_are_all_found(self):
        """By default, and null spaces among them: a restart tells that nothing else is left over."""
        for case in ("mlp_ce", "linreg", "softmax_zero", "relu_mse"):
            exact, trace, _ = reference(case)
            with self.subTest(case), h5py.File(self.analyze(case, 2 if LONG or case == "softmax_zero" else 1, top=5)) as f:
                e = f["entry"]
                self.assertEqual(e["cumulative/band"].asstr()[()], "exact")
                self.assertEqual(e["cumulative/w1"][()], 0)
                # Each of the n, and little else: the symmetry check's products, five true residuals and some restarts'.
                self.assertLessEqual(e["diagnostics/hvp_count"][()], len(exact) + 12)
                x, cdf = e["cumulative/lambda"][()], e["cumulative/cumulative"][()]
                self.assertAlmostEqual(e["trace/value"][()], trace, delta=1e-6 * np.abs(exact).sum())
            scale = np.abs(exact).max()
            for place in (exact[:-1] + exact[1:])[np.diff(exact) > 1e-9 * scale] / 2:
                self.assertAlmostEqual(cdf[np.searchsorted(x, place) - 1] if place > x[0] else 0, np.mean(exact < place), delta=1e-9)

    def test_weights_from_a_state_dict(self):
        output = self.folder / "r.h5"
        with h5py.File(FIXTURES / "ckpt" / "expected.h5") as f:
            expected = {"": f.attrs["expected_loss"], "bf16": f.attrs["expected_loss_bf16"]}
        for name, which in (("full.safetensors", ""), ("nested_model.pth", ""), ("bf16.safetensors", "bf16"),
                            ("sharded/model.safetensors.index.json", "")):
            with self.subTest(name):
                args = arguments("mlp_ce", output, "cross_entropy", weights=FIXTURES / "ckpt" / name, dtype="float64", probes=1, rtol_trace=0)
                self.assertDone(hesspect("trace", *args, "--force"))
                with h5py.File(output) as f:
                    self.assertAlmostEqual(f["entry/diagnostics/loss"][()], expected[which], delta=1e-12)
                    self.assertEqual(len(f["entry/diagnostics/widened_weights"]) > 0, which != "")
                    self.assertEqual(len(f["entry/process/weights_sha256"]), 3 if "index" in name else 1)

    def trace_of(self, *more, **options):
        """The result of few products, and what was said."""
        output = self.folder / "r.h5"
        ended = hesspect("trace", *arguments("mlp_ce", output, "cross_entropy", dtype="float64", probes=1, rtol_trace=0, **options), *more, "--force")
        self.assertDone(ended)
        return h5py.File(output), ended.err

    def test_several_weights_parts_and_keys(self):
        ckpt = FIXTURES / "ckpt"
        with h5py.File(ckpt / "expected.h5") as f:
            whole, partly = f.attrs["expected_loss"], f.attrs["expected_loss_partial"]
        self.assertGreater(abs(whole - partly), 1e-6)
        result, said = self.trace_of("--weights", ckpt / "missing.safetensors", "--weights-partial")
        with result as f:
            self.assertAlmostEqual(f["entry/diagnostics/loss"][()], partly, delta=1e-12)
            self.assertEqual(list(f["entry/process/weights_not_covered"].asstr()), ["layers.1.bias"])
            self.assertIn("layers.1.bias", list(f["entry/diagnostics/warnings"].asstr())[0])
        result, said = self.trace_of("--weights", ckpt / "missing.safetensors", "--weights", ckpt / "one.safetensors")
        with result as f:
            self.assertAlmostEqual(f["entry/diagnostics/loss"][()], whole, delta=1e-12)
            self.assertEqual(len(f["entry/process/weights_sha256"]), 2)
        result, said = self.trace_of("--weights", ckpt / "two_sets.pt", "--weights-key", "swa")
        with result as f:
            self.assertAlmostEqual(f["entry/diagnostics/loss"][()], whole, delta=1e-12)
            self.assertIn("'module.' taken off its names", list(f["entry/process/weights_changes"].asstr())[0])
        self.assertIn("'module.' taken off its names", said)
        self.assertIn("'module.' taken off its names", hesspect("inspect", self.folder / "r.h5").out)
        self.assertIn("safetensors index", hesspect("inspect", ckpt / "sharded").out)
        result, said = self.trace_of("--weights", ckpt / "sharded")
        with result as f:
            self.assertAlmostEqual(f["entry/diagnostics/loss"][()], whole, delta=1e-12)

    def test_a_program_without_weights(self):
        """As the program with weights: a tied weight and an unused layer counted once each, however the file holds them."""
        folder, output = FIXTURES / "ckpt" / "weightless", self.folder / "r.h5"
        with h5py.File(folder / "tied.ref.h5") as f:
            exact, loss = f["eigenvalues"][()], f.attrs["loss"]
        args = lambda name: arguments("mlp_ce", output, "causal_lm", model=folder / f"{name}.pt2", data=folder / "tied.data.h5", dtype="float64",
                                      top=5, bottom=2, rtol_eigs=1e-10, **FIXED)
        for name, weights in (("tied", None), ("meta", "shared.pt"), ("fake", "without_head.safetensors")):
            with self.subTest(name):
                self.assertDone(hesspect("analyze", *args(name), *(["--weights", folder / weights] if weights else []), "--force", ranks=2 if name == "meta" else SOME))
                with h5py.File(output) as f:
                    self.assertEqual(f["entry/diagnostics/n_parameters"][()], len(exact))
                    self.assertAlmostEqual(f["entry/diagnostics/loss"][()], loss, delta=1e-12)
                    expected = np.concatenate([exact[::-1][:5], exact[:2][::-1]])
                    np.testing.assert_allclose(f["entry/eigenvalues/eigenvalue"][()], expected, rtol=0, atol=1e-9 * exact[-1])
        told = hesspect("inspect", folder / "meta.pt2")
        self.assertDone(told)
        self.assertIn("no data for 8 of these", told.out)
        planned = hesspect("plan", *args("meta"))
        self.assertDone(planned)
        self.assertIn("measured with made-up values", planned.err + planned.out)

    def test_arrays_of_other_names(self):
        data, output = self.folder / "d.h5", self.folder / "r.h5"
        with h5py.File(FIXTURES / "mlp_ce.data.h5") as f, h5py.File(data, "w") as g:
            g["part/features"], g["label"] = f["x"][()], f["target"][()]
        args = arguments("mlp_ce", output, "cross_entropy", data=data, input="x=part/features", target="label", dtype="float64", probes=1,
                         rtol_trace=0)
        self.assertDone(hesspect("trace", *args))
        with h5py.File(output) as f:
            self.assertAlmostEqual(f["entry/diagnostics/loss"][()], reference("mlp_ce")[2], delta=1e-12)


class Smoothing(Case):
    def test_density_from_a_result(self):
        first, second = self.folder / "a.h5", self.folder / "b.h5"
        self.assertDone(hesspect("density", *arguments("mlp_ce", first, "cross_entropy", dtype="float64", steps=20, probes=3, **FIXED)))
        with h5py.File(first) as f:
            sigma = f["entry/density/sigma"][()]
        for ranks, chosen in ((1, repr(float(sigma))), (2, "0.05")):
            self.assertDone(hesspect("density", "--from", first, "--sigma", chosen, "--output", second, "--force", ranks=ranks))
            with h5py.File(first) as f, h5py.File(second) as g:
                kept = []
                f.visit(lambda name: kept.append(name) if isinstance(f[name], h5py.Dataset) and "density" not in name else None)
                self.assertIn(chosen, list(g["entry/process/argv"].asstr()))
                self.assertIn(f"sigma = {float(chosen)!r}", g["entry/process/config"].asstr()[()])
                for name in set(kept) - {"entry/end_time", *(f"entry/process/{changed}" for changed in ("argv", "config", "date", "end_time"))}:
                    np.testing.assert_array_equal(f[name][()], g[name][()], err_msg=name)
                self.assertEqual(g["entry/density/sigma"][()], float(chosen))
                same = np.array_equal(f["entry/density/density"][()], g["entry/density/density"][()])
                self.assertEqual(same, ranks == 1)

    def test_an_impossible_width_keeps_the_run(self):
        result = self.folder / "r.h5"
        ended = hesspect("density", *arguments("mlp_ce", result, "cross_entropy", steps=10, sigma="1e-90", **FIXED))
        self.assertDone(ended)
        self.assertIn("sigma", ended.err)
        with h5py.File(result) as f:
            self.assertGreater(f["entry/density/sigma"][()], 1e-9)

    def test_a_link_is_written_through(self):
        target, link = self.folder / "target.h5", self.folder / "link.h5"
        link.symlink_to("target.h5")
        self.assertDone(hesspect("trace", *arguments("linreg", link, "mse", probes=1, target="/target", input="input=/input")))
        self.assertTrue(link.is_symlink())
        self.assertTrue(h5py.is_hdf5(target))


class Talk(Case):
    def test_rank_0s_command_line_counts(self):
        """mpirun may start ranks with another environment each: rank 0's holds for all."""
        result = self.folder / "r.h5"
        args = [BIN, "trace", *map(str, arguments("linreg", result, "mse"))]
        command = [*MPIRUN, "-n", "1", "env", "HESSPECT_PROBES=2", *args, ":", "-n", "1", "env", "HESSPECT_PROBES=5", *args]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=100)
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(result) as f:
            self.assertEqual(f["entry/trace/samples"][()], 2)

    def test_ini_files_that_differ_between_ranks(self):
        parts = []
        for probes in (2, 5):
            (self.folder / str(probes)).mkdir()
            (self.folder / str(probes) / "run.ini").write_text(f"probes = {probes}\n")
            parts.append(["-n", "1", "-wdir", str(self.folder / str(probes)), BIN, "trace", "--config", "run.ini",
                          *map(str, arguments("linreg", self.folder / "r.h5", "mse"))])
        done = subprocess.run([*MPIRUN, *parts[0], ":", *parts[1]], capture_output=True, text=True, env=environment(), timeout=100)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stderr.count("rank 1 reads another configuration than rank 0"), 1)

    def test_data_that_differ_between_ranks(self):
        """As on two hosts with copies of their own: one target is another."""
        parts = []
        for rank in (0, 1):
            (self.folder / str(rank)).mkdir()
            copy = self.folder / str(rank) / "d.h5"
            shutil.copy(FIXTURES / "gpt2.data.h5", copy)
            with h5py.File(copy, "r+") as f:
                f["target"][3, 2] = rank
            parts.append(["-n", "1", "-wdir", copy.parent, BIN, "trace", *arguments("gpt2", self.folder / "r.h5", "causal_lm", data="d.h5")])
        command = [*MPIRUN, *parts[0], ":", *parts[1]]
        done = subprocess.run([str(a) for a in command], capture_output=True, text=True, env=environment(), timeout=100)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertEqual(done.stderr.count("ranks read different files: 'd.h5' is not the same for rank 0"), 1, done.stderr)
        self.assertFalse((self.folder / "r.h5").exists())

    def test_help_and_version(self):
        for args, word in ((["--help"], "\n  analyze "), (["eigs", "--help"], "--rtol-eigs"), (["--version"], "LibTorch")):
            ended = hesspect(*args, ranks=2)
            self.assertDone(ended)
            self.assertEqual(ended.out.count(word), 1, ended.out)
            self.assertEqual(ended.err, "")

    def test_resolved_config_is_an_ini_file(self):
        ini = self.folder / "run.ini"
        ini.write_text("[run]\nsteps = 7\nmodel = m.pt2\n")
        first = hesspect("analyze", "--config", ini, "--print-config", env={"HESSPECT_PROBES": "9"})
        self.assertDone(first)
        self.assertIn("steps = 7\n", first.out)
        self.assertIn("probes = 9\n", first.out)
        ini.write_text(first.out)
        self.assertEqual(hesspect("analyze", "--config", ini, "--print-config").out, first.out)

    def test_every_config_of_the_project(self):
        for ini in sorted((SOURCE / "configs").glob("*.ini")):
            with self.subTest(ini.name):
                self.assertDone(hesspect("analyze", "--config", ini, "--print-config"))

    def test_quiet_and_verbose(self):
        args = arguments("linreg", self.folder / "r.h5", "mse", probes=1)
        self.assertEqual(hesspect("trace", *args, "--quiet", ranks=2).err, "")
        self.assertIn("debug: ", hesspect("trace", *args, "--verbose", "--force").err)

    def test_where_the_time_goes(self):
        """The phases part the run's wall time; the timeline has the same phases, and each op of each sweep."""
        phases = {"start", "files", "collectives", "krylov", "values", "tangents", "adjoints", "adjoint_tangents", "products"}
        for ranks, product in ((1, "rebuilt"), (2, "kept"), (1, "autograd")):
            with self.subTest(ranks=ranks, product=product):
                result, timeline = self.folder / f"{product}.h5", self.folder / f"{product}.json"
                args = arguments("gpt2", result, "causal_lm", probes=1, steps=4, product=product, trace_json=timeline)
                ended = hesspect("density", *args, "--verbose", ranks=ranks)
                self.assertDone(ended)
                with h5py.File(result) as f:
                    d = f["entry/diagnostics"]
                    seconds = {name.removeprefix("seconds_"): d[name][()] for name in d if name.startswith("seconds_")}
                    elapsed, products_s = d["elapsed_seconds"][()], d["hvp_seconds"][()]
                matrices = seconds.pop("matrix_products")
                self.assertEqual(seconds.keys(), phases)
                self.assertAlmostEqual(sum(seconds.values()), elapsed, delta=0.02 * elapsed)
                self.assertTrue(all(s >= 0 for s in seconds.values()), seconds)
                sweeps = [seconds[name] for name in ("values", "tangents", "adjoints", "adjoint_tangents")]
                self.assertLessEqual(sum(sweeps) + seconds["products"], 1.01 * products_s)
                self.assertEqual([s > 0 for s in sweeps],
                                 {"rebuilt": [True] * 4, "kept": [False, True, False, True], "autograd": [False] * 4}[product])
                self.assertEqual(seconds["collectives"] > 0, ranks > 1)
                self.assertTrue(0 < matrices < sum(sweeps) if product != "autograd" else matrices == 0, matrices)
                self.assertIn("krylov ", [line for line in ended.err.splitlines() if ":   time  " in line][0])
                self.assertEqual("debug: aten.addmm.default: " in ended.err, product != "autograd")
                events = json.loads(timeline.read_text())["traceEvents"]
                names = {(event.get("cat"), event["name"]) for event in events}
                for name in ("model and data", "whether rows stand alone", "trials", "first gradient", "work", "product", "result"):
                    self.assertIn(("phase", name), names)
                self.assertEqual(("adjoint tangent", "aten.addmm.default") in names, product != "autograd")
        ended = hesspect("density", *arguments("gpt2", self.folder / "r.h5", "causal_lm", trace_json=self.folder / "none" / "t.json"))
        self.assertEqual(ended.code, 4, ended.err)
        self.assertIn("none", ended.errors[0])

    def test_inspect_says_whose_derivatives_ops_have(self):
        ended = hesspect("inspect", FIXTURES / "gpt2.pt2")
        self.assertDone(ended)
        self.assertRegex(ended.out, r"aten\.addmm\.default +8 +8 by own rule")
        other = hesspect("inspect", FIXTURES / "fourier.pt2")
        self.assertRegex(other.out, r"aten\.angle\.default +1 +1 by autograd")
        self.assertRegex(ended.out, r"aten\.arange\.default +\d+\n")  # no parameter moves it

    def test_only_rank_0_talks(self):
        ended = hesspect("trace", *arguments("linreg", self.folder / "r.h5", "mse", probes=2), ranks=3)
        self.assertDone(ended)
        self.assertEqual(ended.err.count("  trace  "), 1)
        self.assertEqual(ended.out, "")

    def test_inspect(self):
        result = self.folder / "r.h5"
        self.assertDone(hesspect("analyze", *arguments("linreg", result, "mse", top=2, bottom=0, probes=2, steps=4)))
        ckpt = FIXTURES / "ckpt"
        for path, words in ((FIXTURES / "gpt2.pt2", ["exported program", "input_ids", "int64", "tied", "aten.linear"]),
                            (FIXTURES / "multi_output.pt2", ["1: ", "not a tensor"]),
                            (FIXTURES / "widedeep.data.h5", ["data, HDF5", "21 rows", "workclass"]),
                            (ckpt / "bf16.safetensors", ["state dict, safetensors", "bfloat16", "layers.0.weight"]),
                            (ckpt / "sharded" / "model.safetensors.index.json", ["index", "3 files"]),
                            (ckpt / "nested_model.pth", ["PyTorch state dict under", "'model'", "epoch"]),
                            (result, ["result of hesspect analyze", "trace", "spectral density", "#", "mse"])):
            with self.subTest(str(path)):
                ended = hesspect("inspect", path)
                self.assertDone(ended)
                for word in words:
                    self.assertIn(word, ended.out)
        other = self.folder / "text.txt"
        other.write_text("hello")
        self.assertEqual(hesspect("inspect", other, ranks=2).code, 4)
        # What a hostile object beside the weights would have done is not done.
        ended = hesspect("inspect", ckpt / "evil.pt")
        self.assertDone(ended)
        self.assertIn("what is no tensor: payload", ended.out)
        self.assertFalse((ckpt / "EVIL_RAN").exists())
        self.assertEqual(hesspect("inspect", ckpt / "evil_state.pt").code, 4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
