"""Ending a run on request: the iteration under way is finished and saved first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bids_alphagan.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # a cluster's warning before the wall time is USR1


class Interrupted(Stopped):
    """The run was asked to stop (`by` a signal); all iterations so far are in its last checkpoint."""


class Request:
    """by: the signal that asked to stop, None while there is none."""

    by: signal.Signals | None = None


@contextmanager
def requests() -> Iterator[Request]:
    """Collect the first of `SIGNALS` in a `Request`; the second acts as it did before.

    Only the main thread can take signals: elsewhere nothing is collected.
    """
    request = Request()
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        request.by = signal.Signals(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        restore()
