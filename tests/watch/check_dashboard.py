"""The dashboard of Grafana: its shape, and that its expressions name what the program writes and draw all of it; the page of the documents has the same names.

    check_dashboard.py METRIC ...       the names that the program writes; exit code 1 with a line for each fault
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def problems(written):
    board = json.loads((ROOT / "launch/grafana/hesspect.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    variables = {variable["name"] for variable in board["templating"]["list"]}
    ids = [panel["id"] for panel in board["panels"]]
    if len(set(ids)) != len(ids):
        yield "two panels have one id"
    if not board["uid"] or not board["title"] or board["schemaVersion"] < 36:
        yield "no uid, title or known schema"
    taken, drawn = set(), set()
    for panel in board["panels"]:
        where = f"panel '{panel['title']}'"
        box = panel["gridPos"]
        cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
        if box["x"] + box["w"] > 24 or cells & taken:
            yield f"{where} lies beyond the grid or over another"
        taken |= cells
        if not panel["targets"] or not panel["description"] or panel["type"] not in ("stat", "timeseries"):
            yield f"{where} has no query, no description or an unknown type"
        if len({target["refId"] for target in panel["targets"]}) != len(panel["targets"]):
            yield f"{where}: two queries have one refId"
        for target in panel["targets"]:
            expression = target["expr"]
            names = set(re.findall(r"\bhesspect_\w+", expression))
            drawn |= names
            for name in sorted(names - written):
                yield f"{where} draws {name}, which the program does not write"
            if not names or expression.count("(") != expression.count(")") or expression.count("{") != expression.count("}"):
                yield f"{where}: {expression}"
            for counter in re.findall(r"hesspect_\w+_total", expression):
                if not re.search(rf"rate\({counter}\{{[^}}]*\}}\[", expression):
                    yield f"{where} draws the counter {counter} without rate()"
            for variable in set(re.findall(r"\$\{?(\w+)", json.dumps(panel))) - variables:
                if not variable.startswith("__"):
                    yield f"{where}: there is no variable {variable}"
    for name in sorted(written - drawn):
        yield f"no panel draws {name}"
    named = set(re.findall(r"`(hesspect_\w+)[`{]", page))
    for name in sorted(named ^ written):
        yield f"docs/monitoring.md and the program do not both have {name}"


if __name__ == "__main__":
    found = list(problems(set(sys.argv[1:])))
    print(*found, sep="\n", file=sys.stderr)
    sys.exit(1 if found else 0)
