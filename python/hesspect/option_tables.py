"""The options of this package's commands as C++ text, for shells' completion and the manual page, which the program makes: launch/option_tables writes it.

    python -m hesspect.option_tables > src/config/python_options.inc
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from hesspect.__main__ import COMMANDS

HEAD = "// Made by launch/option_tables from the parsers of python/hesspect: command, kind, options.\n"


def parsers() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Command, kind ("" where it has none), and the parser. `workloads` is no command of the program's."""
    for command, (module, _) in COMMANDS.items():
        if command == "workloads":
            continue
        whole = importlib.import_module(module).parser()
        kinds = [action for action in whole._actions if isinstance(action, argparse._SubParsersAction)]
        if not kinds:
            yield command, "", whole
        for action in kinds:
            for kind, one in action.choices.items():
                yield command, kind, one


def _value(action: argparse.Action) -> str:
    """What the option takes, in the program's way: words with | between, FILE and FOLDER for paths; "" of a flag."""
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    metavar = action.metavar[0] if isinstance(action.metavar, tuple) else action.metavar
    if action.type is Path:
        return "FOLDER" if metavar in ("FOLDER", "DIR") else "FILE"
    return metavar or action.dest.upper()


def _text(value: str) -> str:
    """As C++ has it in quotes."""
    return json.dumps(value, ensure_ascii=False)


def _entry(action: argparse.Action) -> str:
    long = next(name for name in action.option_strings if name.startswith("--"))
    letter = next((name[1:] for name in action.option_strings if not name.startswith("--")), "")
    flag = action.nargs == 0
    repeatable = "true" if isinstance(action, argparse._AppendAction) else "false"
    help_ = "this text" if long == "--help" else (action.help or "").replace("%%", "%")
    return f"    {{{_text(long[2:])}, {_text(_value(action))}, {_text(help_)}, {{{_text('false') if flag else ''}}}, {repeatable}, {_text(letter)}}},\n"


def table() -> str:
    """The whole file."""
    lines = [HEAD]
    for command, kind, parser in parsers():
        options = "".join(_entry(action) for action in parser._actions if any(name.startswith("--") for name in action.option_strings))
        lines.append(f'{{"{command}", "{kind}", {{\n{options}}}}},\n')
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table())
