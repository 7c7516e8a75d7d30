#!/usr/bin/env python3
"""Many small jobs through one `hesspect serve`: whether its memory stays flat, and what a job costs beside its products.

    bench/service/jobs.py [--jobs 1000] [--ranks 1] [--output bench/results/DATE-service-jobs.json]

What the issue asks for: resident memory of rank 0 flat to 2 % after the first tenth of the jobs, and less than 50 ms a job (median) beside its products.
A job's cost is the time from the end of the job before to its own end, as the records in `done` have it; its products' time is the result's own
`hvp_seconds`, the wall time inside its products. Where other work disturbs the clock, the service's CPU seconds a job are given beside it. Needs HESSPECT_BIN and HESSPECT_FIXTURES, as the tests do.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py

BIN, FIXTURES = os.environ["HESSPECT_BIN"], Path(os.environ["HESSPECT_FIXTURES"])
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--quiet"]
OPTIONS = {"command": "analyze", "model": FIXTURES / "mlp_ce.pt2", "data": FIXTURES / "mlp_ce.data.h5", "loss": "cross_entropy", "dtype": "float64", "top": 2,
           "bottom": 1, "rtol-trace": 0, "density-w1": 0, "steps": 8, "threads": 1}


def environment():
    return {**{k: v for k, v in os.environ.items() if not k.startswith("HESSPECT_")}, "OMP_NUM_THREADS": "1"}


def resident_mib(pid):
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def cpu_seconds(pid):
    """User's and system's, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rank_0(pid, ranks):
    if ranks == 1:
        return pid
    found = subprocess.run(["pgrep", "-P", str(pid), "-x", "hesspect"], capture_output=True, text=True).stdout.split()
    return int(found[0]) if found else None


def drop(spool, number):
    """As `submit` would, without its process: the ids have its form, so that they are taken at once."""
    head = f"[job]\nname = {number}\ncommand = {OPTIONS['command']}\nsubmitted = {time.time():.6f}\n"
    text = head + "[options]\n" + "".join(f"{key} = {value}\n" for key, value in OPTIONS.items() if key != "command")
    name = f"20260101-{number // 10000:06d}-{number % 1000:03d}-{number:06x}.ini"
    (spool / "incoming" / f".{name}").write_text(text)
    (spool / "incoming" / f".{name}").rename(spool / "incoming" / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hesspect_jobs_") as folder:
        spool = Path(folder) / "spool"
        for sub in ("incoming", "done", "failed"):
            (spool / sub).mkdir(parents=True)
        for number in range(asked.jobs):
            drop(spool, number)
        command = [BIN, "serve", "--spool", str(spool), "--allow", "/", "--until-empty", "--quiet"]
        started = time.monotonic()
        service = subprocess.Popen([*MPIRUN, "-n", str(asked.ranks), *command] if asked.ranks > 1 else command, env=environment())
        memory, used = [], []
        while service.poll() is None:
            time.sleep(0.5)
            try:
                pid = rank_0(service.pid, asked.ranks)
                done = len(list((spool / "done").glob("*.ini")))
                memory.append((done, resident_mib(pid)))
                used.append((done, cpu_seconds(pid)))
            except (OSError, KeyError, TypeError):
                continue
        elapsed = time.monotonic() - started
        records = sorted((json.loads(path.read_text()) for path in (spool / "done").glob("*.json")), key=lambda job: job["ended"])
        cost, beside, in_products = [], [], []
        for before, job in zip(records, records[1:]):
            with h5py.File(job["output"]) as f:
                in_products.append(float(f["entry/diagnostics/hvp_seconds"][()]))
            cost.append(job["ended"] - before["ended"])
            beside.append(cost[-1] - in_products[-1])
    (first, used_before), (last, used_after) = (next(pair for pair in used if pair[0] >= asked.jobs // 10), used[-1])
    settled = [mib for jobs, mib in memory if jobs >= asked.jobs // 10]
    figures = {"date": datetime.date.today().isoformat(), "machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "ranks": asked.ranks,
               "jobs": asked.jobs, "done": len(records), "exit_code": service.returncode, "seconds": round(elapsed, 1),
               "seconds_a_job_median": statistics.median(cost), "seconds_beside_products_median": statistics.median(beside),
               "seconds_in_products_median": statistics.median(in_products), "cpu_seconds_a_job": (used_after - used_before) / max(1, last - first),
               "seconds_beside_products_p95": sorted(beside)[int(0.95 * len(beside))],
               "memory_mib_after_a_tenth": settled[0] if settled else None, "memory_mib_at_the_end": settled[-1] if settled else None,
               "memory_growth": settled[-1] / settled[0] - 1 if settled else None}
    text = json.dumps(figures, indent=1)
    print(text)
    if asked.output:
        asked.output.write_text(text + "\n")
    return 0 if len(records) == asked.jobs else 1


if __name__ == "__main__":
    sys.exit(main())
