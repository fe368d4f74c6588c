"""Entries of the doors (MODELS, SEGMENTERS, QUESTIONS) name their code and load it when it is used.

``--help`` and the participant level read the entries, and torch, MONAI and antspyx take seconds to import. So an
entry holds "module:attribute". All other imports of the package stand at the top of their file.
"""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Lazy:
    """Code by its name: ``Lazy("package.module:attribute").load()``, or the module where no attribute is named."""

    name: str

    def load(self) -> Any:
        """The attribute, or the module."""
        module, _, attribute = self.name.partition(":")
        found = importlib.import_module(module)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
        return found


def loaded(code: Any) -> Any:
    """The code of an entry, which may be named by `Lazy` or stand in the entry itself."""
    return code.load() if isinstance(code, Lazy) else code
