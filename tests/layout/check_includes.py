#!/usr/bin/env python3
"""Checks the #include edges between rooms against the design's table, and who may see which library's headers.

    check_includes.py [ROOT]     exit code 1 and one line per bad include; ROOT defaults to this source tree
    check_includes.py --self-test

Rules:
  a room's sources and public headers include only its own room, `core`, and the rooms in ROOMS below;
  a quoted include that does not start with hesspect/ is a private header of the same room;
  spdlog and nlohmann JSON stay out of public headers;
  torch/torch.h (all of LibTorch's C++ front end: tens of seconds a file) is included nowhere;
  core, config, plan, report, service, front, watch and series include no LibTorch headers, but for core/element_type_torch.h.
"""

import re
import sys
import tempfile
from pathlib import Path

ROOMS = {
    "core": set(),
    "config": set(),
    "comm": set(),
    "model": set(),
    "tangent": {"model"},
    "gpu": {"comm", "tangent"},
    "data": set(),
    "krylov": {"comm"},
    "curvature": {"tangent", "model", "data", "comm", "krylov"},
    "spectrum": {"krylov", "comm"},
    "plan": set(),
    "io": {"config", "spectrum"},
    "run": {"config", "comm", "krylov", "curvature", "spectrum", "plan", "io"},
    "report": {"spectrum", "plan", "io", "run"},
    "service": {"config", "io", "series"},
    "front": {"config", "io", "service"},
    "watch": {"config"},
    "series": {"config", "spectrum", "io"},
}
ROOMS["app"] = set(ROOMS) - {"gpu"}  # which is a library of its own, loaded by core

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
SUFFIXES = {".h", ".hpp", ".cpp", ".cc", ".cu", ".cuh"}
NOT_PUBLIC = ("spdlog/", "nlohmann/")
TORCH = ("ATen/", "c10/", "torch/", "caffe2/")
WITHOUT_TORCH = {"core", "config", "plan", "report", "service", "front", "watch", "series"}
GENERATED = {"git_revision.h"}  # written into the build folder by CMake
TORCH_EXCEPTIONS = {"include/hesspect/core/element_type_torch.h"}


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file()) if folder.is_dir() else []


def is_in_room(root, path, room, target):
    """A private header of the room: in the file's folder, below it, or above it as far as the room goes."""
    file = (path.parent / target).resolve()
    return file.is_file() and (root / "src" / room).resolve() in file.parents


def problems_of_room_file(root, path, room, public):
    name = path.relative_to(root).as_posix()
    if room not in ROOMS:
        yield f"{name}: '{room}' is not a room of the design"
        return
    allowed = ROOMS[room] | {room, "core"}
    for match in INCLUDE.finditer(path.read_text(errors="replace")):
        quoted, target = match.group(1) == '"', match.group(2)
        line = path.read_text(errors="replace")[: match.start(2)].count("\n") + 1
        where = f"{name}:{line}: "
        if target.startswith("hesspect/"):
            parts = target.split("/")
            other = parts[1] if len(parts) > 2 else ""
            if other not in allowed:
                yield where + f"room '{room}' may not include '{target}' (it may include {', '.join(sorted(allowed))})"
            elif not (root / "include" / target).is_file():
                yield where + f"there is no public header '{target}'"
        elif quoted and target not in GENERATED and not is_in_room(root, path, room, target):
            yield where + f"'{target}' is no header of this room's folder; public headers are included as hesspect/ROOM/…"
        if public and target.startswith(NOT_PUBLIC):
            yield where + f"'{target}' may not stand in a public header"
        if room in WITHOUT_TORCH and target.startswith(TORCH) and name not in TORCH_EXCEPTIONS:
            yield where + f"room '{room}' is free of LibTorch, so not '{target}'"


def problems(root):
    for base, public in (("src", False), ("include/hesspect", True)):
        for path in files_of(root / base):
            parts = path.relative_to(root / base).parts
            if len(parts) < 2:
                yield f"{path.relative_to(root).as_posix()}: lies in no room"
                continue
            yield from problems_of_room_file(root, path, parts[0], public)
    for base in ("src", "include", "tests", "bench"):
        for path in files_of(root / base):
            for match in INCLUDE.finditer(path.read_text(errors="replace")):
                if match.group(2) == "torch/torch.h":
                    yield f"{path.relative_to(root).as_posix()}: includes torch/torch.h; include the narrow headers"


def self_test():
    """Plants one of each bad include beside good ones: all must be found, and nothing else."""
    good = {
        "include/hesspect/core/a.h": "#include <string>\n",
        "include/hesspect/comm/c.h": '#include <ATen/ATen.h>\n#include "hesspect/core/a.h"\n',
        "include/hesspect/krylov/k.h": '#include "hesspect/comm/c.h"\n',
        "src/krylov/private.h": "",
        "src/krylov/k.cpp": '#include "hesspect/krylov/k.h"\n#include "private.h"\n#include <nlohmann/json.hpp>\n',
        "src/app/main.cpp": '#include "hesspect/krylov/k.h"\n#include "hesspect/comm/c.h"\n',
    }
    bad = {
        "src/comm/up.cpp": '#include "hesspect/krylov/k.h"\n',
        "src/core/torch.cpp": "#include <c10/core/ScalarType.h>\n",
        "src/config/torch.cpp": "  #  include <ATen/ATen.h>\n",
        "include/hesspect/comm/log.h": "#include <spdlog/spdlog.h>\n",
        "include/hesspect/krylov/json.h": "#include <nlohmann/json.hpp>\n",
        "src/comm/sideways.cpp": '#include "../krylov/private.h"\n',
        "src/comm/absent.cpp": '#include "hesspect/comm/absent.h"\n',
        "src/stray.cpp": "",
        "src/garage/x.cpp": "",
        "tests/x_test.cpp": "#include <torch/torch.h>\n",
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in {**good, **bad}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        found = {line.split(":")[0] for line in problems(root)}
    if found != set(bad):
        print("planted but not found:", sorted(set(bad) - found))
        print("found but not planted:", sorted(found - set(bad)))
        return 1
    return 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    found = list(problems(root))
    print("\n".join(found) if found else "every include fits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
