"""One run of the program: its lines as it says them, its errors as exceptions, Ctrl-C as a checkpoint."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TextIO

from hesspect.errors import by_code
from hesspect.running import binary

_ERROR = "hesspect: error: "
_NOT_CONVERGED = 3
_BAR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  #: what draws a progress bar


class Lines:
    """Passes on what the program says, but for errors, which become exceptions."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.errors: list[str] = []
        self.last = ""
        self._show = show

    def take(self, line: str) -> None:
        line = _BAR.sub("", line).rstrip()
        if line.startswith(_ERROR):
            self.errors.append(line.removeprefix(_ERROR))
        elif line:
            self.last = line
            self._show(line)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def in_notebook() -> bool:
    """Whether output goes to a notebook's cell."""
    shell = sys.modules.get("IPython")
    current = shell.get_ipython() if shell is not None else None
    return current is not None and hasattr(current, "kernel")


class _Terminal:
    """A terminal for the program's stderr, so that it draws its bar, which is passed on as it is; lines are looked at as well."""

    def __init__(self, lines: Lines) -> None:
        self._master, self.slave = pty.openpty()
        self._lines = lines

    def read(self) -> None:
        os.close(self.slave)
        pending = b""
        while True:
            try:
                piece = os.read(self._master, 65536)
            except OSError:  # the other side is closed
                piece = b""
            if not piece:
                break
            *whole, pending = re.split(rb"\r?\n", pending + piece)
            for one in whole:
                self._pass(one, "\n")
            if pending and not pending.startswith(_ERROR.encode()[:len(pending)]):
                self._pass(pending, "")
                pending = b""
        if pending:
            self._pass(pending, "\n")
        os.close(self._master)

    def _pass(self, piece: bytes, end: str) -> None:
        text = piece.decode(errors="replace")
        if _BAR.sub("", text).lstrip("\r").startswith(_ERROR):
            self._lines.take(_BAR.sub("", text).lstrip("\r"))
            return
        self._lines.last = _BAR.sub("", text).strip() or self._lines.last
        sys.stderr.write(text + end)
        sys.stderr.flush()


def _read_pipe(pipe: TextIO, lines: Lines) -> None:
    with pipe:
        for line in pipe:
            lines.take(line)


def run(arguments: Sequence[str], ranks: int, progress: bool) -> int:
    """Runs `hesspect ARGUMENTS` on so many ranks, and waits.

    :param progress: pass on what it says: to the terminal, or plainly to a notebook
    :return: the exit code, 0, or 3 where the result is not as good as was asked for
    :raises Error: of the class of any other exit code
    :raises KeyboardInterrupt: Ctrl-C; a checkpoint is there if the run had begun
    """
    program = str(binary.find())
    command = [program, *arguments] if ranks == 1 else [program, "run", "--ranks", str(ranks), *arguments]
    show = (lambda line: None) if not progress else print if in_notebook() else _to_stderr
    lines = Lines(show)
    on_terminal = progress and ranks == 1 and not in_notebook() and sys.stderr.isatty()
    terminal = _Terminal(lines) if on_terminal else None
    # A session of its own: the terminal's Ctrl-C is this process's to pass on.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=terminal.slave if terminal else subprocess.PIPE,
                             env=binary.environment(), text=True, errors="replace", start_new_session=True)
    if terminal is not None:
        reader = threading.Thread(target=terminal.read, daemon=True)
    else:
        assert child.stderr is not None
        reader = threading.Thread(target=_read_pipe, args=(child.stderr, lines), daemon=True)
    reader.start()
    # `hesspect run` ends its ranks at once by these: they are in a group of their own.
    interrupted = _wait(child, (signal.SIGTERM, signal.SIGTERM) if ranks == 1 else (signal.SIGINT, signal.SIGQUIT))
    reader.join(timeout=10)
    code = child.returncode
    if interrupted:
        saved = "stopped with a checkpoint: the same call goes on from it" if code == 75 else "stopped before there was a checkpoint"
        raise KeyboardInterrupt(saved)
    if code in (0, _NOT_CONVERGED):
        return code
    raise by_code(code, lines.errors[0] if lines.errors else lines.last)


def _wait(child: "subprocess.Popen[str]", ending: tuple[signal.Signals, signal.Signals]) -> bool:
    """Waits for the end. The first Ctrl-C asks the ranks to save and stop, the second ends them.

    :param ending: what ends a run that has been asked, and one that has not
    :return: whether there was one
    """
    interrupts = 0
    while True:
        try:
            child.wait()
            return interrupts > 0
        except KeyboardInterrupt:
            interrupts += 1
            with contextlib.suppress(ProcessLookupError):
                if interrupts == 1:
                    child.send_signal(signal.SIGUSR1)
                    _to_stderr("hesspect: stopping with a checkpoint; Ctrl-C again ends it at once")
                else:
                    os.killpg(child.pid, ending[0])
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, ending[1])
            raise
