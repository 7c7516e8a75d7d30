#!/usr/bin/env python3
"""The batch scripts of launch/slurm under a real Slurm: stopped by the time limit, requeued, resumed, cancelled."""

import contextlib
import json
import os
import re
import signal
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import load_file, save_file
from slurm_cluster import SlurmCluster, missing

sys.path.insert(0, str(Path(__file__).parents[1] / "app"))
from harness import BIN, FIXTURES, Case, arguments, environment, hesspect  # noqa: E402

SOURCE = Path(os.environ["HESSPECT_SOURCE"])
SCRIPTS = SOURCE / "launch" / "slurm"
# A job that is always stopped before its first product. hesspect itself always gets one done.
NEVER_GETS_ON = """#!/bin/sh
case "$*" in *--print-config*) echo "output = $0.h5";; *) exit 75;; esac
"""


# Of seconds, in two groups.
RUN = {"probes": 12, "steps": 100, "micro_batch": 1, "top": 0, "bottom": 0, "checkpoint_minutes": 0, "max_hvps": 0, "lost_after": 0}
ENDLESS = {**RUN, "probes": 10**4}


def processes_with(text):
    """Command lines on this machine that hold `text`, by process, other than this process's own."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in line and int(entry.parent.name) != os.getpid():
                found[int(entry.parent.name)] = line
    return found


def ranks_at_work(slurm, output):
    """Two ranks, and a sign that they are at work: the checkpoint's folder is there."""
    ranks = lambda: [pid for pid, line in processes_with(f"--output {output}").items() if line.startswith(f"{BIN} analyze")]  # noqa: E731
    return slurm.wait_for("the ranks", lambda: Path(f"{output}.checkpoint").exists() and len(found := ranks()) == 2 and found, 60)


def is_asked_to_stop(pid):
    """Whether SIGUSR1 waits for a process that is halted."""
    pending = re.search(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text()).group(1)
    return int(pending, 16) >> (signal.SIGUSR1 - 1) & 1


@contextlib.contextmanager
def halted_until_asked_to_stop(slurm, output):
    """Halts a job's ranks at their work until SIGUSR1 waits for both: so a short run lasts until its signal comes, whenever
    that is, and takes no time from the others."""
    ranks = ranks_at_work(slurm, output)
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
        slurm.wait_for("SIGUSR1", lambda: all(map(is_asked_to_stop, ranks)), 100)
    finally:
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def quadrature(result):
    with h5py.File(result) as f:
        return [f[f"entry/quadrature/{name}"][()] for name in ("alpha", "beta")]


@unittest.skipIf(missing(), missing())
class Slurm(Case):
    @classmethod
    def setUpClass(cls):
        # As a user's shell: none of the tests' own settings of Open MPI, but that it may run as root.
        shell = {k: v for k, v in environment({"HESSPECT_BIN": BIN}).items() if not k.startswith("OMPI_")}
        cls.slurm = cls.enterClassContext(SlurmCluster({**shell, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}))
        # Most of these two's time is waiting for Slurm: they run beside the others.
        stub = cls.slurm.folder / "never_gets_on"
        stub.write_text(NEVER_GETS_ON)
        stub.chmod(0o755)
        cls.stuck = cls.submit("one_node.sbatch", tasks=1, folder=cls.slurm.folder, HESSPECT_BIN=str(stub))
        # Slurm looks at the limits every 30 s: a signal wanted 59 s before the end of a minute comes within the first 30 s.
        cls.limited_output = cls.slurm.folder / "R.h5"
        cls.limited = cls.submit("one_node.sbatch", *cls.mlp(cls.limited_output, **RUN), folder=cls.slurm.folder,
                                 options=["--time=1", "--signal=B:USR1@59"])

        def until_the_limit():
            with halted_until_asked_to_stop(cls.slurm, cls.limited_output):
                pass

        cls.halted = cls.enterClassContext(ThreadPoolExecutor(1)).submit(until_the_limit)

    @classmethod
    def submit(cls, script, *args, folder, tasks=2, options=(), log="%j.log", **extra):
        """The real script, with a small job's options laid over it."""
        return cls.slurm.submit("--nodes=1", f"--ntasks-per-node={tasks}", f"--ntasks={tasks}", "--cpus-per-task=1", *options,
                                SCRIPTS / script, *args, cwd=SOURCE, log=folder / log, **extra)

    @staticmethod
    def mlp(output, **options):
        values = {"dtype": "float64", "probes": 2, "steps": 12, "top": 2, "bottom": 1, "max_steps": 60,
                  "density_w1": 0, "rtol_trace": 0, **options}
        return arguments("mlp_ce", output, "cross_entropy", **values)

    def assertEnded(self, job, code=0, seconds=120, folder=None):
        ended = self.slurm.wait_end(job, seconds)
        said = ((folder or self.folder) / f"{job}.log").read_text()
        self.assertEqual((ended["JobState"], ended["ExitCode"]), ("COMPLETED" if code == 0 else "FAILED", f"{code}:0"), said)
        return ended, said

    def test_y_time_limit(self):
        output, whole = self.limited_output, self.folder / "whole.h5"
        self.assertDone(hesspect("analyze", *self.mlp(whole, **RUN), ranks=2, timeout=200))
        self.halted.result()
        ended, said = self.assertEnded(self.limited, seconds=200, folder=self.slurm.folder)
        self.assertGreaterEqual(int(ended["Restarts"]), 1, said)
        self.assertIn("back in the queue", said)
        self.assertRegex(said, r"start \d+ on \S+, after [1-9]\d* products")
        for stopped, uninterrupted in zip(quadrature(output), quadrature(whole)):
            np.testing.assert_array_equal(stopped, uninterrupted)
        with h5py.File(output) as f:
            self.assertEqual(f["entry/process/ranks"][()], 2)
        self.assertFalse(Path(f"{output}.checkpoint").exists())

        # Submitted again there is nothing left to do, and the result is as it was.
        written = output.stat().st_mtime_ns
        self.assertEnded(self.submit("one_node.sbatch", *self.mlp(output, **RUN), folder=self.folder))
        self.assertEqual(output.stat().st_mtime_ns, written)

    def test_exit_codes_go_on(self):
        output = self.folder / "R.h5"
        options = self.mlp(output, probes=None, steps=None, max_steps=4, rtol_eigs=1e-12)
        jobs = [self.submit("one_node.sbatch", *args, folder=self.folder, **extra) for args, extra in (
            (("eigs", *options), {}), (("--no-such-option",), {}), ((), {"HESSPECT_BIN": "/nowhere/hesspect"}))]
        ended, said = self.assertEnded(jobs[0], code=3)
        self.assertEqual(ended["Restarts"], "0")
        self.assertTrue(output.exists(), said)
        self.assertIn("hesspect: error: ", self.assertEnded(jobs[1], code=2)[1])
        self.assertIn("HESSPECT_BIN", self.assertEnded(jobs[2], code=2)[1])

    def test_array_over_checkpoints(self):
        """Two checkpoints of the same name in two folders give the spectra that each has by itself."""
        weights = load_file(FIXTURES / "ckpt" / "full.safetensors")
        listed = [self.folder / step / "w.safetensors" for step in ("100", "200")]
        for i, path in enumerate(listed):
            path.parent.mkdir()
            save_file({k: v * np.float32(1 + 0.25 * i) for k, v in weights.items()}, path)
        list_file = self.folder / "list.txt"
        list_file.write_text(f"{listed[0]}\n# not this one\n{listed[1]}\n")
        spectra = self.folder / "spectra"
        options = self.mlp(None)
        array = self.submit("checkpoint_array.sbatch", list_file, spectra, *options, tasks=1, options=["--array=1-4"],
                            folder=self.folder, log="%A_%a.log")
        for task, code in ((1, 0), (2, 0), (3, 0), (4, 2)):
            self.assertEnded(f"{array}_{task}", code)
        name = str(self.folder).lstrip("/").replace("/", "-")
        self.assertEqual(sorted(p.name for p in spectra.iterdir()), [f"{name}-100-w.h5", f"{name}-200-w.h5"])
        for path in listed:
            alone = self.folder / "alone.h5"
            self.assertDone(hesspect("analyze", *self.mlp(alone, weights=path), "--force"))
            result = spectra / f"{name}-{path.parent.name}-w.h5"
            for of_task, of_run in zip(quadrature(result), quadrature(alone)):
                np.testing.assert_array_equal(of_task, of_run)
        first, second = (quadrature(spectra / f"{name}-{step}-w.h5")[0] for step in ("100", "200"))
        self.assertFalse(np.array_equal(first, second))

    def test_array_names_that_meet(self):
        list_file = self.folder / "list.txt"
        list_file.write_text("a/b.safetensors\na-b.pt\n")
        array = self.submit("checkpoint_array.sbatch", list_file, self.folder, *self.mlp(None), tasks=1, options=["--array=1"],
                            folder=self.folder, log="%A_%a.log")
        _, said = self.assertEnded(f"{array}_1", code=2)
        self.assertIn("lines 2 and 1", said)

    def test_many_nodes(self):
        """Ranks that srun starts find each other through PMIx, and those that mpirun starts through mpirun."""
        has_pmix = "pmix" in self.slurm.call("srun", "--mpi=list", check=False).stderr.split()
        jobs = {launcher: self.submit("many_nodes.sbatch", *self.mlp(self.folder / f"{launcher}.h5"), folder=self.folder, HESSPECT_LAUNCHER=launcher)
                for launcher in (("srun", "mpirun") if has_pmix else ("mpirun",))}
        for launcher, job in jobs.items():
            with self.subTest(launcher):
                _, said = self.assertEnded(job)
                with h5py.File(self.folder / f"{launcher}.h5") as f:
                    self.assertEqual(f["entry/process/ranks"][()], 2, said)

    def submit_run(self, *args):
        """`hesspect run` alone as a job's script."""
        script = self.folder / "run.sh"
        script.write_text(f'#!/bin/sh\nexec {BIN} run "$@"\n')
        return self.slurm.submit("--nodes=1", "--ntasks=2", "--cpus-per-task=1", script, *args, cwd=self.folder, log=self.folder / "%j.log")

    def test_run_in_a_job(self):
        """As many ranks as the job has tasks; an error is one line, and its code the job's; a signal to it leaves a checkpoint."""
        output = self.folder / "R.h5"
        self.assertEnded(self.submit_run("analyze", *self.mlp(output)))
        with h5py.File(output) as f:
            self.assertEqual(f["entry/process/ranks"][()], 2)
        for launcher in ("auto", "mpirun"):
            bad = self.mlp(self.folder / "bad.h5", target="no_such_array")
            _, said = self.assertEnded(self.submit_run("--launcher", launcher, "analyze", *bad), code=4)
            self.assertEqual([line for line in said.splitlines() if "error" in line or not line.startswith("hesspect: ")],
                             [line for line in said.splitlines() if "no_such_array" in line], said)
            self.assertEqual(said.count("no_such_array"), 1, said)
        endless = self.folder / "endless.h5"
        job = self.submit_run("analyze", *self.mlp(endless, **ENDLESS))
        ranks_at_work(self.slurm, endless)
        self.slurm.call("scancel", "--batch", "--signal=USR1", job)
        self.assertEnded(job, code=75)
        self.assertTrue(any(Path(f"{endless}.checkpoint").glob("run-*.json")))

    def test_signal_through_srun(self):
        """The script passes USR1 on to srun, and srun to the ranks: the same line of the script serves both launchers."""
        output = self.folder / "R.h5"
        job = self.submit("many_nodes.sbatch", *self.mlp(output, **RUN), folder=self.folder)
        with halted_until_asked_to_stop(self.slurm, output):
            self.slurm.call("scancel", "--batch", "--signal=USR1", job)
        ended, said = self.assertEnded(job, seconds=160)
        self.assertEqual(ended["Restarts"], "1", said)
        self.assertRegex(said, r"start 2 on \S+, after [1-9]\d* products")

    def in_spool(self, spool, command, *args):
        return self.slurm.call(*map(str, (BIN, command, "--spool", spool, *args)), cwd=self.folder, check=False)

    def test_a_spool(self):
        """Jobs of a spool as Slurm's own, and a service in an allocation, which goes back into the queue when its time is up."""
        spool = self.folder / "spool"
        share = "--nodes=1 --ntasks=2 --ntasks-per-node=2 --cpus-per-task=1"
        batch = ("--slurm", "--batch-options", share, "analyze")
        first, bad, endless = (self.in_spool(spool, "submit", *batch, *options).stdout.strip() for options in (
            self.mlp(None), self.mlp(None, target="no_such_array"), self.mlp(None, **ENDLESS)))
        listed = {job["id"]: job for job in json.loads(self.in_spool(spool, "queue", "--json").stdout)}
        self.assertEqual(set(listed), {first, bad, endless})
        ended = self.in_spool(spool, "wait", "--timeout", "58", first)
        self.assertEqual((ended.returncode, ended.stdout.split()[:2]), (0, [first, "done"]), ended.stderr)
        with h5py.File(spool / "done" / f"{first}.h5") as f:
            self.assertEqual(f["entry/process/ranks"][()], 2)
        ended = self.in_spool(spool, "wait", "--timeout", "58", bad)
        self.assertEqual((ended.returncode, ended.stdout.split()[:2]), (4, [bad, "failed"]), ended.stderr)
        self.slurm.wait_for("the endless one", lambda: any((spool / "checkpoints" / endless).glob("run-*.json")), 60)
        self.in_spool(spool, "cancel", endless)
        ended = self.in_spool(spool, "wait", "--timeout", "58", endless)
        self.assertEqual(ended.stdout.split()[:2], [endless, "cancelled"], ended.stderr)

        job = self.in_spool(spool, "submit", "analyze", *self.mlp(None, **RUN)).stdout.strip()
        output = spool / "done" / f"{job}.h5"
        service = self.submit("one_node.sbatch", "serve", "--spool", spool, "--allow", "/", "--until-empty", folder=self.folder)
        self.slurm.wait_for("the service at work", lambda: any((spool / "checkpoints" / job).glob("run-*.json")), 60)
        self.slurm.call("scancel", "--batch", "--signal=USR1", service)
        ended, said = self.assertEnded(service, seconds=120)
        self.assertTrue(output.exists(), said)
        if ended["Restarts"] != "0":  # else it was done before the signal came
            self.assertIn("back in the queue", said)
            self.assertIn("resumed", (spool / "log" / f"{job}.log").read_text())

    def test_a_series_as_an_array(self):
        """A checkpoint a task, one at a time: each a job of its own for the queue, with the numbers that it has by itself."""
        spool, checkpoints, results = (self.folder / name for name in ("spool", "ckpt", "results"))
        checkpoints.mkdir()
        weights = load_file(FIXTURES / "ckpt" / "full.safetensors")
        for step in (100, 200, 1000):
            save_file({k: v * np.float32(1 + 1e-3 * step) for k, v in weights.items()}, checkpoints / f"step-{step}.safetensors")
        share = "--nodes=1 --ntasks=1 --cpus-per-task=1 --array=1-3%1"
        ended = self.in_spool(spool, "submit", "--slurm", "--batch-options", share, "series", "--checkpoints", checkpoints / "*.safetensors", "--results", results,
                              *self.mlp(None))
        self.assertEqual(ended.returncode, 0, ended.stderr)
        ids = ended.stdout.split()
        listed = {job["id"]: job for job in json.loads(self.in_spool(spool, "queue", "--json").stdout)}
        self.assertEqual([listed[job]["name"] for job in ids], ["step-100.safetensors", "step-200.safetensors", "step-1000.safetensors"])
        self.assertRegex(listed[ids[2]]["service"], r"^slurm \d+_3$")
        self.assertEqual(listed[ids[2]]["line"], "PENDING")
        self.assertEqual(self.in_spool(spool, "cancel", ids[2]).stdout, f"{ids[2]} cancelled\n")
        for job, step in zip(ids, (100, 200)):
            ended = self.in_spool(spool, "wait", "--timeout", "58", job)
            self.assertEqual((ended.returncode, ended.stdout.split()[:2]), (0, [job, "done"]), ended.stderr)
            self.assertIn("result", self.in_spool(spool, "log", job).stdout)
            self.assertIn("start 1 on", (spool / "log" / f"{job}.slurm").read_text())
        alone = self.folder / "alone.h5"
        self.assertDone(hesspect("analyze", *self.mlp(alone, weights=checkpoints / "step-200.safetensors")))
        for of_task, of_run in zip(quadrature(results / "step-200.h5"), quadrature(alone)):
            np.testing.assert_array_equal(of_task, of_run)
        self.assertEqual({path.name for path in results.iterdir()}, {"step-100.h5", "step-200.h5"})
        left = self.slurm.call("squeue", "-h", "-t", "all", "-o", "%T", "-j", listed[ids[2]]["service"].split()[1], check=False).stdout.split()
        self.assertIn(left, ([], ["CANCELLED"]))

    def test_cancelled(self):
        """Nothing is left of a cancelled job, and it does not come back."""
        scripts = ("one_node.sbatch", "many_nodes.sbatch")
        jobs = [self.submit(script, *self.mlp(self.folder / f"{script}.h5", **ENDLESS), folder=self.folder) for script in scripts]
        for script, job in zip(scripts, jobs):
            with self.subTest(script):
                output = self.folder / f"{script}.h5"
                ranks_at_work(self.slurm, output)
                self.slurm.call("scancel", job)
                ended = self.slurm.wait_end(job, 40)
                self.assertEqual((ended["JobState"], ended["Restarts"]), ("CANCELLED", "0"))
                self.slurm.wait_for("the processes' end", lambda: not processes_with(str(output)), 20)
                self.assertFalse(output.exists())

    def test_z_no_progress(self):
        """Three restarts without a product are granted, and the fourth stop is the end."""
        ended, said = self.assertEnded(self.stuck, code=75, seconds=120, folder=self.slurm.folder)
        self.assertEqual(ended["Restarts"], "3", said)
        self.assertEqual(said.count("back in the queue"), 3, said)
        self.assertIn("no new product", said)


if __name__ == "__main__":
    unittest.main()
