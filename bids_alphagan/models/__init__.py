"""The models: MODELS, a light entry for each, whose code is loaded when it is used.

A new model is a folder (or file) and an entry. Its code is a `base.NetworkModel`, which the shared loop of
`training` fits by its networks and phases, or a `base.Model` with a fit of its own; either draws samples.
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
    """What is known of a model without its code.

    code: names, or is, a function (name, variant) -> `base.Model`. channels: of a sample; the first is the scan in
    [-1, 1], others are tissue probability maps ("GM", "WM", "CSF"), in [-1, 1] as well.
    parameters: the file in models/NAME that a fitted model draws from. smallest_batch: that it can be trained with.
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
    """UserError where a batch is too small for a model."""
    least = MODELS[name].smallest_batch
    if batch_size < least:
        raise UserError(
            f"--batch-size {batch_size}: must be at least {least}, since {name} normalises codes over it."
        )


def load_model(name: str, variant: str = "paper") -> "Model":
    """The model of an entry, ready to be fitted or to draw.

    variant: "paper", or "released": as the code released with the paper trains it, where a model knows that.
    """
    model: Model = loaded(MODELS[name].code)(name, variant)
    return model
