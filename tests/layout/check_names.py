#!/usr/bin/env python3
"""Checks that the files of a room can be joined into one translation unit, as the presets' builds do.

    check_names.py [ROOT]        exit code 1 and one line per clash; ROOT defaults to this source tree
    check_names.py --self-test

Rules:
  no two files of a room define the same name in their anonymous namespaces: of functions it would even compile, and a call
  might mean another one than in a file alone (`fields` and operators are found by their arguments' types);
  a file of tests has a namespace of its own, named after it.
"""

import collections
import re
import sys
import tempfile
from pathlib import Path

BY_ARGUMENTS = ("fields", "operator")
# Definitions begin at the margin, and what they are made of doesn't.
ANONYMOUS = re.compile(r"^namespace \{$(.*?)^\}  // namespace$", re.MULTILINE | re.DOTALL)
TYPE = re.compile(r"^(?:struct|class|enum class|enum) (\w+)", re.MULTILINE)
FUNCTION = re.compile(r"^(?!return|else|if|for|while|static_assert)[\w\[][^\n=(;]*?[ *&>](\w+)\(", re.MULTILINE)
VALUE = re.compile(r"^(?:const|constexpr|static|thread_local|std)[^\n=({;]*[ *&>](\w+)(?:\[[^\]\n]*\])?(?: =|\{| \{|;)", re.MULTILINE)


def names_of(text):
    for part in ANONYMOUS.findall(text):
        for pattern in (TYPE, FUNCTION, VALUE):
            yield from pattern.findall(part)


def problems_of(root):
    for room in sorted(p for p in (root / "src").iterdir() if p.is_dir()):
        files = collections.defaultdict(set)
        for path in room.rglob("*.cpp"):
            for name in names_of(path.read_text()):
                files[name].add(path.relative_to(root).as_posix())
        for name, where in sorted(files.items()):
            if len(where) > 1 and not name.startswith(BY_ARGUMENTS):
                yield f"{' and '.join(sorted(where))} both define {name}"
    for path in sorted((root / "tests").glob("*/*_test.cpp")):
        if not re.search(rf"^namespace hesspect(::test)?::{path.stem} \{{$", path.read_text(), re.MULTILINE):
            yield f"{path.relative_to(root).as_posix()}: expected namespace hesspect::{path.stem}"


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        begin, end = "namespace hesspect {\nnamespace {\n\n", "\n}  // namespace\n}  // namespace hesspect\n"
        texts = {
            "src/a/one.cpp": "constexpr int kOne = 1;\nstruct Pair {\n  int twice(int);\n};\n[[noreturn]] void fail(int x) {\n}\n",
            "src/a/two.cpp": "constexpr int kOne{2};\nstruct Pair;\nstd::vector<int> fail(const char* x) {\n  int y = f();\n}\nint f() {\n}\n",
            "src/b/one.cpp": "constexpr int kOne = 1;\nint g() {\n  return f();\n}\n",
            "tests/a/own_test.cpp": "",
        }
        for name, text in texts.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(begin + text + end)
        (root / "tests/a/new_test.cpp").write_text("namespace hesspect::new_test {\n}\n")
        both = "src/a/one.cpp and src/a/two.cpp both define "
        expected = [both + "Pair", both + "fail", both + "kOne", "tests/a/own_test.cpp: expected namespace hesspect::own_test"]
        found = list(problems_of(root))
        if found != expected:
            sys.exit(f"self-test failed: expected {expected}, found {found}")


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return
    problems = list(problems_of(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]))
    print("\n".join(problems), end="\n" if problems else "")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
