"""Options as Python's keywords to the command line's arguments: `micro_batch=64` is `--micro-batch 64`."""

import os
from collections.abc import Mapping
from typing import Any

from hesspect.errors import UsageError
from hesspect.running.binary import Option, options_of
from hesspect.text import did_you_mean

_TAKEN = ("model", "data", "output", "loss", "help", "print-config", "version", "config", "resume")  #: given by other means, or of no use here


def _text(value: Any) -> str:
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    return repr(value) if isinstance(value, float) else os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _arguments(option: Option, value: Any) -> list[str]:
    flag = f"--{option.name}"
    if value is None:
        return []
    if not option.takes:
        if not isinstance(value, bool):
            raise UsageError(f"{option.name.replace('-', '_')} is a switch: True or False, not {value!r}")
        return [flag if value else f"{flag}=false"]
    if isinstance(value, bool):
        raise UsageError(f"{option.name.replace('-', '_')} takes {option.takes}, not {value!r}")
    if hasattr(value, "tolist"):  # a tensor or an array
        value = value.tolist()
    if isinstance(value, Mapping):  # NAME=VALUE, repeated
        value = [f"{name}={_text(one)}" for name, one in value.items()]
    if isinstance(value, (list, tuple)):
        if option.repeatable:
            return [text for one in value for text in (flag, _text(one))]
        return [flag, ",".join(map(_text, value))]
    return [flag, _text(value)]


def arguments(command: str, options: Mapping[str, Any]) -> list[str]:
    """The command line of options by their Python names.

    :raises UsageError: a name that the command does not have, or a value of the wrong kind
    """
    known = options_of(command)
    made: list[str] = []
    for name, value in options.items():
        dashed = name.rstrip("_").replace("_", "-")
        if dashed in _TAKEN or dashed not in known:
            names = [one.replace("-", "_") for one in known if one not in _TAKEN]
            raise UsageError(f"hesspect {command} has no option {name!r}{did_you_mean(name, names)}")
        made += _arguments(known[dashed], value)
    return made
