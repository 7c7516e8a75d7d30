"""Makes the float64 references of the three workloads: bench/versus/references/NAME.json and NAME.npz.

    nice -n 15 bench/versus/run --references cnn widedeep minilm
    nice -n 15 bench/versus/run --references density:gpt1m density:resnet20   # the density alone, in minutes

Eigenvalues: ARPACK (scipy.sparse.linalg.eigsh) on float64 products. Trace: cnn and widedeep are piecewise multilinear in
their parameters between the loss and the data, so that the diagonal of the second derivatives of the outputs is zero and
the trace is that of the Gauss-Newton matrix, which gradients of single rows give exactly; minilm: Hutchinson on what the
ARPACK eigenvectors leave, until the standard error is small. Density: widedeep by its dense Hessian (exact); the others by
stochastic Lanczos quadrature, in which converged outliers are replaced by the ARPACK eigenvalues with weight 1/n.
"density:NAME" makes the density alone, by fully re-orthogonalised Lanczos runs whose rules are averaged, and trace and
top-10 of the same runs: good for comparing densities, where products are too dear for more.
Neither uses any code of hesspect beside the models' definitions.
"""

import json
import sys
import time

import numpy as np
import scipy
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

import accuracy
import problems

FOLDER = problems.ROOT / "bench" / "versus" / "references"


class Products:
    """v -> Hv in float64 from kept gradient graphs, counted."""

    def __init__(self, problem):
        self.parameters, self.n, self.count = problem.parameters, problem.n, 0
        rows = sum(target.size(0) for _, target in problem.batches)
        self.graphs = []
        for inputs, target in problem.batches:
            loss = problem.criterion(problem.model(inputs), target) * (target.size(0) / rows)
            self.graphs.append(torch.autograd.grad(loss, self.parameters, create_graph=True))

    def __call__(self, v):
        self.count += 1
        pieces = torch.as_tensor(np.ascontiguousarray(v).reshape(-1)).split([p.numel() for p in self.parameters])
        pieces = [piece.view(p.shape) for piece, p in zip(pieces, self.parameters)]
        out = torch.zeros(self.n, dtype=torch.float64)
        for gradients in self.graphs:
            parts = torch.autograd.grad(gradients, self.parameters, pieces, retain_graph=True, materialize_grads=True)
            out += torch.cat([p.reshape(-1) for p in parts])
        return out.numpy()

    def operator(self):
        return LinearOperator((self.n, self.n), matvec=self, dtype=np.float64)


def gauss_newton_diagonal(problem):
    """[n] the diagonal of the generalised Gauss-Newton matrix, exact: one gradient a row and class."""
    from torch.func import functional_call, grad, vmap

    parameters = dict(problem.model.named_parameters())
    buffers = dict(problem.model.named_buffers())
    total = {k: torch.zeros_like(p) for k, p in parameters.items()}
    rows = sum(target.size(0) for _, target in problem.batches)

    def output(values, direction, *row):
        out = functional_call(problem.model, (values, buffers), (problems.TupleInput([t.unsqueeze(0) for t in row]),))
        return (out.squeeze(0) * direction).sum()

    for inputs, target in problem.batches:
        with torch.no_grad():
            out = problem.model(inputs)
        if out.ndim == 1:  # binary cross-entropy: p (1 - p) per row
            p = torch.sigmoid(out)
            directions = [(p * (1 - p)).sqrt()]
        else:  # Σ_c p_c (e_c - p)(e_c - p)ᵀ
            p = out.softmax(1)
            directions = [p[:, c, None].sqrt() * (torch.eye(p.shape[1], dtype=p.dtype)[c] - p) for c in range(p.shape[1])]
        for direction in directions:
            for part in zip(direction.split(50), *(t.split(50) for t in inputs.tensors)):
                gradients = vmap(grad(output), in_dims=(None, 0, *[0] * len(inputs.tensors)))(
                    {k: p.detach() for k, p in parameters.items()}, *part)
                for k, g in gradients.items():
                    total[k] += g.square().sum(0) / rows
    return {k: t.detach().reshape(-1).numpy() for k, t in total.items()}


def extremes(products, top, bottom, magnitude, tol):
    """Eigenvalues of both ends and of largest magnitude from ARPACK, and all that it found; with the vectors of the top."""
    def arpack(count, which, vectors):
        return eigsh(products.operator(), k=count, which=which, ncv=2 * count + 4, tol=tol, return_eigenvectors=vectors,
                     v0=np.random.default_rng(1).standard_normal(products.n))

    values, vectors = arpack(top, "LA", True)
    low = arpack(max(bottom, 6), "SA", False)
    every = np.concatenate([values, low])
    # Those of largest magnitude are among them where the smallest |value| of either list is larger than those not listed
    every = every[np.argsort(-np.abs(every))]
    known = min(magnitude, int((np.abs(every) > max(values.min(), -low.max())).sum()) + 1)
    return np.sort(values)[::-1], np.sort(low)[:bottom][::-1], every[:known], values, vectors, every


def lanczos_quadrature(products, steps, seed, full):
    """Nodes and weights from a Rademacher start; with full re-orthogonalisation, or none (float64 nodes then come in
    copies that share the weight)."""
    z = np.random.default_rng(seed).choice([-1.0, 1.0], products.n)
    q, before = z / np.sqrt(products.n), 0.0
    basis, alpha, beta = [], [], []
    for step in range(steps):
        if full:
            basis.append(q)
        w = products(q)
        alpha.append(q @ w)
        w -= alpha[-1] * q + (beta[-1] * before if beta else 0.0)
        if full:
            for _ in range(2):
                w -= np.asarray(basis).T @ (np.asarray(basis) @ w)
        beta.append(np.linalg.norm(w))
        before, q = q, w / beta[-1]
        if step % 20 == 19:
            print(f"  quadrature {seed}: step {step + 1}", flush=True)
    theta, s = scipy.linalg.eigh_tridiagonal(alpha, beta[:-1])
    return theta, s[0] ** 2


def with_outliers(nodes, weights, outliers, n, near=None):
    """Known outliers as points of weight 1/n in place of the nodes that stand for them; the rest scaled to the remainder."""
    outliers = np.asarray(outliers)
    if not len(outliers):
        return nodes, weights
    near = np.min(np.abs(nodes[:, None] - outliers[None, :]), axis=1) < (near or 1e-6 * np.max(np.abs(outliers)))
    rest = weights[~near] / weights[~near].sum() * (1 - len(outliers) / n)
    return np.concatenate([nodes[~near], outliers]), np.concatenate([rest, np.full(len(outliers), 1 / n)])


def dense_spectrum(products):
    """[n] all eigenvalues, and the asymmetry of the dense Hessian."""
    h = np.empty((products.n, products.n))
    e = np.zeros(products.n)
    for i in range(products.n):
        e[i] = 1
        h[i] = products(e)
        e[i] = 0
        if i % 500 == 499:
            print(f"  dense: {i + 1} of {products.n}", flush=True)
    asymmetry = np.abs(h - h.T).max() / np.abs(h).max()
    return np.diag(h).copy(), np.linalg.eigvalsh((h + h.T) / 2), asymmetry


def deflated_trace(products, values, vectors, rtol, most):
    """Trace and standard error: Σ values + Hutchinson on the complement of `vectors`."""
    samples, random = [], np.random.default_rng(2)
    while len(samples) < most:
        z = random.choice([-1.0, 1.0], products.n)
        z -= vectors @ (vectors.T @ z)
        samples.append(z @ products(z))
        mean, error = values.sum() + np.mean(samples), np.std(samples, ddof=1) / np.sqrt(len(samples)) if len(samples) > 1 else np.inf
        if len(samples) % 10 == 0:
            print(f"  trace {mean:.6g} ± {error:.2g} from {len(samples)}", flush=True)
        if len(samples) >= 20 and error < rtol * abs(mean):
            break
    return mean, error, len(samples)


def make(name):
    started = time.monotonic()
    problem = problems.workload(name, dtype=torch.float64)
    products = Products(problem)
    shapes = {k.removeprefix("inner."): p.numel() for k, p in problem.model.named_parameters()}
    found = {"workload": name, "rows": sum(t.size(0) for _, t in problem.batches), "dimensions": problem.n,
             "weights_sha256": problems.weights_sha256(name), "torch": torch.__version__, "scipy": scipy.__version__,
             "made": time.strftime("%Y-%m-%d")}
    top, bottom, magnitude, values, vectors, outliers = extremes(products, 10, 3, 10, 1e-6 if name == "minilm" else 1e-10)
    print(f"{name}: eigenvalues after {products.count} products", flush=True)
    found |= {"top10": top.tolist(), "bottom3": bottom.tolist(), "magnitude10": magnitude.tolist(),
              "eigenvalues_by": f"ARPACK, {products.count} float64 products"}

    if name == "minilm":
        trace, error, count = deflated_trace(products, values, vectors, 2e-3, 100)
        found |= {"trace": trace, "trace_standard_error": error,
                  "trace_by": f"{count} Rademacher probes on the complement of {len(values)} ARPACK eigenvectors"}
    else:
        diagonal = gauss_newton_diagonal(problem)
        found |= {"trace": float(sum(d.sum() for d in diagonal.values())), "trace_standard_error": 0.0,
                  "layers": {k.removeprefix("inner."): float(d.sum()) for k, d in diagonal.items()},
                  "trace_by": "exact: diagonal of the Gauss-Newton matrix from gradients of single rows"}
    del vectors
    store(name, found, {})

    if name == "widedeep":
        diagonal, spectrum, asymmetry = dense_spectrum(products)
        nodes, weights = spectrum, np.full(len(spectrum), 1 / len(spectrum))
        sizes = np.cumsum([0, *shapes.values()])
        found |= {"density_by": "all eigenvalues of the dense Hessian", "dense_asymmetry": asymmetry, "dense_trace": float(spectrum.sum()),
                  "dense_layers": {k: float(diagonal[a:b].sum()) for k, a, b in zip(shapes, sizes, sizes[1:])},
                  "dense_top10": spectrum[::-1][:10].tolist(), "dense_bottom3": spectrum[:3][::-1].tolist()}
    else:
        probes, steps = (8, 250) if name == "cnn" else (1, 120)
        runs = [with_outliers(*lanczos_quadrature(products, steps, 100 + p, full=name == "cnn"), outliers, problem.n) for p in range(probes)]
        nodes, weights = np.concatenate([r[0] for r in runs]), np.concatenate([r[1] for r in runs]) / probes
        if probes > 1:  # how far its own halves are apart says what it is good for
            pair = [(np.concatenate([r[0] for r in part]), np.concatenate([r[1] for r in part]) / (probes // 2))
                    for part in (runs[:probes // 2], runs[probes // 2:])]
            found["density_w1_between_halves"] = accuracy.wasserstein(*pair[0], *pair[1]) / (nodes.max() - nodes.min())
        found |= {"density_by": f"stochastic Lanczos quadrature, {probes} probes of {steps} steps, {len(outliers)} outliers exact"}
    found |= {"range": [float(nodes.min()), float(nodes.max())], "products": products.count, "seconds": round(time.monotonic() - started)}
    store(name, found, {"nodes": nodes, "weights": weights})


# Probes and steps of "density:NAME"
DENSITY = {"widedeep": (4, 150), "cnn": (3, 120), "resnet20": (1, 100), "gpt1m": (1, 120), "gpt10m": (1, 60), "minilm": (1, 60), "minilm64": (1, 60)}
RULES = 32


def averaged(alpha, beta):
    """Nodes, weights and residuals of the mean of RULES quadratures with the run's moments: T bordered by the last β, with
    quantiles of Cauchy's distribution at the last α as its last entry. A step function at Gauss's own nodes is 2e-4 of the
    width from this for gpt1m after 100 steps; on planted spectra, which are known, this is nearer by a factor of 1.2 to 5
    (tests/spectrum/cumulative_test.cpp) and no further from any."""
    nodes, weights, residuals = [], [], []
    gauss, s = scipy.linalg.eigh_tridiagonal(alpha, beta[:-1])
    residual = np.abs(beta[-1] * s[-1])
    lo, hi = gauss[0] - residual[0], gauss[-1] + residual[-1]
    for i in range(RULES):
        corner = alpha[-1] + beta[-1] / np.tan(np.pi * (i + 0.5) / RULES)
        theta, s = scipy.linalg.eigh_tridiagonal(np.append(alpha, corner), beta)
        nodes.append(np.clip(theta, lo, hi))
        weights.append(s[0] ** 2 / RULES)
    return np.concatenate(nodes), np.concatenate(weights), gauss, residual


def lanczos_with_ends(products, steps, seed):
    """Nodes and weights of a run, averaged; its outermost converged nodes (|residual| below 1e-9 of the largest) are eigenvalues
    of weight 1/n each. The basis is stored in float32, which keeps it orthogonal to 1e-7: enough, for ghosts come from copies at 1e-16 / tol."""
    z = np.random.default_rng(seed).choice([-1.0, 1.0], products.n)
    q, basis, alpha, beta = z / np.sqrt(products.n), [], [], []
    for step in range(steps):
        basis.append(q.astype(np.float32))
        w = products(q)
        alpha.append(q @ w)
        for _ in range(2):
            for b in basis:
                w -= (w @ b) * b
        beta.append(np.linalg.norm(w))
        q = w / beta[-1]
        if step % 20 == 19:
            print(f"  quadrature {seed}: step {step + 1}", flush=True)
    theta, weights, gauss, residual = averaged(alpha, beta)
    largest = np.abs(gauss).max()
    outliers = gauss[(residual < 1e-9 * largest) & (np.abs(gauss) > 1e-6 * largest)]
    gap = np.abs(np.diff(gauss)).min()
    theta, weights = with_outliers(theta, weights, outliers, products.n, min(1e-6 * largest, gap / 2))
    return theta, weights, gauss, len(outliers), float(alpha[0] * products.n)


def make_density(name):
    started = time.monotonic()
    problem = problems.problem(name, dtype=torch.float64)
    products = Products(problem)
    found = {"workload": name, "rows": sum(t.size(0) for _, t in problem.batches), "dimensions": problem.n, "weights_sha256": problems.weights_sha256(name),
             "torch": torch.__version__, "scipy": scipy.__version__, "made": time.strftime("%Y-%m-%d")}
    probes, steps = DENSITY[name]
    runs = [lanczos_with_ends(products, steps, 100 + p) for p in range(probes)]
    nodes, weights = np.concatenate([r[0] for r in runs]), np.concatenate([r[1] for r in runs]) / probes
    top, trace = np.sort(runs[0][2])[::-1], float(np.mean([r[4] for r in runs]))
    found |= {"density_by": f"Lanczos quadrature in float64 with full re-orthogonalisation, {probes} probes of {steps} steps, {RULES} rules averaged; "
              f"{runs[0][3]} converged outliers exact", "trace_standard_error": abs(trace)}
    if probes > 1:  # how far its own probes are apart says what it is good for
        found["density_w1_between_probes"] = accuracy.wasserstein(*runs[0][:2], *runs[1][:2]) / (top[0] - top[-1])
    found |= {"top10": top[:10].tolist(), "magnitude10": sorted(top.tolist(), key=abs)[::-1][:10], "trace": float(trace),
              "range": [float(top[-1]), float(top[0])], "products": products.count, "seconds": round(time.monotonic() - started)}
    store(name, found, {"nodes": nodes, "weights": weights})


def store(name, found, arrays):
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    if arrays:
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


def main(names):
    torch.set_num_threads(1)
    for name in names:
        make_density(name.removeprefix("density:")) if name.startswith("density:") else make(name)
        print(f"{name}: done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
