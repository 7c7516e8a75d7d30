#!/usr/bin/env python3
"""Python's schema and the tables of docs/results.md from the one list of fields, src/io/result_fields.h.

    schema.py PRINT_SCHEMA            exit code 1 where a file is not what the list says
    schema.py PRINT_SCHEMA --write    writes them; `launch/schema` builds PRINT_SCHEMA and calls this
"""

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
PYTHON, DOCS = SOURCE / "python/hesspect/schema.json", SOURCE / "docs/results.md"
BEGIN, END = "<!-- fields: made by launch/schema from src/io/result_fields.h -->\n", "<!-- end of fields -->\n"


def tables(fields):
    """A table for each group, in the list's order; docs/results.md has no other list of them."""
    lines = []
    for group, members in groupby(fields, key=lambda field: field["path"].rpartition("/")[0]):
        lines += [f"| `/entry/{group}/` | shape | units | content |", "| --- | --- | --- | --- |"]
        for field in members:
            shape = f"`[{', '.join(field['shape'])}]`" if field["shape"] else ""
            units = f"`{field['units']}`" if field["units"] else ""
            content = field["long_name"].replace("|", "\\|") + (f" (since layout {field['since']})" if field["since"] > 1 else "")
            lines.append(f"| `{field['path'].rpartition('/')[2]}` | {shape} | {units} | {content} |")
        lines.append("")
    return "\n".join(lines)


def main():
    printed = subprocess.run([sys.argv[1]], check=True, capture_output=True, text=True).stdout
    before, _, rest = DOCS.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{DOCS}: has no section between {BEGIN.strip()} and {END.strip()}")
    wanted = {PYTHON: printed, DOCS: f"{before}{BEGIN}\n{tables(json.loads(printed))}{END}{after}"}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if sys.argv[2:] == ["--write"]:
        for path in stale:
            path.write_text(wanted[path])
    elif stale:
        sys.exit("\n".join(f"{path.relative_to(SOURCE)} is not what src/io/result_fields.h says: launch/schema rewrites it" for path in stale))


if __name__ == "__main__":
    main()
