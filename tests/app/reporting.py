#!/usr/bin/env python3
"""`report` and `compare` on results of real runs: numbers against dense Hessians of PyTorch, and a page that stands alone."""

import html.parser
import json
import shutil
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

import h5py
import numpy as np
from harness import BROWSER, FIXTURES, Case, arguments, hesspect, screenshot

USAGE, BAD_INPUT = 2, 4
VOID = {"meta", "br", "hr", "img", "link", "input"}
REFERENCES = {"src", "href", "srcset", "data", "action", "xlink:href", "poster", "background"}


class Page(html.parser.HTMLParser):
    """Elements that open and close as they should, what they refer to, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.references, self.counts, self.text, self.wrong = [], [], {}, [], []
        self.feed(text)
        self.close()
        self.wrong += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.references += [(tag, name, value) for name, value in attributes if name in REFERENCES or name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.references += [(tag, name, value) for name, value in attributes if name in REFERENCES or name.startswith("on")]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        self.text.append(data)


class Reporting(Case):
    @classmethod
    def setUpClass(cls):
        cls.results = Path(tempfile.mkdtemp(prefix="hesspect_reporting_"))
        cls.addClassCleanup(shutil.rmtree, cls.results, ignore_errors=True)
        cls.ce = cls.run_of("mlp_ce", "cross_entropy", "ce.h5", rtol_eigs=1e-9)
        cls.mse = cls.run_of("mlp_mse", "mse", "mse.h5")
        cls.coarse = [cls.run_of("mlp_ce", "cross_entropy", f"coarse{seed}.h5", seed=seed, rtol_trace=0, density_w1=0, steps=12, probes=3,
                                 top=2, bottom=1, trace_method="hutchinson") for seed in (1, 2)]
        cls.ggn = cls.run_of("mlp_ce", "cross_entropy", "ggn.h5", curvature="ggn")
        weights = cls.other_weights("mlp_ce")
        cls.other = cls.run_of("mlp_ce", "cross_entropy", "other.h5", weights=weights, rtol_eigs=1e-9)
        cls.half = cls.run_of("mlp_ce", "cross_entropy", "half.h5", samples=11)

    @classmethod
    def run_of(cls, case, loss, name, **options):
        output = cls.results / name
        ended = hesspect("analyze", *arguments(case, output, loss, dtype="float64", **options))
        assert ended.code in (0, 3), ended.err
        return output

    @classmethod
    def other_weights(cls, case):
        """The same model, its weights half as large again."""
        import safetensors.torch
        import torch

        program = torch.export.load(FIXTURES / f"{case}.pt2")
        path = cls.results / "other.safetensors"
        safetensors.torch.save_file({name: (1.5 * value).contiguous() for name, value in program.state_dict.items()}, path)
        return path

    def report(self, *files, code=0):
        ended = hesspect("report", *files, "--format", "json")
        self.assertDone(ended, code)
        return json.loads(ended.out)

    def figures(self, result):
        return {figure["key"] + (figure.get("of", "")): figure for figure in result["figures"]}

    def test_figures_of_a_dense_hessian(self):
        report = self.report(self.ce)
        f = self.figures(report["results"][0])
        with h5py.File(FIXTURES / "mlp_ce.ref.h5") as file:
            exact = file["f64/eigenvalues"][()][::-1]
        close = lambda key, value, rtol=1e-7: self.assertAlmostEqual(f[key]["value"], value, delta=rtol * abs(value), msg=key)
        close("lambda_1", exact[0])
        close("lambda_min", exact[-1])
        close("lambda_ratio", exact[0] / exact[4])
        close("step_gd", 2 / exact[0])
        close("step_momentumβ = 0.9", 3.8 / exact[0])
        inside = lambda key, value: self.assertTrue(f[key]["lower"] - 1e-9 <= value <= f[key]["upper"] + 1e-9, (key, value, f[key]))
        inside("lambda_1", exact[0])
        inside("step_gd", 2 / exact[0])
        inside("trace", exact.sum())
        inside("mean_eigenvalue", exact.mean())
        inside("frobenius", np.sqrt((exact**2).sum()))
        inside("negative_share", -exact[exact < 0].sum() / np.abs(exact).sum())
        dimensions = [figure for key, figure in f.items() if key.startswith("effective_dimension")]
        self.assertEqual(len(dimensions), 3)
        for figure in dimensions:
            c = float(figure["of"].removeprefix("c = "))
            inside("effective_dimension" + figure["of"], (exact[exact > 0] / (exact[exact > 0] + c)).sum())
        self.assertTrue(all(text for d in report["definitions"].values() for key, text in d.items() if key != "unit"))
        self.assertIn("not measured", report["data_error"][0])
        layers = report["results"][0]["layers"]
        self.assertAlmostEqual(sum(layer["value"] for layer in layers), f["trace"]["value"], delta=1e-6 * abs(f["trace"]["value"]))

    def test_blocks_against_those_of_the_dense_hessian(self):
        """A block's eigenvalues, and that nothing but its own parameters is in them."""
        blocked = self.run_of("mlp_ce", "cross_entropy", "blocks.h5", blocks="per-tensor", rtol_eigs=1e-9)
        with h5py.File(FIXTURES / "mlp_ce.ref.h5") as file:
            dense = file["f64/dense_hessian"][()]
        with h5py.File(blocked) as file:
            sizes = file["entry/layers/size"][()]
        blocks = self.report(blocked)["results"][0]["blocks"]
        self.assertEqual([block["n_parameters"] for block in blocks], list(sizes))
        for block, end, size in zip(blocks, np.cumsum(sizes), sizes):
            exact = np.linalg.eigvalsh(dense[end - size : end, end - size : end])
            figures = {figure["key"]: figure for figure in block["figures"]}
            self.assertAlmostEqual(figures["lambda_1"]["value"], exact[-1], delta=1e-7 * abs(exact[-1]))
            self.assertAlmostEqual(figures["step_gd"]["value"], 2 / exact[-1], delta=1e-7 / abs(exact[-1]))
        _, page = self.page(blocked)
        self.assertIn("Diagonal blocks", page)
        self.assertEqual(Page(page).wrong, [])

    def test_two_halves_tell_of_the_data(self):
        report = self.report(self.ce, self.half)
        self.assertIn("same weights on other rows", report["data_error"][0])

    def test_text_says_each_figure_and_what_speaks_against_it(self):
        ended = hesspect("report", self.ce, "--damping", "0.25", "--momentum", "0.5")
        self.assertDone(ended)
        for piece in ("Largest eigenvalue", "β = 0.5", "c = 0.25", "Against:", "Dinh et al. 2017", "Not measured here"):
            self.assertIn(piece, ended.out)

    def page(self, *files):
        output = self.folder / "page.html"
        self.assertDone(hesspect("report", *files, "--format", "html", "--output", output))
        return output, output.read_text()

    def test_the_page_stands_alone(self):
        _, text = self.page(self.ce, self.mse)
        page = Page(text)
        self.assertEqual(page.wrong, [])
        self.assertEqual(page.references, [])
        for word in ("http:", "https:", "//", "url(", "@import", "<script"):
            self.assertNotIn(word, text.replace("</", ""), word)
        self.assertEqual(page.counts["svg"], 10)  # five of each result
        for chart in text.split("<svg")[1:]:
            xml.etree.ElementTree.fromstring("<svg" + chart.split("</svg>")[0] + "</svg>")
        for piece in ("prefers-color-scheme: dark", "This is no grade.", "arXiv:1703.04933"):
            self.assertIn(piece, text)

    @unittest.skipUnless(BROWSER, "no chromium here")
    def test_the_page_as_a_browser_shows_it(self):
        """Curves in both themes' colours on both themes' paper, and nothing wider than the window."""
        output, _ = self.page(self.ce)
        for dark, paper, curve in ((False, (255, 255, 255), (0, 0x72, 0xB2)), (True, (0x12, 0x16, 0x1C), (0x56, 0xB4, 0xE9))):
            picture = self.folder / f"dark{dark}.png"
            screenshot(BROWSER, output, picture, self.folder, "--window-size=1000,2600",
                       *(["--blink-settings=preferredColorScheme=0"] if dark else []))
            import matplotlib.image

            pixels = (255 * matplotlib.image.imread(picture)[..., :3]).round().astype(int)
            near = lambda colour: (np.abs(pixels - np.array(colour)).max(-1) <= 3)
            self.assertGreater(near(paper).mean(), 0.5)
            self.assertGreater(near(curve).sum(), 500)
            self.assertTrue(near(paper)[:, -8:].all() and near(paper)[:, :8].all())

    def test_compare_tells_what_differs(self):
        ended = hesspect("compare", self.ce, self.other, "--format", "json")
        self.assertDone(ended)
        comparison = json.loads(ended.out)
        row = next(row for row in comparison["figures"] if row["key"] == "lambda_1")
        a, b = (figure["value"] for figure in row["figures"])
        self.assertEqual(row["verdicts"][1]["verdict"], "higher" if b > a else "lower")
        with h5py.File(self.ce) as first, h5py.File(self.other) as other:
            self.assertEqual([a, b], [f["entry/eigenvalues/eigenvalue"][0] for f in (first, other)])
            steps = [(f["entry/cumulative/lambda"][()], f["entry/cumulative/cumulative"][()]) for f in (first, other)]
        grid = np.unique(np.concatenate([x for x, _ in steps]))
        shares = [np.append(0, y)[np.searchsorted(x, grid, side="right")] for x, y in steps]
        distance = (np.abs(shares[0] - shares[1])[:-1] * np.diff(grid)).sum()
        self.assertAlmostEqual(comparison["densities"][1]["w1"], distance, delta=1e-9 * distance)
        self.assertEqual(comparison["warnings"], [])
        with h5py.File(self.ce) as first:
            self.assertEqual([row["figures"][0]["of"] for row in comparison["layers"]], list(first["entry/layers/name"].asstr()))

    def test_compare_says_how_much_more_would_tell(self):
        """Two runs of the same model with other probes: nothing differs, and what is said of the trace is so."""
        ended = hesspect("compare", *self.coarse, "--format", "json")
        self.assertDone(ended)
        comparison = json.loads(ended.out)
        self.assertIn("same model and weights", comparison["warnings"][0])
        for row in comparison["figures"]:
            self.assertIn(row["verdicts"][1]["verdict"], ("undecided", "none", "equal"), row)
        text = hesspect("compare", *self.coarse).out
        self.assertRegex(text, r"can't be told: about [0-9,]+ more products? would")

    def test_what_is_not_compared(self):
        for files, code, piece in (
                ((self.ce, self.ggn), BAD_INPUT, "its matrix is ggn, not hessian"),
                ((self.ce, self.mse), BAD_INPUT, "its loss is mse, not cross_entropy"),
                ((self.ce,), USAGE, "One model alone is not graded"),
                ((), USAGE, "'compare' needs results"),
                ((self.ce, self.folder / "none.h5"), BAD_INPUT, "no such file"),
                ((self.ce, FIXTURES / "mlp_ce.data.h5"), BAD_INPUT, "is not a result of hesspect"),
                ((self.ce, self.ce, "--format", "html"), USAGE, "not html"),
                ((self.ce, self.ce, "--top", "3"), USAGE, "--top has no effect on 'compare'")):
            ended = hesspect("compare", *files)
            self.assertEqual(ended.code, code, ended.err)
            self.assertEqual(len(ended.errors), 1, ended.err)
            self.assertIn(piece, ended.err)
        self.assertEqual(hesspect("report").code, USAGE)

    def test_outputs(self):
        """As everywhere: whole or not at all, and not over another file; the same on several ranks."""
        output = self.folder / "report.json"
        self.assertDone(hesspect("report", self.ce, "--format", "json", "--output", output, ranks=2))
        self.assertEqual(json.loads(output.read_text()), self.report(self.ce))
        again = hesspect("report", self.ce, "--output", output)
        self.assertEqual(again.code, USAGE)
        self.assertIn("--force", again.err)
        self.assertDone(hesspect("report", self.ce, "--output", output, "--force"))
        self.assertTrue(output.read_text().startswith("report of"))
        self.assertEqual(hesspect("report", self.ce, "--output", self.folder / "no" / "x").code, BAD_INPUT)


if __name__ == "__main__":
    unittest.main()
