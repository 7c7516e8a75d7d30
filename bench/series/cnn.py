#!/usr/bin/env python3
"""Products of a series along a training run of the CNN workload, beside fresh runs of the same accuracy.

    cnn.py FOLDER [--checkpoints N] [--every STEPS] [--options ...]    needs HESSPECT_BIN

Trains the digits' CNN with a checkpoint every so many steps, exports it once, runs `hesspect series` over the
checkpoints, warm, and with --warm=false, and `hesspect analyze` with a tenth of the tolerances on each as the reference.
Prints products for each, and how many of the warm figures' intervals hold the reference's.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
from digit_training import train

from hesspect.workloads.cnn import load

BIN = os.environ["HESSPECT_BIN"]


def run(*args):
    done = subprocess.run([BIN, *map(str, args)], stderr=subprocess.PIPE, text=True, env={k: v for k, v in os.environ.items() if not k.startswith("HESSPECT_")} | {"OMP_NUM_THREADS": "1"})
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    return done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1000, help="of the training data, that the curvature is of")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-reference", action="store_true")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[])
    args = parser.parse_args()
    if not (args.folder / "model.pt2").exists():
        steps = [args.first + i * args.every for i in range(args.checkpoints)]
        train(args.folder, (8, 16, 32), *load(), steps=steps, lr=args.lr, kept=args.rows)
    common = ["--model", args.folder / "model.pt2", "--data", args.folder / "data.h5", "--loss", "cross_entropy", *args.options]
    series = {}
    for name, more in {"warm": [], "fresh": ["--warm=false"]}.items():
        series[name] = args.folder / f"{name}.h5"
        run("series", *common, "--checkpoints", args.folder / "ckpt", "--output", series[name], "--force", *more)
    table = []
    with h5py.File(series["warm"]) as w, h5py.File(series["fresh"]) as f:
        warm, fresh = w["entry"], f["entry"]
        for i, step in enumerate(warm["checkpoints/step"][()]):
            row = {"step": int(step), "warm": int(warm["checkpoints/products"][i]), "fresh": int(fresh["checkpoints/products"][i]),
                   "began_fresh": bool(warm["checkpoints/fresh"][i]), "overlap": float(warm["overlap/subspace"][i]),
                   "seconds_warm": float(warm["checkpoints/seconds"][i]), "seconds_fresh": float(fresh["checkpoints/seconds"][i])}
            if not args.no_reference:
                exact = args.folder / f"exact-{step}.h5"
                if not exact.exists():
                    run("analyze", *common, "--weights", args.folder / "ckpt" / f"step-{step}.safetensors", "--output", exact, "--rtol-eigs", "1e-6",
                        "--max-steps", "400", "--rtol-trace", "0.002", "--seed", "99", "--max-hvps", "0")
                with h5py.File(exact) as e:
                    value = e["entry/eigenvalues/eigenvalue"][()]
                    here = (warm["eigenvalues/lower"][i] <= value) & (value <= warm["eigenvalues/upper"][i])
                    row["eigenvalues_within"], row["eigenvalues"] = int(here.sum()), len(value)
                    with h5py.File(args.folder / warm["checkpoints/result"][i].decode()) as r:
                        half, trace = float(r["entry/trace/half_width"][()]), float(r["entry/trace/value"][()])
                    row["trace_within"] = bool(abs(trace - float(e["entry/trace/value"][()])) <= half)
            table.append(row)
            print(json.dumps(row), flush=True)
    later = [row for row in table if not row["began_fresh"]]
    summary = {"share": float(np.mean([row["warm"] / row["fresh"] for row in later])) if later else None,
               "products_warm": sum(row["warm"] for row in table), "products_fresh": sum(row["fresh"] for row in table), "table": table}
    if not args.no_reference:
        summary["eigenvalues_within"] = sum(row["eigenvalues_within"] for row in table) / sum(row["eigenvalues"] for row in table)
        summary["traces_within"] = sum(row["trace_within"] for row in table) / len(table)
    print(json.dumps({k: v for k, v in summary.items() if k != "table"}))
    if args.json:
        args.json.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
