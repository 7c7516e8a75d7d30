"""The text format of Prometheus, version 0.0.4, as its documentation defines it: by prometheus_client where it is installed, and by its grammar always.

    exposition.py FILE          exit code 1 with a line on what is wrong; else the values as JSON
"""

import json
import re
import sys

NAME, LABEL = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r"[a-zA-Z_][a-zA-Z0-9_]*"
VALUE = r'"((?:[^"\\\n]|\\["\\n])*)"'
LINE = re.compile(rf"({NAME})(?:\{{((?:{LABEL}={VALUE})(?:,{LABEL}={VALUE})*)\}})? (NaN|[+-]Inf|[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
KINDS = ("counter", "gauge", "histogram", "summary", "untyped")


def unescaped(text):
    return re.sub(r'\\(["\\n])', lambda found: "\n" if found[1] == "n" else found[1], text)


def parsed(text):
    """{family: (kind, help, {((label, value), ...): number})}; ValueError where a line is none."""
    if text and not text.endswith("\n"):
        raise ValueError("the last line does not end")
    found, current, helps = {}, None, {}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        if line.startswith("# HELP "):
            name, _, text_of = line[7:].partition(" ")
            if name in helps or re.search(r"\\[^\\n]", text_of):
                raise ValueError(f"line {number}: a second HELP, or a bad escape")
            helps[name] = text_of.replace("\\n", "\n").replace("\\\\", "\\")
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            if name in found or kind not in KINDS or not re.fullmatch(NAME, name):
                raise ValueError(f"line {number}: {line}")
            found[name], current = (kind, helps.get(name, ""), {}), name
        else:
            match = LINE.fullmatch(line)
            if match is None:
                raise ValueError(f"line {number} is none of the format: {line}")
            if match[1] != current:
                raise ValueError(f"line {number}: {match[1]} stands under {current}")
            labels = tuple(sorted((name, unescaped(value)) for name, value in re.findall(rf"({LABEL})={VALUE}", match[2] or "")))
            if labels in found[current][2] or len({name for name, _ in labels}) != len(labels):
                raise ValueError(f"line {number}: twice: {line}")
            if found[current][0] == "counter" and float(match[5]) < 0:
                raise ValueError(f"line {number}: a counter below 0")
            found[current][2][labels] = float(match[5])
    return found


def main(path):
    text = open(path, encoding="utf-8", newline="").read()
    found = parsed(text)
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        pass
    else:
        theirs = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
        ours = {(name, labels): value for name, (_, _, lines) in found.items() for labels, value in lines.items()}
        if theirs.keys() != ours.keys() or any(theirs[key] != ours[key] and ours[key] == ours[key] for key in ours):
            raise ValueError("prometheus_client reads other values")
    print(json.dumps({name: [[list(map(list, labels)), repr(value)] for labels, value in lines.items()] for name, (_, _, lines) in found.items()}))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except ValueError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
