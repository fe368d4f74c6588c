"""Ending a run on request: the iteration under way is finished and saved first."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bids_alphagan.common.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # a cluster's warning before the wall time is USR1
AT_ONCE = 2.0  # s


class Interrupted(Stopped):
    """The run was asked to stop (`by` a signal); all iterations so far are in its last checkpoint."""


class Request:
    """by: the signal that asked to stop, None while there is none."""

    by: signal.Signals | None = None


@contextmanager
def requests() -> Iterator[Request]:
    """Collect the first of `SIGNALS` in a `Request`; the second acts as it did before.

    The same one again within `AT_ONCE` seconds is no second request: Slurm signals all processes of a job,
    and apptainer hands on to the app what it gets itself. Ctrl-C comes from a hand, and counts each time.

    Only the main thread can take signals: elsewhere nothing is collected.
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
