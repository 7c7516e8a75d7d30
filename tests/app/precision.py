#!/usr/bin/env python3
"""--precision as a user meets it: what results say of it, what is refused, and that eigenvalues are within the errors that a
run in bfloat16 reports, against ARPACK on Hessian-vector products that PyTorch takes in float64."""

import os
import subprocess
import unittest

import h5py
import numpy as np
from harness import BIN, FIXTURES, MPIRUN, Case, arguments, environment, hesspect
from oracles import arpack, on_products, rebuilt

USAGE = 2
UNITS = "amx_bf16" in open("/proc/cpuinfo").read()
LIMITED = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}  # oneDNN is kept from the units
COPIES = 16
FIELDS = ("error", "rayleigh_error", "leading_error", "leading_rayleigh_error", "moved")


class Refused(Case):
    def refused(self, words, *args, **options):
        ended = hesspect("density", *arguments("gpt2", self.folder / "r.h5", "causal_lm"), *args, **options)
        self.assertEqual((ended.code, len(ended.errors)), (USAGE, 1), ended.err)
        for word in words:
            self.assertIn(word, ended.errors[0])
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_what_a_cpu_has_no_units_for(self):
        for ranks in (1, 2):
            self.refused(["--precision tf32: the CPU of", "has no units for it"], "--precision", "tf32", ranks=ranks)
        self.refused(["--precision bf16: the CPU of", "amx_bf16", "give --precision fp32"], "--precision", "bf16", env=LIMITED)
        self.refused(["--precision bf16 needs --dtype float32"], "--precision", "bf16", "--dtype", "float64")

    @unittest.skipUnless(UNITS, "no amx_bf16")
    def test_one_rank_without_units(self):
        args = [BIN, "density", *map(str, arguments("gpt2", self.folder / "r.h5", "causal_lm", precision="bf16"))]
        ended = subprocess.run([*MPIRUN, "-n", "1", *args, ":", "-n", "1", "env", "ONEDNN_MAX_CPU_ISA=AVX512_CORE", *args], capture_output=True, text=True,
                               env=environment(), timeout=100)
        self.assertEqual(ended.returncode, USAGE, ended.stderr)
        errors = [line for line in ended.stderr.splitlines() if "error" in line]
        self.assertEqual(len(errors), 1, ended.stderr)
        self.assertIn("may not use its amx_bf16 (ONEDNN_MAX_CPU_ISA=AVX512_CORE)", errors[0])
        self.assertEqual(list(self.folder.iterdir()), [])


@unittest.skipUnless(UNITS, "no amx_bf16")
class Results(Case):
    def data(self, name):
        """Many copies of a fixture's rows, which change no mean: small products of matrices are not rounded."""
        path = self.folder / f"{name}.h5"
        with h5py.File(FIXTURES / f"{name}.data.h5") as few, h5py.File(path, "w") as many:
            for key in few:
                many[key] = np.concatenate([few[key][()]] * COPIES)
        return path

    def eigs(self, name, loss, **options):
        return hesspect("eigs", *arguments(name, self.folder / "r.h5", loss, data=self.data(name), micro_batch=3 * COPIES, **options), "--force")

    def effect(self):
        with h5py.File(self.folder / "r.h5") as f:
            return f["entry/process/precision"].asstr()[()], {k: f[f"entry/diagnostics/precision_{k}"][()] for k in FIELDS}

    def test_full_precision_says_so(self):
        self.assertDone(self.eigs("gpt2", "causal_lm", top=2, bottom=0))
        precision, effect = self.effect()
        self.assertEqual((precision, set(effect.values())), ("fp32", {0.0}))
        with h5py.File(self.folder / "r.h5") as f:
            plain = f["entry/eigenvalues/eigenvalue"][()]
        self.assertDone(self.eigs("gpt2", "causal_lm", top=2, bottom=0, precision="fp32"))
        with h5py.File(self.folder / "r.h5") as f:
            np.testing.assert_array_equal(f["entry/eigenvalues/eigenvalue"][()], plain)

    def test_eigenvalues_are_within_the_errors_reported(self):
        name, loss = "gpt2", "causal_lm"
        values, _ = on_products(rebuilt(name), lambda a: arpack(a, 8, "LA"))
        ended = self.eigs(name, loss, top=4, bottom=0, precision="bf16", rtol_eigs=0.015)
        self.assertDone(ended)
        precision, effect = self.effect()
        self.assertEqual(precision, "bf16")
        self.assertTrue(all(x > 0 for x in effect.values()), effect)
        self.assertTrue(1e-5 < effect["error"] < 2e-2 and 1e-5 < effect["leading_error"] < 2e-2, effect)
        self.assertIn("matrices multiplied in bf16: a product is", ended.err)
        self.assertIn("matrices multiplied in bf16: a product is", hesspect("inspect", self.folder / "r.h5").out)
        with h5py.File(self.folder / "r.h5") as f:
            found = {k: f[f"entry/eigenvalues/{k}"][()] for k in ("eigenvalue", "error", "residual", "true_residual", "converged")}
            symmetry = f["entry/diagnostics/symmetry_error"][()]
            self.assertEqual([w for w in f["entry/diagnostics/warnings"].asstr()[()] if w and "times as long" not in w] if "warnings" in f["entry/diagnostics"] else [], [])
        errors = np.abs(found["eigenvalue"][:, None] - values).min(axis=1)
        self.assertTrue((errors <= found["error"]).all(), (errors, found))
        self.assertTrue((errors > 1e-7 * values.max()).any(), "float32 alone would be as near")
        self.assertTrue((found["true_residual"] <= found["residual"]).all(), found)
        self.assertTrue(found["converged"].all())
        self.assertLessEqual(symmetry, effect["error"])

    def test_a_tolerance_that_cannot_be_met(self):
        ended = self.eigs("gpt2", "causal_lm", precision="bf16")  # --rtol-eigs 1e-4
        self.assertEqual((ended.code, len(ended.errors)), (USAGE, 1), ended.err)
        self.assertRegex(ended.errors[0], r"--rtol-eigs 0.0001 with --precision bf16, whose products with leading eigenvectors differ from full precision's by "
                                          r"\d\.\de-0\d: that can't be reached; give --rtol-eigs \d\.\de-0\d or more, or --precision fp32")
        self.assertFalse((self.folder / "r.h5").exists() or (self.folder / "r.h5.checkpoint").exists())
        least = float(ended.errors[0].split("differ from full precision's by ")[1].split(":")[0])
        ended = self.eigs("gpt2", "causal_lm", precision="bf16", rtol_eigs=1.3 * least, top=2, bottom=0, max_steps=20)
        self.assertRegex(ended.err, "warning: --rtol-eigs .* it may not be reached; give --rtol-eigs")

    def test_resuming_in_another_precision(self):
        args = arguments("gpt2", self.folder / "r.h5", "causal_lm", data=self.data("gpt2"), micro_batch=3 * COPIES)
        stopped = hesspect("density", *args, "--precision", "bf16", "--max-hours", "1e-9")
        self.assertEqual(stopped.code, 75, stopped.err)
        ended = hesspect("density", *args, "--resume")
        self.assertEqual((ended.code, len(ended.errors)), (USAGE, 1), ended.err)
        self.assertIn("belongs to another configuration: 'precision = bf16' there, 'precision = fp32' here", ended.errors[0])

    def test_a_model_too_small_for_the_units(self):
        ended = hesspect("density", *arguments("linreg", self.folder / "r.h5", "mse", precision="bf16"))
        self.assertDone(ended)
        self.assertIn("warning: --precision bf16 changes nothing: this model's products of matrices are all too small", ended.err)

    def test_plan(self):
        plan = hesspect("plan", *arguments("gpt2", None, "causal_lm", precision="bf16"))
        self.assertDone(plan)
        self.assertIn("matrices are multiplied in bf16, which the forecast has measured", plan.out + plan.err)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    unittest.main()
