"""Stopping a run by a signal: the current iteration is finished and saved first."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bids_alphagan.common.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # USR1: a cluster's warning before the time limit
AT_ONCE = 2.0  # seconds in which a repeated signal counts as one


class Interrupted(Stopped):
    """The run was stopped by the signal `by`; its last checkpoint holds all iterations so far."""


class Request:
    """by: the first signal that was received, None until then."""

    by: signal.Signals | None = None


@contextmanager
def requests() -> Iterator[Request]:
    """Collect the first of `SIGNALS` in a `Request`; a second one acts as it did before.

    The same signal within `AT_ONCE` seconds does not count as a second one: Slurm signals all processes of a job,
    and apptainer forwards its own signals to the app. Ctrl-C is typed, and counts each time.

    Only the main thread receives signals; in other threads nothing is collected.
    """
    request = Request()
    before: dict[signal.Signals, Any] = {}
    noted = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        if request.by is None:
            request.by, noted = signal.Signals(number), time.monotonic()
            if number == signal.SIGINT:
                restore()
        elif number != request.by or time.monotonic() > noted + AT_ONCE:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        restore()
