"""Where the compiled program is, and what options it has."""

import dataclasses
import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from hesspect.errors import ProgramNotFound

_OURS = ("HESSPECT_BIN",)  #: of the environment's HESSPECT_*, for this package and not for the program


def environment() -> dict[str, str]:
    """The environment as the program takes it, where each HESSPECT_* is one of its options."""
    return {name: value for name, value in os.environ.items() if name not in _OURS}


def _installed_with(package: Path) -> list[Path]:
    """Where pip, or `cmake --install`, has put it together with this package."""
    if package.parts[-4:-1] == ("share", "hesspect", "python"):
        return [package.parents[3] / "bin" / "hesspect"]
    for distribution in importlib.metadata.distributions(name="hesspect", path=[str(package.parent)]):
        for file in distribution.files or []:
            if file.parts[-2:] == ("bin", "hesspect"):
                return [Path(os.path.abspath(str(file.locate())))]
    return []


def _places() -> list[Path]:
    """What was installed together with the package, in its environment, and in the build tree of a checkout."""
    package = Path(__file__).resolve().parent.parent
    return [*_installed_with(package), Path(sys.prefix) / "bin" / "hesspect", package.parent.parent / "build" / "release" / "bin" / "hesspect"]


def _is_program(path: Path) -> bool:
    """Whether it is the compiled program, not a script of the same name."""
    if not (path.is_file() and os.access(path, os.X_OK)):
        return False
    with open(path, "rb") as file:
        return file.read(2) != b"#!"


def find() -> Path:
    """HESSPECT_BIN, else beside the package, else on the PATH.

    :raises ProgramNotFound: it is nowhere
    """
    named = os.environ.get("HESSPECT_BIN")
    if named:
        if not _is_program(Path(named)):
            raise ProgramNotFound(f"HESSPECT_BIN is {named!r}, which is no program")
        return Path(named)
    on_path = shutil.which("hesspect")
    for path in [*_places(), *([Path(on_path)] if on_path else [])]:
        if _is_program(path):
            return path
    raise ProgramNotFound("the compiled program hesspect is neither beside this package nor on the PATH: pip install . in hesspect's sources "
                          "brings both, launch/build makes it for a checkout, and the variable HESSPECT_BIN names one")


@dataclasses.dataclass(frozen=True)
class Option:
    """One of the program's options, as its help says it."""

    name: str  #: as "micro-batch"
    takes: str  #: "" for a switch
    repeatable: bool


@functools.lru_cache(maxsize=8)
def _help(path: str, command: str, changed_at: int) -> dict[str, Option]:
    del changed_at
    done = subprocess.run([path, command, "--help"], capture_output=True, text=True, env=environment())
    if done.returncode != 0:
        line = next((line for line in done.stderr.splitlines() if line), f"exit code {done.returncode}")
        raise ProgramNotFound(f"{path} {command} --help does not run: {line.removeprefix('hesspect: error: ')}")
    found: dict[str, Option] = {}
    entries = re.split(r"\n(?=  (?:-\w, )?--)", done.stdout)
    for entry in entries[1:]:
        head = re.match(r"  (?:-\w, )?--([a-z0-9-]+)((?: [^\s,]+)?)(?:  |,|\n|$)", entry)
        if head:
            text = entry.split("\n\n")[0]
            found[head[1]] = Option(head[1], head[2].strip(), "(repeatable" in " ".join(text.split()))
    return found


def options_of(command: str) -> dict[str, Option]:
    """What a command takes, by name."""
    path = find()
    return _help(str(path), command, path.stat().st_mtime_ns)
