#!/usr/bin/env python3
"""--parameters sharded: the numbers of a run with all parameters on every rank, stopped, killed, and on other ranks.

HESSPECT_LONG=1 takes more models.
"""

import os
import re
import signal
import subprocess
import time
import unittest

import h5py
import numpy as np
from harness import BIN, FIXTURES, LONG, MPIRUN, Case, arguments, environment, hesspect
from safetensors.numpy import load_file, save_file

RESUBMIT = 75

WORK = dict(dtype="float64", micro_batch=2, probes=2, steps=12, top=3, bottom=1, max_steps=30, rtol_eigs=1e-9, seed=3,
            rtol_trace=0.2, max_hvps=60, rows_in_use="off", groups=1)


def work(case, output, loss="causal_lm", **options):
    return ["analyze", *arguments(case, output, loss, **{**WORK, **options}), "--force"]


def numbers(path):
    with h5py.File(path) as f:
        e = f["entry"]
        return {name: np.atleast_1d(e[name][()]) for name in
                ("quadrature/alpha", "quadrature/beta", "eigenvalues/eigenvalue", "trace/value", "trace/half_width", "layers/trace")}


def run(test, *args, ranks):
    done = hesspect(*args, ranks=ranks, timeout=300)
    test.assertIn(done.code, (0, 3), done.err)
    return done


class Sharded(Case):
    def assertNear(self, path, reference, tolerance=1e-12):
        mine, theirs = numbers(path), numbers(reference)
        for name, values in theirs.items():
            scale = np.nanmax(np.abs(values))
            self.assertLess(np.nanmax(np.abs(mine[name] - values)), tolerance * scale, name)

    def assertSame(self, path, reference):
        mine, theirs = numbers(path), numbers(reference)
        for name, values in theirs.items():
            np.testing.assert_array_equal(mine[name], values, err_msg=name)

    def test_numbers_are_those_of_whole_parameters(self):
        models = [("gpt2", "causal_lm", (2, 3)), ("cnn_bn", "cross_entropy", (2,))]
        if LONG:
            models += [("mixture", "causal_lm", (2, 3, 4)), ("widedeep", "bce_with_logits", (4,)), ("vit", "cross_entropy", (2,))]
        for case, loss, counts in models:
            whole = self.folder / f"{case}.h5"
            run(self, *work(case, whole, loss), ranks=1)
            for ranks in counts:
                with self.subTest(case=case, ranks=ranks):
                    output = self.folder / f"{case}{ranks}.h5"
                    run(self, *work(case, output, loss, parameters="sharded"), ranks=ranks)
                    self.assertNear(output, whole)
                    with h5py.File(output) as f, h5py.File(whole) as g:
                        self.assertEqual(f["entry/diagnostics/data_ranks"][()], ranks)
                        self.assertEqual(f["entry/diagnostics/row_check"][()], b"passed")
                        self.assertLess(f["entry/diagnostics/symmetry_error"][()], 1e-12)
                        self.assertEqual(f["entry/diagnostics/hvp_count"][()], g["entry/diagnostics/hvp_count"][()])

    def test_eigenvectors_are_written_in_the_models_order(self):
        files = {}
        for name, more, ranks in (("whole", {}, 1), ("shards", {"parameters": "sharded"}, 3)):
            files[name] = self.folder / f"{name}.vectors.h5"
            run(self, *work("gpt2", self.folder / f"{name}.h5", eigenvectors=files[name], rows_in_use="auto", **more), ranks=ranks)
        found = []
        for path in files.values():
            tensors = {}
            with h5py.File(path) as f:
                f.visititems(lambda key, item: tensors.update({key: item[()]}) if isinstance(item, h5py.Dataset) else None)
            found.append({k: v for k, v in tensors.items() if v.dtype.kind == "f"})
        self.assertEqual(set(found[0]), set(found[1]))
        self.assertGreater(sum(v.size for v in found[0].values()), 3 * 28000)
        for name, values in found[0].items():
            np.testing.assert_allclose(found[1][name], values, atol=1e-7, err_msg=name)

    def test_stopped_killed_and_resumed(self):
        whole = self.folder / "whole.h5"
        # In pieces, on the same ranks: the same bits.
        short = dict(parameters="sharded", steps=3, top=1, bottom=0, max_steps=4, rtol_trace=1e-6, max_hvps=12 if LONG else 8)
        run(self, *work("gpt2", whole, **short), ranks=2)
        output = self.folder / "pieces.h5"
        for piece in range(40):
            done = hesspect(*work("gpt2", output, **short, max_hours=1e-9), "--resume", ranks=2, timeout=300)
            if done.code != RESUBMIT:
                break
        self.assertIn(done.code, (0, 3), done.err)
        self.assertGreater(piece, 2)
        self.assertSame(output, whole)
        run(self, *work("gpt2", whole, parameters="sharded"), ranks=2)
        # Stopped, and resumed on other ranks and with whole parameters: the same to rounding.
        for ranks, way in ((3, "sharded"), (1, "replicated")):
            output = self.folder / f"other{ranks}.h5"
            done = hesspect(*work("gpt2", output, parameters="sharded", max_hours=1e-9), ranks=2, timeout=300)
            self.assertEqual(done.code, RESUBMIT, done.err)
            done = run(self, *work("gpt2", output, parameters=way), "--resume", ranks=ranks)
            self.assertIn("resumed from", done.err)
            self.assertNear(output, whole)
        # Killed while it writes checkpoints all the time.
        output = self.folder / "killed.h5"
        args = [BIN, *work("gpt2", output, parameters="sharded", checkpoint_minutes=1e-4, max_steps=60, steps=40, top=6), "--resume"]
        process = subprocess.Popen([str(a) for a in [*MPIRUN, "-n", "2", *args]], env=environment(),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        waited = time.monotonic()
        while not list((self.folder / "killed.h5.checkpoint").glob("probe-*/steps-*.json")) and process.poll() is None:
            self.assertLess(time.monotonic() - waited, 100)
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run(["pkill", "-KILL", "-f", str(output)], check=False)
        longer = dict(max_steps=60, steps=40, top=6, parameters="sharded")
        run(self, *work("gpt2", output, **longer), "--resume", ranks=2)
        run(self, *work("gpt2", self.folder / "longer.h5", **longer), ranks=2)
        self.assertSame(output, self.folder / "longer.h5")

    def test_rows_that_depend_on_each_other_are_found(self):
        done = hesspect(*work("bn_of_batch", self.folder / "x.h5", "cross_entropy", parameters="sharded", micro_batch=None), ranks=2)
        self.assertEqual(done.code, 4, done.err)
        self.assertIn("the loss is no sum over rows", done.err)
        self.assertFalse((self.folder / "x.h5").exists())

    def test_what_shards_cannot_do_is_refused(self):
        output = self.folder / "x.h5"
        done = hesspect(*work("gpt2", output, parameters="sharded", product="kept"))
        self.assertEqual(done.code, 2, done.err)
        self.assertIn("--parameters sharded: --product kept", done.errors[0])
        done = hesspect(*work("gpt2", output, parameters="host"))
        self.assertEqual(done.code, 2, done.err)
        self.assertIn("on CPUs it is --parameters sharded", done.errors[0])

    def test_where_memory_is_short_shards_are_taken(self):
        output = self.folder / "x.h5"
        taken = {}
        fixed = dict(probes=1, steps=2, top=1, bottom=0, max_steps=2, max_hvps=4, samples=4)
        for way in ("replicated", "sharded"):
            done = hesspect(*work("resnet18", output, "cross_entropy", memory="1M", parameters=way, **fixed), ranks=2)
            self.assertEqual(done.code, 5, done.err)
            size, unit = re.search(r"the run takes ([0-9.]+) ([MG])iB a rank", done.err).groups()
            taken[way] = float(size) * (1024 if unit == "G" else 1)
            self.assertEqual("--parameters sharded" in done.err, way == "replicated", done.err)
        self.assertLess(taken["sharded"] + 60, taken["replicated"])
        # Between the two, with what a plan leaves free, only shards fit: taken where the choice is free, and said.
        memory = f"{int((0.15 * taken['sharded'] + 0.85 * taken['replicated']) / 0.95 + 32)}M"
        fixed["memory"] = memory
        done = run(self, *work("resnet18", output, "cross_entropy", **fixed), ranks=2)
        self.assertIn("parameters are sharded (--parameters auto)", done.err)
        done = hesspect(*work("resnet18", output, "cross_entropy", **fixed, parameters="replicated"), ranks=2)
        self.assertEqual(done.code, 5, done.err)

    def test_blocks_units_losses_and_rows_in_use(self):
        whole, shards = self.folder / "whole.h5", self.folder / "shards.h5"
        cases = [("gpt2", "causal_lm", ["--blocks", "per-layer", "--block-hvps", "10"]), ("gpt2", "causal_lm", ["--params", "h[.]1[.]|ln_f"]),
                 *([("gpt2", "causal_lm", ["--exclude", "wte"])] if LONG else []),
                 ("widedeep", "bce_with_logits", []), ("own_loss", "output", []),
                 ("mlp_ce", "cross_entropy", ["--unit-rows", "2", "--samples", "22"])]
        for case, loss, more in cases:
            with self.subTest(case=case):
                short = dict(rows_in_use="auto", probes=1, top=1, bottom=0, max_steps=10, max_hvps=20, rtol_trace=0.5)
                if "--unit-rows" in more:
                    short["micro_batch"] = None
                run(self, *work(case, whole, loss, **short), *more, ranks=1)
                run(self, *work(case, shards, loss, **short, parameters="sharded", fetch_ahead="on"), *more, ranks=4 if "--params" in more else 2)
                self.assertNear(shards, whole)
                with h5py.File(whole) as f, h5py.File(shards) as g:
                    self.assertEqual("blocks" in f["entry"], "--blocks" in more)
                    for name, block in f["entry/blocks"].items() if "--blocks" in more else ():
                        mine = g["entry/blocks"][name]["trace/value"][()]
                        self.assertAlmostEqual(mine, block["trace/value"][()], delta=1e-10 * abs(mine) + 1e-12, msg=name)


    def test_a_series_begins_from_the_last_eigenvectors(self):
        """Each rank reads its part of the file of vectors: the second checkpoint takes the steps that it takes with whole parameters."""
        random = np.random.default_rng(2)
        (self.folder / "ckpt").mkdir()
        for step, scale in ((1, 0.0), (2, 1e-4)):
            weights = load_file(FIXTURES / "ckpt" / "full.safetensors")
            save_file({k: (v + scale * random.standard_normal(v.shape)).astype(v.dtype) for k, v in weights.items()},
                      self.folder / "ckpt" / f"step-{step}.safetensors")
        found = {}
        for name, ranks, more in (("cold", 1, ["--warm=false"]), ("whole", 1, []), ("shards", 3, ["--parameters", "sharded", "--fetch-ahead", "on"])):
            output = self.folder / f"{name}.h5"
            options = dict(dtype="float64", micro_batch=4, groups=1, top=4, bottom=0, probes=1, steps=12, max_steps=80, rtol_eigs=1e-6, density_w1=0, rtol_trace=0,
                           trace_method="hutchinson", data_error="off", seed=3)
            done = run(self, "series", *arguments("mlp_ce", output, "cross_entropy", **options), "--checkpoints", self.folder / "ckpt", *more, ranks=ranks)
            self.assertEqual("--fetch-ahead on does nothing" in done.err, name == "shards", done.err)
            with h5py.File(self.folder / f"{name}-results" / "step-2.h5") as f:
                found[name] = f["entry/eigenvalues/eigenvalue"][()], f["entry/quadrature/alpha"].size, f["entry/diagnostics/hvp_count"][()]
        np.testing.assert_allclose(found["shards"][0], found["whole"][0], rtol=1e-9)
        self.assertEqual(found["shards"][1:], found["whole"][1:])
        self.assertNotEqual(found["cold"][1:], found["whole"][1:])


if __name__ == "__main__":
    unittest.main()
