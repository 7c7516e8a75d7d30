#!/usr/bin/env python3
"""Cuts the power of a service and of a series at random moments, as far as that can be done without a machine of their own.

    bench/service/power_cut.py [--cuts 100] [--what service series] [--ranks 1 2] [--seed 0] [--output bench/results/DATE-power-cut.json]

All their processes are killed at once, and then their folder is what a disk would have of it that keeps nothing but what was synced: neither names nor
content nor removals (tests/support/power_cut.cpp notes that down, and says what is taken for granted: that a rename is whole or not at all). They are
started again on that.

Of a service: every job whose `submit` had come back lies in one folder; what is `done` has its record and a whole result with the numbers of an undisturbed
run; and what was done after a cut is never run again. Each start of the machine has an id of its own, as a kernel gives it (HESSPECT_BOOT_ID), so that
no job is given up for a cut. What cannot be known: a job that was told as done at the very moment of the cut, before its folder was synced, may lie
among those at work again; its result is there, and it ends again without a product (`ended_again`). Of a series: the ledger is whole, each
checkpoint that it has as done has its whole result, which is never made again, the series file can be read, and at the end every checkpoint is done once.

Needs HESSPECT_BIN and HESSPECT_FIXTURES, as the tests do. A few cuts are a test: app_power_cut.
"""

import argparse
import collections
import ctypes
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import h5py
import numpy as np
from jobs import BIN, FIXTURES, MPIRUN
from kills import FOLDERS, LONGER, SHORT, numbers, run_of, same
from safetensors.numpy import load_file, save_file

LIBRARY = Path(BIN).parents[1] / "tests" / "libpower_cut.so"
SERIES = ["--loss", "cross_entropy", "--dtype", "float64", "--micro-batch", "8", "--probes", "2", "--steps", "20", "--top", "3", "--bottom", "1", "--max-steps", "60",
          "--rtol-trace", "0", "--density-w1", "0", "--rtol-eigs", "1e-12", "--threads", "1"]


class Disk:
    """A folder, and what of it is durable."""

    def __init__(self, folder):
        self.root, self.shadow = folder / "root", folder / "shadow"
        self.root.mkdir()
        os.environ["POWER_CUT_ROOT"], os.environ["POWER_CUT_SHADOW"] = str(self.root), str(self.shadow)  # which the library reads as it is used
        self.library = ctypes.CDLL(str(LIBRARY), use_errno=True)
        self.boot = folder / "boot_id"
        self.keep_all()

    def sync(self, path):
        fd = os.open(path, os.O_RDONLY)
        self.library.fsync(fd)
        os.close(fd)

    def write(self, path, text):
        """Durably, as `submit` does."""
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text)
        self.sync(temporary)
        if self.library.rename(bytes(temporary), bytes(path)) != 0:
            raise OSError(ctypes.get_errno(), str(path))
        self.sync(path.parent)

    def keep_all(self):
        """All that is there is durable: after a start of the machine."""
        self.boot.write_text(f"{uuid.uuid4()}\n")
        shutil.rmtree(self.shadow, ignore_errors=True)
        for sub in ("data", "folders", "moves"):
            (self.shadow / sub).mkdir(parents=True)
        for path in (self.root, *self.root.rglob("*")):
            self.sync(path)

    def environment(self):
        return {**{k: v for k, v in os.environ.items() if not k.startswith("HESSPECT_")}, "OMP_NUM_THREADS": "1", "HESSPECT_BOOT_ID": str(self.boot),
                "LD_PRELOAD": str(LIBRARY)}

    def processes(self):
        found = []
        mark = f"POWER_CUT_SHADOW={self.shadow}".encode()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def cut(self, process):
        while found := self.processes():
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.01)
        process.wait()
        left = self.root.with_name("left")
        shutil.rmtree(left, ignore_errors=True)
        self.restore(self.id_of(self.root), left)
        before = self.root.with_name("before")  # kept until the next one, for who looks into a fault
        shutil.rmtree(before, ignore_errors=True)
        self.root.rename(before)
        left.rename(self.root)
        self.keep_all()

    def id_of(self, folder):
        """The library's name of it."""
        name = ctypes.create_string_buffer(200)
        if self.library.power_cut_id(bytes(folder), name, len(name)) != 0:
            raise OSError(str(folder))
        return name.value.decode()

    def places(self):
        """Where each file lies. The processes may have been killed while a rename was noted down, when it was in the one folder and not yet out of the other."""
        found = {}
        for listing in sorted((self.shadow / "folders").iterdir(), key=lambda path: path.stat().st_mtime_ns):
            if not listing.name.endswith(".new"):
                found.update({line.split(" ", 2)[1]: (listing.name, line.split(" ", 2)[2]) for line in listing.read_text().splitlines()})
        return found

    def restore(self, folder, to, places=None):
        places = places or self.places()
        to.mkdir()
        listing = self.shadow / "folders" / folder
        for line in listing.read_text().splitlines() if listing.exists() else ():
            kind, name_of_it, name = line.split(" ", 2)
            if places[name_of_it] != (folder, name):
                continue
            if kind == "d":
                self.restore(name_of_it, to / name, places)
                continue
            data = self.shadow / "data" / name_of_it
            if data.exists():
                shutil.copyfile(data, to / name)
            else:
                (to / name).touch()  # a name without what it is the name of


def check_disk(folder):
    """That the stand-in keeps what was synced, and nothing else."""
    disk = Disk(folder)
    root = disk.root
    (root / "a").mkdir()
    (root / "b").mkdir()
    disk.sync(root)
    disk.write(root / "a" / "x", "content")
    (root / "a" / "unsynced").write_text("neither name nor content")
    (root / "b" / "y").write_text("a name alone")
    disk.sync(root / "b")
    nobody = subprocess.Popen(["true"])

    def left():
        disk.cut(nobody)
        return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}

    disk.library.rename(bytes(root / "a" / "x"), bytes(root / "b" / "x"))
    assert left() == {"a/x": "content", "b/y": ""}
    for source, target, synced in (("a", "b", "b"), ("b", "a", "b")):  # a rename is durable by either folder
        disk.library.rename(bytes(root / source / "x"), bytes(root / target / "x"))
        disk.sync(root / synced)
        assert left() == {f"{target}/x": "content", "b/y": ""}
    disk.library.rename(bytes(root / "a" / "x"), bytes(root / "b" / "z"))  # two renames are durable together
    disk.library.rename(bytes(root / "b" / "z"), bytes(root / "b" / "x"))
    disk.sync(root / "b")
    assert left() == {"b/x": "content", "b/y": ""}
    disk.library.rename(bytes(root / "b" / "x"), bytes(root / "a" / "x"))
    disk.sync(root / "a")
    (root / "a" / "x").write_text("changed")
    (root / "b" / "y").unlink()
    assert left() == {"a/x": "content", "b/y": ""}
    (root / "a" / "x").unlink()
    disk.sync(root / "a")
    assert left() == {"b/y": ""}


class Campaign:
    def __init__(self, folder, seed, ranks):
        self.folder, self.ranks, self.random = folder, ranks, random.Random(seed)
        self.disk = Disk(folder)
        self.problems, self.counts = [], collections.Counter()

    def start(self, *args, ranks):
        command = [BIN, *map(str, args)]
        return subprocess.Popen([*MPIRUN, "-n", str(ranks), *command] if ranks > 1 else command, env=self.disk.environment(), stdout=subprocess.DEVNULL,
                                stderr=open(self.folder / "log", "a"), start_new_session=True)

    def moment(self):
        """Of the next cut: mostly when the start is over, whose length is the machine's."""
        began, log = time.monotonic(), self.folder / "log"
        known = log.stat().st_size if log.exists() else 0
        if self.random.random() < 0.8:
            while time.monotonic() < began + 20 and (not log.exists() or log.stat().st_size == known):
                time.sleep(0.02)
        return time.monotonic() + self.random.uniform(0, 2.5)


class ServiceCampaign(Campaign):
    def __init__(self, *args):
        super().__init__(*args)
        self.spool = self.disk.root / "spool"
        self.jobs, self.kinds, self.settled, self.told = [], {}, {}, {}

    def submit(self, options):
        number = len(self.jobs)
        job = f"20260101-{number // 10000:06d}-{number % 1000:03d}-{number:06x}"
        head = f"[job]\nname = {number}\ncommand = analyze\nsubmitted = {time.time():.6f}\n[options]\n"
        self.disk.write(self.spool / "incoming" / f"{job}.ini", head + "".join(f"{key} = {value}\n" for key, value in options.items()))
        self.jobs.append(job)
        self.kinds[job] = options is LONGER
        return job

    def serve(self, *more, ranks=1):
        return self.start("serve", "--spool", self.spool, "--allow", "/", "--poll", "0.1", *more, ranks=ranks)

    def places(self, job):
        return [sub for sub in FOLDERS for path in (self.spool / sub).rglob("*.ini") if path.name == f"{job}.ini" or path.name.startswith(f"{job}@")]

    def look(self):
        """After a cut, and at the end."""
        for job in self.jobs:
            places = self.places(job)
            if len(places) != 1:
                self.problems.append(f"{job} lies in {places}")
                self.counts["lost" if not places else "twice"] += 1
                continue
            if job in self.told and places[0] not in ("done", "failed"):
                self.counts["ended_again"] += 1
                if run_of(self.spool / "done" / f"{job}.h5") != self.told[job]:
                    self.problems.append(f"{job} was told as done, and its result has gone")
            if places[0] == "done":
                try:
                    is_same = same(numbers(self.spool / "done" / f"{job}.h5"), self.reference[self.kinds[job]])
                    json.loads((self.spool / "done" / f"{job}.json").read_text())
                    self.counts["broken"] += not is_same
                    self.problems += [] if is_same else [f"{job} has other numbers"]
                    now = run_of(self.spool / "done" / f"{job}.h5")
                    if self.settled.setdefault(job, now) != now:
                        self.problems.append(f"{job} was done twice")
                        self.counts["twice"] += 1
                except (OSError, KeyError, ValueError) as error:
                    self.problems.append(f"{job} is done, but: {error}")
                    self.counts["broken"] += 1
            elif job in self.settled:
                self.problems.append(f"{job} was done, and lies in {places[0]}")
                self.counts["twice"] += 1
        self.told = {}

    def note_told(self):
        """What a user would have been told as done, just before the cut."""
        for path in (self.spool / "done").glob("*.ini"):
            if path.stem not in self.settled:
                try:
                    self.told[path.stem] = run_of(self.spool / "done" / f"{path.stem}.h5")
                except OSError:
                    continue

    def run(self, cuts):
        made = self.serve("--until-empty")  # makes the folders
        made.wait(timeout=100)
        first = [self.submit(SHORT), self.submit(LONGER)]
        undisturbed = self.serve("--until-empty")
        undisturbed.wait(timeout=100)
        self.reference = {of: numbers(self.spool / "done" / f"{job}.h5") for of, job in zip((False, True), first)}
        for _ in range(cuts):
            service = self.serve(ranks=self.random.choice(self.ranks))
            until = self.moment()
            while time.monotonic() < until:
                if len(list((self.spool / "incoming").glob("*.ini"))) < 3:
                    self.submit(self.random.choice((SHORT, SHORT, LONGER)))
                time.sleep(0.05)
            if service.poll() is not None:
                self.problems.append(f"the service ended with {service.returncode}")
            self.note_told()
            self.disk.cut(service)
            self.counts["cuts"] += 1
            self.look()
        last = self.serve("--until-empty")
        last.wait(timeout=900)
        self.look()
        lines = collections.Counter(json.loads(path.read_text())["line"] for path in (self.spool / "failed").glob("*.json"))
        given_up = sum(count for line, count in lines.items() if line.startswith("the service died while this ran"))
        failed = sum(lines.values()) - given_up
        self.problems += [f"failed: {line}" for line in lines if not line.startswith("the service died while this ran")]
        return {**{name: self.counts[name] for name in ("cuts", "lost", "twice", "broken", "ended_again")}, "jobs": len(self.jobs), "done": len(self.settled),
                "given_up": given_up, "failed": failed, "problems": self.problems}


class SeriesCampaign(Campaign):
    def run(self, cuts):
        checkpoints, output = self.folder / "ckpt", self.disk.root / "out" / "series.h5"
        checkpoints.mkdir()
        output.parent.mkdir()
        self.disk.keep_all()
        base, seeded = load_file(FIXTURES / "ckpt" / "full.safetensors"), np.random.default_rng(0)
        fed, results = 0, {}
        ledger_file = Path(f"{output}.ledger.json")

        def feed():
            nonlocal fed
            fed += 1
            save_file({name: (value + 0.05 * seeded.standard_normal(value.shape)).astype(value.dtype) for name, value in base.items()}, str(self.folder / "next"))
            os.replace(self.folder / "next", checkpoints / f"step-{fed}.safetensors")

        def look():
            done = [entry for entry in json.loads(ledger_file.read_text())["entries"] if entry["state"] == "done"] if ledger_file.exists() else []
            names = [entry["name"] for entry in done]
            for entry in done:
                try:
                    now = run_of(output.parent / entry["result"])
                except (OSError, KeyError) as error:
                    self.problems.append(f"{entry['name']} is done, but: {error}")
                    self.counts["broken"] += 1
                    continue
                if results.setdefault(entry["name"], now) != now:
                    self.problems.append(f"{entry['name']} was done twice")
                    self.counts["twice"] += 1
            for name in set(results) - set(names):
                self.problems.append(f"{name} was done, and is not any more")
                self.counts["twice"] += 1
            if output.exists():
                try:
                    with h5py.File(output) as f:
                        rows = len(f["entry/checkpoints/step"])
                    if rows not in (len(done), len(done) - 1):
                        self.problems.append(f"the series file has {rows} rows, and {len(done)} checkpoints are done")
                except (OSError, KeyError) as error:
                    self.problems.append(f"the series file: {error}")
                    self.counts["broken"] += 1
            return done

        def series(*more, ranks=1):
            return self.start("series", "--model", FIXTURES / "mlp_ce.pt2", "--data", FIXTURES / "mlp_ce.data.h5", *SERIES, "--checkpoints", checkpoints, "--output", output,
                              *more, ranks=ranks)

        for _ in range(cuts):
            process = series("--follow", "--poll", "0.1", ranks=self.random.choice(self.ranks))
            until = self.moment()
            while time.monotonic() < until:
                if fed - len(results) < 4:
                    feed()
                time.sleep(0.3)
            if process.poll() is not None:
                self.problems.append(f"the series ended with {process.returncode}")
            self.disk.cut(process)
            self.counts["cuts"] += 1
            look()
        (self.folder / "end").touch()
        code = series("--follow", "--poll", "0.1", "--end-marker", self.folder / "end").wait(timeout=900)
        done = look()
        rest = [entry for entry in json.loads(ledger_file.read_text())["entries"] if entry["state"] != "done"]
        given_up = [entry for entry in rest if entry["reason"].startswith("its run has ended the process")]  # a rule of the series, of which it tells
        self.counts["lost"] = fed - len({entry["name"] for entry in (*done, *given_up)})
        return {**{name: self.counts[name] for name in ("cuts", "lost", "twice", "broken")}, "checkpoints": fed, "done": len(done), "given_up": len(given_up),
                "last_exit_code": code,
                "problems": self.problems + [f"{entry['name']}: {entry['state']}, {entry['reason']}" for entry in rest if entry not in given_up]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--what", nargs="+", choices=("service", "series"), default=["service", "series"])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    figures = {"date": datetime.date.today().isoformat()}
    good = True
    with tempfile.TemporaryDirectory(prefix="hesspect_power_cut_") as folder:
        check_disk(Path(folder))
    for what in asked.what:
        folder, began = Path(tempfile.mkdtemp(prefix="hesspect_power_cut_")), time.monotonic()
        campaign = (ServiceCampaign if what == "service" else SeriesCampaign)(folder, asked.seed, asked.ranks)
        figures[what] = {**campaign.run(asked.cuts), "seconds": round(time.monotonic() - began)}
        if figures[what]["problems"]:
            good = False
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    text = json.dumps(figures, indent=1)
    print(text)
    if asked.output:
        asked.output.write_text(text + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
