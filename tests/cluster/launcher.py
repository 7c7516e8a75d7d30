#!/usr/bin/env python3
"""launch/mpirun.sh: how signals reach the ranks, and that it ends when they have ended, with their exit code.

Of launch/slurm/job.sh what it shares with it: that a signal is passed on once, whenever it comes (HESSPECT_LONG=1 tries five times as often).
"""

import fcntl
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import tempfile
import termios
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LAUNCHER = Path(os.environ["HESSPECT_SOURCE"]) / "launch" / "mpirun.sh"
SESSION = Path(os.environ["HESSPECT_BIN"]).parents[1] / "tests" / "mpi_session_program"
JOB = LAUNCHER.parent / "slurm" / "job.sh"

# A rank that takes two seconds to stop, more than mpirun gives to ranks that it ends itself.
RANK = """
touch up.$OMPI_COMM_WORLD_RANK
trap 'asked=1' USR1
while [ -z "$asked" ]; do sleep 0.1; done
sleep 2
touch saved.$OMPI_COMM_WORLD_RANK
sleep 1
exit 75
"""

# In mpirun's place: 70 + the number of signals that it got. Asked for its version it says in the pipe that the scripts
# are about to start it.
STUB = """#!/usr/bin/env bash
if [ "$1" = --version ]; then echo >&"$READY"; exit; fi
got=0
trap 'got=$((got + 1))' USR1
for _ in {1..100}; do
  sleep 0.05
  [ "$got" -eq 0 ] || break
done
for _ in {1..10}; do sleep 0.05; done
exit $((70 + got))
"""
GOT_ONE = 71
LONG = os.environ.get("HESSPECT_LONG") == "1"
ENDED_BY_USR1 = 128 + signal.SIGUSR1


class Launcher(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="hesspect_launcher_"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def start(self, script=RANK, **options):
        job = subprocess.Popen([LAUNCHER, "-n", "2", "bash", "-c", script], cwd=self.folder, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True, **options)
        self.addCleanup(job.stdout.close)
        self.addCleanup(lambda: job.poll() is not None or os.killpg(job.pid, signal.SIGKILL))
        return job

    def wait_until_up(self):
        until = time.monotonic() + 30
        while len(list(self.folder.glob("up.*"))) < 2:
            self.assertLess(time.monotonic(), until, "the ranks did not start")
            time.sleep(0.05)
        time.sleep(0.3)  # for the trap, a line further on

    def assertSaved(self, job):
        said, _ = job.communicate(timeout=30)
        self.assertEqual(job.returncode, 75, said)
        self.assertEqual({path.name for path in self.folder.glob("saved.*")}, {"saved.0", "saved.1"})

    def test_signals_become_usr1(self):
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            with self.subTest(number.name):
                for path in self.folder.iterdir():
                    path.unlink()
                job = self.start()
                self.wait_until_up()
                job.send_signal(number)
                self.assertSaved(job)

    def test_asked_twice(self):
        job = self.start()
        self.wait_until_up()
        for _ in range(2):
            job.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        self.assertSaved(job)

    def test_a_second_interrupt_ends_the_ranks(self):
        job = self.start()
        self.wait_until_up()
        for _ in range(2):
            job.send_signal(signal.SIGINT)
            time.sleep(0.5)
        said, _ = job.communicate(timeout=30)
        self.assertNotIn(job.returncode, (0, 75), said)
        self.assertEqual(list(self.folder.glob("saved.*")), [])

    def test_one_that_ends_leaves_the_folder_of_the_next(self):
        """mpirun removes the folder that all of a user share where it is empty, even while another begins to use it."""
        for left in ([], ["kept_for_hesspect"]):
            program = SESSION if left else "true"
            said = subprocess.run([LAUNCHER, "-n", "2", program], env={**os.environ, "TMPDIR": str(self.folder)}, capture_output=True, text=True)
            self.assertEqual(said.returncode, 0, said.stderr)
            self.assertEqual([path.name for path in self.folder.glob("ompi.*/*")], left)

    def test_control_c_on_a_terminal(self):
        """A terminal sends it to the whole foreground group; mpirun, were it there, would end the ranks."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        job = self.start(stdin=theirs, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(theirs)
        self.wait_until_up()
        os.write(ours, b"\x03")
        self.assertSaved(job)

    def test_exit_codes_and_input(self):
        for script, code in (("exit 0", 0), ("exit 3", 3)):
            job = self.start(script)
            job.communicate(timeout=30)
            self.assertEqual(job.returncode, code)
        read, write = os.pipe()
        job = self.start('[ "$OMPI_COMM_WORLD_RANK" -gt 0 ] || cat', stdin=read)
        os.close(read)
        os.write(write, b"from the pipe\n")
        os.close(write)
        self.assertIn("from the pipe", job.communicate(timeout=30)[0])

    def signal_at(self, command, after_s):
        """The exit code of a script that gets SIGUSR1 so long after it was about to start the stub."""
        ready, write = os.pipe()
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        with subprocess.Popen(command, cwd=self.folder, env={**os.environ, "PATH": path, "READY": str(write)}, pass_fds=[write],
                              stderr=subprocess.DEVNULL) as job:
            os.close(write)
            os.read(ready, 1)
            os.close(ready)
            time.sleep(after_s)
            job.send_signal(signal.SIGUSR1)
            time.sleep(0.7)
            job.send_signal(signal.SIGUSR1)
            return job.wait(timeout=60)

    def test_the_products_of_a_checkpoint(self):
        """The state has the trace estimate within, with products of its own behind it: a run that got on was given up
        after hutch++ and xtrace, for theirs had not changed. Texts may hold anything, and the second line is the seal."""
        state = {"config": 'title = {"products":7}\\', "counts": {"products": {"products": 5}}, "finished": [{"eigenvalues": {"x": {}}}, []],
                 "products": 1234, "samples": [{"products": 8, "text": "}"}], "trace": {"method": "hutch++", "products": 90}}
        said = lambda: subprocess.run(["bash", "-c", f". {JOB}; products {self.folder}"], check=True, capture_output=True,  # noqa: E731
                                      text=True).stdout.split()
        self.assertEqual(said(), ["0"])
        for number, newest in ((9, state), (10, {**state, "products": 0}), (11, {"products": 3})):
            text = json.dumps(newest, sort_keys=True, separators=(",", ":"))
            (self.folder / f"run-{number:06}.json").write_text(f'{text}\n"sha256:00"\n')
            self.assertEqual(said(), [str(newest["products"])])
        (self.folder / "run-000012.json").write_text("")
        self.assertEqual(said(), ["0"])

    def test_a_requeue_that_ends_the_script(self):
        """Slurm's TERM to the requeued job ends scontrol too, at times before it has said that all is well: the script then
        told that Slurm does not take the job back."""
        for name, script in (("scontrol", "kill -TERM $PPID; exit 143"),
                             ("program", 'case "$*" in *--print-config*) echo "output = r.h5";; *) exit 75;; esac')):
            (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (self.folder / name).chmod(0o755)
        env = {**os.environ, "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "HESSPECT_BIN": str(self.folder / "program"),
               "SLURM_JOB_ID": "1"}
        ended = subprocess.run(["bash", "-c", f"set -euo pipefail; . {JOB}; run_job env -- analyze"], cwd=self.folder, env=env,
                               capture_output=True, text=True)
        self.assertEqual(ended.returncode, 75, ended.stderr)
        self.assertIn("back in the queue", ended.stderr)

    def test_a_signal_at_the_start(self):
        """The process that becomes mpirun is a copy of the shell first, with the shell's handler: a signal that was passed
        on to it at once was lost there, one time in thirty, and the run went on into its time limit. None may be lost,
        and none passed on twice: a program that is asked again leaves without a checkpoint."""
        stub = self.folder / "mpirun"
        stub.write_text(STUB)
        stub.chmod(0o755)
        of_job = f"set -euo pipefail; . {JOB}; mpirun --version; wait_for mpirun; exit $status"
        delays = random.Random(1)
        for name, command in (("mpirun.sh", [LAUNCHER]), ("job.sh", ["bash", "-c", of_job])):
            with self.subTest(name), ThreadPoolExecutor(6) as pool:
                after = [delays.uniform(0, 0.03) for _ in range(200 if LONG else 40)]
                codes = list(pool.map(lambda seconds: self.signal_at(command, seconds), after))
                # Ended by it before it took signals there was nothing to lose.
                self.assertEqual(set(codes) - {GOT_ONE, ENDED_BY_USR1}, set(), codes)
                self.assertIn(GOT_ONE, codes)


if __name__ == "__main__":
    unittest.main(verbosity=2)
