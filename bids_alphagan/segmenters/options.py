"""The options of segmenters. No heavy imports here."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MaskOptions:
    """quick: coarser and faster, for demonstrations. threads: per scan. spm_cmd: the command that runs SPM.

    spm_time_limit: minutes per scan. cache: a folder for results that are computed once.
    """

    quick: bool = False
    threads: int = 1
    spm_cmd: str | None = None
    spm_time_limit: float = 30.0
    cache: Path | None = None
