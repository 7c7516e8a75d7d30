#!/usr/bin/env python3
"""Kills a series that follows its checkpoints at random moments, and looks at what it has lost or done twice.

    kills.py KILLS [--seed N] [--ranks 1 2] [--json FILE]      needs HESSPECT_BIN and HESSPECT_FIXTURES (CONTRIBUTING.md)

A feeder drops checkpoints, some in pieces, while `hesspect series --follow` is started again and again and killed by
SIGKILL: all its processes at once, one rank, or the launcher. After each kill the series file must open, hold the
checkpoints that the ledger has as done (but for the last one, whose line may come first), and no result that was done
may have been written again. At the end every checkpoint is done exactly once.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import load_file, save_file

BIN, FIXTURES = os.environ["HESSPECT_BIN"], Path(os.environ["HESSPECT_FIXTURES"])
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--quiet"]
IN_USE = 2
WORK = ["--loss", "cross_entropy", "--dtype", "float64", "--micro-batch", "8", "--probes", "2", "--steps", "20", "--top", "3", "--bottom", "1",
        "--max-steps", "60", "--rtol-trace", "0", "--density-w1", "0", "--rtol-eigs", "1e-12"]
MOST_WAITING = 4


class Campaign:
    def __init__(self, folder, kills, seed, ranks):
        self.folder, self.kills, self.ranks = folder, kills, ranks
        self.random = random.Random(seed)
        self.checkpoints, self.output = folder / "ckpt", folder / "series.h5"
        self.checkpoints.mkdir()
        self.base = load_file(FIXTURES / "ckpt" / "full.safetensors")
        self.fed = 0
        self.feeding = threading.Event()
        self.results = {}  # name -> (inode, time, run) when it was first seen done
        self.problems = []

    def feed(self):
        """A checkpoint every second or so while few wait, in one rename or in two halves."""
        seeded = np.random.default_rng(0)
        dice = random.Random(1)
        while not self.feeding.is_set():
            if self.fed - sum(entry["state"] == "done" for entry in self.ledger()) > MOST_WAITING:
                self.feeding.wait(0.2)
                continue
            self.fed += 1
            moved = {name: (value + 0.05 * seeded.standard_normal(value.shape)).astype(value.dtype) for name, value in self.base.items()}
            save_file(moved, str(self.folder / "next"))
            path = self.checkpoints / f"step-{self.fed}.safetensors"
            if dice.random() < 0.5:
                os.replace(self.folder / "next", path)
            else:
                content = (self.folder / "next").read_bytes()
                with open(path, "wb") as f:
                    f.write(content[: len(content) // 2])
                    f.flush()
                    self.feeding.wait(dice.uniform(0, 0.5))
                    f.write(content[len(content) // 2:])
            self.feeding.wait(dice.uniform(0.3, 1.5))

    def command(self, ranks):
        args = [BIN, "series", "--model", FIXTURES / "mlp_ce.pt2", "--data", FIXTURES / "mlp_ce.data.h5", *WORK, "--checkpoints", self.checkpoints,
                "--output", self.output, "--follow", "--poll", "0.1", "--end-marker", self.folder / "end"]
        return [str(a) for a in ([*MPIRUN, "-n", ranks, *args] if ranks > 1 else args)]

    def start(self, ranks):
        env = {k: v for k, v in os.environ.items() if not k.startswith("HESSPECT_")} | {"OMP_NUM_THREADS": "1"}
        self.log = open(self.folder / "log", "ab")
        return subprocess.Popen(self.command(ranks), stdout=self.log, stderr=self.log, env=env, start_new_session=True)

    @staticmethod
    def family(process):
        """The launcher and its ranks. Not what looks into a rank's HDF5 file for it: without that the rank goes on."""
        found = [process.pid]
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                is_trial = "try-hdf5" in (entry / "cmdline").read_text()
                if entry.name.isdigit() and not is_trial and int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) in found:
                    found.append(int(entry.name))
        return found

    def kill(self, process):
        family = self.family(process)
        how = self.random.choice(["all", "one", "launcher"])
        victims = family if how == "all" else [family[0]] if how == "launcher" else [self.random.choice(family)]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(timeout=120)
        for pid in family:  # what the launcher's end has left over ends by itself, or here
            until = time.monotonic() + 20
            while Path(f"/proc/{pid}").exists() and "Z" not in self.state(pid) and time.monotonic() < until:
                time.sleep(0.05)
            if Path(f"/proc/{pid}").exists() and "Z" not in self.state(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @staticmethod
    def state(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "Z"

    def ledger(self):
        path = Path(f"{self.output}.ledger.json")
        return json.loads(path.read_text())["entries"] if path.exists() else []

    def look(self):
        """After a kill, or at the end."""
        done = [entry for entry in self.ledger() if entry["state"] == "done"]
        for entry in done:
            path = self.folder / entry["result"]
            with h5py.File(path) as f:
                run = f["entry/process/run_id"][()]
            now = (path.stat().st_ino, path.stat().st_mtime_ns, run)
            if self.results.setdefault(entry["name"], now) != now:
                self.problems.append(f"{entry['name']} was done twice")
        if self.output.exists():
            with h5py.File(self.output) as f:
                for name in ("checkpoints/step", "eigenvalues/value", "trace/value", "density/density"):
                    if len(f["entry"][name][()]) not in (len(done), len(done) - 1):
                        self.problems.append(f"{name} has {len(f['entry'][name])} rows, and {len(done)} checkpoints are done")

    def run(self):
        feeder = threading.Thread(target=self.feed)
        feeder.start()
        killed = 0
        try:
            while killed < self.kills:
                process = self.start(self.random.choice(self.ranks))
                try:
                    code = process.wait(timeout=self.random.uniform(0.3, 4))
                    self.problems += [] if code == IN_USE else [f"it ended by itself with {code}"]
                    time.sleep(1)
                except subprocess.TimeoutExpired:
                    self.kill(process)
                    killed += 1
                    self.look()
        finally:
            self.feeding.set()
            feeder.join()
        (self.folder / "end").touch()
        for _ in range(30):
            code = self.start(1).wait(timeout=600)
            if code != IN_USE:
                break
            time.sleep(1)
        self.look()
        entries = self.ledger()
        names = [entry["name"] for entry in entries]
        lost = [f"step-{i}.safetensors" for i in range(1, self.fed + 1) if f"step-{i}.safetensors" not in self.results]
        twice = len(names) - len(set(names)) + sum("twice" in problem for problem in self.problems)
        rest = [f"{entry['name']}: {entry['state']}, {entry['reason']}" for entry in entries if entry["state"] != "done"]
        return {"kills": killed, "checkpoints": self.fed, "done": len(self.results), "lost": len(lost), "twice": twice, "last_exit_code": code,
                "problems": self.problems + rest + [f"lost: {name}" for name in lost]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hesspect_kills_"))
    summary = Campaign(folder, args.kills, args.seed, args.ranks).run()
    print(json.dumps(summary, indent=1))
    if args.json:
        args.json.write_text(json.dumps(summary, indent=1) + "\n")
    good = summary["lost"] == 0 and summary["twice"] == 0 and not summary["problems"] and summary["last_exit_code"] in (0, 3)
    if good:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
