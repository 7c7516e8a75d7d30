"""A result file as hesspect writes it, made by hand: tests of reading and drawing need no run."""

import h5py
import numpy as np
import pytest


def write_result(path, density=True, eigenvalues=True, trace=True, probes=3, steps=20, seed=0):
    """A heavy bulk near zero, a few outliers, one of them negative, two eigenvalues not converged."""
    rng = np.random.default_rng(seed)
    lam = np.linspace(-2.0, 14.0, 1024)
    sigma = 0.12
    kernel = lambda at: np.exp(-0.5 * ((lam - at) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    top = np.array([12.4, 9.1, 8.0, 5.2, 4.9, 3.3, 2.7, 2.1, 1.9, 1.5])
    bottom = np.array([-0.4, -0.6, -1.3])
    n = 24058
    rho = 0.999 * (0.8 * kernel(0.0) + 0.2 * kernel(0.3)) + 0.001 * sum(kernel(t) for t in [*top, *bottom]) / 13
    with h5py.File(path, "w") as f:
        f.attrs["default"] = "entry"
        entry = f.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        if density:
            group = entry.create_group("density")
            group["lambda"], group["density"], group["density_errors"] = lam, rho, 0.2 * rho * (1 + rng.random(lam.size))
            group["sigma"] = sigma
        if eigenvalues:
            group = entry.create_group("eigenvalues")
            group["eigenvalue"] = np.concatenate([top, bottom])
            group["residual"] = np.concatenate([np.full(8, 1e-4), [0.02, 0.3], np.full(3, 1e-3)])
            group["converged"] = np.array([1] * 8 + [0, 0] + [1] * 3, dtype=np.uint8)
            group["n_top"], group["n_bottom"] = np.int64(top.size), np.int64(bottom.size)
        if trace:
            group = entry.create_group("trace")
            group["value"], group["stderr"], group["samples"] = 118.7, 4.2, np.int64(probes)
        group = entry.create_group("quadrature")
        group["alpha"], group["beta"] = rng.random((probes, steps)), rng.random((probes, steps))
        group["ritz"] = np.sort(rng.normal(size=(probes, steps)), axis=1)
        group["weight"] = np.full((probes, steps), 1.0 / steps)
        group = entry.create_group("process")
        group["curvature"], group["model"] = "hessian", ["runs/cnn/model.pt2"]
        group = entry.create_group("diagnostics")
        group["n_parameters"], group["n_rows"], group["hvp_count"], group["loss"] = np.int64(n), np.int64(1000), np.int64(131), 0.0231
        group["warnings"] = ["one", "two"]
    return path


@pytest.fixture
def result_file(tmp_path):
    return write_result(tmp_path / "result.h5")
