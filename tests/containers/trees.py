"""What is in a folder, file by file, and where two folders differ."""

import hashlib
import os
import stat
from pathlib import Path


def files(root: Path) -> dict[str, str]:
    """Every path below `root`: its kind and mode, owner, and what it holds."""
    found = {}
    for folder, names, leaves in os.walk(root):
        for name in (*names, *leaves):
            path = Path(folder) / name
            status = path.lstat()
            holds = ""
            if stat.S_ISLNK(status.st_mode):
                holds = str(path.readlink())
            elif stat.S_ISREG(status.st_mode):
                with path.open("rb") as file:
                    holds = hashlib.file_digest(file, "sha256").hexdigest()
            found[str(path.relative_to(root))] = f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {holds}"
    return found


def differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    return sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path))
