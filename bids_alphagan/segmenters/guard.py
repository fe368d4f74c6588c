"""``python guard.py FOLDER COMMAND...``: run a program that is killed when its caller ends.

The caller keeps the guard's standard input open while it waits. However the waiting ends (a time limit, Ctrl-C,
kill -9), the program's process group is killed and FOLDER removed; wrapper scripts alone would leave Octave or
MATLAB running for hours. Standard library only, so that it starts at once.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress


def main(folder: str, *command: str) -> int:
    """The program's exit code: 128 + n if signal n ended it, 127 if it could not be started."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        print(f"{command[0]} could not be started: {error.strerror}")
        return 127
    gone = threading.Event()

    def watch() -> None:
        os.read(0, 1)  # returns when the caller closes its end or has ended
        gone.set()
        _kill(process.pid)

    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    _kill(process.pid)  # processes that it may have left in the background
    if gone.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
