"""The two kinds of failure that a user can act on."""


class UserError(Exception):
    """Nothing can be done with this call: one clear message, exit code 2, nothing written.

    The message says which file or option, what is wrong with it, and what to do.
    """


class ScanError(Exception):
    """One scan cannot be used: it fails with this reason, the others go on, exit code 1."""
