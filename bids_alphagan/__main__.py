"""``bids-alphagan`` and ``python -m bids_alphagan``.

In a container the app is process 1, which does not get signals that it does not handle. So that is seen to
before anything that takes time to import.
"""

import os
import signal
import sys
from typing import Any


def main() -> int:
    """Run the app and return its exit code; a signal before it has begun ends it with 128 + its number."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _end)
    from bids_alphagan.cli import main as cli

    return cli.main()


def _end(number: int, frame: Any) -> None:
    os._exit(128 + number)  # nothing has been begun; an exception could be lost in an import


if __name__ == "__main__":
    sys.exit(main())
