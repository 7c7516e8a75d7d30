"""The folder that jobs are dropped into, and what has become of them. `hesspect serve` and docs/service.md have the rules."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hesspect.errors import UsageError

_ENDED = ("done", "failed", "cancelled")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What has become of a job."""

    state: str  #: done, failed or cancelled
    line: str
    output: Path | None  #: the result file


def job_value(value: Any) -> str:
    """An option's value as text."""
    return ("true" if value else "false") if isinstance(value, bool) else os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _quoted(text: str) -> str:
    """As the ini files of hesspect have it.

    :raises UsageError: more than a line
    """
    if "\n" in text or "\r" in text:
        raise UsageError(f"a value of a job has more than one line: {text!r}")
    if text and text == text.strip() and not set('#;"\\') & set(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def job_text(command: str, options: Iterable[tuple[str, str]], name: str, priority: int) -> str:
    """A job's file. An option may be there several times, where it takes several values."""
    lines = ["[job]", f"name = {_quoted(name)}", f"priority = {priority}", f"command = {command}", f"submitted = {time.time():.6f}", "", "[options]"]
    return "\n".join([*lines, *(f"{key} = {_quoted(value)}" for key, value in options)]) + "\n"


def replace_file(path: Path, text: str) -> None:
    """Whole or not at all, and on the disk."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Spool:
    """A spool's folder, from the side of those who hand jobs in."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).resolve()
        for sub in ("incoming", *_ENDED):
            (self.folder / sub).mkdir(parents=True, exist_ok=True)

    def submit(self, command: str, options: Iterable[tuple[str, str]], *, name: str, priority: int = 0) -> str:
        """Hands a job in.

        :return: its id
        """
        now = time.time()
        job = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + f"-{int(now * 1000) % 1000:03d}-{secrets.token_hex(3)}"
        replace_file(self.folder / "incoming" / f"{job}.ini", job_text(command, options, name, priority))
        return job

    def queued(self) -> int:
        """How many jobs wait, whoever has handed them in."""
        with os.scandir(self.folder / "incoming") as entries:
            return sum(entry.name.endswith(".ini") and not entry.name.startswith(".") for entry in entries)

    def outcome(self, job: str) -> Outcome | None:
        """None while it waits or is at work."""
        for state in _ENDED:
            if not (self.folder / state / f"{job}.ini").exists():
                continue  # its file comes last, when record and result are there
            try:
                record = json.loads((self.folder / state / f"{job}.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return None  # a network file system that has not got there; the next look will tell
            output = record.get("output") or ""
            return Outcome(state, str(record.get("line") or ""), self.folder / output if output else None)
        return None
