#!/usr/bin/env bash
# clang-tidy with the checks in .clang-tidy.
#
#   run_clang_tidy.sh BUILD_FOLDER [--all | FILE...]
#
# BUILD_FOLDER holds compile_commands.json. By default only the rooms without LibTorch are linted (seconds); --all lints
# every room (LibTorch's headers take half a minute a file). Exit code 77 (skipped) where clang-tidy is not installed.
set -euo pipefail
build=$(cd "${1:?usage: run_clang_tidy.sh BUILD_FOLDER [--all | FILE...]}" && pwd)
shift
cd "$(dirname "$0")/../.."
tidy=$(command -v clang-tidy-14 || command -v clang-tidy || true)
if [ -z "$tidy" ]; then
  echo "clang-tidy is not installed"
  exit 77
fi
if [ "${1:-}" = --all ]; then
  mapfile -t files < <(find src -name '*.cpp' | sort)
elif [ $# -gt 0 ]; then
  files=("$@")
else
  # unpickle.cpp is the one file of `model` that is free of LibTorch, and the one that reads the least trusted bytes.
  mapfile -t files < <(find src/core src/config src/model/unpickle.cpp -name '*.cpp' | sort)
fi

# GCC's precompiled header cannot be read by clang, and is only a shortcut: leave it out. Of files that the build joins each
# is looked at alone.
commands=$(mktemp -d)
trap 'rm -rf "$commands"' EXIT
python3 - "$build/compile_commands.json" >"$commands/compile_commands.json" <<'PYTHON'
import json, re, sys
alone = []
for entry in json.load(open(sys.argv[1])):
    entry["command"] = re.sub(r" -Winvalid-pch| -include [^ ]*cmake_pch\.hxx", "", entry["command"])
    joined = re.findall(r'#include "(.*\.cpp)"', open(entry["file"]).read()) if "/Unity/" in entry["file"] else [entry["file"]]
    alone += [entry | {"file": file, "command": entry["command"].replace(entry["file"], file)} for file in joined]
json.dump(alone, sys.stdout)
PYTHON

printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "$(nproc)" "$tidy" -p "$commands" --quiet --warnings-as-errors='*' 2> >(grep -v 'warnings generated\|warnings treated as errors' >&2 || true)
