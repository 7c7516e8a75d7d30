#!/usr/bin/env python3
"""What estimators of a trace along a sequence would know, by the dense matrices themselves: no sampling, exact variances.

    dynamic_trace.py FOLDER [--steps Q] [--products B]        after coverage.py FOLDER --stage exact --keep

At each checkpoint a Krylov space of Q steps is there anyway (its products serve density and eigenvalues), and B products are for the trace.
Compared with what hesspect does, B samples of P H P, P the projection on what the space leaves over:

- recursive: Dharangutte & Musco 2021 (arXiv 2110.13752), t = c t₋ + mean zᵀ(H − c H₋)z over B/2 fresh vectors of two products each, with the c that
  makes its variance c² v₋ + 2‖H − c H₋‖²/(B/2) least; from a first trace of 5 B samples;
- anchored: common vectors at all checkpoints, many at every eighth: the mean over few, corrected by what these few have told wrong there
  (regression with the best coefficient); as many products in the mean;
- change: the standard error of the difference of two neighbours on the same vectors, of P H P and of H, over that on other vectors.

Variances are those of random signs, 2‖·‖²_F without the diagonal.
"""

import argparse
from pathlib import Path

import numpy as np


def off(matrix):
    return matrix - np.diag(np.diag(matrix))


def left_over(h, steps, start):
    basis = np.zeros((len(h), steps))
    basis[:, 0] = start / np.linalg.norm(start)
    for i in range(1, steps):
        w = h @ basis[:, i - 1]
        for _ in range(2):
            w -= basis[:, :i] @ (basis[:, :i].T @ w)
        basis[:, i] = w / np.linalg.norm(w)
    ph = h - basis @ (basis.T @ h)
    return off(ph - (ph @ basis) @ basis.T)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--products", type=int, default=10)
    args = parser.parse_args()
    files = sorted((args.folder / "exact").glob("step-*.npy"), key=lambda p: int(p.stem.split("-")[1]))
    budget, period = args.products, 8
    few = (period * budget - 5 * budget) / (period - 1)
    start = before = anchor = None
    recursive = None
    rows = []
    for i, file in enumerate(files):
        h = np.load(file)
        if start is None:
            start = np.random.default_rng(0).choice([-1.0, 1.0], len(h))
        rest, whole = left_over(h, args.steps, start), off(h)
        norm = np.sum(rest**2)
        plain = 2 * norm / budget
        if i % period == 0:
            anchor, anchored = rest, 2 * norm / (5 * budget)
        else:
            rho_sq = np.sum(rest * anchor) ** 2 / (norm * np.sum(anchor**2))
            anchored = 2 * norm * ((1 - rho_sq) / few + rho_sq / (5 * budget))
        if before is None:
            recursive = plain / 5
        else:
            each = 2 / (budget / 2)
            old_rest, old = before
            inner, old_norm = np.sum(whole * old), np.sum(old**2)
            c = each * inner / (recursive + each * old_norm)
            recursive = c**2 * recursive + each * np.sum((whole - c * old) ** 2)
            rho = np.sum(rest * old_rest) / np.sqrt(norm * np.sum(old_rest**2))
            change = np.sqrt(np.sum((rest - old_rest) ** 2) / (norm + np.sum(old_rest**2)))
            change_whole = np.sqrt(np.sum((whole - old) ** 2) / (norm + np.sum(old_rest**2)))
            rows.append([rho, inner / np.sqrt(np.sum(whole**2) * old_norm), np.sqrt(recursive / plain), np.sqrt(anchored / plain), change, change_whole])
        before = rest, whole
    names = ["correlation of P H P with the one before", "correlation of H with the one before", "standard error, recursive over plain", "standard error, anchored over plain",
             "of the change, paired over unpaired, P H P", "of the change, paired H over unpaired P H P"]
    for name, values in zip(names, np.transpose(rows), strict=True):
        print(f"{name}: median {np.median(values):.2f}, {np.min(values):.2f} to {np.max(values):.2f}")


if __name__ == "__main__":
    main()
