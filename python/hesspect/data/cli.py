"""Command line: python -m hesspect data text|table|images|check ..."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from hesspect.data.sources import DataError
from hesspect.data.writer import DataFile, verify_data

_KINDS = ("text", "table", "images")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DATA.h5", help="the data file")
    parser.add_argument("--force", action="store_true", help="write over a file that is there already")
    parser.add_argument("--rows", type=int, metavar="N", help="a random sample of N rows (default: all rows)")
    parser.add_argument("--first", action="store_true", help="the first N rows instead")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of masks (default: 0)")
    parser.add_argument("--compression", choices=("gzip", "lzf"), help="of the arrays (default: none)")


def parser() -> argparse.ArgumentParser:
    """Of the command's line."""
    made = argparse.ArgumentParser(prog="hesspect data", description="Writes the data file that `hesspect --data` reads.")
    commands: Any = made.add_subparsers(dest="kind", required=True, metavar="|".join((*_KINDS, "check")))
    for kind in _KINDS:
        importlib.import_module(f"hesspect.data.{kind}").add_parser(commands)
        _common(commands.choices[kind])
    check = commands.add_parser("check", help="compare a data file's arrays with their checksums")
    check.add_argument("file", type=Path, metavar="DATA.h5")
    check.set_defaults(run=lambda args: verify_data(args.file))
    return made


def _tell(written: DataFile, kind: str) -> None:
    import h5py

    print(written)
    for note in written.notes:
        print(f"note: {note}")
    with h5py.File(written.path, "r") as file:
        loss, weight = file.attrs.get("loss"), file.attrs.get("loss_weight")
        chosen = file.attrs["rows_chosen"]
    if kind == "check":
        print("all arrays are as they were written")
        return
    if chosen == "first":
        print("note: the rows that come first; a sample of all says more of them")
    if loss:
        print(f"for the run: hesspect analyze --model MODEL.pt2 --data {written.path} --loss {loss}{f' --loss-weight {weight}' if weight else ''} --output RESULT.h5")


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if getattr(args, "first", False) and args.rows is None:
        print("hesspect: error: --first without --rows", file=sys.stderr)
        return 2
    if getattr(args, "output", None) is not None and args.output.is_file() and not args.force:
        print(f"hesspect: error: {args.output} is there already; --force writes over it", file=sys.stderr)
        return 2
    try:
        _tell(args.run(args), args.kind)
    except DataError as error:
        print(f"hesspect: error: {error}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
