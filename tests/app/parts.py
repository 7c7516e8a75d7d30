#!/usr/bin/env python3
"""--params, --exclude, --block and --blocks as a user meets them, against dense Hessians that PyTorch takes in float64 by
double reverse mode."""

import re
import unittest
from functools import cache

import h5py
import numpy as np
import torch
from harness import LONG, Case, arguments, hesspect
from oracles import arpack, rebuilt, reference
from scipy.sparse.linalg import LinearOperator
from scipy.spatial.distance import jensenshannon

USAGE, BAD_INPUT, RESUBMIT = 2, 4, 75
EXACT = dict(dtype="float64", rtol_eigs=1e-10, top=3, bottom=2)


@cache
def dense(name, pattern=""):
    """The Hessian in the parameters in whose name the pattern finds something, and where each one's entries are."""
    case = rebuilt(name)
    with reference.evaluation(case, torch.float64) as (params, run):
        chosen = {key: p for key, p in params.items() if re.search(pattern, key)}
        parameters = list(chosen.values())
        loss = reference.loss_of(case, run(), reference.in_dtype(case.target, torch.float64))
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)])
        rows = [torch.cat([h.reshape(-1) for h in torch.autograd.grad(g, parameters, retain_graph=True, materialize_grads=True)])
                for g in gradient]
        ends = np.cumsum([p.numel() for p in parameters])
        places = {key: np.arange(end - p.numel(), end) for key, p, end in zip(chosen, parameters, ends)}
    return torch.stack(rows).detach().numpy(), places


def block_of(name, chosen):
    """H_bb of the parameters whose name the function chooses."""
    matrix, places = dense(name)
    at = np.concatenate([place for key, place in places.items() if chosen(key)])
    return matrix[np.ix_(at, at)]


def module(key):
    return key.rpartition(".")[0]


def smoothed(eigenvalues, sigma, grid):
    return np.mean([np.exp(-0.5 * ((grid - value) / sigma) ** 2) for value in eigenvalues], axis=0) / (sigma * np.sqrt(2 * np.pi))


class Blocks(Case):
    def run_it(self, *args, case="mlp_ce", loss="cross_entropy", command="analyze", ranks=1, code=0, **options):
        output = self.folder / "r.h5"
        ended = hesspect(command, *arguments(case, output, loss, **{**EXACT, **options}), *args, "--force", ranks=ranks)
        self.assertDone(ended, code)
        self.err = ended.err
        return h5py.File(output)["entry"]

    def check(self, entry, case="mlp_ce", key=module):
        """All of it, where every block's eigenvalues were found."""
        summary, norms, spectra = entry["block_summary"], [], []
        names = list(summary["name"].asstr())
        self.assertEqual(sorted(names), sorted(entry["blocks"]))
        for i, name in enumerate(names):
            expected = block_of(case, lambda k: key(k) == name)
            values = np.linalg.eigvalsh(expected)
            scale = np.abs(values).max()
            group = entry["blocks"][name]
            self.assertEqual(group["parameters"][()], len(values))
            self.assertEqual(list(group["tensors"].asstr()), [k for k in dense(case)[1] if key(k) == name])
            found = group["eigenvalues/eigenvalue"][()]
            top = min(3, len(values))
            np.testing.assert_allclose(found[:top], values[::-1][:top], atol=1e-9 * scale)
            np.testing.assert_allclose(found[top:], values[: len(found) - top][::-1], atol=1e-9 * scale)
            self.assertLess(group["eigenvalues/true_residual"][()].max(), 1e-9 * scale)
            np.testing.assert_allclose(group["trace/value"][()], np.trace(expected), atol=1e-9 * scale)
            np.testing.assert_allclose(group["norm_sq"][()], np.sum(expected**2), rtol=1e-9)
            self.assertEqual(group["cumulative/band"].asstr()[()], "exact")
            np.testing.assert_allclose(summary["largest"][i], values[-1], atol=1e-9 * scale)
            np.testing.assert_allclose(summary["smallest"][i], values[0], atol=1e-9 * scale)
            np.testing.assert_allclose(summary["mean"][i], np.trace(expected) / len(values), atol=1e-9 * scale)
            norms.append(np.sum(expected**2))
            spectra.append(values)
        whole = np.sum(dense(case)[0] ** 2)
        np.testing.assert_allclose(summary["norm_sq"][()], whole, rtol=1e-9)
        np.testing.assert_allclose(summary["off_block_share"][()], 1 - sum(norms) / whole, atol=1e-9)
        self.assertEqual(summary["off_block_share_error"][()], 0)
        # SciPy's distance of densities from all eigenvalues, on a grid of its own
        sigma = summary["js_sigma"][()]
        ends = min(v[0] for v in spectra), max(v[-1] for v in spectra)
        grid = np.arange(ends[0] - 8 * sigma, ends[1] + 8 * sigma, sigma / 20)
        densities = [np.where(d > 1e-200, d, 0) for d in (smoothed(values, sigma, grid) for values in spectra)]  # SciPy has no denormals
        distances = np.array([[jensenshannon(a, b, base=2) for b in densities] for a in densities])
        np.testing.assert_allclose(summary["js_distance"][()], distances, atol=2e-3)
        pairs = np.triu_indices(len(names), 1)
        np.testing.assert_allclose(summary["js_distance_mean"][()], distances[pairs].mean(), atol=2e-3)

    def test_layers_against_the_dense_hessian(self):
        for ranks, groups in ((1, 1), (3, 1), (2, 2)) if LONG else ((1, 1), (2, 2)):
            entry = self.run_it("--blocks", "per-layer", ranks=ranks, groups=groups, max_steps=1000, block_hvps=1000)
            self.check(entry)
            self.assertEqual(entry["block_summary/rest_parameters"][()], 0)
        self.assertIn("off the blocks", self.err)
        # Before the run, what blocks take: each is found whole, for no more products than it has parameters and pairs.
        sizes = [len(block_of("mlp_ce", lambda k: module(k) == name)) for name in entry["blocks"]]
        most = sum(n + min(n, 5) for n in sizes)
        self.assertRegex(self.err, rf"{len(sizes)} blocks: at most {most} products, .* of vectors a rank")
        plan = hesspect("plan", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy", **EXACT, max_steps=1000, block_hvps=1000), "--blocks", "per-layer")
        self.assertDone(plan)
        self.assertIn(f"with {len(sizes)} blocks: at most {most} products", plan.out)
        self.assertIn("or of the largest block, later", plan.out)
        taken = sum(entry["blocks"][name]["products"][()] for name in entry["blocks"])
        self.assertLessEqual(taken, most)
        self.assertIn(f"{entry['diagnostics/hvp_count'][()] + taken} products", self.err)  # as the progress line ends

    def test_tensors(self):
        entry = self.run_it("--blocks", "per-tensor", max_steps=1000, block_hvps=1000)
        self.check(entry, key=lambda k: k)

    def test_named_blocks_a_rest_and_an_overlap(self):
        entry = self.run_it("--block", "weights=weight$", max_steps=1000, block_hvps=1000)
        biases = len(block_of("mlp_ce", lambda k: k.endswith("bias")))
        self.assertEqual(entry["block_summary/rest_parameters"][()], biases)
        weights, whole = block_of("mlp_ce", lambda k: k.endswith("weight")), dense("mlp_ce")[0]
        np.testing.assert_allclose(entry["block_summary/off_block_share"][()], 1 - np.sum(weights**2) / np.sum(whole**2), atol=1e-9)
        self.assertIn("parameters in none of them", self.err)
        entry = self.run_it("--block", "weights=weight$", "--block", "all=.", max_steps=1000, block_hvps=1000)
        self.assertIn("overlap in", entry["block_summary/off_block_obstacle"].asstr()[()])
        self.assertTrue(np.isnan(entry["block_summary/off_block_share"][()]))
        np.testing.assert_allclose(entry["blocks/all/trace/value"][()], np.trace(whole), rtol=1e-8)
        entry = self.run_it("--block", "weights=weight$", command="eigs", max_steps=1000, block_hvps=1000)
        self.assertIn("takes samples of the trace", entry["block_summary/off_block_obstacle"].asstr()[()])
        self.assertNotIn("trace", entry["blocks/weights"])

    def test_a_tied_weight(self):
        """By ARPACK on products that PyTorch takes with the embedding alone, which is the head too."""
        entry = self.run_it("--block", "tied=lm_head", command="eigs", case="gpt2", loss="causal_lm", top=3, rtol_eigs=1e-6)
        case = rebuilt("gpt2")
        with reference.evaluation(case, torch.float64) as (params, run):
            weight = next(p for key, p in params.items() if key.endswith("wte.weight"))
            loss = reference.loss_of(case, run(), reference.in_dtype(case.target, torch.float64))
            gradient, = torch.autograd.grad(loss, weight, create_graph=True)
            product = lambda v: torch.autograd.grad((gradient * torch.as_tensor(v).reshape(weight.shape)).sum(), weight, retain_graph=True)[0].reshape(-1).numpy()
            expected = arpack(LinearOperator((weight.numel(),) * 2, matvec=product, dtype=np.float64), 3, "LA")
        group = entry["blocks/tied"]
        self.assertEqual(group["parameters"][()], weight.numel())
        np.testing.assert_allclose(group["eigenvalues/eigenvalue"][:3], np.sort(expected[0])[::-1], rtol=1e-8)

    def test_rows_of_a_table(self):
        entry = self.run_it("--block", "rare=embed.weight@rows=2,5-6", "--block", "inputs=head[.]weight@columns=1", case="written_attention",
                            loss="causal_lm")
        matrix, places = dense("written_attention")
        table = places["embed.weight"].reshape(13, -1)
        for name, at in (("rare", table[[2, 5, 6]].ravel()), ("inputs", places["head.weight"].reshape(13, -1)[:, 1])):
            expected = matrix[np.ix_(at, at)]
            np.testing.assert_allclose(entry["blocks"][name]["eigenvalues/eigenvalue"][:3], np.linalg.eigvalsh(expected)[::-1][:3], atol=1e-9)
            np.testing.assert_allclose(entry["blocks"][name]["trace/value"][()], np.trace(expected), atol=1e-9)

    def test_estimates(self):
        options = dict(case="written_attention", loss="causal_lm", block_hvps=70, steps=30, density_w1=0, rtol_eigs=1e-5, rtol_trace=0.5,
                       max_steps=60, bottom=0)
        for ranks in (1, 2) if LONG else (2,):
            entry = self.run_it("--blocks", "per-layer", ranks=ranks, **options)
            summary, whole = entry["block_summary"], np.sum(dense("written_attention")[0] ** 2)
            norms = []
            for name in summary["name"].asstr():
                expected, group = block_of("written_attention", lambda k: (module(k) or k) == name), entry["blocks"][name]
                norms.append(np.sum(expected**2))
                np.testing.assert_allclose(group["eigenvalues/eigenvalue"][:3], np.linalg.eigvalsh(expected)[::-1][:3], rtol=1e-6)
                self.assertLessEqual(abs(group["trace/value"][()] - np.trace(expected)), 2 * group["trace/half_width"][()] + 1e-12)
                self.assertLessEqual(abs(group["norm_sq"][()] - norms[-1]), 5 * group["norm_sq_error"][()] + 1e-12)
            self.assertGreater(summary["off_block_share_error"][()], 0)
            self.assertLess(summary["off_block_share_error"][()], 0.05)
            self.assertLess(abs(summary["off_block_share"][()] - (1 - sum(norms) / whole)), 5 * summary["off_block_share_error"][()])

    def test_stopped_amid_blocks_and_resumed(self):
        options = dict(max_steps=1000, block_hvps=1000, probes=1, steps=20, checkpoint=self.folder / "c")
        args = ("--blocks", "per-tensor")
        whole = {name: group["eigenvalues/eigenvalue"][()] for name, group in self.run_it(*args, **options)["blocks"].items()}
        hours = 1e-6
        done = []
        for start in range(60):
            ended = hesspect("analyze", *arguments("mlp_ce", self.folder / "s.h5", "cross_entropy", **{**EXACT, **options}), *args,
                             "--max-hours", hours, *(["--resume"] if start else []))
            done += re.findall(r"block '([^']+)'", ended.err)
            if ended.code != RESUBMIT:
                break
            hours *= 1.5 if LONG else 4
        self.assertDone(ended)
        self.assertGreater(start, 0)
        self.assertEqual(sorted(done), sorted(whole))  # each once
        with h5py.File(self.folder / "s.h5") as f:
            for name, values in whole.items():
                np.testing.assert_array_equal(f[f"entry/blocks/{name}/eigenvalues/eigenvalue"][()], values)


class Selected(Case):
    def test_the_matrix_of_some_parameters(self):
        output = self.folder / "r.h5"
        for args, chosen in ((("--params", "weight$"), lambda k: k.endswith("weight")),
                             (("--exclude", "bias"), lambda k: not k.endswith("bias")),
                             (("--params", "weight", "--params", "bias", "--exclude", "layers[.]0"), lambda k: not k.startswith("layers.0"))):
            keys = [k for k in dense("mlp_ce")[1] if chosen(k)]
            if not keys or len(keys) == len(dense("mlp_ce")[1]):
                continue
            ways = [(1, "auto"), (2, "auto")] if LONG else [(2 if "--exclude" in args else 1, "auto")]
            for ranks, parameters in [*ways, (3, "sharded")]:
                ended = hesspect("analyze", *arguments("mlp_ce", output, "cross_entropy", **EXACT, parameters=parameters), *args, "--force", ranks=ranks)
                self.assertDone(ended)
                expected = block_of("mlp_ce", chosen)
                values = np.linalg.eigvalsh(expected)
                with h5py.File(output) as f:
                    entry = f["entry"]
                    np.testing.assert_allclose(entry["eigenvalues/eigenvalue"][:3], values[::-1][:3], atol=1e-9 * values[-1])
                    np.testing.assert_allclose(entry["trace/value"][()], np.trace(expected), rtol=1e-9)
                    self.assertEqual(entry["diagnostics/n_parameters"][()], len(values))
                    self.assertEqual(entry["diagnostics/n_model_parameters"][()], len(dense("mlp_ce")[0]))
                    self.assertEqual(list(entry["process/selected"].asstr()), keys)
                    self.assertEqual(list(entry["layers/name"].asstr()), keys)
                self.assertIn("the others held fixed", ended.err)

    def refused(self, code, words, *args):
        ended = hesspect("analyze", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy"), *args)
        self.assertEqual((ended.code, len(ended.errors)), (code, 1), ended.err)
        for word in words:
            self.assertIn(word, ended.errors[0])
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_what_is_refused(self):
        self.refused(BAD_INPUT, ["--params 'wieght' matches none of the model's", "near it:", "weight'"], "--params", "wieght")
        self.refused(BAD_INPUT, ["--exclude 'zzz' matches none"], "--exclude", "zzz")
        self.refused(BAD_INPUT, ["--block a 'zzz' matches none"], "--block", "a=zzz")
        self.refused(BAD_INPUT, ["'layers.0.weight' of shape [10, 6] has no columns 6"], "--block", "a=layers.0.weight@columns=6")
        self.refused(BAD_INPUT, ["leave no parameter"], "--exclude", ".")
        self.refused(USAGE, ["'(' is no regular expression"], "--params", "(")
        self.refused(USAGE, ["expected NAME=REGEX, got 'weight'"], "--block", "weight")
        self.refused(USAGE, ["must not hold a '/'"], "--block", "a/b=weight")
        self.refused(USAGE, ["--block and --blocks say twice"], "--block", "a=weight", "--blocks", "per-layer")
        self.refused(USAGE, ["expected none, per-tensor, per-layer or per-module"], "--blocks", "per-layers")
        self.refused(USAGE, ["blocks need --reorthogonalization full"], "--blocks", "per-layer", "--reorthogonalization", "none")


if __name__ == "__main__":
    unittest.main()
