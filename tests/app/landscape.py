#!/usr/bin/env python3
"""hesspect landscape against losses, gradients and curvatures that PyTorch computes in float64 along the same directions."""

import json
import re
import signal
import subprocess
import time
import unittest
from pathlib import Path

import h5py
import matplotlib.image
import numpy as np
import torch
from harness import BIN, BROWSER, FIXTURES, Case, arguments, environment, hesspect, screenshot
from oracles import flat, rebuilt, reference
from safetensors.torch import save_file

BAD_INPUT, USAGE = 4, 2


class OfPyTorch:
    """A fixture's loss as a function of all its parameters, flat, in the order of the file."""

    def __init__(self, name):
        self.case = rebuilt(name)
        with h5py.File(FIXTURES / f"{name}.ref.h5") as f:
            self.order = list(f.attrs["param_order"])

    def at(self, step):
        with torch.no_grad():
            return self.run(lambda parameters, loss: loss().item(), step)

    def derivatives(self, d, e):
        """g·d and d·He."""

        def take(parameters, loss):
            gradients = torch.autograd.grad(loss(), parameters, create_graph=True)
            product = torch.autograd.grad(sum((g * piece).sum() for g, piece in zip(gradients, self.pieces(e))), parameters)
            return (sum((g * piece).sum() for g, piece in zip(gradients, self.pieces(d))).item(),
                    sum((h * piece).sum() for h, piece in zip(product, self.pieces(d))).item())

        return self.run(take, np.zeros_like(d))

    def pieces(self, vector):
        split = torch.as_tensor(vector).split([p.numel() for p in self.parameters])
        return [piece.view(p.shape) for piece, p in zip(split, self.parameters)]

    def run(self, take, step):
        with reference.evaluation(self.case, torch.float64) as (named, run):
            self.parameters = [named[name] for name in self.order]
            kept = [p.detach().clone() for p in self.parameters]
            with torch.no_grad():
                for p, piece in zip(self.parameters, self.pieces(step)):
                    p.add_(piece)
            try:
                return take(self.parameters, lambda: reference.loss_of(self.case, run(), reference.in_dtype(self.case.target, torch.float64)))
            finally:
                with torch.no_grad():
                    for p, value in zip(self.parameters, kept):
                        p.copy_(value)


def measured(test, command, name, *more, ranks=1):
    """What a command writes into the group of its own name, and how it ended."""
    result = test.folder / f"{ranks}.h5"
    ended = hesspect(command, *arguments(name, result, "cross_entropy", dtype="float64"), *more, "--force", ranks=ranks)
    test.assertDone(ended)
    with h5py.File(result) as f:
        return {k: v[()] for k, v in f[f"entry/{command}"].items() if isinstance(v, h5py.Dataset)}, ended


class Landscape(Case):
    def look(self, name, *more, ranks=1):
        return measured(self, "landscape", name, *more, ranks=ranks)

    def check(self, found, model, directions):
        for i, a in enumerate(found["alpha"]):
            for j, b in enumerate(found["beta"]):
                step = a * directions[0] + (b * directions[1] if len(directions) > 1 else 0)
                self.assertAlmostEqual(found["loss"][i, j], model.at(step), delta=1e-10)
        for k, d in enumerate(directions):
            slope, bend = model.derivatives(d, d)
            self.assertAlmostEqual(found["norm"][k], np.linalg.norm(d), delta=1e-10)
            self.assertAlmostEqual(found["slope"][k], slope, delta=1e-9 * np.linalg.norm(d))
            self.assertAlmostEqual(found["bend"][k], bend, delta=1e-9 * max(1, abs(bend)))
        if len(directions) > 1:
            self.assertAlmostEqual(found["cross"], model.derivatives(directions[0], directions[1])[1], delta=1e-8)

    def test_surface_of_an_eigenvector_and_a_random_direction(self):
        model, directions = OfPyTorch("cnn_bn"), self.folder / "d.h5"
        options = ["--direction", "eigenvector:1", "--direction", "random:3", "--points", 5, "--rtol-eigs", 1e-7, "--directions-file", directions]
        found, ended = self.look("cnn_bn", *options)
        vectors = flat(directions, model.order)
        self.check(found, model, vectors)
        self.assertAlmostEqual(np.linalg.norm(vectors[0]), 1, delta=1e-12)
        self.assertEqual(found["alpha"][2], 0)
        self.assertAlmostEqual(found["quadratic"][2, 2], found["loss_at_start"], delta=1e-14)
        self.assertIn("direction", ended.err)
        self.see_the_surface(found)
        several, _ = self.look("cnn_bn", *options, ranks=2)
        for key in ("alpha", "beta", "loss", "quadratic", "slope", "bend", "norm"):
            np.testing.assert_allclose(several[key], found[key], rtol=1e-7, atol=1e-9, err_msg=key)

    def see_the_surface(self, found):
        """The page's script draws it, and what it reads is what the file holds."""
        page = self.folder / "report.html"
        self.assertDone(hesspect("report", self.folder / "1.h5", "--format", "html", "--output", page))
        text = page.read_text()
        data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text).group(1))
        for key in ("alpha", "beta", "loss", "quadratic"):
            np.testing.assert_array_equal(data[key], found[key])
        for word in ("http:", "https:", "import ", "fetch"):
            self.assertNotIn(word, text.split("<script", 1)[1])
        if BROWSER is None:
            return
        picture = self.folder / "page.png"
        screenshot(BROWSER, page, picture, self.folder, "--window-size=1000,3600")
        pixels = (255 * matplotlib.image.imread(picture)[..., :3]).round().astype(int)
        # The model's orange, thin over the paper: without the script some 50 points are like it.
        orange = (pixels[..., 0] > 225) & (pixels[..., 0] - pixels[..., 2] > 25) & (pixels[..., 0] - pixels[..., 2] < 170)
        self.assertGreater(orange.sum(), 250)

    def test_eigenvectors_from_a_file(self):
        """As found anew, without a Lanczos run; a file of other weights is told apart."""
        options = ["--direction", "eigenvector:1", "--direction", "eigenvector:-1", "--points", 5, "--span", 0.5, "--span", 0.5]
        found, ended = self.look("mlp_ce", *options, "--rtol-eigs", 1e-9)
        for suffix in ("h5", "safetensors"):
            vectors = self.folder / f"v.{suffix}"
            self.assertDone(hesspect("eigs", *arguments("mlp_ce", self.folder / "e.h5", "cross_entropy", dtype="float64"), "--top", 2, "--bottom", 2,
                                     "--rtol-eigs", 1e-9, "--eigenvectors", vectors, "--force"))
            read, ended = self.look("mlp_ce", *options, "--vectors-from", vectors, ranks=2)
            np.testing.assert_allclose(read["bend"], found["bend"], rtol=1e-8)
            np.testing.assert_allclose(read["loss"][2, 2], found["loss"][2, 2], rtol=1e-12)
            signs = [np.sign(a * b) for a, b in zip(read["slope"], found["slope"])]  # an eigenvector's sign is chance
            np.testing.assert_allclose(read["loss"][:: int(signs[0]), :: int(signs[1])], found["loss"], rtol=1e-7)
            self.assertNotIn("no eigenvector here", ended.err)
            with h5py.File(self.folder / "2.h5") as f:
                self.assertLess(f["entry/diagnostics/hvp_count"][()], 8)
        model = OfPyTorch("mlp_ce")
        state = {k: 1.3 * v if v.is_floating_point() else v for k, v in model.case.model.state_dict().items()}
        save_file(state, str(self.folder / "other.safetensors"))
        _, ended = self.look("mlp_ce", *options, "--vectors-from", vectors, "--weights", self.folder / "other.safetensors")
        self.assertIn("is no eigenvector here", ended.err)

        def refused(code, words, *more):
            ended = hesspect("landscape", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy"), *more)
            self.assertEqual((ended.code, len(ended.errors)), (code, 1), ended.err)
            self.assertIn(words, ended.errors[0])

        refused(USAGE, "holds 4", "--vectors-from", vectors, "--direction", "eigenvector:5")
        refused(USAGE, "no --direction is an eigenvector", "--vectors-from", vectors, "--direction", "gradient")
        refused(BAD_INPUT, "expected a file that 'eigs'", "--vectors-from", FIXTURES / "mlp_ce.data.h5")
        refused(BAD_INPUT, "nowhere.h5", "--vectors-from", self.folder / "nowhere.h5")

    def test_line_to_other_weights(self):
        model = OfPyTorch("mlp_ce")
        with h5py.File(FIXTURES / "mlp_ce.ref.h5") as f:
            n = int(f.attrs["n_params"])
        step = 0.1 * np.random.default_rng(1).standard_normal(n)
        model.at(np.zeros(n))
        moved = {name: (p.detach() + piece).contiguous() for name, p, piece in zip(model.order, model.parameters, model.pieces(step))}
        weights = self.folder / "b.safetensors"
        save_file({**{k: v for k, v in model.case.model.state_dict().items()}, **moved}, str(weights))
        found, _ = self.look("mlp_ce", "--direction", f"weights:{weights}", "--points", 9)
        self.check(found, model, [step])
        self.assertEqual((found["alpha"][0], found["alpha"][-1]), (-0.5, 1.5))
        self.assertEqual(found["loss"].shape, (9, 1))
        np.testing.assert_array_equal(found["loss_line"], found["loss"][:, 0])

    def test_gradient_of_a_span_and_a_radius(self):
        model, directions = OfPyTorch("mlp_ce"), self.folder / "d.safetensors"
        found, _ = self.look("mlp_ce", "--direction", "gradient", "--points", 4, "--span", "0:8", "--directions-file", directions)
        np.testing.assert_allclose(found["alpha"], [0, 8 / 3, 16 / 3, 8])
        self.assertGreater(found["slope"][0], 0)
        from safetensors.numpy import load_file
        d = np.concatenate([load_file(directions)[name].ravel() for name in model.order])
        self.check(found, model, [d])
        inside, outside = found["valid_above"][0], found["valid_above_fails"][0]
        off = lambda t: abs(model.at(t * d) - (found["loss_at_start"] + t * found["slope"][0] + t * t * found["bend"][0] / 2)) / abs(
            t * found["slope"][0] + t * t * found["bend"][0] / 2)
        self.assertLessEqual(off(inside), 0.1)
        self.assertGreater(off(outside), 0.1)

    def test_stopped_and_resumed(self):
        """To the same bits on as many ranks, stopped amid the eigenvector's run and amid the losses; on others to rounding, and the run says so."""
        given = arguments("mlp_ce", self.folder / "whole.h5", "cross_entropy", dtype="float64")
        options = ["--direction", "eigenvector:1", "--direction", "random:3", "--points", 101, "--rtol-eigs", 1e-9]
        self.assertDone(hesspect("landscape", *given, *options))
        whole = self.read("whole.h5")
        for first, other in ((1, 1), (2, 1)):
            with self.subTest(f"{first} then {other}"):
                output = self.folder / f"stopped.{first}.h5"
                command = ["landscape", *arguments("mlp_ce", output, "cross_entropy", dtype="float64"), *options, "--resume"]
                seen, said, seconds = [], "", 1e-5  # the first start stops after its first product, on any machine
                for start in range(40):
                    ended = hesspect(*command, "--max-hours", seconds / 3600, ranks=first if start == 0 else other)
                    said += ended.err
                    if ended.code != 75:
                        break
                    self.assertFalse(output.exists())
                    seen.append(self.losses_in(Path(f"{output}.checkpoint")))
                    seconds = max(0.2, 1.7 * seconds)
                self.assertDone(ended)
                self.assertEqual(seen[0], 0)
                self.assertEqual(seen, sorted(seen))
                self.assertGreater(seen[-1], 0, "no start was stopped amid the losses")
                self.assertIn("the eigenvectors' run goes on after", said)
                self.assertIn("resumed with", said)
                self.assertEqual("rounding differs" in said, first != other)
                self.assertNotIn("are taken again", said)
                self.assertFalse(Path(f"{output}.checkpoint").exists())
                for name, values in self.read(output.name).items():
                    if first == other:
                        np.testing.assert_array_equal(values, whole[name], err_msg=name)
                    elif values.dtype.kind == "f":
                        np.testing.assert_allclose(values, whole[name], rtol=1e-7, atol=1e-9, err_msg=name)
                with h5py.File(output) as f:
                    self.assertEqual(f["entry/diagnostics/starts"][()], start + 1)
        self.assertIn("is there already", hesspect(*command).err)
        refused = hesspect(*command[:-1])
        self.assertEqual((refused.code, len(refused.errors)), (USAGE, 1), refused.err)

    def test_losses_along_other_directions_are_taken_again(self):
        """Between the starts the file of the other weights has changed: its name alone is part of the configuration."""
        output, weights = self.folder / "r.h5", self.folder / "b.safetensors"
        given = ["landscape", *arguments("mlp_ce", output, "cross_entropy", dtype="float64"), "--direction", f"weights:{weights}", "--points", 10001]

        def write(factor):
            state = rebuilt("mlp_ce").model.state_dict()
            save_file({k: (factor * v if v.is_floating_point() else v).contiguous() for k, v in state.items()}, str(weights))

        write(1.5)
        seconds = 0.2
        while True:
            ended = hesspect(*given, "--max-hours", seconds / 3600, "--resume")
            self.assertEqual(ended.code, 75, ended.err)
            if self.losses_in(Path(f"{output}.checkpoint")):
                break
            seconds *= 1.5
        write(1.7)
        ended = hesspect(*given, "--resume")
        self.assertDone(ended)
        self.assertIn("the directions are not those of the run that was stopped: its losses are taken again", ended.err)
        resumed = self.read("r.h5")
        self.assertDone(hesspect(*given, "--force"))
        for name, values in self.read("r.h5").items():
            np.testing.assert_array_equal(values, resumed[name], err_msg=name)

    def test_a_signal(self):
        """Finishes the loss, and leaves a checkpoint that another configuration does not go on from."""
        output = self.folder / "r.h5"
        folder = Path(f"{output}.checkpoint")
        given = [str(a) for a in arguments("mlp_ce", output, "cross_entropy", dtype="float64")]
        command = ["landscape", *given, "--direction", "gradient", "--points", "10001"]
        process = subprocess.Popen([str(BIN), *command], stderr=subprocess.PIPE, text=True, env=environment())
        while process.poll() is None and not any(folder.glob("run-*.json")):
            time.sleep(0.005)
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 75, err)
        ended = hesspect(*command[:-1], 9, "--resume")
        self.assertEqual((ended.code, len(ended.errors)), (USAGE, 1), ended.err)
        self.assertIn("belongs to another configuration", ended.errors[0])
        self.assertDone(hesspect(*command, "--resume"))
        self.assertFalse(folder.exists())

    def read(self, name):
        with h5py.File(self.folder / name) as f:
            return {k: v[()] for k, v in f["entry/landscape"].items() if isinstance(v, h5py.Dataset)}

    def losses_in(self, checkpoint):
        newest = max(checkpoint.glob("run-*.json"))
        return len((json.loads(newest.read_bytes().split(b"\n")[0])["landscape"] or {"losses": []})["losses"])

    def test_planned(self):
        plan = hesspect("plan", "--for", "landscape", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy"), "--points", 5)
        self.assertDone(plan)
        self.assertRegex(plan.out, r"losses +at most 109, ")  # 5² and 2 · 21 a direction

    def test_what_cannot_be(self):
        for code, words, options in (
            (USAGE, ["eigenvector:0", "from 1"], ["--direction", "eigenvector:0"]),
            (USAGE, ["uphill", "eigenvector:I"], ["--direction", "uphill"]),
            (USAGE, ["given twice"], ["--direction", "random", "--direction", "random"]),
            (USAGE, ["3 times"], ["--direction", "random:1", "--direction", "random:2", "--direction", "gradient"]),
            (USAGE, ["--span", "low end"], ["--span", "1:0"]),
            (USAGE, ["2 times", "1 direction"], ["--direction", "gradient", "--span", "1", "--span", "2"]),
            (USAGE, ["one group"], ["--groups", 2]),
            (BAD_INPUT, ["none.safetensors"], ["--direction", f"weights:{self.folder / 'none.safetensors'}"]),
        ):
            ended = hesspect("landscape", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy"), *options)
            self.assertEqual(ended.code, code, ended.err)
            self.assertEqual(len(ended.errors), 1)
            for word in words:
                self.assertIn(word, ended.errors[0])
            self.assertFalse((self.folder / "r.h5").exists())
        model = self.folder / "model.h5"  # that a slip names as an output
        model.write_bytes((FIXTURES / "mlp_ce.pt2").read_bytes())
        for command, output, more in (("landscape", model, ()), ("sharpness", model, ()), ("landscape", self.folder / "r.h5", ("--directions-file", model))):
            ended = hesspect(command, *arguments("mlp_ce", output, "cross_entropy", model=model), *more, "--force")
            self.assertEqual(ended.code, USAGE, ended.err)
            self.assertIn("is the input", ended.errors[0])
            self.assertEqual(model.read_bytes(), (FIXTURES / "mlp_ce.pt2").read_bytes())
        ended = hesspect("eigs", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy"), "--direction", "gradient")
        self.assertEqual(ended.code, USAGE)
        self.assertIn("'landscape'", ended.errors[0])


if __name__ == "__main__":
    unittest.main()
