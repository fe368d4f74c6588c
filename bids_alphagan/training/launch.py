"""One command, several processes: `launch` starts a process group on this machine and monitors it."""

import logging
import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json, write_json
from bids_alphagan.common.process.interrupt import SIGNALS, Interrupted, requests
from bids_alphagan.common.process.threads import use_threads
from bids_alphagan.training import distributed

LOOK = 0.5  # s between two checks of the processes
GRACE = 5.0  # s for a group to end by itself after one of its processes has died
HOST = "127.0.0.1"
PACKAGE = __name__.partition(".")[0]


def launch(devices: int, device: str, function: Callable[..., Any], *arguments: Any) -> None:
    """Call the function in `devices` processes that form a process group; if already in a group, call it here.

    function, arguments: must be picklable. device: "cuda" or "cpu". The log of rank 0 goes to this process's log. A
    signal to stop is forwarded to all processes.

    Raises UserError and Interrupted of the processes, and UserError if one dies; then no process is left.
    """
    if devices == 1 or distributed.size() > 1:
        function(*arguments)
        return
    # the processes connect through this process's port, which is free and stays reserved
    meeting = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    environment = {
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(meeting.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    environment |= {"WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices)}
    threads = max(1, torch.get_num_threads() // devices)
    queue = multiprocessing.get_context("spawn").Queue()
    listener = QueueListener(queue, _Relay())
    listener.start()
    with tempfile.TemporaryDirectory() as outcomes, requests() as request:
        work = (environment, device, threads, queue, Path(outcomes), function, arguments)
        group = multiprocessing.start_processes(_work, work, devices, join=False, daemon=True)
        try:
            while not group.join(LOOK, GRACE):
                for process in group.processes:
                    if request.by and process.is_alive():
                        os.kill(process.pid, request.by)
        except ProcessExitedException as error:
            if request.by:  # before the group could handle it
                raise Interrupted(f"stopped by {request.by.name}", request.by) from error
            raise _failure(Path(outcomes), group.processes, error) from error
        finally:
            for process in group.processes:
                process.kill()
                process.join()
            listener.stop()
        if stopped := _outcomes(Path(outcomes), "stopped"):
            raise Interrupted(stopped[0]["message"], signal.Signals(stopped[0]["signal"]))
        if request.by:  # too late for the group, which had finished
            raise Interrupted(f"stopped by {request.by.name}", request.by)


def _outcomes(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The reports of the processes, rank 0 first."""
    outcomes = [read_json(path) for path in sorted(folder.glob("*.json"), key=lambda path: int(path.stem))]
    return [outcome for outcome in outcomes if outcome["kind"] == kind]


def _failure(folder: Path, group: list[Any], error: ProcessExitedException) -> Exception:
    """Why a group ended early: the error of a process, a process that died, or what the others then noticed."""
    if faults := _outcomes(folder, "fault"):
        return RuntimeError(f"training failed in a worker process:\n{faults[0]['message']}")
    if errors := _outcomes(folder, "error"):
        return UserError(errors[0]["message"])
    died = [rank for rank, process in enumerate(group) if process.exitcode < 0]
    if not died and (lost := _outcomes(folder, "lost")):
        return UserError(lost[0]["message"])
    rank = died[0] if died and error.error_index not in died else error.error_index
    code = group[rank].exitcode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return UserError(
        f"Training stopped: process {rank} of {len(group)} (from 0) {how}, and the others were stopped. "
        "The same command resumes from the last checkpoint, on any number of devices."
    )


class _Relay(logging.Handler):
    """Passes the log records of another process to this process's loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


def _work(
    rank: int,
    environment: dict[str, str],
    device: str,
    threads: int,
    queue: Any,
    outcomes: Path,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """One process of the group, set up as under torchrun. Unless it exits with 0, the others are stopped."""
    # Except in training, which handles the first one; `launch` repeats them until this process ends.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ.setdefault(
        "GLOO_SOCKET_IFNAME", "lo"
    )  # works without a network that resolves the machine's name
    use_threads(threads)
    log = logging.getLogger(PACKAGE)
    log.propagate = False
    log.setLevel(logging.DEBUG if rank == 0 else logging.ERROR)
    log.addHandler(QueueHandler(queue))

    def report(kind: str, message: str, **more: Any) -> None:
        write_json(outcomes / f"{rank}.json", {"kind": kind, "message": message, **more})

    code = 0
    try:
        with distributed.process_group(device):
            function(*arguments)
    except Interrupted as stopped:  # the whole group, at the same iteration
        report("stopped", str(stopped), signal=stopped.by)
    except UserError as error:
        report("lost" if isinstance(error, distributed.LostError) else "error", str(error))
        code = 2
    except Exception:
        report("fault", traceback.format_exc())
        code = 1
    queue.close()
    queue.join_thread()
    distributed.leave(code)
