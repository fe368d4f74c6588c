"""Errors that a user can act on, and the exception that stops a run."""

from pathlib import Path


class UserError(Exception):
    """The call cannot be carried out: one clear message, exit code 2, nothing written.

    The message says which file or option, what is wrong with it, and what to do.
    """


class ScanError(Exception):
    """One scan cannot be used. It fails with this reason, the other scans go on, and the exit code is 1."""


class Stopped(BaseException):
    """The run was stopped by the signal `by`. Finished results are kept; the exit code is 128 + by.

    Like KeyboardInterrupt it is not an Exception, so that no library mistakes it for a failed scan.
    """

    def __init__(self, message: str, by: int) -> None:
        super().__init__(message)
        self.by = by


def unwritable(folder: Path, error: OSError) -> UserError:
    """The error for a folder, chosen by the user, that cannot be written."""
    return UserError(
        f"{folder}: cannot be written ({error.strerror or error}). "
        "Give another folder, or change its permissions."
    )
