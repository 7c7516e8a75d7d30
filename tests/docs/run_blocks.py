"""Runs the code blocks of Markdown pages as a reader would, each page from its top in an empty folder.

    run_blocks.py README.md docs/tutorials/llm.md       exit code 1 where a block fails, with its page and line
    run_blocks.py --list README.md                      what would be run

Python blocks of a page share one session, shell blocks are `bash -e` each. HESSPECT_BIN's folder and this interpreter's come first on the PATH.
What marks there are, says markdown_blocks.py.
"""

import argparse
import json
import linecache
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import IO

from markdown_blocks import SHELLS, Block, PageError, blocks_of, not_printed

def session(requests: IO[str], answers: IO[str]) -> None:
    """A page's Python: takes [page, line, code] a line, answers 0 or 1. A traceback has the page's own lines."""
    scope: dict[str, object] = {"__name__": "__main__"}
    for request in requests:
        page, line, code = json.loads(request)
        text = "\n" * (line - 1) + code
        linecache.cache[page] = (len(text), None, text.splitlines(True), page)
        failed = False
        try:
            exec(compile(text, page, "exec"), scope)
        except BaseException:
            traceback.print_exc()
            failed = True
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write("1\n" if failed else "0\n")
        answers.flush()


def warm() -> None:
    """Loads what most pages load, so that the sessions of many pages, forks of this process, need not: some seconds each."""
    import hesspect
    import torch

    with tempfile.TemporaryDirectory() as folder:
        hesspect.export(torch.nn.Linear(2, 2), torch.zeros(2, 2), Path(folder) / "model.pt2")


class Runner:
    """Runs a page's blocks one after another."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page, self.folder, self.printed = page, folder, ""
        self.environment = dict(os.environ)
        first = [str(Path(sys.executable).parent)]
        if os.environ.get("HESSPECT_BIN"):
            first.insert(0, str(Path(os.environ["HESSPECT_BIN"]).resolve().parent))
        self.environment["PATH"] = os.pathsep.join([*first, os.environ.get("PATH", "")])
        # The page speaks of its own options; those of the tests are not its.
        self.environment = {name: value for name, value in self.environment.items() if name not in ("HESSPECT_LONG", "HESSPECT_FIXTURES", "HESSPECT_SOURCE")}
        self.environment |= {"HESSPECT_PYTHON": sys.executable, "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}
        self.log = folder.with_suffix(".log")
        self.session = 0  #: process of the page's Python, once there is one

    def run(self, block: Block) -> str:
        """Why it failed; "" where it did not."""
        kind, _, rest = block.mark.partition(" ")
        if kind == "file":
            place = self.folder / rest
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(block.code)
            return ""
        if kind == "prints":
            missing = not_printed(block.code, self.printed)
            return f"the block before has not printed {missing!r}, but:\n{self.printed[-3000:]}" if missing else ""
        if not block.is_code:
            return ""
        start = self.log.stat().st_size if self.log.exists() else 0
        code = self._shell(block) if block.language in SHELLS else self._python(block)
        self.printed = self.log.read_bytes()[start:].decode(errors="replace")
        expected = int(rest) if kind == "exit" else 0
        return "" if code == expected else f"ended with {code}, not {expected}:\n{self.printed[-3000:]}"

    def _shell(self, block: Block) -> int:
        with self.log.open("ab") as log:
            return subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                                  stdout=log, stderr=log).returncode

    def _python(self, block: Block) -> int:
        if self.session == 0:
            self._start_session()
        print(json.dumps([self.page.name, block.line, block.code]), file=self.requests, flush=True)
        answer = self.answers.readline().strip()
        return int(answer) if answer else 70

    def _start_session(self) -> None:
        """A fork of this process, with the page's environment."""
        (requests_read, requests_write), (answers_read, answers_write) = os.pipe(), os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.session = os.fork()
        if self.session:
            os.close(requests_read)
            os.close(answers_write)
            self.requests, self.answers = os.fdopen(requests_write, "w"), os.fdopen(answers_read)
            return
        try:
            os.close(requests_write)
            os.close(answers_read)
            log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.chdir(self.folder)
            os.environ.clear()
            os.environ.update(self.environment)
            session(os.fdopen(requests_read), os.fdopen(answers_write, "w"))
        finally:
            os._exit(0)

    def close(self) -> None:
        if self.session:
            self.requests.close()
            os.waitpid(self.session, 0)
            self.answers.close()


def _to_run(blocks: list[Block], long: bool) -> list[Block]:
    """Those that are run: what a block prints is looked for only where it is."""
    found, before = [], True
    for block in blocks:
        kind = block.mark.partition(" ")[0]
        if kind != "prints":
            before = kind != "no," and (kind != "long" or long)
        if before:
            found.append(block)
    return found


def run_page(page: Path, long: bool, verbose: bool) -> bool:
    blocks = _to_run(blocks_of(page), long)
    with tempfile.TemporaryDirectory(prefix="hesspect-docs-") as folder:
        place = Path(folder) / "page"
        place.mkdir()
        runner = Runner(page, place)
        try:
            for block in blocks:
                start = time.monotonic()
                why = runner.run(block)
                if why:
                    print(f"{page}:{block.line}: a block of {block.language} {why}", file=sys.stderr)
                    return False
                if block.is_code and not block.mark.startswith("file"):
                    print(f"{page}:{block.line}: {block.language}, {time.monotonic() - start:.1f} s", flush=True)
                    if verbose:
                        print(runner.printed, flush=True)
        finally:
            runner.close()
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--long", action="store_true", help="do nothing (exit code 77) unless HESSPECT_LONG is set: pages that take minutes")
    parser.add_argument("--list", action="store_true", help="print what would be run")
    parser.add_argument("--verbose", action="store_true", help="print what blocks print")
    arguments = parser.parse_args()
    long = bool(os.environ.get("HESSPECT_LONG"))
    if arguments.long and not long:
        print("only with HESSPECT_LONG=1")
        return 77
    try:
        if arguments.list:
            for page in arguments.pages:
                every = blocks_of(page)
                run = _to_run(every, long)
                for block in every:
                    print(f"{page}:{block.line}: {block.language}{f' ({block.mark})' if block.mark else ''}{'' if block in run else ', not run'}")
            return 0
        if len(arguments.pages) > 1:
            warm()
        return 0 if all([run_page(page, long, arguments.verbose) for page in arguments.pages]) else 1
    except PageError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
