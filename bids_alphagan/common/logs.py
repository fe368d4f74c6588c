"""Log messages go to the screen and to one file per run."""

import logging
from collections.abc import Sequence
from pathlib import Path

_handlers: list[logging.Handler] = []


def screen_log(verbose: int) -> None:
    """Log to standard error: this package from INFO (`verbose` 0) or DEBUG (1), other libraries too (2)."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    handler.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("bids_alphagan").setLevel(logging.DEBUG)
    logging.getLogger("bids_alphagan").propagate = False
    _add(handler, "bids_alphagan", *([""] if verbose > 1 else []))


def errors_only() -> None:
    """Log errors only; another process logs the rest."""
    logging.getLogger("bids_alphagan").setLevel(logging.ERROR)


def file_log(path: Path) -> None:
    """Log all messages of this package and of nipype to a file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    _add(handler, "bids_alphagan", "nipype")


def log_files() -> list[str]:
    """The paths of the current log files."""
    return [handler.baseFilename for handler in _handlers if isinstance(handler, logging.FileHandler)]


def worker_log(paths: Sequence[str]) -> None:
    """In a new worker process: log to the same files as the process that started it."""
    logging.getLogger("bids_alphagan").setLevel(logging.DEBUG)
    logging.getLogger("bids_alphagan").propagate = False
    for path in paths:
        file_log(Path(path))


def _add(handler: logging.Handler, *names: str) -> None:
    _handlers.append(handler)
    for name in names:
        logging.getLogger(name).addHandler(handler)


def close_logs() -> None:
    """Remove the handlers that `screen_log` and `file_log` added, so that the next run starts with its own."""
    while _handlers:
        handler = _handlers.pop()
        for name in ("bids_alphagan", "nipype", ""):
            logging.getLogger(name).removeHandler(handler)
        handler.close()
