#!/usr/bin/env bash
# Every script that users and CI start, by shellcheck. Exit code 77 (skipped) where it is not installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v shellcheck > /dev/null || { echo "shellcheck is not installed (launch/setup --test installs it)"; exit 77; }
mapfile -t scripts < <(grep -rlE '^#!.*\b(ba)?sh$|^# shellcheck shell=' launch .ci tests/cluster | sort)
[ ${#scripts[@]} -gt 8 ] || { echo "found only: ${scripts[*]}"; exit 1; }
shellcheck -x "${scripts[@]}"
