#!/usr/bin/env bash
# mpirun with the flags that hesspect wants; arguments are mpirun's own.
#
#   launch/mpirun.sh -n 2 build/release/bin/hesspect analyze --config configs/cnn.ini
#
# Ranks are not bound to cores (each has its own threads) and may outnumber the cores; hesspect itself divides the cores
# by the ranks of the node.
#
# SIGTERM, SIGUSR1 and a first SIGINT (Ctrl-C) ask the ranks to save and stop: they reach them as SIGUSR1, for mpirun
# itself answers the other two by killing the ranks within a second. A second SIGINT does that. This script ends when
# mpirun has ended, with its exit code.
set -euo pipefail

command -v mpirun >/dev/null || { echo "launch/mpirun.sh: no mpirun; launch/setup installs it" >&2; exit 1; }
flags=()
if mpirun --version 2>/dev/null | grep -q 'Open MPI\|OpenRTE'; then
  flags=(--oversubscribe --bind-to none)
  [ "$(id -u)" -eq 0 ] && flags+=(--allow-run-as-root)
  # Containers often forbid cross-memory attach; without this every large message warns.
  export OMPI_MCA_btl_vader_single_copy_mechanism="${OMPI_MCA_btl_vader_single_copy_mechanism:-none}"
  # A host that is gone is noticed after 5 + 3 * 3 seconds of silence, not after eight minutes.
  export OMPI_MCA_oob_tcp_keepalive_time="${OMPI_MCA_oob_tcp_keepalive_time:-5}"
  export OMPI_MCA_oob_tcp_keepalive_intvl="${OMPI_MCA_oob_tcp_keepalive_intvl:-3}"
  export OMPI_MCA_oob_tcp_keepalive_probes="${OMPI_MCA_oob_tcp_keepalive_probes:-3}"
fi

interrupts=0
signalled=
pass_on() {
  [ -n "${!:-}" ] || exit 1  # mpirun has not been started yet
  signalled=1
  kill "-$1" "$!" 2>/dev/null || true
}
interrupt() {
  interrupts=$((interrupts + 1))
  if [ "$interrupts" -eq 1 ]; then pass_on USR1; else pass_on INT; fi
}
trap 'pass_on USR1' TERM USR1
trap interrupt INT

# A process group of its own keeps the terminal's Ctrl-C from mpirun; a background group must not read the terminal.
set -m
if [ -t 0 ]; then exec </dev/null; fi
mpirun "${flags[@]}" "$@" &

while :; do  # a trap ends a wait, not mpirun
  signalled=
  code=0
  wait "$!" || code=$?
  [ -n "$signalled" ] || exit "$code"
done
