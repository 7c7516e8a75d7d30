"""A Slurm of one node in a folder of its own: own ports, own munge, nothing of a system's Slurm is read or touched."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")
PATH = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL"}

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits as long as a credential lives; the default is two minutes.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
JobRequeue=1
KillWait=5
ReturnToService=2
# The test wants more tasks than the machine may have cores.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=1000 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why a Slurm can't be started here; empty where it can."""
    if os.geteuid() != 0:
        return "only root can start a Slurm of its own"
    absent = [p for p in PROGRAMS if shutil.which(p, path=PATH) is None]
    return f"not installed: {', '.join(absent)} (launch/setup --test installs slurm-wlm and munge)" if absent else ""


def free_ports(count):
    """Held all at once, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class SlurmCluster:
    """`with SlurmCluster(environment) as slurm`; jobs have this environment."""

    def __init__(self, environment):
        self.folder = Path(tempfile.mkdtemp(prefix="hesspect_slurm_"))
        self.folder.chmod(0o755)  # munge wants its socket reachable by all users
        self.daemons = []
        self.environment = {**environment, "PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        at = lambda name: str(self.folder / name)
        controller_port, node_port = free_ports(2)
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            os.mkdir(at(name))
        Path(at("slurm.conf")).write_text(CONFIGURATION.format(folder=self.folder, host=host, controller_port=controller_port,
                                                               node_port=node_port))
        with open(os.open(at("munge.key"), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as f:
            f.write(os.urandom(128))
        self.daemon("munged", "--foreground", f"--socket={at('munge.socket')}", f"--key-file={at('munge.key')}",
                    f"--log-file={at('munged.log')}", f"--pid-file={at('munged.pid')}", f"--seed-file={at('munged.seed')}")
        self.wait_for("munged", lambda: os.path.exists(at("munge.socket")), 20)
        self.daemon("slurmctld", "-D", "-c")
        self.daemon("slurmd", "-D", "-c")
        self.wait_for("the node", lambda: self.call("sinfo", "-h", "-o", "%t", check=False).stdout.strip() == "idle", 60)

    def stop(self):
        """The jobs first: a daemon that goes leaves its jobs' processes behind."""
        if len(self.daemons) == 3:
            self.call("scancel", "--user=root", check=False)
            try:
                self.wait_for("the jobs' end", lambda: not self.call("squeue", "-h", check=False).stdout.strip(), 20)
            except TimeoutError:
                pass
        for process in reversed(self.daemons):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def daemon(self, program, *args):
        with open(self.folder / f"{program}.stderr", "wb") as log:
            self.daemons.append(subprocess.Popen([shutil.which(program, path=PATH), *args], env=self.environment, stdin=subprocess.DEVNULL,
                                                 stdout=log, stderr=subprocess.STDOUT))

    def wait_for(self, what, done, seconds):
        until = time.monotonic() + seconds
        while not (found := done()):
            gone = [p.args[0] for p in self.daemons if p.poll() is not None]
            if gone or time.monotonic() > until:
                logs = "".join(f"--- {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in sorted(self.folder.glob("*.log")))
                raise TimeoutError(f"{what}: {'ended: ' + ', '.join(gone) if gone else f'not there after {seconds} s'}\n{logs}")
            time.sleep(0.2)
        return found

    def call(self, *command, check=True, cwd=None):
        return subprocess.run(command, env=self.environment, cwd=cwd, check=check, capture_output=True, text=True, timeout=60)

    def submit(self, *args, cwd, log, **environment):
        """@return the job's number; what its starts print is appended to `log`"""
        saved, self.environment = self.environment, {**self.environment, **environment}
        try:
            return self.call("sbatch", "--parsable", f"--output={log}", *map(str, args), cwd=cwd).stdout.strip()
        finally:
            self.environment = saved

    def job(self, number):
        """scontrol's fields of a job or a task of an array."""
        shown = self.call("scontrol", "--oneliner", "show", "job", str(number)).stdout
        return dict(field.split("=", 1) for field in shown.split() if "=" in field)

    def wait_state(self, number, states, seconds):
        return self.wait_for(f"job {number} in {states}", lambda: (j := self.job(number))["JobState"] in states and j, seconds)

    def wait_end(self, number, seconds):
        """@return the job's fields, after its last start"""
        return self.wait_state(number, ENDED, seconds)
