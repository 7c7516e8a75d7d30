"""Seconds of a product with sharded parameters over one with all of them on every rank, in segments too, in turn.

    .venv/bin/python bench/scale/shards.py BINARY RANKS MODEL-OPTIONS…     as `hesspect density` takes them; on a quiet machine

Density runs of a fixed number of steps, without a basis; what is compared is `hvp_seconds / hvp_count` of the results, wall time.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, STEPS = 5, "6"
WAYS = {"replicated": ["--parameters", "replicated", "--product", "segments"], "sharded": ["--parameters", "sharded", "--fetch-ahead", "off"],
        "sharded, ahead": ["--parameters", "sharded", "--fetch-ahead", "on"]}


def product_s(binary, ranks, options, way, folder):
    output = Path(folder) / "result.h5"
    fixed = ["--density-w1", "0", "--rtol-trace", "0", "--probes", "1", "--steps", STEPS, "--threads", "1", "--groups", "1", "--quiet", "--force",
             "--reorthogonalization", "none"]
    subprocess.run([ROOT / "launch" / "mpirun.sh", "-n", ranks, binary, "density", *options, *fixed, *WAYS[way], "--output", output], check=True,
                   env=os.environ | {"OMP_NUM_THREADS": "1"})
    with h5py.File(output) as file:
        found = file["entry/diagnostics"]
        return found["hvp_seconds"][()] / found["hvp_count"][()]


def main(binary, ranks, *options):
    seconds = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS):
            for way in WAYS:
                seconds[way].append(product_s(binary, ranks, options, way, folder))
            print(f"{turn}: " + ", ".join(f"{way} {all_s[-1]:.3f} s" for way, all_s in seconds.items()) + f", load {os.getloadavg()[0]:.1f}", flush=True)
    for way in list(WAYS)[1:]:
        ratios = [a / b for a, b in zip(seconds[way], seconds["replicated"])]
        print(f"{way}: {statistics.median(seconds[way]):.3f} s, {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}) times replicated")


if __name__ == "__main__":
    main(*sys.argv[1:])
