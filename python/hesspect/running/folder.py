"""Where a run's files are: a folder by a hash of what the run computes, so that the same call finds its checkpoint."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hesspect.running import binary

FOLDER = "hesspect_runs"  #: in the current directory, where no other is given
#: options that say how a run goes, not what it computes: they may differ when it goes on
_HOW = ("checkpoint_minutes", "max_hours", "verbose", "quiet", "force", "threads", "memory", "lost_after", "trace_json", "progress")


def key_of(**what: Any) -> str:
    """A name by content: of files' hashes and of options."""
    env = {name: value for name, value in binary.environment().items() if name.startswith("HESSPECT_")}
    text = json.dumps([what, env], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide the result."""
    return {name: value for name, value in options.items() if name not in _HOW}


def file_identity(path: str | os.PathLike[str]) -> list[Any]:
    """What stands for a file's or folder's content without reading it: where it is, its size and when it was changed."""
    place = Path(path).resolve()
    if place.is_dir():
        return [str(place), sorted(file_identity(one) for one in place.iterdir() if one.is_file())]
    with contextlib.suppress(OSError):
        status = place.stat()
        return [str(place), status.st_size, status.st_mtime_ns]
    return [str(place)]


@contextlib.contextmanager
def making(root: Path) -> Iterator[Path]:
    """A folder to write a run's inputs into, before their content, and so the run's name, is known."""
    root.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=root))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def settled(made: Path, key: str) -> Path:
    """The run's folder, with the inputs of the first call of that content: a checkpoint belongs to these files."""
    place = made.parent / key
    with contextlib.suppress(OSError):  # it is there, from an earlier call
        os.rename(made, place)
    return place
