"""The methods text about an alpha-GAN, with citations as in `report.methods.compose`."""

from collections.abc import Mapping, Sequence
from typing import Any

from bids_alphagan.models.alphagan.spec import ModelSpec

RECONSTRUCTION = {
    "l1": "mean absolute error",
    "mse": "mean squared error",
    "gdl": "gradient difference loss [@gdl]",
}
AUGMENTATIONS = {
    "rotate": "rotation",
    "flip": "left-right flip",
    "scale": "intensity scaling",
    "zoom": "zoom",
    "noise": "Gaussian noise",
    "rescale": "rescaling to -1 to 1",
    "translate": "translation",
}


def paragraph(spec: ModelSpec, settings: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    """How a model was trained. settings: of config.json. info: of the generator's file; "step" is its iteration."""
    networks = {
        "generator": spec.generator,
        "discriminator": spec.discriminator,
        "encoder": spec.encoder,
        "code discriminator": spec.code_discriminator,
    }
    normalised = [name for name, network in networks.items() if network.spectral_norm]
    spectral = (
        f" Spectral normalisation [@spectral] was applied to the {_list(normalised)}." if normalised else ""
    )
    terms = _list(
        [f"{weight:g} × {RECONSTRUCTION.get(name, name)}" for name, weight in spec.reconstruction.items()]
    )
    betas = " and ".join(f"{beta:g}" for beta in settings["adam_betas"])
    decay = f", weight decay {spec.weight_decay:g}" if spec.weight_decay else ""
    augmentations = _list([AUGMENTATIONS.get(name, name) for name in spec.augmentations])
    return (
        f"{spec.title} [@{spec.name} source] is a 3D alpha-GAN [@alphagan] of generator, discriminator, "
        f"encoder and code discriminator with {settings['latent'] or spec.latent} latent variables and a base "
        f"width of {settings['channels']} channels. Encoder and generator minimised the adversarial losses plus "
        f"{terms}; both discriminators minimised a Wasserstein loss with gradient penalty [@wgangp], weight "
        f"{spec.gradient_penalty:g}.{spectral} It was trained for {info['step']} iterations with "
        f"batches of {settings['batch_size']} scans by {spec.optimiser} [@{spec.optimiser}] (learning rate "
        f"{settings['learning_rate']:g}, betas {betas}{decay}), with random {augmentations}."
        f"{_departures(spec)}{_average(settings)}{_choice(settings)}"
    )


def _average(settings: Mapping[str, Any]) -> str:
    decay = settings.get("ema_decay", 0)
    if not decay:
        return ""
    return f" Scans were drawn from an exponential moving average of the generator's weights [@ema], decay {decay:g}."


def _choice(settings: Mapping[str, Any]) -> str:
    every, trained = settings["checkpoint_every"], settings["iterations"]
    if settings.get("use_checkpoint") != "best" or every > trained:
        return ""
    return (
        f" Of checkpoints at every {every} iterations of {trained}, the one whose samples were nearest to the "
        "training scans, in block-wise means and standard deviations of intensity, was used."
    )


def _departures(spec: ModelSpec) -> str:
    """Differences of the released code from the paper's equations."""
    departures = [f"the {RECONSTRUCTION[name]} had no gradient" for name in spec.without_gradient]
    if spec.generator_updates > 1:
        departures.append(f"the generator was updated {spec.generator_updates} times in each iteration")
    return f" As in the code released with the paper, {_list(departures)}." if departures else ""


def _list(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
