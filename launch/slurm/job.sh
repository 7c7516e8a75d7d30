# shellcheck shell=bash
# What the batch scripts of this folder share; they source it. A run that its time limit stops writes a checkpoint
# (exit 75), goes back into the queue, and goes on in its next start.
#
#   run_job LAUNCHER... -- [COMMAND] OPTIONS...      LAUNCHER: mpirun or srun, with all its options
#
# COMMAND may be `serve`: then the jobs of a spool are what is stopped and gone on with.
#
# Variables, all optional:
#   HESSPECT_SOURCE    the checkout, where sbatch is not called in it
#   HESSPECT_BIN       the program, where it is not the checkout's release build

source_folder="${HESSPECT_SOURCE:-${SLURM_SUBMIT_DIR:-$PWD}}"
binary="${HESSPECT_BIN:-$source_folder/build/release/bin/hesspect}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
# Restarts in which no new Hessian-vector product is asked for: a job preempted as soon as it starts is no trouble yet.
free_restarts=3

stopped=no     # USR1: the time limit is near
cancelled=no   # TERM: by its owner, or preempted
interrupted=no # either, while we wait
launcher_pid=
passed_on=no
# USR1 comes to this script alone, and is passed on: the ranks finish the product that they are at and write a
# checkpoint. TERM comes from Slurm to every process of the job.
trap 'stopped=yes interrupted=yes; pass_on' USR1
trap 'cancelled=yes interrupted=yes' TERM

# Once and no more: ranks that are asked again later on leave at once. Not at once either: between fork and exec the new
# process is a copy of this shell, and would take the signal for itself.
pass_on() {
  if [ "$stopped" = no ] || [ -z "$launcher_pid" ] || [ "$passed_on" = yes ]; then return 0; fi
  passed_on=yes
  sleep 0.5 || true
  kill -USR1 "$launcher_pid" 2>/dev/null || true
}

say() { echo "$(date '+%F %T') job ${SLURM_JOB_ID:-?}: $*" >&2; }

# What the run would use, from command line, environment and ini file: `setting NAME COMMAND OPTIONS...`
# Open MPI's processes without a launcher all use one folder of the host, and those of two jobs get into each other's way.
setting() {
  local name="$1"
  shift
  OMPI_MCA_orte_create_session_dirs=0 "$binary" "$@" --print-config | sed -n "s/^$name = //p"
}

# Hessian-vector products in the newest checkpoint; 0 where there is none. Its first line is the run's state, a JSON object,
# and objects within it have "products" of their own: texts and they are taken out, innermost first.
products() {
  local generations=("$1"/run-*.json)
  [ -r "${generations[-1]}" ] || { echo 0; return; }
  awk 'NR == 1 {
    gsub(/\\./, ""); gsub(/"products" *:/, "\001"); gsub(/"[^"]*"/, "")
    sub(/^ *[{]/, ""); while (gsub(/[{][^{}]*[}]/, "")) {}
    if (match($0, /\001 *[0-9]+/)) count = substr($0, RSTART + 1, RLENGTH - 1)
  } END { print count + 0 }' "${generations[-1]}"
}

# What a service has got done: jobs that have ended, and products in the checkpoints of others. `served SPOOL`
served() {
  local count folder
  count="$(find "$1/done" "$1/failed" "$1/cancelled" -name '*.json' 2>/dev/null | wc -l)"
  for folder in "$1"/checkpoints/*/; do
    [ ! -d "$folder" ] || count=$((count + $(products "$folder")))
  done
  echo "$count"
}

# The value behind --spool, or HESSPECT_SPOOL.
spool_of() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --spool) echo "$2"; return ;;
      --spool=*) echo "${1#--spool=}"; return ;;
    esac
    shift
  done
  echo "${HESSPECT_SPOOL:-}"
}

# Waits for the command's end, through any number of signals. Sets status.
wait_for() {
  "$@" &
  launcher_pid=$!
  pass_on # where USR1 came meanwhile
  while
    interrupted=no
    status=0
    wait "$launcher_pid" || status=$?
    [ "$interrupted" = yes ] # a trap ended `wait`, not the command
  do :; done
  launcher_pid=
}

run_job() {
  local launch=() output checkpoint before after count=products status=75
  while [ "$1" != -- ]; do
    launch+=("$1")
    shift
  done
  shift
  case "${1:-}" in -* | "") set -- analyze "$@" ;; esac
  [ -x "$binary" ] || { say "no program $binary: call sbatch in the checkout, or set HESSPECT_SOURCE or HESSPECT_BIN"; exit 2; }

  if [ "$1" = serve ]; then
    output="$(spool_of "$@")"
    checkpoint="$output"
    count=served
  else
    output="$(setting output "$@")"
    checkpoint="$(setting checkpoint "$@")"
    checkpoint="${checkpoint:-$output.checkpoint}"
    set -- "$@" --resume
  fi
  before="$("$count" "$checkpoint")"
  say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on ${SLURM_JOB_NODELIST:-this host}, after $before products: $output"
  if [ "$stopped$cancelled" = nono ]; then wait_for "${launch[@]}" "$binary" "$@"; fi

  # 128 + USR1: the signal came before the program listened to it, and there was nothing to lose.
  if [ "$stopped" = yes ] && [ "$status" -eq 138 ]; then status=75; fi
  if [ "$status" -ne 75 ]; then
    say "hesspect ended with $status"
    exit "$status"
  fi
  after="$("$count" "$checkpoint")"
  if [ "$cancelled" = yes ]; then
    # Where it was preempted, Slurm itself puts it back.
    say "told to end; stopped after $after products, checkpoint in $checkpoint"
  elif [ "$after" -le "$before" ] && [ "${SLURM_RESTART_COUNT:-0}" -ge "$free_restarts" ]; then
    say "stopped with no new product since its start, so more starts would not help; give it more time (--time, --signal): submitted again it goes on from $checkpoint"
  elif scontrol requeue "$SLURM_JOB_ID" || [ "$cancelled" = yes ]; then # TERM, the requeue's own, may end scontrol too
    say "stopped after $after products, back in the queue"
  else
    say "stopped after $after products, and Slurm does not take it back; submitted again it goes on from $checkpoint"
  fi
  exit 75
}
