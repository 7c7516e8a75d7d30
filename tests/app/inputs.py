#!/usr/bin/env python3
"""hesspect inputs against dense Hessians in each row's inputs that PyTorch computes, one row at a time, in float64."""

import json
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

import h5py
import numpy as np
import torch
from harness import BIN, FIXTURES, LONG, Case, arguments, environment, hesspect

sys.path.insert(0, str(Path(os.environ["HESSPECT_SOURCE"]) / "tests" / "fixtures"))
import cases  # noqa: E402
import reference  # noqa: E402

EXACT = {"dtype": "float64", "rtol_inputs": 1e-11}


def rebuilt(name):
    torch.manual_seed(cases.seed_of(name))
    return cases.CASES[name]()


class Rows:
    """A fixture's rows, each with its loss as a function of its own inputs, or of what its ids look up."""

    def __init__(self, name, embedding=None):
        self.case = rebuilt(name)
        self.case.model.double().eval()
        self.embedding = embedding
        self.count = len(next(iter(self.case.inputs.values())))

    def inputs_of(self, row):
        return {k: reference.in_dtype(v[row : row + 1], torch.float64) for k, v in self.case.inputs.items()}

    def start(self, row, vary):
        if self.embedding is None:
            return self.inputs_of(row)[vary].clone()
        return self.case.model.get_submodule(self.embedding)(self.inputs_of(row)[vary]).detach().clone()

    def loss(self, row, vary, x):
        """The mean over the row's own terms."""
        given, handles = self.inputs_of(row), []
        if self.embedding is None:
            given[vary] = x
        else:
            handles.append(self.case.model.get_submodule(self.embedding).register_forward_hook(lambda *_: x))
        output = self.case.select(self.case.model(**given))
        for handle in handles:
            handle.remove()
        if self.case.loss == "output":
            return output
        whole = self.case.weight
        self.case.weight = None if whole is None else whole[row : row + 1]
        try:
            return reference.loss_of(self.case, output, reference.in_dtype(self.case.target[row : row + 1], torch.float64))
        finally:
            self.case.weight = whole

    def gradient(self, row, vary, x):
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(self.loss(row, vary, x), x)[0]

    def exact(self, row, vary, direction="sign", step=None):
        x = self.start(row, vary).requires_grad_(True)
        loss = self.loss(row, vary, x)
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        hessian = []
        for entry in g.reshape(-1):
            hessian.append(torch.autograd.grad(entry, x, retain_graph=True)[0].reshape(-1))
        values = torch.linalg.eigvalsh(torch.stack(hessian))
        magnitude = values[values.abs().argmax()]
        g = g.detach()
        z = torch.sign(g) if direction == "sign" else g
        h = step or 0.1 * x.detach().norm()
        change = (self.gradient(row, vary, x + h * z / z.norm()) - g).pow(2).sum()
        return [float(v) for v in (loss, g.norm(), values[-1], magnitude, change)]


class Inputs(Case):
    def run_inputs(self, name, ranks=1, code=0, **options):
        output = self.folder / f"{name}.{ranks}.{len(list(self.folder.iterdir()))}.h5"
        ended = hesspect("inputs", *arguments(name, output, **{**EXACT, **options}), ranks=ranks)
        self.assertDone(ended, code)
        return output, ended

    def read(self, output):
        with h5py.File(output) as f:
            rows = {k: v[()] for k, v in f["entry/inputs/rows"].items()}
            self.assertEqual(f["entry"].attrs["default"], "inputs")
            return rows

    def check(self, rows, of, vary, lossless=(), known_loss=True, **how):
        self.assertEqual(list(rows["row"]), list(range(of.count)))
        for row in range(of.count):
            if row in lossless:
                self.assertTrue(np.isnan(rows["magnitude"][row]))
                continue
            loss, norm, largest, magnitude, change = of.exact(row, vary, **how)
            if known_loss:
                self.assertAlmostEqual(rows["loss"][row], loss, delta=1e-10 * max(1, abs(loss)))
            self.assertAlmostEqual(rows["gradient_norm"][row], norm, delta=1e-10 * max(1, norm))
            scale = abs(magnitude)
            self.assertAlmostEqual(rows["largest"][row], largest, delta=1e-9 * scale)
            self.assertAlmostEqual(abs(rows["magnitude"][row]), scale, delta=1e-9 * scale)
            self.assertAlmostEqual(rows["change"][row], change, delta=1e-9 * max(1, change))
            self.assertTrue(rows["converged"][row])

    def test_floating_inputs(self):
        for name, loss, options, how in (
            ("mlp_ce", "cross_entropy", {}, {}),
            ("mlp_mse", "mse", {"move": "gradient", "move_by": 0.7, "micro_batch": 4}, {"direction": "gradient", "step": 0.7}),
            ("mlp_bce", "bce_with_logits", {"micro_batch": 1}, {}),
            ("cnn_bn", "cross_entropy", {"input_steps": 196, "rtol_inputs": 1e-8}, {}),
        ):
            with self.subTest(name):
                output, _ = self.run_inputs(name, loss=loss, **options)
                self.check(self.read(output), Rows(name), "image" if name == "cnn_bn" else "x", **how)

    def test_embeddings(self):
        """Of integer inputs it is what they look up; a row whose targets are all ignored has no loss."""
        for name, loss, options in (("masked_lm", "masked_lm", {}), ("causal_lm_weights", "causal_lm", {"shift": 1, "loss_weight": "weight"})):
            with self.subTest(name):
                of = Rows(name, "table")
                extra = dict(options)
                if "class_weights" in of.case.options:
                    extra["class_weights"] = ",".join(repr(float(w)) for w in of.case.options["class_weights"])
                    extra["label_smoothing"] = of.case.options["label_smoothing"]
                output, ended = self.run_inputs(name, loss=loss, input_steps=200, rtol_inputs=1e-9, **extra)
                rows = self.read(output)
                shift = of.case.shift if name.startswith("causal") else 0
                lossless = [r for r in range(of.count) if (of.case.target[r, shift:] == -100).all()]
                self.check(rows, of, "ids", lossless)
                if lossless:
                    self.assertIn("have no loss", ended.err)

    def test_program_of_its_own_loss(self):
        """The scalar is the mean of the rows' losses, which are not known one by one but for a single row."""
        of = Rows("own_loss")
        rows = self.read(self.run_inputs("own_loss", loss="output", vary="x")[0])
        self.check(rows, of, "x", known_loss=False)
        self.assertTrue(np.isnan(rows["loss"]).all())
        self.check(self.read(self.run_inputs("own_loss", loss="output", vary="target", micro_batch=1)[0]), of, "target")

    def test_ranks_and_micro_batches_change_nothing(self):
        exact = self.read(self.run_inputs("mlp_ce", loss="cross_entropy")[0])
        for ranks, size in ((2, 5), (3, 100), (4, 1)) if LONG else ((2, 5), (3, 1)):
            rows = self.read(self.run_inputs("mlp_ce", ranks, loss="cross_entropy", micro_batch=size)[0])
            for name in ("row", "loss", "gradient_norm", "largest", "magnitude", "change", "step"):
                np.testing.assert_allclose(rows[name], exact[name], rtol=1e-9, atol=1e-12)

    def test_distribution_and_fragile_rows(self):
        output, ended = self.run_inputs("mlp_ce", loss="cross_entropy", fragile=4)
        rows = self.read(output)
        size = np.abs(rows["magnitude"])
        order = np.argsort(-size, kind="stable")[:4]
        with h5py.File(output) as f:
            g = f["entry/inputs"]
            np.testing.assert_array_equal(g["fragile/row"][()], order)
            np.testing.assert_array_equal(g["fragile/largest"][()], rows["largest"][order])
            share, value = g["quantiles/share"][()], g["quantiles/magnitude"][()]
            np.testing.assert_array_equal(value, [np.quantile(size, s, method="inverted_cdf") for s in share])
            inside = (share > 0) & (share < 1)
            lower, upper = g["quantiles/magnitude_lower"][()], g["quantiles/magnitude_upper"][()]
            self.assertTrue((lower[inside & ~np.isnan(lower)] <= value[inside & ~np.isnan(lower)]).all())
            self.assertTrue((upper[inside & ~np.isnan(upper)] >= value[inside & ~np.isnan(upper)]).all())
            self.assertEqual([v.decode() for v in g["variables"][()]], ["x"])
            self.assertEqual(g["dimensions"][()], 6)
            self.assertEqual(f["entry/process/command"][()].decode(), "inputs")
        self.assertIn("most fragile", ended.err)
        self.assertIn(f"rows {order[0]} (", ended.err)
        self.assertIn("most fragile", hesspect("inspect", output).out)

    def test_in_float32(self):
        of = Rows("mlp_ce")
        rows = self.read(self.run_inputs("mlp_ce", loss="cross_entropy", dtype="float32", rtol_inputs=1e-4)[0])
        for row in range(of.count):
            _, norm, _, magnitude, _ = of.exact(row, "x")
            self.assertAlmostEqual(rows["gradient_norm"][row], norm, delta=1e-5 * norm)
            self.assertLessEqual(abs(abs(rows["magnitude"][row]) - abs(magnitude)), rows["magnitude_error"][row] + 1e-5 * abs(magnitude))

    def test_too_few_steps_are_told(self):
        output, ended = self.run_inputs("cnn_bn", loss="cross_entropy", input_steps=2, code=3)
        self.assertIn("--input-steps", ended.err)
        rows = self.read(output)
        self.assertFalse(rows["converged"].all())

    def test_stopped_and_resumed(self):
        """To the same bits on as many ranks, whether by a clock or a signal; on others to rounding, and the run says so."""
        options = dict(loss="cross_entropy", micro_batch=2, input_steps=100)
        whole = {ranks: self.read(self.run_inputs("cnn_bn", ranks, **options)[0]) for ranks in (1, 2)}
        for ranks, other in ((1, 1), (2, 2), (2, 1)):
            with self.subTest(f"{ranks} then {other}"):
                output = self.folder / f"stopped.{ranks}.{other}.h5"
                command = ["inputs", *arguments("cnn_bn", output, **{**EXACT, **options}), "--resume"]
                seen, said, hours = [], "", 3e-4 / 3600
                for start in range(40):
                    ended = hesspect(*command, "--max-hours", hours, ranks=ranks if start == 0 else other)
                    said += ended.err
                    if ended.code != 75:
                        break
                    self.assertFalse(output.exists())
                    self.assertIn("--resume goes on from it", ended.err)
                    seen.append(self.rows_in(Path(f"{output}.checkpoint")))
                    hours *= 2 if LONG else 8
                self.assertDone(ended)
                self.assertGreater(start, 0)
                self.assertEqual(seen, sorted(seen))
                self.assertFalse(Path(f"{output}.checkpoint").exists())
                rows = self.read(output)
                for name, values in whole[ranks].items():
                    (np.testing.assert_array_equal if ranks == other else self.assertClose)(rows[name], values)
                with h5py.File(output) as f:
                    self.assertEqual(f["entry/diagnostics/starts"][()], start + 1)
                self.assertEqual("rounding differs" in said, ranks != other)
        again = hesspect(*command, ranks=1)
        self.assertDone(again)
        self.assertIn("is there already", again.err)

    def assertClose(self, found, expected):
        if np.asarray(expected).dtype.kind not in "fiu":
            return np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)

    def rows_in(self, folder):
        newest = max(folder.glob("run-*.json"))
        return len((json.loads(newest.read_bytes().split(b"\n")[0])["inputs"] or {"rows": []})["rows"])

    def test_a_signal_and_another_configuration(self):
        output = self.folder / "r.h5"
        folder = Path(f"{output}.checkpoint")
        options = dict(loss="cross_entropy", micro_batch=2, input_steps=196, rtol_inputs=1e-13)
        given = lambda **more: [str(a) for a in arguments("cnn_bn", output, **{**EXACT, **options, **more})]
        command = [str(BIN), "inputs", *given()]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
        while process.poll() is None and not any(folder.glob("run-*.json")):
            time.sleep(0.005)
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 75, err)
        elsewhere = [*given(), "--resume"]
        elsewhere[elsewhere.index("--data") + 1] = str(FIXTURES / "mlp_ce.data.h5")
        for again, code, words in ((given(), 2, "--resume goes on from it"), ([*given(rtol_inputs=1e-3), "--resume"], 2, "belongs to another configuration"),
                                   (elsewhere, 4, "")):
            ended = hesspect("inputs", *again)
            self.assertEqual(ended.code, code, ended.err)
            self.assertIn(words, ended.errors[0])
        self.assertIn(hesspect(*command[1:], "--resume").code, (0, 3))
        self.assertFalse(folder.exists())

    def test_planned(self):
        """Bytes and products before the run, in its log and its result."""
        given = arguments("cnn_bn", self.folder / "r.h5", "cross_entropy", micro_batch=4, input_steps=30)
        plan = hesspect("plan", "--for", "inputs", *given)
        self.assertDone(plan)
        for words in ("micro-batch   4 rows of 196 numbers each", "Lanczos vectors of a micro-batch", "at most 30 with each micro-batch", "forecast"):
            self.assertIn(words, plan.out)
        self.assertDone(hesspect("plan", "--for", "inputs", *given, "--measure=false"))
        small = hesspect("plan", "--for", "inputs", *given, "--memory", "40M")
        self.assertEqual(small.code, 5, small.out)
        self.assertIn("does not fit", small.out)
        ended = hesspect("inputs", *given, "--memory", "40M")
        self.assertEqual(ended.code, 5, ended.err)
        self.assertIn("may be taken", ended.errors[0])
        self.assertEqual(list(self.folder.iterdir()), [])
        ended = hesspect("inputs", *given)
        self.assertIn(ended.code, (0, 3), ended.err)
        self.assertRegex(ended.err, r"rows of 196 numbers, in micro-batches of 4; at most \d+ products a rank, ")
        with h5py.File(self.folder / "r.h5") as f:
            forecast, peak = (f[f"entry/diagnostics/{name}"][()] for name in ("forecast_memory_bytes", "peak_memory_bytes"))
        self.assertLess(abs(peak - forecast), 0.1 * forecast + 2**25)

    def test_bad_input(self):
        def refused(code, parts, name="mlp_ce", loss="cross_entropy", **options):
            ended = hesspect("inputs", *arguments(name, self.folder / "r.h5", loss, **options))
            self.assertEqual(ended.code, code, ended.err)
            self.assertEqual(len(ended.errors), 1, ended.err)
            for part in parts:
                self.assertIn(part, ended.errors[0])

        refused(2, ["--vary y", "its inputs are x"], vary="y")
        refused(2, ["--curvature ggn", "'inputs'"], curvature="ggn")
        refused(2, ["--precision bf16", "'inputs'"], precision="bf16")
        refused(2, ["--rtol-inputs"], rtol_inputs=0)
        refused(2, ["--move", "sign or gradient"], move="up")
        refused(4, ["units of"], unit_rows=23)
        refused(2, ["--vary attention_mask", "embedding"], "bert", vary="attention_mask")


if __name__ == "__main__":
    unittest.main()
