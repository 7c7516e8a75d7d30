#!/usr/bin/env python3
"""How many products eigenvalues take from what the checkpoints before have found, in several ways, by dense matrices of a training run.

    warm_starts.py FOLDER [--steps Q] [--rtol R]        after coverage.py FOLDER --stage exact --keep

Ten largest and three smallest eigenvalues of each checkpoint, until every residual is within R of the largest. Q Lanczos steps from a random vector are there
anyway, for the density; counted are the products beyond these. All in float64, by Rayleigh-Ritz in the whole space.

- lanczos: the run goes on;
- before: the eigenvectors of the checkpoint before join the space, then residuals of the worst pair (what `hesspect series` does);
- two before: those of the two before; extrapolated: 2 V - V of the two before, turned to fit; residuals: none join, residuals alone;
- chosen: of those of the checkpoint before the ones whose residual, as far as it lies in the space, is within `factor` times the tolerance;
- filtered: not the vectors but one random combination of them begins a second Krylov space.
"""

import argparse
from pathlib import Path

import numpy as np

TOP, BOTTOM = 10, 3


class Space:
    def __init__(self, h):
        self.h, self.q, self.hq = h, np.zeros((len(h), 0)), np.zeros((len(h), 0))

    @property
    def products(self):
        return self.q.shape[1]

    def add(self, vector, least=1e-8):
        w = vector / np.linalg.norm(vector)
        for _ in range(2):
            w = w - self.q @ (self.q.T @ w)
        norm = np.linalg.norm(w)
        if norm < least:
            return False
        self.q, self.hq = np.column_stack([self.q, w / norm]), np.column_stack([self.hq, self.h @ (w / norm)])
        return True

    def pairs(self):
        """Values, residual norms and residuals of the wanted ones."""
        t = self.q.T @ self.hq
        values, coefficients = np.linalg.eigh((t + t.T) / 2)
        wanted = [*range(min(BOTTOM, len(values))), *range(max(BOTTOM, len(values) - TOP), len(values))]
        residuals = self.hq @ coefficients[:, wanted] - (self.q @ coefficients[:, wanted]) * values[wanted]
        return abs(values).max(), np.linalg.norm(residuals, axis=0), residuals, self.q @ coefficients[:, wanted]

    def converged(self, rtol):
        scale, norms, _, _ = self.pairs()
        return len(norms) == TOP + BOTTOM and norms.max() <= rtol * scale

    def finish(self, rtol):
        while not self.converged(rtol):
            _, norms, residuals, _ = self.pairs()
            if not self.add(residuals[:, norms.argmax()]):
                self.add(np.random.default_rng(self.products).standard_normal(len(self.h)))
        return self.products

    def lanczos(self, start, steps, rtol=None):
        self.add(start)
        for _ in range(10_000):
            if steps and self.products >= steps or rtol and self.products >= TOP + BOTTOM and self.converged(rtol):
                return self
            if not self.add(self.hq[:, -1]):
                self.add(np.random.default_rng(self.products).standard_normal(len(self.h)))
        return self


def choose(space, vectors, rtol, factor):
    """Adds those that are worth a product. The vectors are of the wanted pairs, ascending."""
    taken = 0
    # What a vector's residual is within the space, which no product is needed for.
    c, hc = space.q.T @ vectors, space.hq.T @ vectors
    scale = space.pairs()[0]
    inside = np.linalg.norm(hc - c * (np.sum(c * hc, axis=0) / np.sum(c * c, axis=0)), axis=0) / np.linalg.norm(c, axis=0)
    for i in reversed(range(vectors.shape[1])):
        if space.pairs()[1][i] > rtol * scale and inside[i] <= factor * rtol * scale:
            taken += space.add(vectors[:, i], 1e-6)
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rtol", type=float, default=1e-4)
    parser.add_argument("--most", type=int, default=12, help="checkpoints")
    parser.add_argument("--turned", type=float, default=0, help="instead the first checkpoint over and over, turned by so much at random")
    args = parser.parse_args()
    files = sorted((args.folder / "exact").glob("step-*.npy"), key=lambda p: int(p.stem.split("-")[1]))[: args.most]
    if args.turned:
        files = files[:1] * 4
    random = np.random.default_rng(0)
    start, known, counts = None, [], {}
    for file in files:
        h = np.load(file)
        if args.turned:
            turn = random.standard_normal(h.shape) * args.turned / np.sqrt(len(h))
            turn = np.linalg.qr(np.eye(len(h)) + turn - turn.T)[0]
            h = turn @ h @ turn.T
        start = random.choice([-1.0, 1.0], len(h)) if start is None else start
        values, vectors = np.linalg.eigh(h)
        exact = np.column_stack([vectors[:, :BOTTOM], vectors[:, -TOP:]])
        if len(known) >= 2:
            before, earlier = known[-1], known[-2]
            u, _, vt = np.linalg.svd(earlier.T @ before)
            starts = {"residuals": [], "before": [before], "two before": [before, earlier], "extrapolated": [2 * before - earlier @ (u @ vt)]}
            for name, blocks in starts.items():
                space = Space(h).lanczos(start, args.steps)
                for block in blocks:
                    for vector in block.T[::-1]:
                        if not space.converged(args.rtol):
                            space.add(vector, 1e-3)
                counts.setdefault(name, []).append(space.finish(args.rtol) - args.steps)
            for factor in (3, 10, 30):
                space = Space(h).lanczos(start, args.steps)
                taken = choose(space, before, args.rtol, factor)
                counts.setdefault(f"chosen, factor {factor}", []).append(space.finish(args.rtol) - args.steps)
                counts.setdefault(f"vectors taken, factor {factor}", []).append(taken)
            counts.setdefault("lanczos", []).append(Space(h).lanczos(start, 0, args.rtol).products - args.steps)
            counts.setdefault("filtered", []).append(Space(h).lanczos(before @ random.standard_normal(before.shape[1]), 0, args.rtol).products)
            counts.setdefault("overlap", []).append(np.sum((before[:, BOTTOM:].T @ exact[:, BOTTOM:]) ** 2) / TOP)
        known.append(exact)
    for name, found in counts.items():
        print(f"{name}: mean {np.mean(found):.2f}, {np.min(found):.2f} to {np.max(found):.2f}")


if __name__ == "__main__":
    main()
