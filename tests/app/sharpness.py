#!/usr/bin/env python3
"""hesspect sharpness against losses and gradients that PyTorch computes in float64 at the same steps."""

import unittest

import h5py
import numpy as np
import torch
from harness import Case, arguments, hesspect
from landscape import OfPyTorch, measured
from safetensors.torch import save_file


class Sharpness(Case):
    def measure(self, name, *more, ranks=1):
        return measured(self, "sharpness", name, *more, ranks=ranks)

    def test_a_smooth_model(self):
        model = OfPyTorch("mlp_ce")
        n = sum(p.numel() for p in model.case.model.parameters())
        zero = np.zeros(n)
        take = lambda parameters, loss: np.concatenate([g.reshape(-1).numpy() for g in torch.autograd.grad(loss(), parameters)])
        g, base = model.run(take, zero), model.at(zero)
        theta = np.concatenate([p.detach().reshape(-1).numpy() for p in model.parameters])
        found, ended = self.measure("mlp_ce", "--rho", "0.02,0.3", "--adaptive-rho", 0.4, "--rtol-eigs", 1e-8)
        self.assertAlmostEqual(found["loss"], base, delta=1e-12)
        self.assertAlmostEqual(found["gradient_norm"], np.linalg.norm(g), delta=1e-12)
        self.assertAlmostEqual(found["parameter_norm"], np.linalg.norm(theta), delta=1e-11)
        for i, rho in enumerate((0.02, 0.3)):
            self.assertEqual(found["rho"][i], rho)
            self.assertAlmostEqual(found["rise_gradient"][i], model.at(rho * g / np.linalg.norm(g)) - base, delta=1e-12)
        step = 0.4 * theta**2 * g / np.linalg.norm(theta * g)
        self.assertAlmostEqual(found["rise_gradient"][2], model.at(step) - base, delta=1e-12)
        np.testing.assert_array_equal(found["adaptive"], [0, 0, 1])
        # What the steps say of 2/λ₁, and of the loss along the gradient.
        hessian = self.hessian(model, n)
        values, vectors = np.linalg.eigh(hessian)
        self.assertAlmostEqual(found["lambda_1"], values[-1], delta=1e-10)
        np.testing.assert_allclose(found["largest_step"], [2 / values[-1], 3.8 / values[-1]], rtol=1e-9)
        np.testing.assert_allclose(found["growth_below"], found["expected_below"], atol=0.03)
        np.testing.assert_allclose(found["growth_above"], found["expected_above"], atol=0.03)
        self.assertNotIn("warning", ended.err)
        best = max(model.at(s * 0.3 * v) - base for v in vectors[:, -3:].T for s in (1, -1))
        self.assertAlmostEqual(found["rise_eigenvector"][1], best, delta=1e-6)
        self.assertAlmostEqual(found["directional_sharpness"], g @ hessian @ g / (g @ g), delta=1e-9)
        eta = found["critical_step"]
        self.assertLessEqual(model.at(-0.98 * eta * g), base)
        self.assertGreater(model.at(-1.02 * eta * g), base)
        self.assertEqual(len(found["basin_radius"]), 5)
        self.assertAlmostEqual(found["basin_tolerance"], 0.1 * base, delta=1e-12)
        several, _ = self.measure("mlp_ce", "--rho", "0.02,0.3", "--adaptive-rho", 0.4, "--rtol-eigs", 1e-8, ranks=2)
        for key in ("rise_gradient", "rise_eigenvector", "growth_above", "critical_step", "basin_radius"):
            np.testing.assert_allclose(several[key], found[key], rtol=1e-6, err_msg=key)

    def hessian(self, model, n):
        def rows(parameters, loss):
            flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(), parameters, create_graph=True)])
            return np.stack([np.concatenate([h.reshape(-1).numpy() for h in torch.autograd.grad(one, parameters, retain_graph=True)]) for one in flat])

        return model.run(rows, np.zeros(n))

    def test_the_edge_of_stability(self):
        """Full-batch gradient descent on a tanh network raises the largest eigenvalue to 2/step and keeps it about there
        (Cohen et al. 2021, arXiv:2103.00065): known without any second derivative."""
        step = 0.06
        torch.manual_seed(0)
        x = torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None]
        y = torch.sin(6 * x) + 0.5 * torch.sin(15 * x)
        widths = [torch.nn.Linear(1, 24), torch.nn.Tanh(), torch.nn.Linear(24, 24), torch.nn.Tanh(), torch.nn.Linear(24, 1)]
        model = torch.nn.Sequential(*widths).double()
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("rows", min=2, max=4096)},))
        torch.export.save(program, self.folder / "model.pt2")
        with h5py.File(self.folder / "data.h5", "w") as f:
            f["input"], f["target"] = x.numpy(), y.numpy()
        found = []
        for count in range(1, 5201):
            gradients = torch.autograd.grad(torch.nn.functional.mse_loss(model(x), y), list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients):
                    parameter -= step * gradient
            if count in (1, 4400, 4800, 5200):
                save_file(model.state_dict(), self.folder / "weights.safetensors")
                ended = hesspect("eigs", "--model", self.folder / "model.pt2", "--weights", self.folder / "weights.safetensors",
                                 "--data", self.folder / "data.h5", "--loss", "mse", "--dtype", "float64", "--top", 1,
                                 "--bottom", 0, "--output", self.folder / f"{count}.h5")
                self.assertDone(ended)
                with h5py.File(self.folder / f"{count}.h5") as f:
                    found.append(f["entry/eigenvalues/eigenvalue"][0] * step / 2)
        self.assertLess(found[0], 0.7)  # where training began
        self.assertTrue(0.97 < np.mean(found[1:]) < 1.15, found)
        self.assertTrue(all(0.9 < each < 1.25 for each in found[1:]), found)

    def test_what_is_left_out_and_what_cannot_be(self):
        found, _ = self.measure("mlp_ce", "--rho", "none", "--step-check=false", "--eigenvectors-tried", 0, "--basin-directions", 0)
        self.assertEqual([len(found[k]) for k in ("rho", "optimizer", "basin_radius")], [1, 0, 0])
        for words, options in ((["--rho", "above 0"], ["--rho", "-1"]), (["one group"], ["--groups", 2])):
            ended = hesspect("sharpness", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy"), *options)
            self.assertEqual(ended.code, 2, ended.err)
            self.assertEqual(len(ended.errors), 1)
            for word in words:
                self.assertIn(word, ended.errors[0])


if __name__ == "__main__":
    unittest.main()
