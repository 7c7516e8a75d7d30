#!/usr/bin/env python3
"""Runs hesspect over workloads and layouts and prints what each run cost beside what its plan had said, as a table.

    bench/grid/run.py BINARY forecast        # forecast and measured: memory, time, product
    bench/grid/run.py BINARY grid            # one run on several layouts of ranks and probes
    bench/grid/run.py BINARY CASE...         # the named cases alone (--list prints them all)

Run from the repository's root after launch/workloads, with h5py at hand. Every case runs --repeats times; the row shown
is the run of median wall time. README.md beside this file has the motivation.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

import h5py

MPIRUN = "mpirun --allow-run-as-root --oversubscribe --bind-to none -n".split()
# As many steps for the eigenvalues as for the density, so that the number of products is known beforehand.
CNN = ["--config", "configs/cnn.ini", "--steps", "12", "--max-steps", "12"]
WIDEDEEP = ["--config", "configs/widedeep.ini", "--steps", "40", "--max-steps", "40"]
MINILM = ["--config", "configs/minilm.ini", "--samples", "32", "--steps", "16", "--max-steps", "16"]
GRID = ["--config", "configs/cnn.ini", "--probes", "8", "--steps", "6", "--max-steps", "6"]


def forecast_cases():
    """name -> (ranks, options)"""
    cases = {}
    layouts = {"1": (1, []), "2x1": (2, ["--groups", "2"]), "1x2": (2, ["--groups", "1"])}
    for work, base in (("cnn", CNN), ("widedeep", WIDEDEEP), ("minilm", MINILM)):
        for name, (ranks, options) in layouts.items():
            if work == "minilm" and name == "2x1":
                continue  # it has one probe
            cases[f"{work} {name}"] = (ranks, base + options)
        cases[f"{work} 1x2, rebuilt"] = (2, base + ["--groups", "1", "--graph-memory", "0"])
        if work != "minilm":
            cases[f"{work} 1x2, K=3"] = (2, base + ["--groups", "1", "--lock-step", "3"])
            cases[f"{work} 1, K=3 rebuilt"] = (1, base + ["--lock-step", "3", "--graph-memory", "0"])
    return cases


def grid_cases():
    cases = {}
    for name, ranks, groups in (("1", 1, 1), ("2x1", 2, 2), ("1x2", 2, 1)):
        for k in (1, 2, 3, 4):
            options = GRID + ["--groups", str(groups), "--lock-step", str(k)]
            cases[f"grid {name} K={k}"] = (ranks, options)
    return cases


def run(binary, ranks, options, folder):
    """The diagnostics of one run, and seconds of it and of its start-up, as a dict."""
    output = os.path.join(folder, "result.h5")
    command = MPIRUN + [str(ranks), binary, "analyze", *options, "--threads", "1", "--output", output, "--force"]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    start, said, start_up = time.monotonic(), [], 0
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            said.append(line)
            if "in micro-batches of" in line:  # the run's first line: read, planned, first pass done
                start_up = time.monotonic() - start
    if process.returncode not in (0, 3):  # 3: eigenvalues have not converged, which is no matter here
        sys.exit(f"{' '.join(command)}\nended with {process.returncode}:\n{''.join(said)}")
    with h5py.File(output) as file:
        found = {name: dataset[()] for name, dataset in file["entry/diagnostics"].items() if dataset.ndim == 0}
    return found | {"wall": time.monotonic() - start, "start-up": start_up}


def median_run(binary, ranks, options, repeats):
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(binary, ranks, options, folder) for _ in range(repeats)]
    return sorted(runs, key=lambda d: d["wall"])[len(runs) // 2]


FORECAST_COLUMNS = ["case", "micro-batch, graphs", "MiB forecast", "peak", "ratio", "ms a product forecast", "measured",
                    "s forecast", "measured after start-up", "whole", "in products of the former", "of the whole",
                    "gradients", "load"]


def forecast_row(name, d, load):
    memory, peak = d["forecast_memory_bytes"] / 2**20, d["peak_memory_bytes"] / 2**20
    product, in_products = d["hvp_seconds"] / d["hvp_count"], d["hvp_seconds"] / d["groups"]
    after = d["wall"] - d["start-up"]
    return [name, f"{d['micro_batch']}, {d['kept_graphs']}/{d['micro_batches']}", f"{memory:.0f}", f"{peak:.0f}",
            f"{memory / peak:.2f}", f"{1e3 * d['forecast_hvp_seconds']:.0f}", f"{1e3 * product:.0f}",
            f"{d['forecast_seconds']:.1f}", f"{after:.1f}", f"{d['wall']:.1f}", f"{in_products / after:.2f}", f"{in_products / d['wall']:.2f}",
            f"{d['cost_in_gradients']:.2f}", f"{load:.1f}"]


GRID_COLUMNS = ["case", "s after start-up", "whole", "products", "products/s", "ms a product", "in messages", "gradients", "load"]


def grid_row(name, d, load):
    product = d["hvp_seconds"] / d["hvp_count"]
    after = d["wall"] - d["start-up"]
    return [name.removeprefix("grid "), f"{after:.1f}", f"{d['wall']:.1f}", str(d["hvp_count"]),
            f"{d['hvp_count'] / after:.1f}", f"{1e3 * product:.0f}",
            f"{d['communication_seconds'] / d['hvp_seconds']:.3f}", f"{d['cost_in_gradients']:.2f}", f"{load:.1f}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary")
    parser.add_argument("cases", nargs="*", help="forecast, grid, or names of cases")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    groups = {"forecast": forecast_cases(), "grid": grid_cases()}
    every = groups["forecast"] | groups["grid"]
    if arguments.list:
        print("\n".join(every))
        return
    wanted = [case for asked in arguments.cases for case in groups.get(asked, [asked])]
    if not wanted:
        parser.error("name forecast, grid or cases")
    grid = wanted[0].startswith("grid ")
    columns, row = (GRID_COLUMNS, grid_row) if grid else (FORECAST_COLUMNS, forecast_row)
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns), flush=True)
    for name in wanted:
        ranks, options = every[name]
        result = median_run(arguments.binary, ranks, options, arguments.repeats)
        print("| " + " | ".join(row(name, result, os.getloadavg()[0])) + " |", flush=True)


if __name__ == "__main__":
    main()
