#!/usr/bin/env python3
"""How often a series' figures hold the exact ones, and how they compare with fresh runs', along a training run of a CNN.

    coverage.py FOLDER [--checkpoints N] [--every STEPS] [--seeds S] [--stage train|exact|run|judge|all]    needs HESSPECT_BIN

The oracle is PyTorch's: at every checkpoint the Hessian is written out in float64, column by column by double backward of
torch.autograd, and its eigenvalues are LAPACK's (numpy.linalg.eigvalsh). No line of hesspect has a part in it. The network is
small for its sake (1,030 parameters, images of 14 by 14); each checkpoint is taken with several seeds. Counted, for `hesspect series` warm and with --warm=false:

- eigenvalues: of each listed one, whether the exact eigenvalue of its rank lies between `lower` and `upper`;
- trace: whether the exact one lies within `half_width`; changes: whether the exact change lies within `change_half_width`;
- layers: whether the exact trace of each lies within Student's quantile times `trace_error` and a quarter on top, as `hesspect report` has it;
- density: whether the exact Wasserstein-1 distance is within `w1`;
- and of the warm and the fresh run whether their intervals overlap.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from digit_training import train
from safetensors.torch import load_file
from scipy import stats

from hesspect.workloads.cnn import DigitNet, load

WIDTHS = (4, 8, 8)
CONFIDENCE = 0.9


def images(count=None):
    """Images [rows, 1, 14, 14], the means of two by two pixels, and labels."""
    values, labels = load()
    values = values[:count].reshape(-1, 1, 14, 2, 14, 2).mean((3, 5), dtype=np.float64).astype(np.float32)
    return values, labels[:count]


def train_digits(folder, args):
    steps = [args.first + i * args.every for i in range(args.checkpoints)]
    train(folder, WIDTHS, *images(), steps=steps, lr=args.lr, kept=args.rows, seed=args.seed)


def hessian(model, x, y):
    """[n, n] float64 at the model's weights, and the names and sizes of its parameters in their order."""
    model = copy.deepcopy(model).double().eval()
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    loss = F.cross_entropy(model(x), y)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, [p for _, p in named], create_graph=True)])
    n = gradient.numel()
    matrix = np.empty((n, n))
    unit = torch.zeros(n, dtype=torch.double)
    for i in range(n):
        unit[i] = 1
        column = torch.autograd.grad(gradient, [p for _, p in named], unit, retain_graph=True)
        matrix[i] = torch.cat([c.reshape(-1) for c in column]).numpy()
        unit[i] = 0
    return (matrix + matrix.T) / 2, [name for name, _ in named], [p.numel() for _, p in named]


def exact(folder, args):
    """exact.npz: eigenvalues [checkpoints, n] descending, layers' traces, by step; a part at a time."""
    values, labels = images(args.rows)
    x, y = torch.as_tensor(values).double(), torch.as_tensor(labels)
    for path in sorted((folder / "ckpt").glob("step-*.safetensors"), key=lambda p: int(p.stem.split("-")[1])):
        out = folder / "exact" / f"{path.stem}.npz"
        if out.exists():
            continue
        out.parent.mkdir(exist_ok=True)
        model = DigitNet(WIDTHS)
        model.load_state_dict(load_file(path))
        matrix, names, sizes = hessian(model, x, y)
        layers = [part.sum() for part in np.split(np.diag(matrix), np.cumsum(sizes)[:-1])]
        np.savez(out, eigenvalues=np.linalg.eigvalsh(matrix)[::-1], layers=layers, names=names)
        if args.keep:
            np.save(folder / "exact" / f"{path.stem}.npy", matrix)
        print(out.stem, flush=True)


def runs(args):
    return [f"{kind}-{seed}" for kind in ("warm", "fresh") for seed in range(args.seeds)]


def run(folder, args):
    binary = os.environ["HESSPECT_BIN"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("HESSPECT_")} | {"OMP_NUM_THREADS": "1"}
    for name in runs(args):
        more = ["--seed", name.split("-")[1], *(["--warm=false"] if name.startswith("fresh") else [])]
        if (folder / f"{name}.log").exists():
            continue
        command = [binary, "series", "--model", folder / "model.pt2", "--data", folder / "data.h5", "--loss", "cross_entropy", "--checkpoints", folder / "ckpt",
                   "--output", folder / f"{name}.h5", *more, *args.options]
        done = subprocess.run([*map(str, command)], stderr=subprocess.PIPE, text=True, env=env)
        if done.returncode not in (0, 3):
            sys.exit(done.stderr)
        (folder / f"{name}.log").write_text(done.stderr)


def w1_distance(exact_values, points, cumulative):
    """∫ |F̂ − F| of a step function with F̂ = cumulative[i] right of points[i], and the exact values' steps."""
    grid = np.unique(np.concatenate([exact_values, points]))
    mine = np.concatenate([[0], cumulative])[np.searchsorted(points, grid[:-1], "right")]
    true = np.searchsorted(np.sort(exact_values), grid[:-1], "right") / len(exact_values)
    return float(np.sum(np.abs(mine - true) * np.diff(grid)))


def judge(folder, args):
    """Counts of what holds, over checkpoints."""
    counts = {}

    def count(kind, holds, of=1):
        have = counts.setdefault(kind, [0, 0])
        have[0] += int(holds)
        have[1] += of

    open_files = {name: h5py.File(folder / f"{name}.h5") for name in runs(args) if (folder / f"{name}.log").exists()}
    figures, misses = {}, []
    for name, file in open_files.items():
        entry = file["entry"]
        kind = name.split("-")[0]
        before = None
        for i, step in enumerate(entry["checkpoints/step"][()]):
            truth = np.load(folder / "exact" / f"step-{step}.npz")
            values, trace = truth["eigenvalues"], truth["layers"].sum()
            lower, upper = entry["eigenvalues/lower"][i], entry["eigenvalues/upper"][i]
            top = int(entry["eigenvalues/top"][()])
            ranks = [*range(top), *range(len(values) - len(lower) + top, len(values))]
            # LAPACK's own error: some eps times the largest.
            slack = 1e-13 * abs(values).max()
            held = (lower - slack <= values[ranks]) & (values[ranks] <= upper + slack)
            count(f"{kind}: eigenvalues", held.sum(), len(held))
            for j in np.flatnonzero(~held):
                misses.append((name, int(step), int(ranks[j]), float(values[ranks[j]]), float(lower[j]), float(upper[j])))
            with h5py.File(folder / entry["checkpoints/result"][i].decode()) as r:
                e = r["entry"]
                half = float(e["trace/half_width"][()])
                count(f"{kind}: traces", abs(float(e["trace/value"][()]) - trace) <= half)
                # The layers' errors are by the samples' spread.
                samples = int(e["trace/samples"][()])
                estimates = dict(zip([s.decode() for s in e["layers/name"][()]], zip(e["layers/trace"][()], e["layers/trace_error"][()], strict=True), strict=True))
                quantile = 1.25 * stats.t.ppf((1 + CONFIDENCE) / 2, samples - 1)
                for layer, true in zip(truth["names"], truth["layers"], strict=True):
                    value, error = estimates[str(layer)]
                    count(f"{kind}: layers", abs(value - true) <= quantile * error + 1e-6 * abs(true))
                distance = w1_distance(values, e["cumulative/lambda"][()], e["cumulative/cumulative"][()])
                w1 = float(e["cumulative/w1"][()])
                count(f"{kind}: densities within w1", distance <= w1)
                figures[name, int(step)] = (lower, upper, float(e["trace/value"][()]), half)
            if before is not None and "change" in entry["trace"] and np.isfinite(entry["trace/change_half_width"][i]):
                off = abs(float(entry["trace/change"][i]) - (trace - before))
                count(f"{kind}: changes of the trace", off <= entry["trace/change_half_width"][i])
            before = trace
    for (name, step), (lower, upper, trace, half) in figures.items():
        if not name.startswith("warm"):
            continue
        other = figures.get((name.replace("warm", "fresh"), step))
        if other is None:
            continue
        count("warm and fresh: eigenvalue intervals overlap", ((lower <= other[1]) & (other[0] <= upper)).sum(), len(lower))
        count("warm and fresh: traces within both half widths", abs(trace - other[2]) <= half + other[3])
    summary = {kind: f"{held} of {of}" for kind, (held, of) in counts.items()}
    for kind in ("warm", "fresh"):
        entries = [file["entry"] for name, file in open_files.items() if name.startswith(kind)]
        summary[f"products of a checkpoint but the first, {kind}"] = float(np.mean([e["checkpoints/products"][1:] for e in entries]))
        if "change" in entries[0]["trace"]:
            ratios = [e["trace/change_half_width"][1:] / np.hypot(e["trace/half_width"][1:], e["trace/half_width"][:-1]) for e in entries]
            summary[f"half width of the change over that of two traces' difference, {kind}, median"] = float(np.nanmedian(ratios))
    return summary, misses


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoints", type=int, default=15)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--seeds", type=int, default=7, help="with which each checkpoint is taken")
    parser.add_argument("--keep", action="store_true", help="the dense matrices too")
    parser.add_argument("--stage", choices=("train", "exact", "run", "judge", "all"), default="all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for stage, action in (("train", train_digits), ("exact", exact), ("run", run)):
        if args.stage in (stage, "all") and not (stage == "train" and (args.folder / "model.pt2").exists()):
            action(args.folder, args)
    if args.stage in ("judge", "all"):
        summary, misses = judge(args.folder, args)
        print(json.dumps(summary, indent=1))
        for miss in misses:
            print("missed", *miss)
        if args.json:
            args.json.write_text(json.dumps({"summary": summary, "misses": misses}, indent=1) + "\n")


if __name__ == "__main__":
    main()
