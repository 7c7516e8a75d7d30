"""Seconds of a product on one rank and on two, a core each, in turn, and what the machine itself allows.

    .venv/bin/python bench/versus/ranks.py BINARY MODEL-OPTIONS…       as `hesspect density` takes them; both cores must be quiet

Density runs of a fixed number of steps; what is compared is `hvp_seconds / hvp_count` of the results, wall time. Third in each turn are two runs of one
rank at the same time, which share nothing but the machine: memory, cache and clock make both slower than one alone, and 2 x (one alone / the two) is a
ceiling that no division of the work exceeds.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, STEPS = 5, "8"


def begun(launcher, binary, options, output):
    fixed = ["--density-w1", "0", "--rtol-trace", "0", "--probes", "1", "--steps", STEPS, "--threads", "1", "--groups", "1", "--quiet", "--force"]
    command = [*launcher, binary, "density", *options, *fixed, "--output", output]
    return subprocess.Popen([str(word) for word in command], env=os.environ | {"OMP_NUM_THREADS": "1"})


def product_s(process, output):
    import h5py

    if process.wait() not in (0, 3):
        sys.exit(f"exit code {process.returncode}")
    with h5py.File(output) as file:
        found = file["entry/diagnostics"]
        return found["hvp_seconds"][()] / found["hvp_count"][()]


def main(binary, *options):
    one, two, beside = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "first.h5", Path(folder) / "second.h5"]
        pinned = lambda core: ["taskset", "-c", str(core)]
        for turn in range(ROUNDS):
            one.append(product_s(begun(pinned(1), binary, options, files[0]), files[0]))
            two.append(product_s(begun([ROOT / "launch" / "mpirun.sh", "-n", "2"], binary, options, files[0]), files[0]))
            copies = [begun(pinned(core), binary, options, file) for core, file in enumerate(files)]
            beside.append(statistics.mean(product_s(copy, file) for copy, file in zip(copies, files, strict=True)))
            print(f"{turn}: one rank {one[-1]:.4f} s, two {two[-1]:.4f} s, {one[-1] / two[-1]:.3f} times; two copies {beside[-1]:.4f} s, "
                  f"ceiling {2 * one[-1] / beside[-1]:.3f}; load {os.getloadavg()[0]:.1f}", flush=True)
    for name, ratios in {"two ranks over one": [a / b for a, b in zip(one, two)], "the machine's ceiling": [2 * a / b for a, b in zip(one, beside)]}.items():
        print(f"{name}: {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
    print(f"medians: {statistics.median(one):.4f} s, {statistics.median(two):.4f} s, {statistics.median(beside):.4f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
