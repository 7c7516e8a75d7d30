"""What Lanczos without re-orthogonalisation costs and gives: eigenvalues, ghosts, true residuals by a second pass, beside full re-orthogonalisation.

    .venv/bin/python bench/scale/two_pass.py BINARY STEPS,STEPS,… MODEL-OPTIONS…     as `hesspect eigs` takes them

Both take the same number of steps from the same start vector (--rtol-eigs 1e-15 is never met). A table: the largest difference of the two lists over the largest
eigenvalue, over those that both call converged at 1e-3; true residuals over the largest eigenvalue; products; Lanczos vectors held.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np


def run(binary, options, steps, way, folder):
    output = Path(folder) / "result.h5"
    subprocess.run([binary, "eigs", *options, "--top", "10", "--bottom", "0", "--max-steps", steps, "--rtol-eigs", "1e-15", "--true-residuals",
                    "--reorthogonalization", way, "--quiet", "--force", "--output", output], check=False)
    with h5py.File(output) as file:
        eigen, found = file["entry/eigenvalues"], file["entry/diagnostics"]
        return {"value": eigen["eigenvalue"][()], "residual": eigen["true_residual"][()], "bound": eigen["residual"][()],
                "products": int(found["hvp_count"][()]), "bytes": int(found["peak_memory_bytes"][()]) if "peak_memory_bytes" in found else 0}


def main(binary, steps, *options):
    print("| steps | converged to 1e-3: full, none | values differ by | true residual of those: full | none | products: full, none |")
    print("|" + " --- |" * 6)
    with tempfile.TemporaryDirectory() as folder:
        for count in steps.split(","):
            full, none = (run(binary, options, count, way, folder) for way in ("full", "none"))
            scale = full["value"][0]
            good = {name: int(np.sum(one["residual"] < 1e-3 * scale)) for name, one in (("full", full), ("none", none))}
            both = min(good.values())
            differ = np.max(np.abs(full["value"][:both] - none["value"][:both])) / scale if both else float("nan")
            worst = {name: np.max(one["residual"][:both]) / scale if both else float("nan") for name, one in (("full", full), ("none", none))}
            print(f"| {count} | {good['full']}, {good['none']} | {differ:.1e} | {worst['full']:.1e} | {worst['none']:.1e} | {full['products']}, {none['products']} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
