#!/usr/bin/env bash
# mpirun with the flags that hesspect wants on one machine; arguments are mpirun's own.
#
#   launch/mpirun.sh -n 2 build/release/bin/hesspect analyze --config configs/cnn.ini
#
# Ranks are not bound to cores (each has its own threads), may outnumber the cores, and share the cores' threads evenly
# unless OMP_NUM_THREADS says otherwise. On a cluster use sbatch, or mpirun itself.
set -euo pipefail

ranks=1
for ((i = 1; i <= $#; i++)); do
  case "${!i}" in
    -n | -np | --n | --np) next=$((i + 1)); ranks="${!next:-1}"; break ;;
    -*) ;;
    *) break ;;
  esac
done
case "$ranks" in '' | *[!0-9]* | 0) echo "launch/mpirun.sh: '$ranks' is not a number of ranks" >&2; exit 2 ;; esac
if [ -z "${OMP_NUM_THREADS:-}" ]; then
  threads=$(($(nproc) / ranks))
  export OMP_NUM_THREADS=$((threads > 0 ? threads : 1))
fi

command -v mpirun >/dev/null || { echo "launch/mpirun.sh: no mpirun; launch/setup installs it" >&2; exit 1; }
flags=()
if mpirun --version 2>/dev/null | grep -q 'Open MPI\|OpenRTE'; then
  flags=(--oversubscribe --bind-to none)
  [ "$(id -u)" -eq 0 ] && flags+=(--allow-run-as-root)
  # Containers often forbid cross-memory attach; without this every large message warns.
  export OMPI_MCA_btl_vader_single_copy_mechanism="${OMPI_MCA_btl_vader_single_copy_mechanism:-none}"
fi
exec mpirun "${flags[@]}" "$@"
