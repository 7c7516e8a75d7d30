"""Seconds of a product on one rank and on two, a core each, in turn.

    .venv/bin/python bench/versus/ranks.py BINARY MODEL-OPTIONS…       as `hesspect density` takes them; both cores must be quiet

Density runs of a fixed number of steps; what is compared is `hvp_seconds / hvp_count` of the results, wall time.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, STEPS = 5, "8"


def product_s(binary, options, ranks, folder):
    import h5py

    output = Path(folder) / f"{ranks}.h5"
    command = [ROOT / "launch" / "mpirun.sh", "-n", str(ranks)] if ranks > 1 else ["taskset", "-c", "1"]
    fixed = ["--density-w1", "0", "--rtol-trace", "0", "--probes", "1", "--steps", STEPS, "--threads", "1", "--groups", "1", "--quiet", "--force"]
    subprocess.run([*command, binary, "density", *options, *fixed, "--output", output], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    with h5py.File(output) as file:
        found = file["entry/diagnostics"]
        return found["hvp_seconds"][()] / found["hvp_count"][()]


def main(binary, *options):
    one, two = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS):
            one.append(product_s(binary, options, 1, folder))
            two.append(product_s(binary, options, 2, folder))
            print(f"{turn}: one rank {one[-1]:.4f} s, two {two[-1]:.4f} s, {one[-1] / two[-1]:.3f} times, load {os.getloadavg()[0]:.1f}", flush=True)
    ratios = [a / b for a, b in zip(one, two)]
    print(f"medians: {statistics.median(one):.4f} s, {statistics.median(two):.4f} s; ratio {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
