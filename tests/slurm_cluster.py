"""A Slurm of one node with two cores, started and stopped by the tests: private keys, folders and ports."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo")
# proctrack/linuxproc: no control groups are needed. cred_expire: what a job that is queued again waits.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
OverTimeLimit=1
ReturnToService=2
MinJobAge=3600
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE")


class UnavailableError(Exception):
    """Why there can be no Slurm here."""


@contextmanager
def cluster() -> Iterator[None]:
    """Start it, let ``SLURM_CONF`` lead to it, and stop it. Raises UnavailableError where it cannot be."""
    if os.getuid():
        raise UnavailableError("its daemons must run as root here")
    if missing := [name for name in PROGRAMS if not shutil.which(name, path=_PATH)]:
        raise UnavailableError(f"{', '.join(missing)} not found (Debian: apt-get install slurm-wlm munge)")
    before = dict(os.environ)
    # Not in pytest's own folder: munge's socket must be open to all.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        for sub in ("munge", "state", "spool"):
            (folder / sub).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        ports, host = _free_ports(), socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, ports=ports))
        os.environ.update(SLURM_CONF=str(folder / "slurm.conf"), PATH=_PATH)
        daemons: list[subprocess.Popen[bytes]] = []
        try:
            munge = [
                f"--{what}={folder}/munge/{what}" for what in ("socket", "pid-file", "log-file", "seed-file")
            ]
            _start(daemons, folder, "munged", "--foreground", f"--key-file={folder}/munge.key", *munge)
            _start(daemons, folder, "slurmctld", "-D")
            _start(daemons, folder, "slurmd", "-D")
            _wait_for_node(folder, daemons)
            yield
        finally:
            with suppress(OSError, subprocess.SubprocessError):
                subprocess.run(["scancel", "--user=root"], timeout=30, capture_output=True)
                _wait_until_empty()
            for daemon in reversed(daemons):
                daemon.terminate()
                with suppress(subprocess.TimeoutExpired):
                    daemon.wait(20)
                daemon.kill()
            os.environ.clear()
            os.environ.update(before)


_PATH = f"{os.environ['PATH']}:/usr/sbin:/usr/bin:/sbin"


def _start(daemons: list["subprocess.Popen[bytes]"], folder: Path, *command: str) -> None:
    with (folder / f"{command[0]}.log").open("wb") as log:
        daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
    time.sleep(1)


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], two.getsockname()[1]]


def _wait_for_node(folder: Path, daemons: list["subprocess.Popen[bytes]"]) -> None:
    for _ in range(60):
        if any(daemon.poll() is not None for daemon in daemons):
            break
        said = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, timeout=90)
        if said.stdout.strip() == "idle":
            return
        time.sleep(1)
    last = [path.read_text(errors="replace").strip()[-300:] for path in sorted(folder.glob("*.log"))]
    raise UnavailableError("its daemons do not run here: " + " | ".join(last))


def _wait_until_empty() -> None:
    for _ in range(40):
        if not subprocess.run(["squeue", "-h"], capture_output=True, text=True, timeout=30).stdout:
            return
        time.sleep(1)


def jobs(job: str) -> list[dict[str, str]]:
    """What Slurm knows of a job, or of each task of an array: JobState, ExitCode, Restarts and so on."""
    said = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=True)
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in said.stdout.splitlines() if line.strip()]


def wait_for(job: str, seconds: float) -> list[dict[str, str]]:
    """What became of a job, by `jobs`. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        known = jobs(job)
        if all(task["JobState"] in ENDED for task in known):
            return known
        time.sleep(1)
    raise TimeoutError(f"job {job} has not ended after {seconds} s: {jobs(job)}")
