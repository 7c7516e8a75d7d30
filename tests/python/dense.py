"""Dense Hessians by PyTorch's double backward, in float64, and the program's eigenvalues beside them."""

import os
import subprocess

import h5py
import numpy as np
import torch
from torch.overrides import TorchFunctionMode


class WidenFloat32(TorchFunctionMode):
    """Runs a float64 model in float64 throughout: what it casts to float32 by name becomes float64, as in the program."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        widen = lambda a: torch.float64 if a is torch.float32 else a
        if func is torch.Tensor.float:
            return args[0].double()
        return func(*map(widen, args), **{k: widen(v) for k, v in (kwargs or {}).items()})


def program(*args, code=0):
    """Runs hesspect alone."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HESSPECT_")}
    done = subprocess.run([os.environ["HESSPECT_BIN"], *map(str, args)], capture_output=True, text=True, env=env, timeout=200)
    assert done.returncode == code, done.stderr
    return done


def eigenvalues_of(loss, parameters):
    """All of the Hessian's, ascending. Parameters that the loss does not use have rows of zeros."""
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    flat = torch.cat([g.reshape(-1) for g in gradients])
    rows = [torch.cat([r.reshape(-1) for r in torch.autograd.grad(g, parameters, retain_graph=True, materialize_grads=True)])
            if g.requires_grad else torch.zeros(len(flat), dtype=torch.float64) for g in flat]
    hessian = torch.stack(rows).numpy()
    assert np.abs(hessian - hessian.T).max() < 1e-10 * np.abs(hessian).max()
    return np.linalg.eigvalsh(hessian)


def write_arrays(path, **arrays):
    with h5py.File(path, "w") as f:
        for name, value in arrays.items():
            f[name] = np.asarray(value)
    return path


def assert_same_spectrum(model, data, loss, output, exact, *options, top=6, bottom=3):
    """The program's eigenvalues at both ends are PyTorch's."""
    program("eigs", "--model", model, "--data", data, "--loss", loss, "--output", output, "--dtype", "float64", "--top", top, "--bottom", bottom,
            "--rtol-eigs", 1e-10, "--max-steps", 0, "--force", "--quiet", *options)
    with h5py.File(output) as f:
        found, n = f["entry/eigenvalues/eigenvalue"][()], f["entry/diagnostics/n_parameters"][()]
    expected = np.concatenate([exact[::-1][:top], exact[:bottom][::-1]])
    assert n == len(exact)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-9 * np.abs(exact).max())
