#!/usr/bin/env python3
"""Six trainings of one CNN on the same digits, their curvature, and how they bear noise (docs/studies/cnn-trainings.md).

    .venv/bin/python docs/studies/cnn_trainings.py runs/cnn-study --seeds 2

Trains, runs `hesspect analyze`, `sharpness` and `inputs` on the same 500 training rows with their true labels, measures
accuracy on test digits as they are and corrupted, and writes it all to FOLDER/table.json and as a table.
"""

import argparse
import json
import subprocess
from pathlib import Path

import h5py
import numpy as np
import torch
from hesspect.workloads import cnn, common

# Trainings: batch, share of labels drawn anew, epochs.
TRAININGS = {"plain": (64, 0, 6), "label noise": (64, 0.3, 6), "small batch": (8, 0, 6), "large batch": (1000, 0, 6), "large batch, 40 passes": (1000, 0, 40),
             "long": (64, 0, 18)}
ROWS = 4000


def corruptions(images):
    """The test images, normalised, under each corruption; of fixed seeds."""
    generator = np.random.default_rng(7)
    low, high = images.min(), images.max()
    yield "clean", images
    for level in (0.5, 1.0):
        yield f"noise {level}", (images + level * generator.standard_normal(images.shape)).astype(np.float32)
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=low)
    yield "shift 2", padded[:, :, 4:, 4:]
    blurred = sum(padded[:, :, i : i + 28, j : j + 28] for i in range(5) for j in range(5)) / 25
    yield "blur 5x5", blurred.astype(np.float32)
    yield "contrast 0.4", (0.4 * images + 0.6 * images.mean()).astype(np.float32)
    hidden = images.copy()
    for image in hidden:
        top, left = generator.integers(4, 18, 2)
        image[:, top : top + 7, left : left + 7] = high
    yield "patch 7x7", hidden


def number(path, name, index=None):
    with h5py.File(path) as f:
        if name not in f["entry"]:
            return None
        value = f["entry"][name][()]
    return float(value if index is None else value[index])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(TRAININGS), help="these trainings alone, added to the table")
    parser.add_argument("--hesspect", default="build/release/bin/hesspect")
    args = parser.parse_args()
    images, labels = cnn.load()
    file = args.folder / "table.json"
    table = [row for row in (json.loads(file.read_text()) if file.exists() else []) if row["training"] not in args.only]
    for seed in range(args.seeds):
        for name in args.only:
            batch, share, epochs = TRAININGS[name]
            torch.manual_seed(seed)
            seen = labels[:ROWS].copy()
            generator = np.random.default_rng(seed)
            drawn = generator.random(ROWS) < share
            seen[drawn] = generator.integers(0, 10, drawn.sum())
            model = cnn.train(cnn.DigitNet(), images[:ROWS], seen, epochs, seed, batch)
            row = {"training": name, "seed": seed, "train_accuracy": cnn.accuracy(model, images[:ROWS], labels[:ROWS])}
            row["accuracy"] = {kind: cnn.accuracy(model, x, labels[ROWS:]) for kind, x in corruptions(images[ROWS:])}
            folder = args.folder / f"{name.replace(', ', '_').replace(' ', '_')}-{seed}"
            common.write(common.Workload(name, model, {"image": images[:ROWS]}, labels[:ROWS], "cross_entropy", ""), folder)
            given = ["--model", folder / "model.pt2", "--weights", folder / "weights.safetensors", "--data", folder / "data.h5",
                     "--loss", "cross_entropy", "--samples", "500", "--micro-batch", "100", "--seed", "0", "--force"]
            for verb, more in (("analyze", ["--top", "5", "--bottom", "1", "--rtol-trace", "0.04", "--density-w1", "0.04"]),
                               ("sharpness", []), ("inputs", [])):
                done = subprocess.run([str(a) for a in (args.hesspect, verb, *given, *more, "--output", folder / f"{verb}.h5")],
                                      capture_output=True, text=True)
                if done.returncode not in (0, 3):
                    raise SystemExit(done.stderr)
            analysis, sharpness, inputs = (folder / f"{verb}.h5" for verb in ("analyze", "sharpness", "inputs"))
            row["lambda_1"] = [number(analysis, "eigenvalues/eigenvalue", 0), number(analysis, "eigenvalues/error", 0)]
            row["trace"] = [number(analysis, "trace/value"), number(analysis, "trace/half_width")]
            row["loss"] = number(analysis, "diagnostics/loss")
            row["files"] = [str(p) for p in (analysis, sharpness, inputs)]
            with h5py.File(inputs) as f:
                row["input_lambda"] = float(np.median(f["entry/inputs/rows/largest"][()]))
                row["input_gradient"] = float(np.median(f["entry/inputs/rows/gradient_norm"][()]))
            with h5py.File(sharpness) as f:
                group = f["entry/sharpness"]
                row["sharpness"] = {k: np.asarray(group[k][()]).tolist() for k in ("rho", "adaptive", "rise_gradient", "rise_eigenvector", "critical_step")
                                    if k in group}
            table.append(row)
            file.write_text(json.dumps(table, indent=1))
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
