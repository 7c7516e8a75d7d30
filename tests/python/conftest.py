"""A result file as hesspect writes it, made by hand: tests of reading and drawing need no run."""

import h5py
import numpy as np
import pytest


def write_result(path, density=True, eigenvalues=True, trace=True, probes=3, steps=20, seed=0, layout=1):
    """A heavy bulk near zero, a few outliers, one of them negative, two eigenvalues not converged. Layout 2
    says of all of them how good they are."""
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
        if layout == 2:
            _add_second_layout(entry, np.concatenate([top, bottom]))
        group = entry.create_group("process")
        group["curvature"], group["model"] = "hessian", ["runs/cnn/model.pt2"]
        group = entry.require_group("diagnostics")
        group["n_parameters"], group["n_rows"], group["hvp_count"], group["loss"] = np.int64(n), np.int64(1000), np.int64(131), 0.0231
        group["warnings"] = ["one", "two"]
    return path


def _add_second_layout(entry, theta):
    group = entry.create_group("cumulative")
    group["lambda"] = np.array([-1.3, 0.0, 0.3, 12.4])
    group["cumulative"] = np.array([0.01, 0.8, 0.99, 1.0])
    group["cumulative_lower"], group["cumulative_upper"] = np.array([0.0, 0.75, 0.98, 1.0]), np.array([0.02, 0.85, 1.0, 1.0])
    group["band"], group["confidence"], group["converged"] = "jackknife", 0.9, np.uint8(1)
    group["w1"], group["w1_sampling"], group["w1_quadrature"] = 0.031, 0.03, 0.001
    group["range"], group["exact_points"], group["zero_width"] = np.array([-1.31, 12.41]), 13.0, 1e-5
    group["weight_at_zero"], group["weight_at_zero_error"] = 0.79, 0.01
    group["negative_mass"], group["negative_mass_error"] = 0.012, 0.002
    group["moments"], group["moments_error"] = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.01, 0.02, 0.03, np.nan])
    group = entry["eigenvalues"]
    group["which"] = ["top"] * 10 + ["bottom"] * 3
    group["true_residual"], group["error"] = np.full(theta.size, 2e-3), np.full(theta.size, 1e-6)
    group["n_magnitude"], group["method"], group["steps"], group["thick_restarts"] = np.int64(0), "lanczos", np.int64(80), np.int64(1)
    group = entry["trace"]
    group["half_width"], group["confidence"], group["converged"], group["method"] = 7.5, 0.9, np.uint8(0), "deflated"
    group["captured"], group["deflated"], group["products"] = 100.0, np.int64(13), np.int64(2)
    group["sample"] = np.array([118.0, 119.4])
    group = entry.create_group("layers")
    group["name"], group["size"] = ["stem.weight", "head.weight", "head.bias"], np.array([1000, 50, 10])
    group["trace"], group["trace_error"] = np.array([100.0, 20.0, -1.3]), np.array([5.0, 2.0, np.nan])
    group["mean"], group["mean_error"] = np.array([0.1, 0.4, -0.13]), np.array([0.005, 0.04, np.nan])
    group = entry.create_group("diagnostics/products")
    group["first_probe"], group["trace"], group["total"] = np.int64(80), np.int64(2), np.int64(82)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    import matplotlib.pyplot

    matplotlib.pyplot.close("all")


@pytest.fixture
def result_file(tmp_path):
    return write_result(tmp_path / "result.h5")


def write_landscape(path, directions=1):
    """A loss of one or two directions, 0.5 + t² + t⁴, whose quadratic model holds to 0.3."""
    t = np.linspace(-1, 1, 11)
    u = t if directions == 2 else np.zeros(1)
    square = t[:, None] ** 2 + 2 * u[None, :] ** 2
    with h5py.File(path, "w") as f:
        group = f.create_group("entry/landscape")
        group["alpha"], group["beta"], group["loss"], group["quadratic"] = t, u, 0.5 + square + square**2, 0.5 + square
        group["direction"] = ["eigenvector 1", "random 0"][:directions]
        group["valid_below"], group["valid_above"] = np.full(directions, 0.3), np.full(directions, 0.3)
        group["tolerance"], group["loss_at_start"] = 0.1, 0.5
    return path


def write_blocks(path):
    """A result with three blocks, the last of which has no eigenvalues."""
    write_result(path, layout=2)
    with h5py.File(path, "r+") as f:
        group = f.create_group("entry/block_summary")
        group["name"], group["parameters"] = ["embed", "layer.0", "head"], np.array([100, 50, 10])
        group["largest"], group["largest_error"] = np.array([3.0, 12.0, np.nan]), np.array([1e-3, 1e-3, np.nan])
        group["mean"], group["mean_error"] = np.array([0.1, 0.5, 0.01]), np.array([0.01, 0.02, np.nan])
        group["js_distance"] = np.array([[0, 0.4, 0.9], [0.4, 0, 0.7], [0.9, 0.7, 0]])
        group["js_distance_mean"] = 2 / 3
    return path


def write_series(path, checkpoints=40, ranks=8, points=512, layers=5, without=(), top=None):
    """A training at the edge of stability as `hesspect series` writes it: λ₁ rises to 2/η and stays there, an outlier comes in the middle, checkpoint 7 has failed.
    The eigenvalues are exactly what `series_eigenvalues` says."""
    rng = np.random.default_rng(1)
    n, text = checkpoints, h5py.string_dtype()
    step = 100 * np.arange(1, n + 1)
    value = series_eigenvalues(n, ranks)
    error = 0.03 * np.abs(value) * (1 + rng.random(value.shape))
    failed = np.arange(n) == 7
    bulk = 0.05 * value[:, 0] ** 0.5
    lam = np.linspace(-3 * bulk, 1.1 * value[:, 0], points).T
    kernel = lambda x, at, width: np.exp(-0.5 * ((x - at[:, None]) / width[:, None]) ** 2) / (width[:, None] * np.sqrt(2 * np.pi))
    width = 0.012 * value[:, 0]
    rho = 0.995 * kernel(lam, 0 * bulk, bulk) + sum(0.005 / ranks * kernel(lam, v, width) for v in value.T)
    arrays = {
        "checkpoints/step": step, "checkpoints/time": 1.79e9 + 60.0 * step, "checkpoints/products": np.where(np.arange(n) == 0, 120, 40), "checkpoints/seconds": np.full(n, 2.5),
        "checkpoints/fresh": np.arange(n) == 0, "checkpoints/loss": np.full(n, 0.25), "eigenvalues/value": value, "eigenvalues/lower": value - error, "eigenvalues/upper": value + error,
        "trace/value": 4 * value[:, 0] + 10, "trace/standard_error": 0.05 * value[:, 0],
        "trace/change": 4 * np.diff(value[:, 0], prepend=np.nan), "trace/change_probes": np.full(n, 6),
        "layers/trace": np.outer(value[:, 0], [2.0, 1.0, 0.5, 0.3, 0.2][:layers]),
        "layers/standard_error": np.full((n, layers), 0.1), "density/lambda": lam, "density/density": rho,
        "overlap/subspace": np.where(np.arange(n) == 0, np.nan, 1 - 0.6 / np.arange(1, n + 1)), "stability/learning_rate": np.full(n, 0.02),
        "stability/half_lambda_eta": value[:, 0] * 0.01,
    }
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        for name, values in arrays.items():
            if name.split("/")[0] in without:
                continue
            values = np.array(values)
            if values.dtype == np.float64 and not name.startswith(("checkpoints", "stability/l")):
                values[failed] = np.nan
            entry[name] = values
            entry[name].attrs["units"] = "loss/parameter^2" if name.startswith(("eigenvalues", "trace")) else ""
        for name, texts in {"name": [f"ckpt/step_{s}.safetensors" for s in step], "sha256": ["ab" * 32] * n, "result": [f"series/{s:08d}.h5" for s in step]}.items():
            entry.create_dataset(f"checkpoints/{name}", data=texts, dtype=text)
        if "eigenvalues" not in without and top is not None:
            entry["eigenvalues/top"] = np.int64(top)
        if "layers" not in without:
            entry.create_dataset("layers/name", data=[f"blocks.{i}.weight" for i in range(layers)], dtype=text)
    return path


def series_eigenvalues(checkpoints, ranks):
    t = np.arange(checkpoints) / max(1, checkpoints - 1)
    first = 100 * np.minimum(1, 0.08 + 1.6 * t) * (1 + 0.02 * np.sin(40 * t))
    others = [first * 0.6 / (i + 1) * (1 + 0.1 * np.cos(9 * t + i)) for i in range(ranks - 1)]
    value = np.stack([first, *others], axis=1)
    value[:, ranks - 1] = np.where(t > 0.5, 45 * t, 0.4)
    return -np.sort(-value, axis=1)
