"""The code blocks of a Markdown page, and the marks that stand before them in HTML comments.

    <!-- run: no, REASON -->       the next block is not run
    <!-- run: long -->             only where HESSPECT_LONG is set
    <!-- run: file NAME -->        the next block is written to NAME
    <!-- run: exit 4 -->           the next block ends with this exit code
    <!-- run: prints -->           each line of the next block was printed by the block before: words alike, numbers as they may be,
                                   a line of … for any others
    <!-- run: hidden python        a block that a reader does not see
    code
    -->

A block of Python or of a shell without a mark is run. Others (`text`, `ini`, …) are not; one without a language is an error.
"""

import dataclasses
import re
from pathlib import Path

_MARK = re.compile(r"^<!-- run: (.*?) ?-->$")
_HIDDEN = re.compile(r"^<!-- run: hidden (\w+)$")
_FENCE = re.compile(r"^( *)(```+)(\w*)\s*$")
SHELLS = ("bash", "sh")
_KINDS = re.compile(r"no, .+|long|file \S+|exit \d+|prints")


class PageError(Exception):
    """A page whose blocks or marks can't be understood: PAGE:LINE: why."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    code: str
    line: int  #: of its first line of code, from 1
    mark: str = ""  #: what stands behind `run:`

    @property
    def is_code(self) -> bool:
        return self.language == "python" or self.language in SHELLS


def blocks_of(path: Path) -> list[Block]:
    """A page's blocks in their order.

    :raises PageError: a block without a language or an end, a mark that is none or has no block
    """
    found, mark, marked_at = [], "", 0
    lines = path.read_text().split("\n")
    at = 0

    def fail(line: int, why: str) -> None:
        raise PageError(f"{path}:{line}: {why}")

    while at < len(lines):
        text, at = lines[at], at + 1
        if hidden := _HIDDEN.match(text):
            end = next((i for i in range(at, len(lines)) if lines[i] == "-->"), None)
            if end is None:
                fail(at, "a hidden block without an end")
            found.append(Block(hidden[1], "\n".join(lines[at:end]) + "\n", at + 1))
            at = end + 1
        elif marked := _MARK.match(text):
            if not _KINDS.fullmatch(marked[1]):
                fail(at, f"no mark: {marked[1]!r}")
            mark, marked_at = marked[1], at
        elif fence := _FENCE.match(text):
            end = next((i for i in range(at, len(lines)) if lines[i].strip() == fence[2]), None)
            if end is None:
                fail(at, "a block without an end")
            if not fence[3]:
                fail(at, "a block without a language")
            indent = len(fence[1])
            found.append(Block(fence[3], "".join(line[indent:] + "\n" for line in lines[at:end]), at + 1, mark))
            at, mark = end + 1, ""
        elif mark and text.strip():
            fail(marked_at, "a mark that no block follows")
    if mark:
        fail(marked_at, "a mark that no block follows")
    return found


def _words(line: str) -> str:
    """Numbers as #, and one space between words."""
    return " ".join(re.sub(r"[-+−]?\d[\d,.]*(?:e[-+]?\d+)?", "#", line).split())


def not_printed(expected: str, printed: str) -> str:
    """The first line of `expected` that is not among the printed ones, in their order; "" where all are."""
    lines = iter([_words(line) for line in printed.split("\n")])
    for line in expected.split("\n"):
        if line.strip() in ("", "…"):
            continue
        pattern = re.escape(_words(line)).replace("…", ".*")
        if not any(re.fullmatch(pattern, other) for other in lines):
            return line
    return ""
