"""What can go wrong, as exceptions: one class for each exit code of the program, each with `code` and `line`.

The Python edge raises the same classes for the same causes, so that `except hesspect.InputError` catches a broken file whether
this package or the program came upon it first.
"""

import signal


class Error(Exception):
    """Something went wrong. `line` is what the program said, without `hesspect: error: `; `code` its exit code."""

    code = 70

    def __init__(self, line: str, code: int | None = None) -> None:
        super().__init__(line)
        self.line = line
        if code is not None:
            self.code = code


class UsageError(Error):
    """An unknown option, a missing or an impossible value."""

    code = 2


class InputError(Error):
    """A file that is missing, broken or does not fit; a model that cannot be exported; a value that is not finite."""

    code = 4


class MemoryLimitError(Error):
    """It would not fit, or did not fit, in memory."""

    code = 5


class CommError(Error):
    """Communication between ranks failed."""

    code = 6


class InternalError(Error):
    """A fault of hesspect's own: please report it."""

    code = 70


class Stopped(Error):
    """The run stopped with a checkpoint, as `max_hours` asks: the same call goes on."""

    code = 75


class ProgramNotFound(UsageError):
    """The compiled program is not where it was looked for."""


_BY_CODE: dict[int, type[Error]] = {kind.code: kind for kind in (UsageError, InputError, MemoryLimitError, CommError, InternalError, Stopped)}


def by_code(code: int, line: str) -> Error:
    """The exception of a run that ended with an exit code.

    :param code: of the program or of mpirun; negative or above 128 where a signal ended it
    :param line: what it said of it, "" where it said nothing
    """
    if code in _BY_CODE:
        return _BY_CODE[code](line or f"the program ended with exit code {code} and said nothing")
    number = -code if code < 0 else code - 128
    try:
        what = f"ended by {signal.Signals(number).name}"
    except ValueError:
        what = f"ended with exit code {code}"
    return Error(f"a rank was {what}" + (f": {line}" if line else ""), code)
