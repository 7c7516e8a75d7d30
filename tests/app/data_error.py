#!/usr/bin/env python3
"""--data-error as a user meets it: the same on any ranks, micro-batches and ways to take products, over stops, and what it
says by hand."""

import unittest

import h5py
import numpy as np
from harness import Case, arguments, hesspect

USAGE, RESUBMIT = 2, 75
OPTIONS = dict(dtype="float64", top=3, bottom=1, steps=8, rtol_eigs=1e-10, rtol_trace=0.2, density_w1=0)


def everything(entry):
    """All numbers below data_error, by their paths."""
    found = {}
    entry["data_error"].visititems(
        lambda name, node: found.update({name: node[()]}) if isinstance(node, h5py.Dataset) and node.dtype.kind in "fi" else None)
    return found


class DataError(Case):
    def run_it(self, *args, ranks=1, name="r.h5", code=0, **options):
        output = self.folder / name
        ended = hesspect("analyze", *arguments("mlp_ce", output, "cross_entropy", **{**OPTIONS, **options}), *args, ranks=ranks)
        self.assertDone(ended, code)
        self.err = ended.err
        return h5py.File(output)["entry"]

    def assertSame(self, entry, reference):
        mine, other = everything(entry), everything(reference)
        self.assertEqual(set(mine), set(other))
        for name, value in other.items():
            scale = np.nanmax(np.abs(value)) if value.size else 0
            np.testing.assert_allclose(mine[name], value, rtol=1e-7, atol=1e-9 * scale, err_msg=name)

    def test_by_hand(self):
        entry = self.run_it(data_error=4)
        error, share = entry["data_error"], entry["data_error/share"][()]
        self.assertEqual(list(error["rows"]), [5, 6, 6, 6])
        np.testing.assert_allclose(share, np.array([5, 6, 6, 6]) / 23)
        np.testing.assert_allclose(error["loss_part"][()].sum(), entry["diagnostics/loss"][()], rtol=1e-12)
        values = entry["eigenvalues/eigenvalue"][()]
        of_group = error["eigenvalues/of_group"][()]
        np.testing.assert_allclose(of_group @ share, values, rtol=1e-8)
        spread = share * (of_group - values[:, None])
        np.testing.assert_allclose(error["eigenvalues/error"][()], np.sqrt(4 / 3 * (spread**2).sum(1)), rtol=1e-6)
        # Both probes' samples of the trace differ from it by their own noise, which the groups share.
        trace = error["trace"][()]
        np.testing.assert_allclose(error["trace_error"][()], np.sqrt(4 / 3 * ((share * (trace - trace @ share))**2).sum()), rtol=1e-9)
        self.assertEqual(error["trace_from"].asstr()[()], "eigenvectors and probes")
        self.assertEqual(len(error["layers/error"]), len(entry["layers/name"]))
        self.assertLess(error["trace_lower"][()], entry["trace/value"][()] - entry["trace/half_width"][()])
        self.assertIn("over other rows", self.err)

    def test_the_same_however_it_runs(self):
        reference = self.run_it(data_error=4)
        for i, (args, options) in enumerate([(("--micro-batch", 3, "--product", "rebuilt"), {}),
                                             (("--product", "autograd"), {}),
                                             (("--groups", 1), dict(ranks=2)), (("--groups", 2), dict(ranks=2)),
                                             (("--parameters", "sharded"), dict(ranks=1, micro_batch=2)),
                                             (("--parameters", "sharded", "--fetch-ahead", "on"), dict(ranks=3, micro_batch=4))]):
            with self.subTest(args=args, **options):
                self.assertSame(self.run_it(*args, data_error=4, name=f"{i}.h5", **options), reference)

    def test_over_stops(self):
        """A start makes one step or takes one sample: what an earlier one was told of groups of rows is kept to the bit."""
        short = {**OPTIONS, "top": 2, "bottom": 0, "steps": 6, "max_steps": 8, "rtol_trace": 1e-6, "max_hvps": 14, "data_error": 4}
        reference = self.run_it(code=3, **short)
        args = arguments("mlp_ce", self.folder / "pieces.h5", "cross_entropy", **short)
        for piece in range(30):
            ended = hesspect("analyze", *args, "--resume", "--max-hours", "1e-9")
            if ended.code != RESUBMIT:
                break
        self.assertDone(ended, 3)
        self.assertGreater(piece, 2)
        entry = h5py.File(self.folder / "pieces.h5")["entry"]
        for name, value in everything(reference).items():
            np.testing.assert_array_equal(entry["data_error"][name][()], value, err_msg=name)

    def test_where_it_costs_nothing(self):
        self.assertNotIn("data_error", self.run_it())
        self.assertGreaterEqual(len(self.run_it(micro_batch=2, name="auto.h5")["data_error/rows"]), 8)
        self.assertNotIn("data_error", self.run_it(micro_batch=2, data_error="off", name="off.h5"))

    def test_what_can_not_be(self):
        for asked in (3, 12, "some"):
            ended = hesspect("analyze", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy", data_error=asked))
            self.assertEqual(ended.code, USAGE, ended.err)
            self.assertEqual(len(ended.errors), 1)
            self.assertIn("data-error", ended.errors[0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
