#!/usr/bin/env bash
# mpirun with the flags that hesspect wants, for any program: arguments are mpirun's own. For hesspect itself `hesspect run`
# does the same and looks through mpirun's output besides (src/front); tests/app/front.py compares their flags.
#
#   launch/mpirun.sh -n 2 build/release/tests/krylov_mpi_tests lanczos_mpi_test
#
# Ranks are not bound to cores (each has its own threads) and may outnumber the cores; hesspect itself divides the cores
# by the ranks of the node.
#
# SIGTERM, SIGUSR1 and a first SIGINT (Ctrl-C) ask the ranks to save and stop: they reach them as one SIGUSR1, for mpirun
# itself answers the other two by killing the ranks within a second. A second SIGINT does that. This script ends when
# mpirun has ended, with its exit code, or with 138 (128 + SIGUSR1) where it was asked before it had started mpirun.
set -euo pipefail

launcher=  # mpirun's process, once there is one
signalled= # since the last look
asked=     # to save and stop
passed_on=
interrupts=0
# Once and no more: ranks that are asked again later on leave at once. Not at once either: between fork and exec the new
# process is a copy of this shell, and would take the signal for itself.
pass_on() {
  if [ -z "$asked" ] || [ -z "$launcher" ] || [ -n "$passed_on" ]; then return 0; fi
  passed_on=1
  sleep 0.5 || true
  kill -USR1 "$launcher" 2>/dev/null || true
}
ask() {
  signalled=1
  asked=1
  pass_on
}
interrupt() {
  interrupts=$((interrupts + 1))
  if [ "$interrupts" -gt 1 ] && [ -n "$launcher" ]; then kill -INT "$launcher" 2>/dev/null || true; fi
  ask
}
trap ask TERM USR1
trap interrupt INT

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

# A process group of its own keeps the terminal's Ctrl-C from mpirun; a background group must not read the terminal.
if [ -t 0 ]; then exec </dev/null; fi
[ -z "$asked" ] || exit 138
set -m
mpirun "${flags[@]}" "$@" &
launcher=$!
set +m
pass_on # where it was asked meanwhile

while :; do  # a trap ends a wait, not mpirun
  signalled=
  code=0
  wait "$launcher" || code=$?
  [ -n "$signalled" ] || exit "$code"
done
