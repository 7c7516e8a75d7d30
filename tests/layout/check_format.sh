#!/usr/bin/env bash
# All C++ files are as .clang-format wants them. Exit code 77 (skipped) where clang-format 14 is not installed: other
# versions lay some code out otherwise. `check_format.sh --fix` formats instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
for tool in clang-format-14 clang-format; do
  command -v "$tool" > /dev/null && "$tool" --version | grep -q 'version 14\.' && break
  tool=
done
if [ -z "$tool" ]; then
  echo "clang-format 14 is not installed"
  exit 77
fi
mode=(--dry-run -Werror)
[ "${1:-}" = --fix ] && mode=(-i)
find $(ls -d src include tests bench 2> /dev/null) \( -name "*.h" -o -name "*.cpp" -o -name "*.cu" -o -name "*.cuh" \) -type f -print0 |
  xargs -0 -r "$tool" "${mode[@]}"
