"""Makes runs, each in a process of its own, and keeps them as JSON lines."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import problems

HERE = Path(__file__).resolve().parent
# What hesspect sets for itself (src/app/process.cpp): without it a third of a product's time is page faults, the peers' too.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_TOP_PAD_": str(64 << 20)}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
               "HF_HUB_OFFLINE": "1"}


def run_peer(problem, run, tasks, seed):
    request = {"problem": problem, "tool": run.tool, "seed": seed, "options": run.options, "tasks": {t: run.tasks[t] for t in tasks}}
    done = subprocess.run([sys.executable, HERE / "peer_run.py"], input=json.dumps(request), capture_output=True, text=True,
                          env=os.environ | ENVIRONMENT | ALLOCATOR)
    if done.returncode != 0:
        raise RuntimeError(f"{run.tool} {run.label} on {problem}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def waited(command):
    """(exit code, core-seconds, wall seconds, stderr) of a child."""
    with tempfile.TemporaryFile("w+") as said:
        started = time.monotonic()
        child = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - started
        said.seek(0)
        return child.returncode, usage.ru_utime + usage.ru_stime, wall, said.read()


def start_up(binary, arguments):
    """Core-seconds that loading the libraries and reading the model takes: `hesspect inspect MODEL`."""
    return min(waited([binary, "inspect", arguments[1]])[1] for _ in range(3))


def run_hesspect(binary, problem, arguments, run, seed):
    import h5py

    with tempfile.TemporaryDirectory(dir=problems.MADE) as folder:
        output = os.path.join(folder, "result.h5")
        command = [binary, *run.command, *arguments, "--threads", "1", "--seed", str(seed), "--output", output, "--quiet"]
        code, core, wall, said = waited(command)
        if code not in (0, 3):
            raise RuntimeError(f"{' '.join(command)}\nended with {code}: {said[-2000:]}")
        task, = run.tasks
        found = {"core_s": core, "wall_s": wall, "exit": code}
        with h5py.File(output) as file:
            entry = file["entry"]
            get = lambda name: np.asarray(entry[name][()], dtype=np.float64).tolist() if name in entry else None
            found["products"] = int(entry["diagnostics/hvp_count"][()])
            found["peak_bytes"] = int(entry["diagnostics/peak_memory_bytes"][()])
            found |= {name: get(f"diagnostics/{name}") for name in ("hvp_seconds", "elapsed_seconds", "gradient_seconds")}
            if task in ("top", "together"):
                found["values"] = get("eigenvalues/eigenvalue")[:10]
            if task in ("trace", "together"):
                found |= {"estimate": get("trace/value"), "half_width": get("trace/half_width")}
            if task in ("density", "together"):
                found |= {"lambda": get("cumulative/lambda"), "cumulative": get("cumulative/cumulative"), "w1_bound": get("cumulative/w1"),
                          "ritz": get("quadrature/ritz"), "weight": get("quadrature/weight")}
        return {"tasks": {task: found}}


def make(binary, plan, seeds, only, tools, tasks, output):
    """Runs what is asked for, the tools in turn, and appends a line for each run to `output`."""
    for problem in only:
        arguments = problems.problem(problem).arguments
        start = start_up(binary, arguments) if "hesspect" in tools else None
        for seed in seeds(problem):
            for run in plan[problem]:
                wanted = [t for t in run.tasks if t in tasks or (run.tool != "hesspect" and "together" in tasks)]
                if run.tool not in tools or not wanted or seed >= run.first_seeds:
                    continue
                load, began = os.getloadavg()[0], time.monotonic()
                try:
                    found = run_hesspect(binary, problem, arguments, run, seed) if run.tool == "hesspect" else run_peer(problem, run, wanted, seed)
                except RuntimeError as error:
                    print(error, file=sys.stderr, flush=True)
                    continue
                if run.tool == "hesspect":
                    found["start_s"] = start
                line = {"problem": problem, "tool": run.tool, "label": run.label, "seed": seed, "load": load,
                        "date": time.strftime("%Y-%m-%d %H:%M")} | found
                with open(output, "a") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{problem} seed {seed} {run.tool} {run.label}: "
                      + ", ".join(f"{t} {d['products']} products {d['core_s']:.2f} s" for t, d in found["tasks"].items())
                      + f" ({time.monotonic() - began:.0f} s, load {load:.1f})", flush=True)
