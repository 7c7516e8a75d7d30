"""Seconds a product on a device, tools in turn: hesspect in each precision, and PyHessian with its graph kept.

    compare.py --make PROBLEM...                                       trains and exports bench/versus/made.py's models
    compare.py --hesspect BINARY --table FILE [--device cuda] PROBLEM...

hesspect's is `hvp_seconds` over `hvp_count` of a short `density`; PyHessian's the median of a dozen products, each waited for.
Before that both tell the same: the first Ritz moments of hesspect in fp32 on the device against the CPU's, to 1e-3.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "versus"))
PRECISIONS = ("fp32", "tf32", "bf16")
STEPS = 20


def hesspect(binary, problem, device, precision):
    """(seconds a product, the largest Ritz value), or what it said where it ended otherwise."""
    import h5py
    import numpy

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.h5"
        command = [binary, "density", *problem.arguments, "--device", device, "--steps", str(STEPS), "--probes", "1", "--max-hvps", "60",
                   "--output", result, "--quiet", *(["--precision", precision] if precision != "fp32" else [])]
        ended = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if ended.returncode not in (0, 3):
            return None, (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1][:150]
        with h5py.File(result) as file:
            found = {}
            file.visititems(lambda name, item: found.__setitem__(name.rsplit("/", 1)[-1], item[()]) if isinstance(item, h5py.Dataset) else None)
        return float(found["hvp_seconds"]) / float(found["hvp_count"]), float(numpy.nanmax(found["ritz"]))


def pyhessian(problem, device, tf32):
    import problems
    import product_peer
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    problem.model.to(device)
    problem.batches = [(problems.TupleInput(x.to(device) for x in inputs.tensors), target.to(device)) for inputs, target in problem.batches]
    product, wait = product_peer.make("pyhessian", problem), torch.cuda.synchronize if device == "cuda" else lambda: None
    vector, seconds = [torch.randn_like(p) for p in problem.parameters], []
    for _ in range(14):
        wait()
        started = time.monotonic()
        product(vector)
        wait()
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds[2:])


def rows_of(name, binary, device):
    import problems

    cpu = hesspect(binary, problems.problem(name), "cpu", "fp32")
    for precision in PRECISIONS:
        seconds, said = hesspect(binary, problems.problem(name), device, precision)
        if seconds is None:
            yield f"hesspect, {precision}", None, said
            continue
        far = abs(said - cpu[1]) / abs(cpu[1])
        yield f"hesspect, {precision}", seconds, f"largest Ritz value {far:.1e} from the CPU's"
        if precision == "fp32" and not far < 1e-3:
            raise SystemExit(f"{name}: hesspect on {device} has {said}, on the CPU {cpu[1]}")
    for tf32 in (False, True):
        yield f"PyHessian, {'tf32' if tf32 else 'fp32'}", pyhessian(problems.problem(name), device, tf32), ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("problems", nargs="+")
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--hesspect")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    import problems

    for name in arguments.problems:
        if arguments.make:
            problem = problems.problem(name)
            print(f"{name}: {problem.n:,} parameters", flush=True)
            continue
        lines = [f"## {name}\n", "| | ms a product | over hesspect, fp32 | |", "| --- | --- | --- | --- |"]
        first = None
        for who, seconds, said in rows_of(name, arguments.hesspect, arguments.device):
            first = first or seconds
            lines.append(f"| {who} | {1e3 * seconds:.3g} | {seconds / first:.2f} | {said} |" if seconds else f"| {who} | | | {said} |")
            print(lines[-1], flush=True)
        with open(arguments.table, "a") as file:
            file.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
