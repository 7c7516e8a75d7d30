#!/usr/bin/env bash
# mpirun with the flags that hesspect wants on one machine; arguments are mpirun's own.
#
#   launch/mpirun.sh -n 2 build/release/bin/hesspect analyze --config configs/cnn.ini
#
# Ranks are not bound to cores (each has its own threads) and may outnumber the cores; hesspect itself divides the cores
# by the ranks of the node. On a cluster use sbatch, or mpirun itself.
set -euo pipefail

command -v mpirun >/dev/null || { echo "launch/mpirun.sh: no mpirun; launch/setup installs it" >&2; exit 1; }
flags=()
if mpirun --version 2>/dev/null | grep -q 'Open MPI\|OpenRTE'; then
  flags=(--oversubscribe --bind-to none)
  [ "$(id -u)" -eq 0 ] && flags+=(--allow-run-as-root)
  # Containers often forbid cross-memory attach; without this every large message warns.
  export OMPI_MCA_btl_vader_single_copy_mechanism="${OMPI_MCA_btl_vader_single_copy_mechanism:-none}"
fi
exec mpirun "${flags[@]}" "$@"
