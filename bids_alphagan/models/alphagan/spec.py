"""The three alpha-GANs of the paper as data: they differ in the fields of `ModelSpec`.

Ferreira, Magalhães, Mériaux, Alves, "Generation of Synthetic Rat Brain MRI Scans with a 3D Enhanced
Alpha-GAN", Applied Sciences 12(10):4844, 2022, doi 10.3390/app12104844: Figures 5 and 6 (layers),
equations (1) to (6) (losses).

No heavy imports here: `networks.build_networks` turns a specification into torch modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

PAPER = "Ferreira et al., Applied Sciences 12(10):4844, 2022, doi:10.3390/app12104844"
BASELINE = "Kwon, Han & Kim, MICCAI 2019, LNCS 11766:118-126, doi:10.1007/978-3-030-32248-9_14"


@dataclass(frozen=True)
class NetworkSpec:
    """The normalisation of one network.

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
    generator_updates: steps of the generator's optimiser per iteration, all with the same gradient.
    without_gradient: reconstruction terms that are added to the loss without a gradient.
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
        """Scans that a batch needs: 2 for batch normalisation of codes, else 1."""
        return 2 if self.code_discriminator.normalisation == "batch" else 1


def variant(spec: ModelSpec, name: str) -> ModelSpec:
    """The model as in the paper ("paper"), or as in the code released with it ("released").

    The released code computes no gradient of the gradient difference loss, and steps the generator's optimiser twice
    per iteration. Raises ValueError for other names.
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
    """The model in a run's config.json (`dataclasses.asdict` as JSON)."""
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
