#!/usr/bin/env python3
"""What needs more than the model and its data: initial weights, Adam's second moments; against distances and dense Hessians by
PyTorch in float64 and the state dicts of its own optimisers."""

import copy
import unittest

import h5py
import numpy as np
import torch
from dense import hessian_of
from harness import Case, arguments, hesspect
from landscape import OfPyTorch
from oracles import rebuilt
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


class SecondMoments(Measures):
    """The fixture's model after some full-batch steps of torch.optim.Adam, in float64, with the state dict that it saves."""

    def train(self, name="mlp_ce", optimizer=torch.optim.Adam, named=False, steps=12, **options):
        case = rebuilt(name)
        model = case.model.double()
        torch.manual_seed(3)
        adam = optimizer(model.named_parameters() if named else model.parameters(), lr=0.01, **options)
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in case.inputs.items()}
        for _ in range(steps):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(model(**inputs), case.target).backward()
            adam.step()
        loss = torch.nn.functional.cross_entropy(model(**inputs), case.target)
        save_file({k: p.detach().clone() for k, p in model.named_parameters()}, self.folder / "w.safetensors")
        torch.save(adam.state_dict(), self.folder / "adam.pt")
        return model, adam, hessian_of(loss, model)

    def root(self, model, adam, eps=1e-8, corrected=True, key="exp_avg_sq"):
        pieces = []
        for p in model.parameters():
            state = adam.state[p]
            v = state[key].double() / (1 - 0.999 ** float(state["step"]) if corrected else 1)
            pieces.append((v.sqrt() + eps).reshape(-1))
        return torch.cat(pieces).rsqrt().numpy()

    def command(self, moments="adam.pt", *more):
        return ["sharpness", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy", dtype="float64", weights=self.folder / "w.safetensors",
                                        second_moments=self.folder / moments, rtol_eigs=1e-9, rho="none", adaptive_rho="none"),
                "--basin-directions", 0, "--eigenvectors-tried", 0, "--force", *more]

    def found(self, *more, moments="adam.pt", ranks=1):
        ended = hesspect(*self.command(moments, *more), ranks=ranks)
        self.assertDone(ended)
        self.err = ended.err
        with h5py.File(self.folder / "r.h5") as f:
            return {k: v[()] for k, v in f["entry/sharpness/adam"].items()}

    def test_the_preconditioned_eigenvalue_and_rate(self):
        model, adam, hessian = self.train()
        s = self.root(model, adam)
        values, vectors = np.linalg.eigh(s[:, None] * hessian * s)
        found = self.found(ranks=3)
        self.assertLessEqual(abs(found["lambda_1"] - values[-1]), found["lambda_1_error"] + 1e-9 * values[-1])
        self.assertLess(found["lambda_1_error"], 1e-6 * values[-1])
        self.assertAlmostEqual(found["largest_rate"], 38 / values[-1], delta=1e-7 / values[-1])
        self.assertEqual((found["step_fewest"], found["step_most"], found["beta1"], found["beta2"]), (12, 12, 0.9, 0.999))
        np.testing.assert_allclose(found["growth_below"], found["expected_below"], atol=0.03)
        np.testing.assert_allclose(found["growth_above"], found["expected_above"], atol=0.03)
        self.check_rate(found["largest_rate"], s, hessian)
        report = hesspect("report", self.folder / "r.h5", "--format", "json").out
        for piece in ('"adam_lambda_1"', '"adam_rate"', "confirmed"):
            self.assertIn(piece, report)
        self.assertNotIn("second moments ('sharpness", report)
        # The same moments by name, as arrays of HDF5, with options in place of what the file said.
        with h5py.File(self.folder / "v.h5", "w") as f:
            for name, p in model.named_parameters():
                f[name] = adam.state[p]["exp_avg_sq"].numpy()
        s = self.root(model, adam, eps=1e-3)
        found = self.found("--adam-eps", 1e-3, "--adam-step", 12, "--adam-beta1", 0.5, "--step-check=false", moments="v.h5")
        largest = np.linalg.eigvalsh(s[:, None] * hessian * s)[-1]
        self.assertAlmostEqual(found["lambda_1"] / largest, 1, delta=1e-8)
        self.assertAlmostEqual(found["largest_rate"] * largest, 6, delta=1e-6)
        self.assertEqual(len(found["growth_below"]), 0)
        s = self.root(model, adam, corrected=False)
        found = self.found("--step-check=false", moments="v.h5")
        self.assertAlmostEqual(found["lambda_1"] / np.linalg.eigvalsh(s[:, None] * hessian * s)[-1], 1, delta=1e-8)
        self.assertIn("does not say how many steps", self.err)

    def check_rate(self, rate, s, hessian):
        """Adam's own recursion on the quadratic model, with its D: bounded just below the rate, not just above."""
        for share, grows in ((0.97, False), (1.03, True)):
            x, m = np.random.default_rng(0).standard_normal(len(s)), np.zeros(len(s))
            values, vectors = np.linalg.eigh(s[:, None] * hessian * s)
            convex = (vectors * np.maximum(values, 0)) @ vectors.T  # without the directions that bend down
            convex = convex / s[:, None] / s
            for _ in range(3000):
                m = 0.9 * m + 0.1 * (convex @ x)
                x = x - share * rate * s * s * m
                if np.abs(x).max() > 1e9:
                    break
            self.assertEqual(np.abs(x).max() > 1e9, grows)

    def test_amsgrad_names_and_a_whole_checkpoint(self):
        model, adam, hessian = self.train(named=True, amsgrad=True, eps=1e-4)
        torch.save({"model": model.state_dict(), "optimizer": adam.state_dict(), "epoch": 3}, self.folder / "all.pt")
        s = self.root(model, adam, eps=1e-4, key="max_exp_avg_sq")
        found = self.found("--step-check=false", moments="all.pt")
        self.assertAlmostEqual(found["lambda_1"] / np.linalg.eigvalsh(s[:, None] * hessian * s)[-1], 1, delta=1e-8)
        self.assertEqual((found["amsgrad"], found["eps_least"]), (1, 1e-4))

    def test_what_cannot_be_matched(self):
        model, adam, _ = self.train()
        refuse = lambda words, moments, *more, code=BAD_INPUT: self.refused(code, words, *self.command(moments, *more))
        state = adam.state_dict()

        def save(change):
            changed = copy.deepcopy(state)
            change(changed)
            torch.save(changed, self.folder / "bad.pt")
            return "bad.pt"

        def exchange(s):
            s["state"][0], s["state"][2] = s["state"][2], s["state"][0]

        def negative(s):
            s["state"][1]["exp_avg_sq"][3] = -1

        refuse(["layers.0.weight", "[8, 10]", "[10, 6]"], save(exchange))
        refuse(["layers.2.bias", "never had a gradient"], save(lambda s: s["state"].pop(5)))
        refuse(["layers.0.bias", "negative"], save(negative))
        refuse(["5 parameters", "6"], save(lambda s: s["param_groups"][0]["params"].pop()))
        torch.save(model.state_dict(), self.folder / "w.pt")
        refuse(["no optimiser's state"], "w.pt")
        self.train(optimizer=torch.optim.SGD, momentum=0.9)
        refuse(["exp_avg_sq", "momentum_buffer"], "adam.pt")
        save_file({"layers.0.weigth": torch.ones(10, 6)}, self.folder / "v.safetensors")
        refuse(["6 of the 6", "did you mean 'layers.0.weigth'"], "v.safetensors")
        refuse(["none.pt"], "none.pt")
        refuse(["-1"], "adam.pt", "--adam-eps", -0.5, code=USAGE)


if __name__ == "__main__":
    unittest.main()
