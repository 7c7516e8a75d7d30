"""The command line of the Python part: python -m hesspect COMMAND ...

Each command is a module with `main(argv)`, which is imported only when it is asked for.
"""

import importlib
import sys

from hesspect import lean

COMMANDS = {
    "data": ("hesspect.data.cli", "text, tables or images to the data file that hesspect reads"),
    "export": ("hesspect.exporting.cli", "a Hugging Face folder or another model to the program that hesspect reads"),
    "plot": ("hesspect.plot", "a picture of a result"),
    "tables": ("hesspect.tables", "the tables of a result as CSV or JSON"),
    "track": ("hesspect.track", "a result for TensorBoard, Weights & Biases or MLflow"),
    "workloads": ("hesspect.workloads.__main__", "three real models to try hesspect on"),
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(["usage: python -m hesspect COMMAND ...", "", *(f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()),
                      "", "COMMAND --help says more. The spectrum itself is computed by the program `hesspect`."])


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"hesspect: error: no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return int(importlib.import_module(COMMANDS[name][0]).main(rest) or 0)


if __name__ == "__main__":
    sys.exit(lean.run(main, sys.argv[1:]))
