"""Two hosts on one machine: network namespaces joined by a cable that can be cut, each with a host name of its own.

They share the file system, as hosts of a cluster do. Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN).
"""

import os
import signal
import subprocess
import time
from pathlib import Path

CABLE = "veth0"  # the name of its end on either host

# What mpirun calls in ssh's place: AGENT HOST COMMAND... It leaves the command in a session of its own, for what happens
# to one of them must not tell the other: between hosts only the cable could.
AGENT = """#!/bin/sh
host=$1
shift
setsid ip netns exec "$host" unshare --uts sh -c 'hostname "$0" && exec sh -c "$1"' "$host" "$*" </dev/null &
"""


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def why_not():
    """A sentence if such hosts can't be made here, else None."""
    name = f"hs{os.getpid()}x"
    try:
        run("ip", "netns", "add", name)
        try:
            run("ip", "netns", "exec", name, "unshare", "--uts", "true")
            run("ip", "link", "add", "dev", f"{name}0", "netns", name, "type", "veth", "peer", "name", f"{name}1", "netns", name)
        finally:
            run("ip", "netns", "del", name)
    except FileNotFoundError as error:
        return f"no network namespaces: {error.filename} is not installed"
    except subprocess.CalledProcessError as error:
        return f"no network namespaces: {' '.join(error.cmd)}: {error.stderr.strip()}"
    return None


class TwoHosts:
    """Made and taken down by `with`; whatever runs on them is killed then."""

    def __init__(self, folder):
        self.names = [f"hs{os.getpid()}{letter}" for letter in "ab"]
        self.agent = Path(folder) / "agent.sh"

    def __enter__(self):
        self.agent.write_text(AGENT)
        self.agent.chmod(0o755)
        for name in self.names:
            run("ip", "netns", "add", name)
        a, b = self.names
        run("ip", "link", "add", "dev", CABLE, "netns", a, "type", "veth", "peer", "name", CABLE, "netns", b)
        for number, name in enumerate(self.names, start=1):
            run("ip", "-n", name, "address", "add", f"10.77.0.{number}/24", "dev", CABLE)
            run("ip", "-n", name, "link", "set", CABLE, "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        for name in self.names:
            for pid in self.processes(name):
                os.kill(pid, signal.SIGKILL)
            run("ip", "netns", "del", name)

    def processes(self, name, program=None):
        """Ids of what runs on a host, all or one program's."""
        found = []
        for pid in map(int, run("ip", "netns", "pids", name).split()):
            try:
                head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
            is_zombie = tail.split()[0] == "Z"
            if not is_zombie and (program is None or head.endswith(f"({program}")):
                found.append(pid)
        return found

    def wait_for(self, condition, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():
                return True
            time.sleep(0.1)
        return condition()

    def cut(self):
        run("ip", "-n", self.names[0], "link", "set", CABLE, "down")

    def mpirun(self, launcher, ranks_each, *command):
        """The command line that starts `command` from the first host on both."""
        a, b = self.names
        mpi = [str(launcher), "--host", f"{a}:{ranks_each},{b}:{ranks_each}", "-n", str(2 * ranks_each),
               "--mca", "plm_rsh_agent", str(self.agent)]
        for layer in ("btl", "oob"):
            mpi += ["--mca", f"{layer}_tcp_if_include", CABLE]
        enter = ["ip", "netns", "exec", a, "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', a]
        return [*enter, *mpi, *map(str, command)]
