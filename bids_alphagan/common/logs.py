"""Where log messages go: the screen, and a file for each run."""

import logging
from collections.abc import Sequence
from pathlib import Path

_handlers: list[logging.Handler] = []


def screen_log(verbose: int) -> None:
    """Messages to standard error: ours from INFO on, other libraries' only when asked for."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    handler.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("bids_alphagan").setLevel(logging.DEBUG)
    logging.getLogger("bids_alphagan").propagate = False
    _add(handler, "bids_alphagan", *([""] if verbose > 1 else []))


def errors_only() -> None:
    """Leave the rest to another process."""
    logging.getLogger("bids_alphagan").setLevel(logging.ERROR)


def file_log(path: Path) -> None:
    """Every message of ours and of nipype's to a file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    _add(handler, "bids_alphagan", "nipype")


def log_files() -> list[str]:
    """The files that messages go to now."""
    return [handler.baseFilename for handler in _handlers if isinstance(handler, logging.FileHandler)]


def worker_log(paths: Sequence[str]) -> None:
    """In a new worker process: messages go to the same files as those of the process that started it."""
    logging.getLogger("bids_alphagan").setLevel(logging.DEBUG)
    logging.getLogger("bids_alphagan").propagate = False
    for path in paths:
        file_log(Path(path))


def _add(handler: logging.Handler, *names: str) -> None:
    _handlers.append(handler)
    for name in names:
        logging.getLogger(name).addHandler(handler)


def close_logs() -> None:
    """Take back what `screen_log` and `file_log` added to the loggers, so that the next run has its own."""
    while _handlers:
        handler = _handlers.pop()
        for name in ("bids_alphagan", "nipype", ""):
            logging.getLogger(name).removeHandler(handler)
        handler.close()
