"""Runs the program as a user would, alone or under mpirun, and looks at how it ended."""

import atexit
import dataclasses
import os
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

BIN = os.environ["HESSPECT_BIN"]
FIXTURES = Path(os.environ["HESSPECT_FIXTURES"])
BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))), None)
LONG = os.environ.get("HESSPECT_LONG") == "1"  #: `launch/test --long`: many trials, and the cases that are variants of others
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--quiet"]


@dataclasses.dataclass
class Ended:
    code: int
    out: str
    err: str
    seconds: float

    @property
    def errors(self):
        return [line for line in self.err.splitlines() if line.startswith("hesspect: error: ")]


def environment(extra=None):
    """What the tests themselves put into HESSPECT_* is not the program's."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HESSPECT_")}
    env.setdefault("OMP_NUM_THREADS", "1")
    env.setdefault("OMPI_MCA_odls_base_sigkill_timeout", "0")  # mpirun waits a second where ranks end with an error
    env.update(extra or {})
    return env


def hesspect(*args, ranks=1, env=None, timeout=100, preexec=None):
    command = [BIN, *map(str, args)]
    if ranks > 1:
        command = [*MPIRUN, "-n", str(ranks), *command]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(env), timeout=timeout, preexec_fn=preexec)
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def arguments(case, output, loss, **options):
    """Of one of the fixtures, with everything else by name."""
    values = {"model": FIXTURES / f"{case}.pt2", "data": FIXTURES / f"{case}.data.h5", "loss": loss, "output": output, **options}
    args = []
    for key, value in values.items():
        if value is not None:
            args += [f"--{key.replace('_', '-')}", value]
    return args


def screenshot(browser, page, picture, folder, *options):
    """Of a file, as a browser without a window shows it."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
               f"--screenshot={picture}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=100, env={**os.environ, "HOME": str(folder)})
    assert picture.exists(), done.stderr


_took = []  # (seconds, test)


@atexit.register
def _slowest():
    """Into ctest's log, for whoever makes the suite shorter."""
    if len(_took) > 1:
        print("slowest:", ", ".join(f"{name} {seconds:.1f} s" for seconds, name in sorted(_took, reverse=True)[:8]))


class Case(unittest.TestCase):
    """A test with a folder of its own."""

    def run(self, result=None):
        started = time.monotonic()
        try:
            return super().run(result)
        finally:
            _took.append((time.monotonic() - started, self._testMethodName))

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="hesspect_app_"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def assertDone(self, ended, code=0):
        self.assertEqual(ended.code, code, ended.err)
        self.assertEqual(ended.errors, [])
