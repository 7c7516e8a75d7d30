#!/usr/bin/env bash
# clang-tidy with the checks in .clang-tidy.
#
#   run_clang_tidy.sh BUILD_FOLDER [--all | FILE...]
#
# BUILD_FOLDER holds compile_commands.json. By default only the rooms without LibTorch are linted (a minute), each joined into one file: most of
# the time goes into the standard library's headers, through which every check goes, and so they are read once a room; --all lints every room
# (LibTorch's headers take half a minute a file), a file at a time, as HESSPECT_LONG=1 does with these rooms. Exit code 77 (skipped) where
# clang-tidy is not installed.
set -euo pipefail
build=$(cd "${1:?usage: run_clang_tidy.sh BUILD_FOLDER [--all | FILE...]}" && pwd)
shift
cd "$(dirname "$0")/../.."
tidy=$(command -v clang-tidy-14 || command -v clang-tidy || true)
if [ -z "$tidy" ]; then
  echo "clang-tidy is not installed"
  exit 77
fi
joined=no
if [ "${1:-}" = --all ]; then
  mapfile -t files < <(find src -name '*.cpp' | sort)
elif [ $# -gt 0 ]; then
  files=("$@")
else
  mapfile -t files < <(find src/core src/config -name '*.cpp' | sort)
  [ "${HESSPECT_LONG:-}" = 1 ] || joined=yes
fi

# GCC's precompiled header cannot be read by clang, and is only a shortcut: leave it out. What is to be looked at is written to the file
# `look`: each file, or in their place a file for each room that includes them.
commands=$(mktemp -d)
trap 'rm -rf "$commands"' EXIT
python3 - "$build/compile_commands.json" "$commands" "$joined" "${files[@]}" <<'PYTHON'
import json, os, re, sys
database, folder, joined, *wanted = sys.argv[1:]
wanted = {os.path.abspath(file): file for file in wanted}
look, entries, rooms = [], [], {}
for entry in json.load(open(database)):
    entry["command"] = re.sub(r" -Winvalid-pch| -include [^ ]*cmake_pch\.hxx", "", entry["command"])
    parts = re.findall(r'#include "(.*\.cpp)"', open(entry["file"]).read()) if "/Unity/" in entry["file"] else [entry["file"]]
    of = lambda file: entry | {"file": file, "command": entry["command"].replace(entry["file"], file)}
    # What the build does not join has settings of its own.
    if joined == "yes" and parts != [entry["file"]] and all(file in wanted for file in parts):
        room = os.path.basename(os.path.dirname(parts[0]))
        if room not in rooms:
            rooms[room] = f"{folder}/{room}.cpp"
            entries.append(of(rooms[room]))
            look.append(rooms[room])
        with open(rooms[room], "a") as file:
            file.writelines(f'#include "{part}"\n' for part in parts)
        for part in parts:
            wanted.pop(part)
    else:
        entries += [of(file) for file in parts]
json.dump(entries, open(f"{folder}/compile_commands.json", "w"))
open(f"{folder}/look", "w").write("".join(f"{file}\0" for file in [*look, *wanted.values()]))
PYTHON

# That a joined file includes sources is what it is for. It lies where no settings would be found above it.
xargs -0 -n 1 -P "$(nproc)" "$tidy" -p "$commands" --config-file=.clang-tidy --checks=-bugprone-suspicious-include --quiet --warnings-as-errors='*' <"$commands/look" \
  2> >(grep -v 'warnings generated\|warnings treated as errors' >&2 || true)
