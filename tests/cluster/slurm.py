#!/usr/bin/env python3
"""The batch scripts of launch/slurm under a real Slurm: stopped by the time limit, requeued, resumed, cancelled."""

import math
import os
import sys
import unittest
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


def processes_with(text):
    """Command lines on this machine that hold `text`, other than this process's own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(entry.parent.name) != os.getpid():
            found.append(line)
    return found


def quadrature(result):
    with h5py.File(result) as f:
        return [f[f"entry/quadrature/{name}"][()] for name in ("alpha", "beta")]


@unittest.skipIf(missing(), missing())
class Slurm(Case):
    product_s = None  # seconds of a Hessian-vector product of a long run

    @classmethod
    def setUpClass(cls):
        # As a user's shell: none of the tests' own settings of Open MPI, but that it may run as root.
        shell = {k: v for k, v in environment({"HESSPECT_BIN": BIN}).items() if not k.startswith("OMPI_")}
        cls.slurm = cls.enterClassContext(SlurmCluster({**shell, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}))
        # Most of this one's time is waiting in the queue: it runs beside the others.
        stub = cls.slurm.folder / "never_gets_on"
        stub.write_text(NEVER_GETS_ON)
        stub.chmod(0o755)
        cls.stuck = cls.slurm.submit("--ntasks=1", "--cpus-per-task=1", SCRIPTS / "one_node.sbatch", cwd=SOURCE,
                                     log=cls.slurm.folder / "stuck.log", HESSPECT_BIN=str(stub))

    def submit(self, script, *args, tasks=2, options=(), **extra):
        """The real script, with a small job's options laid over it."""
        self.log = self.folder / "job.log"
        return self.slurm.submit("--nodes=1", f"--ntasks-per-node={tasks}", f"--ntasks={tasks}", "--cpus-per-task=1", *options,
                                 SCRIPTS / script, *args, cwd=SOURCE, log=extra.pop("log", self.log), **extra)

    def mlp(self, output, **options):
        values = {"dtype": "float64", "probes": 2, "steps": 12, "top": 2, "bottom": 1, "max_steps": 60,
                  "density_w1": 0, "rtol_trace": 0, **options}
        return arguments("mlp_ce", output, "cross_entropy", **values)

    def assertEnded(self, job, code=0, seconds=60, log=None):
        ended = self.slurm.wait_end(job, seconds)
        said = Path(log or self.log).read_text()
        self.assertEqual((ended["JobState"], ended["ExitCode"]), ("COMPLETED" if code == 0 else "FAILED", f"{code}:0"), said)
        return ended, said

    def long_run(self, seconds):
        """Options of a run that takes so long on two ranks here, in two groups, by the cost of a product in a short one."""
        options = {"probes": 2, "steps": 100, "micro_batch": 1, "top": 0, "bottom": 0, "checkpoint_minutes": 0, "max_hvps": 0}
        if self.product_s is None:
            short = self.folder / "short.h5"
            self.assertDone(hesspect("analyze", *self.mlp(short, **options), ranks=2))
            with h5py.File(short) as f:
                type(self).product_s = float(f["entry/diagnostics/hvp_seconds"][()]) / int(f["entry/diagnostics/hvp_count"][()]) / 2
        return {**options, "probes": max(2, math.ceil(seconds / (options["steps"] * self.product_s)))}

    def test_time_limit(self):
        """Slurm looks at the limits every 30 s: a signal wanted 59 s before the end of a minute comes in the first 30 s
        of every start, in which a run of 50 s cannot end."""
        options = self.long_run(50)
        output = self.folder / "R.h5"
        job = self.submit("one_node.sbatch", *self.mlp(output, **options), options=["--time=1", "--signal=B:USR1@59"])
        self.slurm.wait_state(job, {"RUNNING"}, 20)
        whole = self.folder / "whole.h5"
        self.assertDone(hesspect("analyze", *self.mlp(whole, **options), ranks=2, timeout=200))
        ended, said = self.assertEnded(job, seconds=200)
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
        self.assertEnded(self.submit("one_node.sbatch", *self.mlp(output, **options)))
        self.assertEqual(output.stat().st_mtime_ns, written)

    def test_exit_codes_go_on(self):
        output = self.folder / "R.h5"
        job = self.submit("one_node.sbatch", "eigs", *self.mlp(output, probes=None, steps=None, max_steps=4, rtol_eigs=1e-12))
        ended, said = self.assertEnded(job, code=3)
        self.assertEqual(ended["Restarts"], "0")
        self.assertTrue(output.exists(), said)
        _, said = self.assertEnded(self.submit("one_node.sbatch", "--no-such-option"), code=2)
        self.assertIn("hesspect: error: ", said)
        _, said = self.assertEnded(self.submit("one_node.sbatch", HESSPECT_BIN="/nowhere/hesspect"), code=2)
        self.assertIn("HESSPECT_BIN", said)

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
                            log=self.folder / "task-%a.log")
        for task, code in ((1, 0), (2, 0), (3, 0), (4, 2)):
            self.assertEnded(f"{array}_{task}", code, log=self.folder / f"task-{task}.log")
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
        array = self.submit("checkpoint_array.sbatch", list_file, self.folder, *self.mlp(None), tasks=1, options=["--array=1"])
        _, said = self.assertEnded(f"{array}_1", code=2)
        self.assertIn("lines 2 and 1", said)

    def test_many_nodes(self):
        """Ranks that srun starts find each other through PMIx, and those that mpirun starts through mpirun."""
        has_pmix = "pmix" in self.slurm.call("srun", "--mpi=list", check=False).stderr.split()
        for launcher in ("srun", "mpirun") if has_pmix else ("mpirun",):
            with self.subTest(launcher):
                output = self.folder / f"{launcher}.h5"
                _, said = self.assertEnded(self.submit("many_nodes.sbatch", *self.mlp(output), HESSPECT_LAUNCHER=launcher))
                with h5py.File(output) as f:
                    self.assertEqual(f["entry/process/ranks"][()], 2, said)

    def test_signal_through_srun(self):
        """The script passes USR1 on to srun, and srun to the ranks: the same line of the script serves both launchers."""
        output = self.folder / "R.h5"
        job = self.submit("many_nodes.sbatch", *self.mlp(output, **self.long_run(12)))
        self.wait_for_ranks(output)
        self.slurm.call("scancel", "--batch", "--signal=USR1", job)
        self.slurm.wait_for("the requeue", lambda: self.slurm.job(job)["Restarts"] == "1", 30)
        self.slurm.wait_state(job, {"RUNNING"}, 60)
        ended, said = self.assertEnded(job, seconds=100)
        self.assertEqual(ended["Restarts"], "1", said)
        self.assertRegex(said, r"start 2 on \S+, after [1-9]\d* products")

    def wait_for_ranks(self, output):
        """Two ranks, and a sign that they are at work: the checkpoint's folder is there."""
        self.slurm.wait_for("the ranks", lambda: Path(f"{output}.checkpoint").exists() and len(processes_with(f"--output {output}")) >= 2, 60)

    def test_cancelled(self):
        """Nothing is left of a cancelled job, and it does not come back."""
        for script in ("one_node.sbatch", "many_nodes.sbatch"):
            with self.subTest(script):
                output = self.folder / f"{script}.h5"
                job = self.submit(script, *self.mlp(output, **self.long_run(60)))
                self.wait_for_ranks(output)
                self.slurm.call("scancel", job)
                ended = self.slurm.wait_end(job, 40)
                self.assertEqual((ended["JobState"], ended["Restarts"]), ("CANCELLED", "0"))
                self.slurm.wait_for("the processes' end", lambda: not processes_with(str(output)), 20)
                self.assertFalse(output.exists())

    def test_z_no_progress(self):
        """Three restarts without a product are granted, and the fourth stop is the end."""
        ended, said = self.assertEnded(self.stuck, code=75, seconds=120, log=self.slurm.folder / "stuck.log")
        self.assertEqual(ended["Restarts"], "3", said)
        self.assertEqual(said.count("back in the queue"), 3, said)
        self.assertIn("no new product", said)


if __name__ == "__main__":
    unittest.main()
