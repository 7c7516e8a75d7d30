#!/usr/bin/env python3
"""The program over two hosts: the same spectrum as on one, and an end on both when one of them is gone."""

import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

SOURCE = Path(os.environ["HESSPECT_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests" / "app"))

import h5py  # noqa: E402
import numpy as np  # noqa: E402
from harness import BIN, Case, arguments, environment, hesspect  # noqa: E402
from namespaces import TwoHosts, why_not  # noqa: E402

LAUNCHER = SOURCE / "launch" / "mpirun.sh"
ENDS_WITHIN_S = 30
REASON = why_not()


@unittest.skipIf(REASON is not None, REASON)
class OverTwoHosts(Case):
    def setUp(self):
        super().setUp()
        self.hosts = self.enterContext(TwoHosts(self.folder))

    def start(self, *args):
        errors = open(self.folder / "stderr", "w+")
        self.addCleanup(errors.close)
        job = subprocess.Popen(self.hosts.mpirun(LAUNCHER, 2, BIN, *args), stdout=errors, stderr=errors,
                               env=environment({"OMPI_MCA_mpi_yield_when_idle": "1"}),
                               start_new_session=True)
        self.addCleanup(job.wait)
        self.addCleanup(job.kill)
        return job, errors.name

    def start_long_run(self):
        """A run of hours, seconds after its ranks are up."""
        job, errors = self.start("trace", *arguments("mlp_ce", self.folder / "r.h5", "cross_entropy", probes=10**6, max_hvps=0))
        up = lambda: all(len(self.hosts.processes(name, Path(BIN).name)) == 2 for name in self.hosts.names)  # noqa: E731
        self.assertTrue(self.hosts.wait_for(up, 30), Path(errors).read_text())
        time.sleep(4)
        self.assertIsNone(job.poll(), Path(errors).read_text())
        return job, errors

    def assertEndsEverywhere(self, job, errors):
        gone = lambda: job.poll() is not None and not any(map(self.hosts.processes, self.hosts.names))  # noqa: E731
        started = time.monotonic()
        ended = self.hosts.wait_for(gone, ENDS_WITHIN_S)
        left = {name: self.hosts.processes(name) for name in self.hosts.names}
        self.assertTrue(ended, f"after {ENDS_WITHIN_S} s: launcher {job.poll()}, left {left}\n{Path(errors).read_text()}")
        print(f"ended after {time.monotonic() - started:.1f} s", file=sys.stderr)
        self.assertNotEqual(job.returncode, 0)
        return Path(errors).read_text()

    def test_the_same_spectrum_as_on_one(self):
        options = {"dtype": "float64", "top": 10, "bottom": 3, "rtol_eigs": 1e-11, "probes": 3, "steps": 40, "seed": 5,
                   "density_w1": 0, "rtol_trace": 0}
        one, two = self.folder / "one.h5", self.folder / "two.h5"
        self.assertDone(hesspect("analyze", *arguments("mlp_ce", one, "cross_entropy", **options), ranks=4))
        job, errors = self.start("analyze", *arguments("mlp_ce", two, "cross_entropy", **options))
        self.assertEqual(job.wait(timeout=100), 0, Path(errors).read_text())
        with h5py.File(one) as f, h5py.File(two) as g:
            first, second = f["entry/eigenvalues/eigenvalue"][()], g["entry/eigenvalues/eigenvalue"][()]
            np.testing.assert_allclose(second, first, rtol=0, atol=1e-9 * np.abs(first).max())
            for name in ("alpha", "beta"):  # rounding grows along the run
                mine, theirs = f[f"entry/quadrature/{name}"][()], g[f"entry/quadrature/{name}"][()]
                np.testing.assert_allclose(theirs[:, :20], mine[:, :20], rtol=1e-9, atol=1e-12)
            self.assertEqual(set(g["entry/process/hosts"].asstr()), set(self.hosts.names))
            self.assertEqual(len(g["entry/process/hosts"]), 4)

    def test_a_cut_cable_ends_the_run_on_both_sides(self):
        job, errors = self.start_long_run()
        self.hosts.cut()
        said = self.assertEndsEverywhere(job, errors)
        self.assertRegex(said, rf"{self.hosts.names[1]}|rank [23]")

    def test_a_killed_rank_ends_the_run_on_both_sides(self):
        job, errors = self.start_long_run()
        victim = self.hosts.processes(self.hosts.names[1], Path(BIN).name)[-1]
        os.kill(victim, signal.SIGKILL)
        said = self.assertEndsEverywhere(job, errors)
        self.assertRegex(said, rf"rank [23].*{self.hosts.names[1]}")
        self.assertIn("signal 9", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
