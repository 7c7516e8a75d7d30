"""Pages of the site that are made: from the program's and the package's own tables, and from notebooks. Knows nothing of MkDocs.
"""

import base64
import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("analyze", "density", "eigs", "trace", "landscape", "sharpness", "features", "inputs", "series", "plan", "report", "compare")
#: around the commands, with a --help that has no groups
AROUND = ("serve", "submit", "queue", "cancel", "wait", "log", "run", "completion", "man")
#: of a Python command that has several, its kinds
KINDS = {"data": ("text", "table", "images", "check"), "export": ("hf", "torchvision", "timm", "lightning", "peft")}


def _cell(text):
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def help_of(program, command):
    """What the program prints of a command."""
    return subprocess.run([program, command, "--help"], capture_output=True, text=True, check=True).stdout


def python_helps():
    """What the Python commands print, by `hesspect COMMAND` and its kind."""
    _find_package()
    from hesspect.__main__ import COMMANDS as commands, main

    found = {}
    for name in commands:
        if name == "workloads":
            continue  # for trying hesspect, no part of its command line
        for kind in KINDS.get(name, ("",)):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit), _wide_terminal():
                main([name, *([kind] if kind else []), "--help"])
            found[f"hesspect {name} {kind}".rstrip()] = printed.getvalue().replace("python -m hesspect", "hesspect")
    return found


@contextlib.contextmanager
def _wide_terminal():
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "120"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def options_by_group(printed):
    """Of a command's --help: {group's title: [(option, what it takes, default, help)]}."""
    groups = {}
    for block in printed.split("\n\n")[1:]:
        title, _, rest = block.partition("\n")
        found = []
        for entry in re.split(r"\n(?=  (?:-\w, )?--)", "\n" + rest.strip("\n"))[1:] if rest.lstrip("\n").startswith("  ") else []:
            head = re.match(r"  (?:-\w, )?--([a-z0-9-]+)((?: \S+)?)(?:  |\n|$)", entry)
            help_text = " ".join(entry[head.end():].split())
            default = re.search(r" \[([^\]]*)\]$", help_text)
            found.append((head[1], head[2].strip(), default[1] if default else "", help_text[:default.start()] if default else help_text))
        if found:
            groups[title] = found
    return groups


def options_page(program):
    groups = {}  # title: {option: [takes, default, help, commands]}
    for command in COMMANDS:
        for title, options in options_by_group(help_of(program, command)).items():
            for name, takes, default, text in options:
                groups.setdefault(title, {}).setdefault(name, (takes, default, text, []))[3].append(command)
    lines = ["# All options", "", "As `hesspect COMMAND --help` prints them, from the program's own table. [Command line](../cli.md) says what they mean for a run. "
             "Each is a line `name = value` of an ini file (`--config`), a variable (`HESSPECT_MICRO_BATCH` for `--micro-batch`), and a keyword of "
             "[`hesspect.spectrum`](../python.md) (`micro_batch=64`).", ""]
    for title, options in groups.items():
        everywhere = {command for option in options.values() for command in option[3]}
        lines += [f"## {title.rstrip(':')}", "", f"Of {', '.join(f'`{c}`' for c in COMMANDS if c in everywhere)}.", "",
                  "| option | default | |", "| --- | --- | --- |"]
        for name, (takes, default, text, commands) in options.items():
            only = "" if set(commands) == everywhere else f" ({', '.join(f'`{c}`' for c in commands)} only)"
            given = f" {takes}" if takes else ""
            lines.append(f"| `--{name}{given}` | {f'`{_raw(default)}`' if default else ''} | {_cell(text)}{only} |")
        lines.append("")
    lines += ["## Other commands", "", "As their `--help` prints them; those after `man` are in Python.", ""]
    for name, text in ({f"hesspect {name}": help_of(program, name) for name in AROUND} | python_helps()).items():
        lines += [f"### {name}", "", "```text", text.rstrip("\n"), "```", ""]
    return "\n".join(lines)


def _raw(text):
    return text.replace("|", "\\|")


def _find_package():
    """Not when this is imported: MkDocs puts sys.path back behind each hook that it loads."""
    if str(ROOT / "python") not in sys.path:
        sys.path.insert(0, str(ROOT / "python"))


_TRAINING = ("watcher.Watcher", "trainer.TrainerCallback", "lightning.LightningCallback", "sharpness.CriticalSharpness")


def api_page():
    _find_package()
    package, result = importlib.import_module("hesspect"), importlib.import_module("hesspect.result")
    functions = [name for name in package.__all__ if name[0].islower()]
    classes = [name for name in package.__all__ if name[0].isupper() and not _is_error(package, name)]
    errors = [name for name in package.__all__ if _is_error(package, name)]
    lines = ["# Python, by name", "", "From the package's own docstrings; [Python](../python.md) tells how they go together.", ""]
    for title, names in (("Functions", functions), ("Classes", classes), ("Exceptions", errors)):
        lines += [f"## {title}", "", *(f"::: hesspect.{name}\n" for name in names)]
    lines += ["## In training loops", "", *(f"::: hesspect.training.{name}\n" for name in _TRAINING)]
    lines += ["## Fields of a result", "", "Attributes of `hesspect.Result`; None, or empty, where a run did not compute them. "
              "[The result file](../results.md) has the same by their paths.", "", "| attribute | shape | units | |", "| --- | --- | --- | --- |"]
    for name, field in result.fields().items():
        shape = f"`[{', '.join(field['shape'])}]`" if field["shape"] else ""
        units = f"`{field['units']}`" if field["units"] else ""
        lines.append(f"| `{name}` | {shape} | {units} | {_cell(field['long_name'])} |")
    return "\n".join([*lines, ""])


def _is_error(package, name):
    if name in package._LATER:
        return False
    value = getattr(package, name)
    return isinstance(value, type) and issubclass(value, Exception)


def notebook_page(path):
    """A notebook as Markdown, and its pictures {name: bytes}."""
    executed = ROOT / "build/notebooks" / path.name
    source = json.loads(path.read_text())
    cells, note = source["cells"], "The outputs are shown where `ctest -R docs.notebooks` has executed it before the site was built."
    if executed.is_file():
        ran = json.loads(executed.read_text())["cells"]
        if [cell["source"] for cell in ran] == [cell["source"] for cell in cells]:
            cells, note = ran, "Executed by this build's tests."
    lines, pictures = [], {}
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [text, ""]
            continue
        lines += ["```python", text, "```", ""]
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures)}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                lines += [f"![output of the cell above]({name})", ""]
            elif output.get("name") != "stderr" and ("text/plain" in data or "text" in output):
                lines += ["```text", "".join(data.get("text/plain", output.get("text", ""))).rstrip("\n"), "```", ""]
    lines += ["", f"*The notebook is `docs/notebooks/{path.name}`. {note}*", ""]
    return "\n".join(lines), pictures
