"""The registry MODELS: one light entry per model, whose code is loaded on first use.

A new model is a folder (or file) and an entry. Its code is a `base.NetworkModel`, which the shared loop of
`training` fits by its networks and phases, or a `base.Model` with its own `fit`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.lazy import Lazy, loaded
from bids_alphagan.models.alphagan.spec import SPECS

if TYPE_CHECKING:
    from bids_alphagan.models.base import Model

VARIANTS = ("paper", "released")
SCAN = "scan"  # the first channel of every sample


@dataclass(frozen=True)
class Entry:
    """The facts about a model that are needed without its code.

    code: a function (name, variant) -> `base.Model`, or its name. channels: of a sample; the first is the scan in
    [-1, 1], further ones are tissue probability maps ("GM", "WM", "CSF"), also in [-1, 1].
    parameters: the parameter file of a fitted model in models/NAME. smallest_batch: for training, in scans.
    """

    title: str
    citation: str
    code: Lazy | Callable[[str, str], "Model"]
    channels: tuple[str, ...] = (SCAN,)
    parameters: str = "generator.safetensors"
    smallest_batch: int = 1


MODELS: dict[str, Entry] = {
    name: Entry(
        spec.title,
        spec.citation,
        Lazy("bids_alphagan.models.alphagan.model:AlphaGan.named"),
        smallest_batch=spec.smallest_batch,
    )
    for name, spec in SPECS.items()
}


def check_batch(name: str, batch_size: int) -> None:
    """Raise UserError if a batch is too small for a model."""
    least = MODELS[name].smallest_batch
    if batch_size < least:
        raise UserError(
            f"--batch-size {batch_size}: must be at least {least}, because {name} uses batch normalisation of codes."
        )


def load_model(name: str, variant: str = "paper") -> "Model":
    """The model of an entry, ready to be fitted or to draw samples.

    variant: "paper", or "released" for the training of the code released with the paper, if the model has it.
    """
    model: Model = loaded(MODELS[name].code)(name, variant)
    return model
