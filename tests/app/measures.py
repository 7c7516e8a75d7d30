#!/usr/bin/env python3
"""What needs more than the model and its data: initial weights; against distances and dense Hessians by PyTorch in float64."""

import unittest

import h5py
import numpy as np
import torch
from harness import Case, arguments, hesspect
from landscape import OfPyTorch
from parts import dense
from safetensors.torch import save_file

USAGE, BAD_INPUT = 2, 4


def moved(model, scale):
    """Initial weights that the fixture's model might have been trained from, each tensor at a distance of its own."""
    torch.manual_seed(5)
    return {name: p.detach().double() + scale * (i + 1) * torch.randn_like(p.double()) for i, (name, p) in enumerate(model.case.model.named_parameters())}


class Measures(Case):
    def refused(self, code, words, *args):
        ended = hesspect(*args)
        self.assertEqual(ended.code, code, ended.err)
        self.assertEqual(len(ended.errors), 1, ended.err)
        for word in words:
            self.assertIn(word, ended.errors[0])


class InitialWeights(Measures):
    def test_distances_and_weighted_traces(self):
        model, (matrix, places) = OfPyTorch("mlp_ce"), dense("mlp_ce")
        start, file, result = moved(model, 0.1), self.folder / "start.safetensors", self.folder / "r.h5"
        save_file({k: v.float() for k, v in start.items()}, file)
        named = dict(model.case.model.named_parameters())
        distance = {k: torch.linalg.norm(v.float().double() - named[k].detach().double()).item() for k, v in start.items()}
        exact = {k: np.trace(matrix[np.ix_(at, at)]) * distance[k] ** 2 for k, at in places.items()}
        for ranks, method in ((1, "deflated"), (2, "hutchinson")):
            ended = hesspect("trace", *arguments("mlp_ce", result, "cross_entropy", dtype="float64", initial_weights=file),
                             "--trace-method", method, "--rtol-trace", 0.1, "--seed", 2, "--force", ranks=ranks)
            self.assertDone(ended)
            self.assertIn("from the initial weights", ended.err)
            with h5py.File(result) as f:
                found = {k: v[()] for k, v in f["entry/initial_weights"].items()}
            names = [name.decode() for name in found["name"]]
            self.assertEqual(names, list(exact))
            np.testing.assert_allclose(found["distance_of_layer"], [distance[k] for k in names], rtol=1e-12)
            self.assertAlmostEqual(found["distance"], np.sqrt(sum(d**2 for d in distance.values())), delta=1e-12)
            self.assertLess(abs(found["weighted_trace"] - sum(exact.values())), found["half_width"] + 1e-9, method)
            self.assertLess(found["half_width"], 0.6 * abs(found["weighted_trace"]))
        report = hesspect("report", result, "--format", "json")
        self.assertIn('"weighted_trace"', report.out)
        self.assertNotIn("--initial-weights')", report.out)
        self.assertIn("moved from the initial weights", hesspect("report", result).out)
        self.assertIn("How far each tensor has moved", hesspect("report", result, "--format", "html").out)

    def test_of_chosen_parameters_and_what_cannot_be(self):
        model = OfPyTorch("mlp_ce")
        start, file, result = moved(model, 0.1), self.folder / "start.safetensors", self.folder / "r.h5"
        save_file({k: v.float() for k, v in start.items()}, file)
        command = lambda **more: ["eigs", *arguments("mlp_ce", result, "cross_entropy", initial_weights=file, **more), "--force"]
        self.assertDone(hesspect(*command(params="layers.1", top=1, bottom=0)))
        with h5py.File(result) as f:
            self.assertEqual(len(f["entry/initial_weights/name"]), 2)
            self.assertTrue(np.isnan(f["entry/initial_weights/weighted_trace"][()]))
        save_file({k: v.float() for k, v in list(start.items())[1:]}, file)
        self.refused(BAD_INPUT, ["--initial-weights", "layers.0.weight"], *command())
        save_file({k: v.float().reshape(-1) for k, v in start.items()}, file)
        self.refused(BAD_INPUT, ["--initial-weights", "layers.0.weight", "[10, 6]"], *command())
        self.refused(USAGE, ["--initial-weights", "sharpness"], "sharpness", *command()[1:])


if __name__ == "__main__":
    unittest.main()
