"""``bids-alphagan`` and ``python -m bids_alphagan``.

In a container the app is process 1, which receives only the signals that it handles. Handlers are therefore
installed before the imports, which take seconds.
"""

import os
import signal
import sys
from typing import Any


def main() -> int:
    """Run the app and return its exit code. A signal during start-up ends the process with 128 + its number."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _end)
    from bids_alphagan.cli import main as cli

    return cli.main()


def _end(number: int, frame: Any) -> None:
    os._exit(128 + number)  # nothing has started yet, and an import could swallow an exception


if __name__ == "__main__":
    sys.exit(main())
