"""Registry entries (MODELS, SEGMENTERS, QUESTIONS) name their code and load it on first use.

``--help`` and the participant level read the entries, but torch, MONAI and antspyx take seconds to import. An
entry therefore holds "module:attribute". All other imports of the package are at the top of their file.
"""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Lazy:
    """Code by name: ``Lazy("package.module:attribute").load()``, or the module if no attribute is named."""

    name: str

    def load(self) -> Any:
        """Import and return the attribute, or the module."""
        module, _, attribute = self.name.partition(":")
        target = importlib.import_module(module)
        for part in filter(None, attribute.split(".")):
            target = getattr(target, part)
        return target


def loaded(code: Any) -> Any:
    """The code of an entry, whether it is given as `Lazy` or directly."""
    return code.load() if isinstance(code, Lazy) else code
