"""What a segmenter may be asked for. Nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MaskOptions:
    """quick: coarser and faster, for demonstrations. threads: of one scan. spm_cmd: the command that runs SPM.
    spm_time_limit: minutes per scan. cache: a folder for what is built once.
    """

    quick: bool = False
    threads: int = 1
    spm_cmd: str | None = None
    spm_time_limit: float = 30.0
    cache: Path | None = None
