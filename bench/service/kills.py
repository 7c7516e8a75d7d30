#!/usr/bin/env python3
"""Kills ranks, the launcher and the service (SIGKILL) at random moments while jobs arrive, and counts what became of the jobs.

    bench/service/kills.py [--kills 200] [--seed 0] [--output bench/results/DATE-service-kills.json]

`hesspect run --ranks 2 serve` is the service; where it is killed itself, it is started again, as whoever looks after it would. At the end every job
must lie in one folder alone, `done` with a result that can be read, or given up as one that killed two services (they are counted; jobs are so short
and kills so many that this happens). `lost`: a job that lies nowhere. `twice`: one that lies in two folders, or whose result was written after it had
ended. `broken`: a result or record that can't be read, or differs from an undisturbed one's. Needs HESSPECT_BIN and HESSPECT_FIXTURES.
"""

import argparse
import datetime
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from jobs import BIN, FIXTURES, environment

OPTIONS = {"model": FIXTURES / "gpt2.pt2", "data": FIXTURES / "gpt2.data.h5", "loss": "causal_lm", "dtype": "float64", "micro-batch": 1, "probes": 2, "steps": 12,
           "top": 2, "bottom": 1, "max-steps": 16, "rtol-trace": 0, "density-w1": 0, "threads": 1, "checkpoint-minutes": 0}
FOLDERS = ("incoming", "claimed", "done", "failed", "cancelled")
FIELDS = ("quadrature/alpha", "quadrature/beta", "eigenvalues/eigenvalue", "trace/value")


def below(pid):
    """Processes of the tree below one, with their names."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True).stdout
    table = [line.split(None, 2) for line in listed.splitlines()]
    under, names = {str(pid)}, {}
    for _ in range(5):
        for one, parent, name in table:
            if parent in under:
                under.add(one)
                names[int(one)] = name
    return names


def numbers(path):
    with h5py.File(path) as f:
        return [f["entry"][name][()] for name in FIELDS]


def drop(spool, number):
    text = f"[job]\nname = {number}\ncommand = analyze\nsubmitted = {time.time():.6f}\n[options]\n" + "".join(f"{k} = {v}\n" for k, v in OPTIONS.items())
    name = f"20260101-{number // 10000:06d}-{number % 1000:03d}-{number:06x}.ini"
    (spool / "incoming" / f".{name}").write_text(text)
    (spool / "incoming" / f".{name}").rename(spool / "incoming" / name)
    return name.removesuffix(".ini")


def start(spool):
    return subprocess.Popen([BIN, "run", "--ranks", "2", "serve", "--spool", str(spool), "--allow", "/", "--poll", "0.1"], env=environment(),
                            stdout=subprocess.DEVNULL, stderr=open(spool.parent / "service.log", "a"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory(prefix="hesspect_kills_") as folder:
        spool = Path(folder) / "spool"
        (spool / "incoming").mkdir(parents=True)
        first = drop(spool, 0)
        subprocess.run([BIN, "run", "--ranks", "2", "serve", "--spool", str(spool), "--allow", "/", "--until-empty", "--quiet"], env=environment(), check=True)
        reference = numbers(spool / "done" / f"{first}.h5")
        jobs, kinds, began = [first], {"rank": 0, "launcher": 0, "service": 0}, time.monotonic()
        service = start(spool)
        for kill in range(asked.kills):
            while len(list((spool / "incoming").glob("*.ini"))) < 3:
                jobs.append(drop(spool, len(jobs)))
            until = time.monotonic() + 30
            while time.monotonic() < until and service.poll() is None and list(below(service.pid).values()).count("hesspect") < 2:
                time.sleep(0.1)
            time.sleep(draw.uniform(0.2, 3.0))
            kind = draw.choice(("rank", "rank", "launcher", "service"))
            tree = below(service.pid)
            ranks = [pid for pid, name in tree.items() if name == "hesspect"]
            launchers = [pid for pid, name in tree.items() if name.startswith("mpirun") or name.startswith("orterun")]
            chosen = [service.pid] if kind == "service" else ranks if kind == "rank" else launchers
            if chosen and service.poll() is None:
                try:
                    os.kill(draw.choice(chosen), signal.SIGKILL)
                    kinds[kind] += 1
                except ProcessLookupError:
                    pass
            if kind == "service" or service.poll() is not None:
                service.wait()
                service = start(spool)
        until = time.monotonic() + 900
        while time.monotonic() < until and any(any((spool / sub).rglob("*.ini")) for sub in ("incoming", "claimed")):
            time.sleep(0.5)
            if service.poll() is not None:
                service = start(spool)
        service.send_signal(signal.SIGTERM)
        service.wait(60)
        counts = {"done": 0, "given_up": 0, "failed": 0, "lost": 0, "twice": 0, "broken": 0}
        lines = set()
        for job in jobs:
            places = [sub for sub in FOLDERS for path in (spool / sub).rglob("*.ini") if path.name == f"{job}.ini" or path.name.startswith(f"{job}@")]
            counts["lost"] += not places
            counts["twice"] += len(places) > 1
            for place in places[:1]:
                record = json.loads((spool / place / f"{job}.json").read_text()) if place in ("done", "failed") else {}
                if place == "done":
                    result = spool / "done" / f"{job}.h5"
                    counts["done"] += 1
                    try:
                        same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(numbers(result), reference))
                        counts["broken"] += not same
                    except (OSError, KeyError):
                        counts["broken"] += 1
                    counts["twice"] += result.stat().st_mtime > record["ended"] + 0.5
                elif place == "failed":
                    counts["given_up" if "twice" in record["line"] else "failed"] += 1
                    lines.add(record["line"])
                else:
                    counts["lost"] += 1
        counts["left_in_claimed"] = len(list((spool / "claimed").rglob("*")))
        counts["temporary_files"] = len([p for p in spool.rglob(".*") if p.is_file()])
    figures = {"date": datetime.date.today().isoformat(), "kills": sum(kinds.values()), **{f"kills_of_{kind}": n for kind, n in kinds.items()}, "jobs": len(jobs),
               **counts, "lines": sorted(lines), "seconds": round(time.monotonic() - began)}
    text = json.dumps(figures, indent=1)
    print(text)
    if asked.output:
        asked.output.write_text(text + "\n")
    return 1 if counts["lost"] or counts["twice"] or counts["broken"] or counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
