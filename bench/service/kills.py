#!/usr/bin/env python3
"""Kills ranks, the launcher and the service (SIGKILL) at random moments while jobs arrive, and counts what became of the jobs.

    bench/service/kills.py [--kills 200] [--seed 0] [--output bench/results/DATE-service-kills.json]

Two services share the spool, `hesspect run --ranks 2 serve` and one of a rank by itself; where one is killed itself, it is started again, as whoever looks after it
would. At the end every job must lie in one folder alone, `done` with a result that can be read, or given up as one that killed two services without a
gain between them (they are counted; kills are so many that this may happen). `lost`: a job that lies nowhere. `twice`: one that lies in two folders, or
that has another run's result than when it was first seen as done. `broken`: a result or record that can't be read, or differs from an undisturbed
one's. Needs HESSPECT_BIN and HESSPECT_FIXTURES.
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

SHORT = {"model": FIXTURES / "mlp_ce.pt2", "data": FIXTURES / "mlp_ce.data.h5", "loss": "cross_entropy", "dtype": "float64", "top": 2, "bottom": 1, "rtol-trace": 0,
         "density-w1": 0, "steps": 8, "threads": 1, "checkpoint-minutes": 0}
LONGER = {"model": FIXTURES / "gpt2.pt2", "data": FIXTURES / "gpt2.data.h5", "loss": "causal_lm", "dtype": "float64", "micro-batch": 1, "probes": 2, "steps": 12,
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


def same(found, reference):
    """But for the rounding of other numbers of ranks."""
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True) for a, b in zip(found, reference))


def run_of(path):
    with h5py.File(path) as f:
        return f["entry/process/run_id"][()]


class Campaign:
    def __init__(self, folder, seed):
        self.spool, self.draw = folder / "spool", random.Random(seed)
        (self.spool / "incoming").mkdir(parents=True)
        self.jobs, self.first_seen = {}, {}  # by id: its options; its run
        self.counts = {"done": 0, "given_up": 0, "failed": 0, "lost": 0, "twice": 0, "broken": 0}
        self.lines = set()

    def drop(self, options):
        number = len(self.jobs)
        text = f"[job]\nname = {number}\ncommand = analyze\nsubmitted = {time.time():.6f}\n[options]\n" + "".join(f"{k} = {v}\n" for k, v in options.items())
        job = f"20260101-{number // 10000:06d}-{number % 1000:03d}-{number:06x}"
        (self.spool / "incoming" / f".{job}.ini").write_text(text)
        (self.spool / "incoming" / f".{job}.ini").rename(self.spool / "incoming" / f"{job}.ini")
        self.jobs[job] = options
        return job

    def feed(self):
        while len(list((self.spool / "incoming").glob("*.ini"))) < 4:
            self.drop(self.draw.choice((SHORT, LONGER)))

    def start(self, ranks, *more):
        launcher = ["run", "--ranks", str(ranks)] if ranks > 1 else []
        command = [BIN, *launcher, "serve", "--spool", str(self.spool), "--allow", "/", "--poll", "0.1", *more]
        return subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=open(self.spool.parent / "service.log", "a"))

    def note_done(self):
        """Of what is done the first result is the only one."""
        for path in (self.spool / "done").glob("*.ini"):
            try:
                now = run_of(self.spool / "done" / f"{path.stem}.h5")
            except OSError:
                continue  # counted at the end
            if self.first_seen.setdefault(path.stem, now) != now:
                self.counts["twice"] += 1
                self.lines.add(f"{path.stem} was done twice")

    def kill(self, service, ranks, kinds):
        kind = self.draw.choice(("rank", "rank", "launcher", "service")) if ranks > 1 else "service"
        tree = below(service.pid)
        chosen = {"service": [service.pid], "rank": [pid for pid, name in tree.items() if name == "hesspect"],
                  "launcher": [pid for pid, name in tree.items() if name.startswith(("mpirun", "orterun"))]}[kind]
        if not chosen or service.poll() is not None:
            return
        try:
            os.kill(self.draw.choice(chosen), signal.SIGKILL)
            kinds[kind] += 1
        except ProcessLookupError:
            return
        if kind == "service":
            service.wait()

    def judge(self):
        self.note_done()
        for job, options in self.jobs.items():
            places = [sub for sub in FOLDERS for path in (self.spool / sub).rglob("*.ini") if path.name == f"{job}.ini" or path.name.startswith(f"{job}@")]
            self.counts["twice"] += len(places) > 1
            if not places or places[0] not in ("done", "failed"):
                self.counts["lost"] += 1
                continue
            try:
                record = json.loads((self.spool / places[0] / f"{job}.json").read_text())
                if places[0] == "done":
                    self.counts["done"] += 1
                    self.counts["broken"] += not same(numbers(self.spool / "done" / f"{job}.h5"), self.reference[options is SHORT])
                else:
                    self.counts["given_up" if record["line"].startswith("the service died") else "failed"] += 1
                    self.lines.add(record["line"])
            except (OSError, KeyError, ValueError) as error:
                self.counts["broken"] += 1
                self.lines.add(f"{job}: {error}")

    def run(self, kills, minutes):
        first = [self.drop(SHORT), self.drop(LONGER)]
        self.start(2, "--until-empty", "--quiet").wait()
        self.reference = {options is SHORT: numbers(self.spool / "done" / f"{job}.h5") for job, options in zip(first, (SHORT, LONGER))}
        kinds, began = {"rank": 0, "launcher": 0, "service": 0}, time.monotonic()
        services = {ranks: self.start(ranks) for ranks in (2, 1)}
        while sum(kinds.values()) < kills and time.monotonic() < began + 60 * minutes:
            self.feed()
            ranks = self.draw.choice((2, 2, 1))
            until = time.monotonic() + 20
            while time.monotonic() < until and services[ranks].poll() is None and ranks > 1 and list(below(services[ranks].pid).values()).count("hesspect") < ranks:
                time.sleep(0.05)
            time.sleep(self.draw.uniform(0.1, 2.5))
            self.feed()
            self.kill(services[ranks], ranks, kinds)
            self.note_done()
            services = {ranks: service if service.poll() is None else self.start(ranks) for ranks, service in services.items()}
        until = time.monotonic() + 900
        while time.monotonic() < until and any(any((self.spool / sub).rglob("*.ini")) for sub in ("incoming", "claimed")):
            time.sleep(0.5)
            services = {ranks: service if service.poll() is None else self.start(ranks) for ranks, service in services.items()}
        for service in services.values():
            service.send_signal(signal.SIGTERM)
            service.wait(60)
        self.judge()
        return {"date": datetime.date.today().isoformat(), "kills": sum(kinds.values()), **{f"kills_of_{kind}": n for kind, n in kinds.items()},
                "jobs": len(self.jobs), **self.counts, "left_in_claimed": len(list((self.spool / "claimed").rglob("*"))),
                "temporary_files": len([p for p in self.spool.rglob(".*") if p.is_file()]), "lines": sorted(self.lines), "seconds": round(time.monotonic() - began)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=600, help="at most, for the kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hesspect_kills_") as folder:
        figures = Campaign(Path(folder), asked.seed).run(asked.kills, asked.minutes)
    text = json.dumps(figures, indent=1)
    print(text)
    if asked.output:
        asked.output.write_text(text + "\n")
    return 1 if any(figures[name] for name in ("lost", "twice", "broken", "failed")) else 0


if __name__ == "__main__":
    sys.exit(main())
