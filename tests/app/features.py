#!/usr/bin/env python3
"""`hesspect features` as a user meets it: blocks against dense Hessians that PyTorch takes in float64 by double reverse mode, losses
against PyTorch's, counts against NumPy's, correlations against SciPy's."""

import json
import subprocess
import sys
import unittest
from functools import cache

import h5py
import numpy as np
import torch
from harness import FIXTURES, LONG, Case, arguments, hesspect
from oracles import SOURCE, rebuilt, reference
from scipy.stats import spearmanr

USAGE, NOT_CONVERGED, BAD_INPUT = 2, 3, 4


@cache
def model_of(name):
    """Dense Hessian, parameters [n], where each tensor's entries are, and the loss at other parameters."""
    case = rebuilt(name)
    with reference.evaluation(case, torch.float64) as (params, run):
        target = reference.in_dtype(case.target, torch.float64)
        parameters = list(params.values())
        loss = reference.loss_of(case, run(), target)
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)])
        rows = [torch.cat([h.reshape(-1) for h in torch.autograd.grad(g, parameters, retain_graph=True, materialize_grads=True)])
                for g in gradient]
        hessian = torch.stack(rows).detach().numpy()
        ends = np.cumsum([p.numel() for p in parameters])
        places = {key: np.arange(end - p.numel(), end).reshape(p.shape) for key, p, end in zip(params, parameters, ends)}
        flat = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy()

    def loss_at(theta):
        with reference.evaluation(case, torch.float64) as (params, run), torch.no_grad():
            saved = [p.clone() for p in params.values()]
            for (key, p), kept in zip(params.items(), saved):
                p.copy_(torch.as_tensor(theta[places[key]]))
            value = reference.loss_of(case, run(), target).item()
            for p, kept in zip(params.values(), saved):
                p.copy_(kept)
        return value

    return hessian, flat, places, loss_at


class Features(Case):
    def run_it(self, *args, case="widedeep", loss="bce_with_logits", ranks=1, code=0, **options):
        output = self.folder / "f.h5"
        exact = dict(dtype="float64", rtol_eigs=1e-10, rtol_trace=1e-3)
        ended = hesspect("features", *arguments(case, output, loss, **{**exact, **options}), *args, "--force", ranks=ranks)
        self.assertDone(ended, code)
        self.output, self.err = output, ended.err
        with h5py.File(output) as file:
            group = file["entry/features"]
            return {key: (value.asstr()[()] if value.dtype.kind in "OS" else value[()]) for key, value in group.items()}

    def refused(self, code, *args, **options):
        ended = hesspect("features", *arguments("widedeep", self.folder / "no.h5", "bce_with_logits", **options), *args)
        self.assertEqual(ended.code, code, ended.err)
        self.assertEqual(len(ended.errors), 1, ended.err)
        self.assertFalse((self.folder / "no.h5").exists())
        return ended.errors[0]

    def check_block(self, f, name, entries, case="widedeep"):
        """λ₁, trace, norm, changes of one feature, where its block was found whole."""
        hessian, flat, _, loss_at = model_of(case)
        i = list(f["name"]).index(name)
        entries = np.asarray(entries).reshape(-1)
        block = hessian[np.ix_(entries, entries)]
        values, vectors = np.linalg.eigh(block)
        scale = max(np.abs(values).max(), 1e-12)
        norm = np.linalg.norm(flat[entries])
        self.assertEqual(f["in_use"][i], entries.size)
        np.testing.assert_allclose(f["largest"][i], values[-1], atol=1e-9 * scale, err_msg=name)
        np.testing.assert_allclose(f["trace"][i], np.trace(block), atol=1e-9 * scale * entries.size, err_msg=name)
        np.testing.assert_allclose(f["mean"][i], np.trace(block) / entries.size, atol=1e-9 * scale)
        np.testing.assert_allclose(f["norm"][i], norm, rtol=1e-12)
        at_start = loss_at(flat)
        for k, rho in enumerate(f["rho"]):
            np.testing.assert_allclose(f["change_predicted"][i, k], (rho * norm) ** 2 * np.trace(block) / (2 * entries.size), rtol=1e-8, atol=1e-15)
            if values[-1] > 1e-6 * scale and (entries.size == 1 or values[-1] - values[-2] > 1e-3 * scale):
                step = np.zeros_like(flat)
                step[entries] = rho * norm * vectors[:, -1]
                along = max(loss_at(flat + step), loss_at(flat - step)) - at_start
                np.testing.assert_allclose(f["change_along"][i, k], along, rtol=1e-5, atol=1e-12, err_msg=name)
        return i

    def mean_change(self, entries, rho, draws=400, case="widedeep"):
        """PyTorch's mean over random directions, and its standard error."""
        _, flat, _, loss_at = model_of(case)
        entries = np.asarray(entries).reshape(-1)
        rng, changes = np.random.default_rng(1), []
        for _ in range(draws):
            step = np.zeros_like(flat)
            u = rng.standard_normal(entries.size)
            step[entries] = rho * np.linalg.norm(flat[entries]) * u / np.linalg.norm(u)
            changes.append((loss_at(flat + step) + loss_at(flat - step)) / 2 - loss_at(flat))
        return np.mean(changes), np.std(changes) / np.sqrt(draws)

    def test_tables_rows_and_buckets(self):
        auto = self.run_it("--features", "auto", "--frequency-buckets", 2, "--feature-rows", 100, "--feature-rho", "0.3,0.1")
        self.assertEqual(list(auto["rho"]), [0.1, 0.3])
        self.assertTrue(np.all(np.diff(auto["largest"]) <= 0))  # ranked
        with h5py.File(FIXTURES / "widedeep.data.h5") as data:
            codes = {key: data[key][()] for key in ("workclass", "education", "occupation")}
        places = model_of("widedeep")[2]
        names = set(auto["name"])
        for key, code in codes.items():
            used, counts = np.unique(code, return_counts=True)
            order = used[np.argsort(counts, kind="stable")]
            for stem in (f"wide.{key}.weight", f"tables.{key}.weight"):
                i = self.check_block(auto, stem, places[stem][used])
                self.assertEqual((auto["look_ups"][i], auto["rows"][i], auto["frequency"][i]), (21, 21, 1))
                self.assertEqual(auto["parameters"][i], places[stem].size)
                self.assertTrue(auto["nested"][i])
                for row, count in zip(used, counts):
                    i = self.check_block(auto, f"{stem}@rows={row}", places[stem][row])
                    self.assertEqual((auto["look_ups"][i], auto["rows"][i], auto["nested"][i]), (count, count, False))
                halves = [n for n in names if n.startswith(f"{stem}@bucket=")]
                rows = [auto["rows"][list(auto["name"]).index(n)] for n in sorted(halves)]
                self.assertEqual(sum(rows), 21)
                self.assertLessEqual(rows[0] / auto["in_use"][list(auto["name"]).index(sorted(halves)[0])],
                                     rows[1] / auto["in_use"][list(auto["name"]).index(sorted(halves)[1])])
        self.check_correlations(auto)
        # the same numbers from groups of ranks side by side
        apart = self.run_it("--features", "auto", "--frequency-buckets", 2, "--feature-rows", 100, "--feature-rho", "0.3,0.1", "--groups", 2, ranks=4)
        order, other = np.argsort(auto["name"], kind="stable"), np.argsort(apart["name"], kind="stable")
        for key in ("largest", "trace", "norm", "look_ups", "rows", "change", "change_predicted", "change_along", "change_largest"):
            np.testing.assert_allclose(apart[key][other], auto[key][order], rtol=1e-7, atol=1e-13, err_msg=key)
        self.check_readers()

    def check_correlations(self, f):
        kept = ~f["nested"].astype(bool)
        frequency, largest = f["frequency"][kept], f["largest"][kept]
        r = lambda x, y: spearmanr(x, y).statistic
        found = dict(zip(f["correlation_of"], f["correlation"]))
        np.testing.assert_allclose(found["frequency and largest eigenvalue"], r(frequency, largest), atol=1e-12)
        np.testing.assert_allclose(found["frequency and largest eigenvalue per touch"], r(frequency, largest / frequency), atol=1e-12)
        np.testing.assert_allclose(found["frequency and trace per parameter"], r(frequency, f["mean"][kept]), atol=1e-12)
        for k, rho in enumerate(f["rho"]):
            change = f["change"][kept, k]
            xy, xz, yz = r(largest, change), r(largest, frequency), r(change, frequency)
            np.testing.assert_allclose(found[f"frequency and loss change at rho {rho:g}"], yz, atol=1e-12)
            np.testing.assert_allclose(found[f"largest eigenvalue and loss change at rho {rho:g}"], xy, atol=1e-12)
            np.testing.assert_allclose(found[f"largest eigenvalue and loss change at rho {rho:g}, given log frequency"],
                                       (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)), atol=1e-12)
        self.assertTrue(np.all(f["correlation_lower"] <= f["correlation"]) and np.all(f["correlation"] <= f["correlation_upper"]))

    def check_readers(self):
        """Report, Python and picture of the result that was written last."""
        text = hesspect("report", self.output)
        self.assertDone(text)
        for part in ("wide.education.weight@bucket=2of2", "Rank correlation over features, frequency and largest eigenvalue per touch"):
            self.assertTrue(part in text.out, part)
        told = json.loads(hesspect("report", self.output, "--format", "json").out)["results"][0]["features"]
        self.assertEqual(sorted(told[0]["changes"][0]), sorted(("rho", "change", "lower", "upper", "skewness", "predicted", "predicted_half_width", "largest",
                                                               "along_eigenvector")))
        page = hesspect("report", self.output, "--format", "html").out
        for part in ("Features, of largest eigenvalue first", "Largest eigenvalue of features over their frequency"):
            self.assertTrue(part in page, part)
        code = ("import sys, hesspect; from hesspect import plot; r = hesspect.read(sys.argv[1]);"
                "assert r.feature_name[0] and r.feature_change.shape == (len(r.feature_name), 2) and r.feature_correlation_of;"
                "sys.exit(plot.main([sys.argv[1], '--what', 'features', '-o', sys.argv[2]]) or plot.main([sys.argv[1], '-o', sys.argv[2]]))")
        drawn = subprocess.run([sys.executable, "-c", code, self.output, self.folder / "f.png"], capture_output=True, text=True,
                               env={"PYTHONPATH": str(SOURCE / "python"), "PATH": "/usr/bin:/bin", "MPLCONFIGDIR": str(self.folder)})
        self.assertEqual(drawn.returncode, 0, drawn.stderr)
        self.assertGreater((self.folder / "f.png").stat().st_size, 10_000)

    def test_groups_columns_and_changes(self):
        places = model_of("widedeep")[2]
        tables, linear = [places[f"tables.{k}.weight"] for k in ("workclass", "education", "occupation")], places["deep.0.weight"]
        file = self.folder / "features.json"
        file.write_text(json.dumps({"vocabularies": {"jobs": ["none", "clerk", "cook"]}, "features": [
            {"name": "jobs", "parameter": "occupation", "rows": ["cook", "clerk", "5-7"], "vocabulary": "jobs"},
            {"name": "all tables", "parameter": "^tables"},
            {"name": "deep columns", "parameter": "^deep[.]0[.]weight$", "columns": ["12-15"]}]}))
        f = self.run_it("--features", file, "--feature", "bias=^deep.*bias", "--feature", "cook=tables.occupation.weight@rows=2",
                        "--feature-rho", 0.2, "--block-hvps", 400, "--feature-draws", 12)
        with h5py.File(FIXTURES / "widedeep.data.h5") as data:
            codes = {key: data[key][()] for key in ("workclass", "education", "occupation")}
        used = {key: np.unique(code) for key, code in codes.items()}
        jobs = np.intersect1d([1, 2, 5, 6, 7], used["occupation"])
        at = [self.check_block(f, "jobs", np.concatenate([places["wide.occupation.weight"][jobs].ravel(), places["tables.occupation.weight"][jobs].ravel()]))]
        everything = np.concatenate([t[used[k]].ravel() for t, k in zip(tables, used)])
        at.append(self.check_block(f, "all tables", everything))
        columns = linear[:, 12:16]
        at.append(self.check_block(f, "deep columns", columns))
        self.check_block(f, "bias", np.concatenate([places[k] for k in places if k.startswith("deep") and k.endswith("bias")]))
        rows = dict(zip(f["name"], f["rows"]))
        self.assertEqual(rows["jobs"], np.isin(codes["occupation"], jobs).sum())
        self.assertEqual(rows["all tables"], 21)
        self.assertTrue(np.isnan(rows["deep columns"]) and np.isnan(rows["bias"]))  # behind other layers
        self.assertTrue(any("too few features" in text for text in f["correlation_missing"]))
        for i, entries in zip(at, (None, everything, columns)):
            if entries is not None:
                mean, error = self.mean_change(entries, 0.2)
                self.assertLess(f["change_lower"][i, 0] - 4 * error, mean, f["name"][i])
                self.assertGreater(f["change_upper"][i, 0] + 4 * error, mean, f["name"][i])

    def test_columns_of_an_input(self):
        f = self.run_it("--feature", f"a={self.first_weight()}@columns=1,3", "--feature",
                        f"b={self.first_weight()}", "--feature-rho", "none", case="mlp_ce", loss="cross_entropy")
        self.assertNotIn("change", f)
        with h5py.File(FIXTURES / "mlp_ce.data.h5") as data:
            x = data["x"][()]
        rows = dict(zip(f["name"], f["rows"]))
        self.assertEqual(rows["a"], (x[:, [1, 3]] != 0).any(axis=1).sum())
        self.assertEqual(rows["b"], len(x))
        self.assertTrue(np.isnan(f["look_ups"]).all())

    def first_weight(self):
        return next(key for key, place in model_of("mlp_ce")[2].items() if place.ndim == 2)

    def test_tokens_and_positions(self):
        """Several look-ups a row; positions are shared by all rows; a padded one counts as what it looks up."""
        for ranks in (1, 3) if LONG else (3,):
            f = self.run_it("--features", "auto", "--feature", "tokens=word_embeddings.weight$@rows=3-20", "--feature-rho", "none", "--block-hvps", 20,
                            rtol_trace=0, rtol_eigs=0.9, case="bert", loss="cross_entropy", ranks=ranks)
            with h5py.File(FIXTURES / "bert.data.h5") as data:
                ids = data["input_ids"][()]
            found = {name: (look_ups, rows) for name, look_ups, rows in zip(f["name"], f["look_ups"], f["rows"])}
            some = (ids >= 3) & (ids <= 20)
            self.assertEqual(found["tokens"], (some.sum(), some.any(axis=1).sum()))
            word, position = (next(n for n in found if n.endswith(e)) for e in ("word_embeddings.weight", "position_embeddings.weight"))
            self.assertEqual(found[word], (ids.size, len(ids)))
            self.assertEqual(found[position], (ids.size, len(ids)))
            self.assertEqual(f["in_use"][list(f["name"]).index(position)], 32 * ids.shape[1])
            self.assertEqual(f["in_use"][list(f["name"]).index("tokens")], 32 * np.unique(ids[some]).size)

    def test_bad_input_is_one_line(self):
        self.assertIn("needs --features auto", self.refused(USAGE))
        self.assertIn("belongs to --features auto", self.refused(USAGE, "--feature", "a=tables", "--feature-rows", 3))
        self.assertIn("expected NAME=REGEX", self.refused(USAGE, "--feature", "tables"))
        self.assertIn("has no rows 13", self.refused(BAD_INPUT, "--feature", "a=tables.occupation@rows=12-13"))
        self.assertIn("near it: ", self.refused(BAD_INPUT, "--feature", "a=tables.ocupation"))
        self.assertIn("cannot read --features", self.refused(BAD_INPUT, "--features", self.folder / "none.json"))
        file = self.folder / "f.json"
        file.write_text('[{"name": "a", "parameter": "tables.occupation", "rows": [99]}]')
        self.assertIn("has no rows 99", self.refused(BAD_INPUT, "--features", file))
        ended = hesspect("eigs", *arguments("widedeep", self.folder / "e.h5", "bce_with_logits"), "--features", "auto")
        self.assertEqual(ended.code, USAGE)
        self.assertIn("belong to 'features'", ended.errors[0])


if __name__ == "__main__":
    unittest.main()
