"""The three alpha-GANs of the paper as data: what differs between them is a field of `ModelSpec`.

Ferreira, Magalhães, Mériaux, Alves, "Generation of Synthetic Rat Brain MRI Scans with a 3D Enhanced
Alpha-GAN", Applied Sciences 12(10):4844, 2022, doi 10.3390/app12104844: Figures 5 and 6 (layers),
equations (1) to (6) (losses).

Nothing heavy is imported: `networks.build_networks` turns a specification into torch modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

PAPER = "Ferreira et al., Applied Sciences 12(10):4844, 2022, doi:10.3390/app12104844"
BASELINE = "Kwon, Han & Kim, MICCAI 2019, LNCS 11766:118-126, doi:10.1007/978-3-030-32248-9_14"


@dataclass(frozen=True)
class NetworkSpec:
    """How the layers of one network are normalised.

    normalisation: "batch" (affine, running statistics), "instance" (without affine parameters) or None.
    spectral_norm: True divides each layer's weight by its largest singular value (Miyato et al. 2018,
    arXiv:1802.05957).
    """

    normalisation: Literal["batch", "instance"] | None = None
    spectral_norm: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """One alpha-GAN: four networks, the generator's loss, the optimiser and the augmentation.

    latent: length L of the latent vector.
    generator_slope: negative slope of the generator's LeakyReLU, 0 for ReLU.
    reconstruction: weight of each reconstruction term (a name in `losses.RECONSTRUCTION`) in the loss of
        encoder and generator.
    gradient_penalty: weight lambda1 of both discriminators' gradient penalties.
    augmentations: names in `training.augment.AUGMENTATIONS`, in the order in which they are applied.
    variant: "paper" or "released", see `variant`.
    generator_updates: how often the generator's optimiser steps in an iteration, with the same gradient.
    without_gradient: reconstruction terms that are added as numbers and train nothing.
    """

    name: str
    title: str
    citation: str
    latent: int
    generator: NetworkSpec
    discriminator: NetworkSpec
    encoder: NetworkSpec
    code_discriminator: NetworkSpec
    generator_slope: float
    reconstruction: dict[str, float]
    gradient_penalty: float
    optimiser: Literal["Adam", "AdamW"] = "Adam"
    weight_decay: float = 0.0
    augmentations: tuple[str, ...] = ("rotate", "flip", "scale", "zoom", "noise", "rescale", "translate")
    variant: str = "paper"
    generator_updates: int = 1
    without_gradient: tuple[str, ...] = ()

    @property
    def smallest_batch(self) -> int:
        """Scans that a batch needs: batch normalisation of codes takes two."""
        return 2 if self.code_discriminator.normalisation == "batch" else 1


def variant(spec: ModelSpec, name: str) -> ModelSpec:
    """The model as the paper has it ("paper"), or as the code released with it trains it ("released"): the
    gradient difference loss without a gradient, the generator stepped twice in an iteration.
    """
    match name:
        case "paper":
            return spec
        case "released":
            silent = tuple(term for term in spec.reconstruction if term == "gdl")
            return replace(spec, variant=name, generator_updates=2, without_gradient=silent)
        case _:
            raise ValueError(f"There is no variant {name!r}: choose paper or released")


def from_record(record: Mapping[str, Any]) -> ModelSpec:
    """The model that a run's config.json describes (`dataclasses.asdict`, through JSON)."""
    networks = {f.name: NetworkSpec(**record[f.name]) for f in fields(ModelSpec) if f.type is NetworkSpec}
    tuples = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
    return ModelSpec(**{**record, **networks, **tuples})


SPECS: dict[str, ModelSpec] = {
    "adni": ModelSpec(
        name="adni",
        title="α-WGAN-ADNI",
        citation=BASELINE,
        latent=1000,
        generator=NetworkSpec("batch"),
        discriminator=NetworkSpec("batch"),
        encoder=NetworkSpec("batch"),
        code_discriminator=NetworkSpec("batch"),
        generator_slope=0.0,
        reconstruction={"l1": 10},
        gradient_penalty=10,
        augmentations=("flip",),
    ),
    "sigmarat1": ModelSpec(
        name="sigmarat1",
        title="α-WGAN-SigmaRat1",
        citation=PAPER,
        latent=500,
        generator=NetworkSpec("instance", spectral_norm=True),
        discriminator=NetworkSpec("instance", spectral_norm=True),
        encoder=NetworkSpec("instance", spectral_norm=True),
        code_discriminator=NetworkSpec("batch", spectral_norm=True),
        generator_slope=0.01,
        reconstruction={"l1": 10, "mse": 10},
        gradient_penalty=10,
    ),
    "sigmarat2": ModelSpec(
        name="sigmarat2",
        title="α-WGAN-SigmaRat2",
        citation=PAPER,
        latent=500,
        generator=NetworkSpec("instance"),
        discriminator=NetworkSpec(spectral_norm=True),
        encoder=NetworkSpec("instance"),
        code_discriminator=NetworkSpec(spectral_norm=True),
        generator_slope=0.01,
        reconstruction={"gdl": 0.01, "mse": 100},
        gradient_penalty=100,
        optimiser="AdamW",
        weight_decay=0.01,
    ),
}
