"""Python environments of their own for tests, with the wheel of the build tree that is there."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(os.environ["HESSPECT_SOURCE"])
BIN = Path(os.environ["HESSPECT_BIN"])
TREE = BIN.parents[1]
LONG = os.environ.get("HESSPECT_LONG") == "1"
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--quiet"]
SITE = Path(importlib.util.find_spec("torch").origin).parents[1]  # what these environments see beside their own packages
_backend = importlib.util.find_spec("scikit_build_core")
BACKEND = _backend and Path(_backend.origin).parents[1]
WITHOUT_BACKEND = "scikit-build-core is not installed: launch/setup --test"


def variables(**extra):
    """What a user has: no variable of the tests."""
    return {**{k: v for k, v in os.environ.items() if not k.startswith("HESSPECT_") and k != "PYTHONPATH"}, "OMP_NUM_THREADS": "1", **extra}


def run(*command, codes=(0,), env=None, timeout=600, **more):
    """:raises AssertionError: another exit code, with all that was said"""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env or variables(), timeout=timeout, **more)
    if done.returncode not in codes:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def pip(python, *arguments, **more):
    """The tests' pip, on another environment."""
    return run(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", *arguments, **more)


def make_environment(folder, with_torch=True):
    """Without pip, which takes seconds to install; torch and what else hesspect wants are the tests' own.

    :return: its interpreter
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    if with_torch:
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "shared.pth").write_text(f"{SITE}\n{BACKEND}\n")
    return folder / "bin" / "python"


def make_wheel(python, folder, *options, **more):
    """`pip wheel` of the sources, as that interpreter's pip makes it."""
    pip(python, "wheel", SOURCE, "--no-deps", "--no-build-isolation", "-w", folder, *options, **more)
    (wheel,) = folder.glob("*.whl")
    return wheel


def of_build_tree():
    """Options of make_wheel that take the programs from the build tree."""
    return "-C", f"cmake.define.HESSPECT_BUILD_TREE={TREE}"
