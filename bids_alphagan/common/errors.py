"""The kinds of failure that a user can act on, and the request to stop."""

from pathlib import Path


class UserError(Exception):
    """Nothing can be done with this call: one clear message, exit code 2, nothing written.

    The message says which file or option, what is wrong with it, and what to do.
    """


class ScanError(Exception):
    """One scan cannot be used: it fails with this reason, the others go on, exit code 1."""


class Stopped(BaseException):
    """The run was asked to stop by the signal `by`; what is finished is kept, the exit code is 128 + by.

    Like KeyboardInterrupt it is no Exception, so that no library takes it for a failed scan.
    """

    def __init__(self, message: str, by: int) -> None:
        super().__init__(message)
        self.by = by


def unwritable(folder: Path, error: OSError) -> UserError:
    """What to say where a folder that is the user's choice cannot be written."""
    return UserError(
        f"{folder}: cannot be written ({error.strerror or error}). "
        "Give another folder, or change its permissions."
    )
