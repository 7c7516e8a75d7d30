#!/usr/bin/env python3
"""What needs more than the model and its data: initial weights, Adam's second moments, Fisher matrices, other data; against
distances and dense matrices by PyTorch in float64, the state dicts of its own optimisers, and figures over rows by numpy and scipy."""

import copy
import json
import unittest

import h5py
import numpy as np
import torch
from dense import hessian_of
from harness import LONG, Case, arguments, hesspect
from landscape import OfPyTorch
from oracles import rebuilt
from parts import dense
from safetensors.torch import save_file
from scipy.stats import binomtest
from scipy.stats import t as student

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
        for ranks, method, way in ((1, "deflated", "auto"), (2, "hutchinson", "auto"), (3, "deflated", "sharded")):
            ended = hesspect("trace", *arguments("mlp_ce", result, "cross_entropy", dtype="float64", initial_weights=file, parameters=way),
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
        for way in ("auto", "sharded"):
            self.refused(BAD_INPUT, ["--initial-weights", "layers.0.weight", "[10, 6]"], *command(parameters=way))
        bad = {k: v.float() for k, v in start.items()}
        bad["layers.1.bias"][-1] = float("nan")
        save_file(bad, file)
        for way in ("auto", "sharded"):
            self.refused(BAD_INPUT, ["--initial-weights", "layers.1.bias", "NaN"], *command(parameters=way))
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

    def test_each_block_as_adam_sees_it(self):
        model, adam, hessian = self.train()
        s, places, at = self.root(model, adam), {}, 0
        for name, p in model.named_parameters():
            places[name] = np.arange(at, at + p.numel())
            at += p.numel()
        layer = lambda stem: np.concatenate([places[f"{stem}.weight"], places[f"{stem}.bias"]])
        some = places["layers.0.weight"].reshape(10, 6)[:, [1, 3]].reshape(-1)
        cases = [(["--blocks", "per-layer"], {k: layer(k) for k in ("layers.0", "layers.1", "layers.2")}, 2),
                 (["--block", "bias=bias$", "--block", "columns=layers.0.weight@columns=1,3"],
                  {"bias": np.concatenate([v for k, v in places.items() if k.endswith("bias")]), "columns": some}, 1)]
        for options, expected, ranks in cases:
            whole = self.found(*options, ranks=ranks)
            with h5py.File(self.folder / "r.h5") as f:
                found = {k: v.asstr()[()] if v.dtype.kind in "OS" else v[()] for k, v in f["entry/sharpness/blocks"].items()}
            self.assertEqual(list(found["name"]), list(expected))
            for i, entries in enumerate(expected.values()):
                block = hessian[np.ix_(entries, entries)]
                plain, seen = (np.linalg.eigvalsh(m)[-1] for m in (block, s[entries, None] * block * s[entries]))
                self.assertEqual(found["parameters"][i], entries.size)
                self.assertLessEqual(abs(found["lambda_1"][i] - plain), found["lambda_1_error"][i] + 1e-9 * plain)
                self.assertLessEqual(abs(found["adam_lambda_1"][i] - seen), found["adam_lambda_1_error"][i] + 1e-9 * seen)
                self.assertAlmostEqual(found["step"][i] * plain, 2, delta=1e-5)
                self.assertAlmostEqual(found["adam_rate"][i] * seen, 38, delta=1e-4)
                self.assertLessEqual(whole["largest_rate"], found["adam_rate"][i] * (1 + 1e-9))  # interlacing
                # Of gradient descent on a quadratic loss |1 - 2 (1 -+ 0.05)|; of Adam as of the whole.
                np.testing.assert_allclose([found["growth_below"][i], found["growth_above"][i]], [0.9, 1.1], atol=0.02)
                np.testing.assert_allclose(found["adam_growth_below"][i], whole["expected_below"], atol=0.03)
                self.assertGreater(found["adam_growth_above"][i], 1.1)  # less than the whole's where the loss is less quadratic
            self.assertTrue(found["converged"].all())
            self.assertNotIn("warning", self.err)
        self.assertIn("largest stable rate", self.err)
        told = json.loads(hesspect("report", self.folder / "r.h5", "--format", "json").out)["results"][0]["block_steps"]
        self.assertEqual([b["name"] for b in told], ["bias", "columns"])
        self.assertEqual([f["key"] for f in told[0]["figures"]], ["lambda_1", "step_checked", "adam_lambda_1", "adam_rate"])
        self.assertIn("confirmed: growth a step", hesspect("report", self.folder / "r.h5").out)
        self.assertIn("Largest stable steps by block", hesspect("report", self.folder / "r.h5", "--format", "html").out)
        # Without moments and without steps; and a name that nothing has.
        self.assertDone(hesspect("sharpness", *arguments("mlp_ce", self.folder / "n.h5", "cross_entropy"), *InformationAndFlatness.QUICK,
                                 "--blocks", "per-tensor"))
        with h5py.File(self.folder / "n.h5") as f:
            self.assertEqual(len(f["entry/sharpness/blocks/name"]), 6)
            self.assertTrue(np.isnan(f["entry/sharpness/blocks/adam_rate"][()]).all() and np.isnan(f["entry/sharpness/blocks/growth_below"][()]).all())
            self.assertTrue((f["entry/sharpness/blocks/step"][()] > 0).all())
        self.refused(BAD_INPUT, ["layers.9"], *self.command("adam.pt", "--block", "none=layers.9"))

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


def gradient(of, parameters):
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(of, parameters, retain_graph=True)]).numpy()


class InformationAndFlatness(Measures):
    QUICK = ("--basin-directions", 0, "--eigenvectors-tried", 0, "--rho", "none", "--adaptive-rho", "none", "--step-check=false", "--force")

    def test_against_dense_matrices(self):
        case = rebuilt("mlp_ce")
        model = case.model.double()
        parameters = list(model.parameters())
        logits = model(case.inputs["x"].double())
        hessian = hessian_of(torch.nn.functional.cross_entropy(logits, case.target), model)
        p, log_p, rows = logits.softmax(1).detach().numpy(), logits.log_softmax(1), len(logits)
        fisher, empirical = np.zeros_like(hessian), np.zeros_like(hessian)
        for i in range(rows):
            for c in range(p.shape[1]):
                g = gradient(log_p[i, c], parameters)
                fisher += p[i, c] * np.outer(g, g) / rows
                if c == case.target[i]:
                    empirical += np.outer(g, g) / rows
        theta = torch.cat([q.detach().reshape(-1) for q in parameters]).numpy()
        # Of the last layer: blocks of the dense Hessian between its rows, and the closed form.
        weight = model.layers[-1].weight.detach().numpy()
        phi = torch.tanh(model.layers[1](torch.tanh(model.layers[0](case.inputs["x"].double())))).detach().numpy()
        start = sum(q.numel() for q in parameters[:-2])
        block = hessian[start:start + weight.size, start:start + weight.size].reshape(*weight.shape, *weight.shape)
        kappa = np.einsum("si,ti,sjtj->", weight, weight, block)
        mean = p @ weight
        closed = np.mean((phi**2).sum(1) * (p @ (weight**2).sum(1) - (mean**2).sum(1)))
        self.assertAlmostEqual(kappa, closed, delta=1e-12)
        for ranks in (1, 2) if LONG else (2,):
            ended = hesspect("sharpness", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy", dtype="float64", measure_probes=300), *self.QUICK, ranks=ranks)
            self.assertDone(ended)
            with h5py.File(self.folder / "r.h5") as f:
                i = {k: v[()] for k, v in f["entry/sharpness/information"].items()}
                flat = {k: v[()] for k, v in f["entry/sharpness/relative_flatness"].items()}
            self.assertAlmostEqual(i["fisher_rao"] / (theta @ fisher @ theta), 1, delta=1e-10)
            self.assertAlmostEqual(i["empirical_fisher_rao"] / (theta @ empirical @ theta), 1, delta=1e-10)
            exact = {"trace": np.trace(hessian), "fisher_trace": np.trace(fisher), "empirical_trace": np.trace(empirical),
                     "empirical_over_fisher": np.trace(empirical) / np.trace(fisher), "empirical_over_matrix": np.trace(empirical) / np.trace(hessian)}
            for key, value in exact.items():
                half = (i[key + "_upper"] - i[key + "_lower"]) / 2
                self.assertLess(abs(i[key] - value), 1.6 * half, key)  # some of five may miss at 90 %, none by far
                self.assertLess(half, 0.2 * abs(value), key)
            self.assertEqual(flat["layer"].decode(), "layers.2.weight")
            half = (flat["value_upper"] - flat["value_lower"]) / 2
            self.assertLess(abs(flat["value"] - kappa), 1.6 * half)
            self.assertLess(half, 0.2 * kappa)
        report = hesspect("report", self.folder / "r.h5").out
        for piece in ("Squared Fisher-Rao norm", "Takeuchi's criterion", "Relative flatness, layers.2.weight"):
            self.assertIn(piece, report)

    def test_what_is_not_measured(self):
        command = lambda *more, case="mlp_ce", loss="cross_entropy": ["sharpness", *arguments(case, self.folder / "r.h5", loss, dtype="float64", measure_probes=2), *self.QUICK, *more]
        self.refused(BAD_INPUT, ["--flatness-layer", "did you mean 'layers.1.weight'"], *command("--flatness-layer", "layers.1.weigth"))
        self.refused(BAD_INPUT, ["layers.1.bias", "no real matrix"], *command("--flatness-layer", "layers.1.bias"))
        self.assertDone(hesspect(*command(case="deep_scalar", loss="output")))
        with h5py.File(self.folder / "r.h5") as f:
            self.assertIn(b"no distribution", f["entry/sharpness/information/obstacle"][()])
            self.assertIn(b"--flatness-layer", f["entry/sharpness/relative_flatness/obstacle"][()])
        self.assertIn("no distribution", hesspect("report", self.folder / "r.h5").out)


def by_hand(confidence, right):
    """Expected calibration error, a bin at a time."""
    error = 0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


class OtherData(Measures):
    QUICK = (*InformationAndFlatness.QUICK, "--measure-probes", 0)

    def compare(self, name, loss, other, *more, ranks=1):
        with h5py.File(self.folder / "other.h5", "w") as f:
            for key, values in other.items():
                f[key] = values
        ended = hesspect("sharpness", *arguments(name, self.folder / "r.h5", loss, dtype="float64", other_data=self.folder / "other.h5"), *self.QUICK, *more, ranks=ranks)
        self.assertDone(ended)
        with h5py.File(self.folder / "r.h5") as f:
            group = f["entry/quality"]
            return ({k: v[()] for k, v in group.items() if isinstance(v, h5py.Dataset)},
                    *({k: v[()] for k, v in group[name].items()} for name in ("own", "other")))

    def check(self, found, loss, nll, right, confidence, brier):
        n = len(loss)
        for key, values in (("loss", loss), ("nll", nll), ("brier", brier)):
            self.assertAlmostEqual(found[key], values.mean(), delta=1e-12, msg=key)
            by_row = values.reshape(n, -1).mean(1)
            self.check_interval([found[key + end] for end in ("_lower", "", "_upper")], [by_row], key)
        self.assertAlmostEqual(found["accuracy"], right.mean(), delta=1e-12)
        self.assertAlmostEqual(found["ece"], by_hand(confidence.reshape(-1), right.reshape(-1)), delta=1e-12)
        self.assertLessEqual(found["ece_lower"], found["ece"])
        self.assertGreaterEqual(found["ece_upper"], found["ece"])

    def check_interval(self, found, rows, what=""):
        """Of a mean, or of the second's less the first's."""
        signed = list(zip((-1, 1)[-len(rows):], rows))
        error = np.sqrt(sum(r.var(ddof=1) / len(r) for r in rows))
        third = sum(sign * ((r - r.mean())**3).sum() / len(r)**3 for sign, r in signed)
        self.check_ends(found, error, third, min(map(len, rows)) - 1, what)

    def check_ends(self, found, error, third, degrees, what=""):
        """Hall's cubic of the studentised mean is Student's at both ends."""
        lower, value, upper = found
        a, quantile = third / error**3, student.ppf(0.95, degrees)
        for end, expected in ((lower, quantile), (upper, -quantile)):
            t = (value - end) / error
            self.assertAlmostEqual(t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6, expected, delta=1e-7, msg=what)

    def test_of_classes(self):
        case = rebuilt("mlp_ce")
        model = case.model.double()
        torch.manual_seed(8)
        other = {"x": 2 * torch.randn(40, 6, dtype=torch.float64), "target": torch.randint(0, 4, (40,))}
        found, own, others = self.compare("mlp_ce", "cross_entropy", {k: v.numpy() for k, v in other.items()}, ranks=3)
        losses = []
        for one, x, y in ((own, case.inputs["x"].double(), case.target), (others, other["x"], other["target"])):
            with torch.no_grad():
                log_p = model(x).log_softmax(1)
            p, y = log_p.exp().numpy(), y.numpy()
            nll, right = -log_p.numpy()[np.arange(len(y)), y], p.argmax(1) == y
            losses.append(nll)
            self.check(one, nll, nll, right, p.max(1), ((p - np.eye(4)[y])**2).sum(1))
            exact = binomtest(int(right.sum()), len(y)).proportion_ci(0.9, "exact")
            np.testing.assert_allclose([one["accuracy_lower"], one["accuracy_upper"]], [exact.low, exact.high], atol=1e-9)
            self.assertEqual((one["rows"], one["terms"]), (len(y), len(y)))
        self.assertAlmostEqual(found["gap"], losses[1].mean() - losses[0].mean(), delta=1e-12)
        self.check_interval([found[key] for key in ("gap_lower", "gap", "gap_upper")], losses)
        report = hesspect("report", self.folder / "r.h5", "--format", "json").out
        for piece in ('"loss_gap"', '"ece"', "a calibrated model of these confidences shows"):
            self.assertIn(piece, report)
        self.assertNotIn("--other-data')", report)
        self.assertIn("Expected calibration error, other data", hesspect("report", self.folder / "r.h5").out)

    def test_of_binary_targets(self):
        case = rebuilt("mlp_bce")
        model = case.model.double()
        torch.manual_seed(9)
        other = {"x": torch.randn(30, 4), "target": (torch.rand(30, 3) < 0.5).float()}
        _, own, others = self.compare("mlp_bce", "bce_with_logits", {k: v.numpy() for k, v in other.items()}, "--other-samples", 20)
        for one, x, y in ((own, case.inputs["x"], case.target), (others, other["x"][:20], other["target"][:20])):
            with torch.no_grad():
                p = model(x.double()).sigmoid().numpy()
            y = y.double().numpy()
            nll = -(y * np.log(p) + (1 - y) * np.log1p(-p))
            self.check(one, nll, nll, (p >= 0.5) == (y == 1), np.maximum(p, 1 - p), (p - y)**2)
            self.assertEqual(one["terms"], 3 * len(y))

    def test_of_tokens_some_ignored(self):
        case = rebuilt("large_vocabulary")
        _, own, _ = self.compare("large_vocabulary", "causal_lm", {"ids": case.inputs["ids"].numpy(), "target": case.target.numpy()}, ranks=2)
        with torch.no_grad():
            log_p = case.model.double()(case.inputs["ids"])[:, :-1].log_softmax(2)
        target = case.target[:, 1:]
        counts = (target != -100).numpy()
        nll = -log_p.gather(2, target.clamp_min(0)[..., None])[..., 0].numpy()
        right, confidence = (log_p.argmax(2) == target).numpy(), log_p.exp().amax(2).numpy()
        self.assertEqual(own["terms"], counts.sum())
        self.assertAlmostEqual(own["nll"], nll[counts].mean(), delta=1e-10)
        self.assertAlmostEqual(own["loss"], nll[counts].mean(), delta=1e-10)
        self.assertAlmostEqual(own["accuracy"], right[counts].mean(), delta=1e-12)
        self.assertAlmostEqual(own["ece"], by_hand(confidence[counts], right[counts]), delta=1e-10)
        # The interval of a ratio of sums over rows.
        sums, terms = (nll * counts).sum(1)[counts.any(1)], counts.sum(1)[counts.any(1)]
        off = (sums - sums.sum() / terms.sum() * terms) / terms.sum()
        error = np.sqrt((off**2).sum() * len(off) / (len(off) - 1))
        self.check_ends([own[key] for key in ("nll_lower", "nll", "nll_upper")], error, (off**3).sum(), len(off) - 1)

    def test_what_has_no_classes_and_what_cannot_be_read(self):
        case = rebuilt("mlp_mse")
        found, own, others = self.compare("mlp_mse", "mse", {"x": case.inputs["x"][:7].numpy(), "target": case.target[:7].numpy()})
        self.assertIn(b"no classes", found["obstacle"])
        self.assertTrue(np.isnan(others["accuracy"]))
        with torch.no_grad():
            square = (case.model.double()(case.inputs["x"].double()) - case.target.double()).pow(2).mean(1).numpy()
        self.assertAlmostEqual(others["loss"], square[:7].mean(), delta=1e-12)
        self.assertAlmostEqual(own["loss"], square.mean(), delta=1e-12)
        command = lambda other, *more: ["sharpness", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy", other_data=other), *self.QUICK, *more]
        self.refused(BAD_INPUT, ["none.h5"], *command("none.h5"))
        bad = self.folder / "bad.h5"
        with h5py.File(bad, "w") as f:
            f["x"], f["target"] = np.zeros((3, 6), np.float32), np.array([0, 9, 1])
        self.refused(BAD_INPUT, ["--other-data", "9"], *command(bad))
        with h5py.File(bad, "w") as f:
            f["y"] = np.zeros(3)
        self.refused(BAD_INPUT, ["bad.h5", "'x'"], *command(bad))
        self.refused(USAGE, ["--other-samples"], *command(None, "--other-samples", 3))


if __name__ == "__main__":
    unittest.main()
