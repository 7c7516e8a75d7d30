"""Jobs for a resident `hesspect serve`: handing them in, and what became of them.

    job = hesspect.submit("model.pt2", data="data.h5", loss="cross_entropy", spool="spool", weights="step-400.safetensors", top=5)
    ...                                # the training goes on meanwhile
    job.done()                         # without waiting
    result = job.result(timeout=600)   # a Result, or the exception of the job's exit code

Nothing of this needs torch. A job's state is where its file lies in the spool: it is read from there, and only handing in, cancelling and the whole
queue call the program.
"""

import dataclasses
import json
import math
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hesspect.errors import Stopped, UsageError, by_code
from hesspect.result import Result, read
from hesspect.running import binary
from hesspect.running import options as command_line

_COMMANDS = ("analyze", "density", "eigs", "trace")
_ERROR = "hesspect: error: "
_LOOK_EVERY_S = 0.1
_DONE = (0, 3)  #: exit codes with a result; 3: not as good as was asked for


@dataclasses.dataclass(frozen=True)
class JobInfo:
    """What is known of a job. Times are seconds since 1970, 0 where it has not come to that; numbers that are not known are NaN."""

    id: str
    name: str
    command: str
    state: str  #: "queued", "running", "done", "failed" or "cancelled"
    priority: int
    submitted: float
    started: float
    ended: float
    starts: int  #: how often it was begun
    exit_code: int
    line: str  #: the error, or a word on its end
    output: str  #: the result file
    service: str  #: that has it; "slurm 123" for one that waits there
    seconds: float
    products: int
    lambda1: float  #: the largest eigenvalue
    trace: float


def _info(fields: dict[str, Any]) -> JobInfo:
    names = {field.name for field in dataclasses.fields(JobInfo)}
    known = {name: value for name, value in fields.items() if name in names}
    for name in ("lambda1", "trace"):
        known[name] = math.nan if known.get(name) is None else known[name]
    return JobInfo(**known)


def _call(*arguments: str) -> str:
    done = subprocess.run([str(binary.find()), *arguments], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                          env=binary.environment())
    if done.returncode == 0:
        return done.stdout
    lines = [line for line in done.stderr.splitlines() if line]
    error = next((line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)), lines[-1] if lines else "")
    raise by_code(done.returncode, error)


def _spool(spool: str | os.PathLike[str] | None) -> Path:
    named = spool if spool is not None else os.environ.get("HESSPECT_SPOOL")
    if not named:
        raise UsageError("which spool? give spool=, or set HESSPECT_SPOOL")
    return Path(named).absolute()


class Job:
    """A job that was handed in: a future, whose result is there when a service has run it."""

    def __init__(self, id: str, spool: str | os.PathLike[str] | None = None) -> None:
        """:param id: as `submit` gives it; one of an earlier process will do"""
        self.id = id
        self.spool = _spool(spool)

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {str(self.spool)!r})"

    def _ended(self) -> JobInfo | None:
        for state in ("done", "failed", "cancelled"):
            if (self.spool / state / f"{self.id}.ini").exists():
                return _info(json.loads((self.spool / state / f"{self.id}.json").read_text()))
        return None

    def info(self) -> JobInfo:
        """:raises UsageError: there is no such job"""
        found: JobInfo | None = self._ended()
        if found is None:
            found = _info(json.loads(_call("queue", "--spool", str(self.spool), "--json", self.id))[0])
        return found

    def done(self) -> bool:
        """Whether it has ended: with a result, with an error, or cancelled."""
        return self._ended() is not None

    def running(self) -> bool:
        """Whether a service is at it."""
        return any(self.spool.glob(f"claimed/*/{self.id}@*.ini"))

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        ended = self._ended()
        return ended is not None and ended.state == "cancelled"

    def cancel(self) -> bool:
        """Takes it out of the queue; where it runs, it ends after the product that it is at.

        :return: False where it has ended already
        """
        if self.done():
            return False
        try:
            _call("cancel", "--spool", str(self.spool), self.id)
        except UsageError:
            if self.done():
                return False
            raise
        return True

    def wait(self, timeout: float | None = None) -> JobInfo:
        """Waits for its end.

        :param timeout: seconds at most
        :raises TimeoutError: it has not ended by then
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        while (ended := self._ended()) is None:
            if time.monotonic() >= until:
                raise TimeoutError(f"the job {self.id} has not ended after {timeout} s")
            time.sleep(_LOOK_EVERY_S)
        return ended

    def result(self, timeout: float | None = None) -> Result:
        """Waits for its end, and reads its result.

        :raises TimeoutError: it has not ended by then
        :raises Error: of the class of its exit code, with its line
        :raises Stopped: it was cancelled
        """
        ended = self.wait(timeout)
        if ended.state == "cancelled":
            raise Stopped(ended.line)
        if ended.exit_code not in _DONE:
            raise by_code(ended.exit_code, ended.line)
        return read(ended.output)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits for its end. The error that `result` would raise; None where it has a result.

        :raises TimeoutError: it has not ended by then
        """
        ended = self.wait(timeout)
        if ended.state == "cancelled":
            return Stopped(ended.line)
        return None if ended.exit_code in _DONE else by_code(ended.exit_code, ended.line)

    def log(self) -> str:
        """What it has said so far."""
        path = self.spool / "log" / f"{self.id}.log"
        return path.read_text(errors="replace") if path.exists() else ""


def submit(model: str | os.PathLike[str], *, data: str | os.PathLike[str] | None = None, loss: str | None = None,
           weights: str | os.PathLike[str] | Sequence[Any] | None = None, output: str | os.PathLike[str] | None = None, command: str = "analyze",
           spool: str | os.PathLike[str] | None = None, name: str = "", priority: int = 0, slurm: bool = False, flux: bool = False,
           batch_options: str = "", **options: Any) -> Job:
    """Hands a job in to the services of a spool, and returns at once.

    :param model: the `.pt2`; or an ini file with a job's options, which then has all else
    :param output: the result file; default: in the spool, as `done/ID.h5`
    :param command: "analyze", "density", "eigs" or "trace"
    :param spool: the folder of the queue; default: the variable HESSPECT_SPOOL
    :param name: what people call it; `priority`: higher ones come first
    :param slurm: a job of Slurm's instead, with `batch_options` for sbatch; `flux`: of Flux's
    :param options: those of the command line, with underscores
    :raises UsageError: of options, or a full queue; InputError: a file is not there
    """
    place = _spool(spool)
    own = ["--spool", str(place)]
    for flag, value in (("--name", name), ("--priority", priority), ("--batch-options", batch_options)):
        own += [f"{flag}={value}"] if value else []
    own += ["--slurm"] if slurm else ["--flux"] if flux else []
    if os.fspath(model).endswith(".ini"):
        if data is not None or loss is not None or weights is not None or output is not None or options:
            raise UsageError(f"{os.fspath(model)} is a job's file: its options stand in it")
        return Job(_call("submit", *own, os.fspath(model)).strip(), place)
    if command not in _COMMANDS:
        raise UsageError(f"a job's command is {', '.join(_COMMANDS)}, not {command!r}")
    several = [weights] if isinstance(weights, (str, os.PathLike)) else list(weights or [])
    given = [text for key, value in (("model", model), ("data", data), ("loss", loss), ("output", output)) if value is not None
             for text in (f"--{key}", os.fspath(value))]
    for one in several:
        given += ["--weights", os.fspath(one)]
    return Job(_call("submit", *own, command, *given, *command_line.arguments(command, options)).strip(), place)


def queue(spool: str | os.PathLike[str] | None = None, all: bool = False) -> list[JobInfo]:
    """The jobs that wait, in their order, those that run, and the last 20 that have ended, or all."""
    text = _call("queue", "--spool", str(_spool(spool)), "--json", *(["--all"] if all else []))
    return [_info(job) for job in json.loads(text)]
