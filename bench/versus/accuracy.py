"""How far answers are from their references."""

import json

import numpy as np
from scipy.linalg import eigh_tridiagonal

import problems


class Reference:
    """Of a planted problem: exact. Of a workload: bench/versus/references, made by reference.py."""

    def __init__(self, name):
        self.trace_error = 0.0
        if name in problems.PLANTED:
            spectrum = problems.planted_spectrum(name)
            self.top, self.magnitude, self.trace = spectrum[:10], spectrum[:10], spectrum.sum()
            self.nodes, self.weights = np.unique(spectrum, return_counts=True)
            self.weights = self.weights / len(spectrum)
            self.range = self.nodes[-1] - self.nodes[0]
            return
        folder = problems.ROOT / "bench" / "versus" / "references"
        found = json.loads((folder / f"{name}.json").read_text())
        if found["weights_sha256"] != problems.weights_sha256(name) or found["rows"] != problems.rows_of(name):
            raise SystemExit(f"{folder / name}.json belongs to other weights or rows: make it again with "
                             f"bench/versus/run --references {name} (takes up to an hour)")
        self.top, self.magnitude = np.array(found["top10"]), np.array(found["magnitude10"])
        self.trace, self.trace_error = found["trace"], found["trace_standard_error"] / abs(found["trace"])
        self.range = found["range"][1] - found["range"][0]
        with np.load(folder / f"{name}.npz") as arrays:
            self.nodes, self.weights = arrays["nodes"], arrays["weights"]

    def top_error(self, values):
        """Largest relative error of the ten eigenvalues; where negative ones are among them, of the ten largest magnitudes."""
        values = np.asarray(values, dtype=np.float64)
        wanted = np.abs(self.magnitude) if values.min() < 0 else self.top
        values = np.sort(np.abs(values))[::-1][:10]
        return float(np.max(np.abs(values - wanted[:len(values)]) / np.abs(wanted[:len(values)]))) if len(values) == 10 else np.inf

    def density_error(self, nodes, weights):
        """Wasserstein-1 distance over the width of the spectrum."""
        return wasserstein(nodes, weights, self.nodes, self.weights) / self.range

    def cumulative_error(self, lambdas, cumulative):
        """The same of a cumulative density that steps at `lambdas`."""
        return self.density_error(lambdas, np.diff(cumulative, prepend=0.0))


def wasserstein(nodes_a, weights_a, nodes_b, weights_b):
    """∫ |F_a − F_b| dλ of two discrete measures."""
    nodes = np.concatenate([nodes_a, nodes_b])
    signed = np.concatenate([weights_a, -np.asarray(weights_b)])
    order = np.argsort(nodes, kind="stable")
    return float(np.abs(np.cumsum(signed[order])[:-1]) @ np.diff(nodes[order]))


def ritz(alpha, beta, steps):
    """Nodes and weights of a Lanczos run's first `steps` steps."""
    theta, s = eigh_tridiagonal(alpha[:steps], beta[:steps - 1])
    return theta, s[0] ** 2
