"""The methods section of a manuscript, written from what a run did, citing only what it used."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bids_alphagan.models import ModelSpec
from bids_alphagan.report.references import REFERENCES

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


@dataclass(frozen=True)
class MaskFacts:
    """How tissue masks were made: what `Segmenter.describe` gives as Name and Version, and the template.

    template_citation: "" where the template states none. templateflow: the template came from TemplateFlow.
    """

    segmenter: str
    version: str
    template: str
    template_citation: str
    templateflow: bool


@dataclass(frozen=True)
class ModelFacts:
    """How one model was trained, and what it gave.

    iterations: of the generator that was sampled. chosen_from: where that is the best of several checkpoints,
    the iterations between them and the iterations of the whole training.
    """

    spec: ModelSpec
    channels: int
    latent: int
    iterations: int
    chosen_from: tuple[int, int] | None
    batch_size: int
    learning_rate: float
    adam_betas: Sequence[float]
    ema_decay: float
    gate_width: float
    n_accepted: int
    n_rejected: int


def participant_methods(
    *, grid: int, intensity_percentile: float, masks: MaskFacts | None, versions: Mapping[str, str]
) -> str:
    """Describe the preparation of scans.

    Parameters
    ----------
    grid: voxels along each side of the cube for the network.
    intensity_percentile: the percentile of the scan that becomes 1.
    masks: None where no masks were made.
    versions: distribution name to version; "bids-alphagan", "nipype" and "nibabel" are needed.
    """
    software = (
        f"Scans in BIDS format [@bids] were prepared with bids-alphagan {versions['bids-alphagan']}, which "
        f"follows Ferreira et al. [@paper] and builds on nipype {versions['nipype']} [@nipype] and NiBabel "
        f"{versions['nibabel']} [@nibabel]."
    )
    clipping = "" if intensity_percentile >= 100 else "; brighter voxels were set to 1"
    preparation = (
        "Each scan was reduced to one magnitude volume: time series were averaged without volumes that "
        "correlated poorly with the median volume. It was reoriented to RAS axes, padded with zeros to "
        f"{grid}×{grid}×{grid} voxels (resampled first along axes with more voxels) and scaled linearly to "
        f"the range from -1 to 1, where 1 is the scan's {intensity_percentile:g}th percentile{clipping}."
    )
    return compose([f"{software} {preparation}", *_masks(masks)], _citations(masks))


@dataclass(frozen=True)
class ComparisonFacts:
    """How many animals no model has seen (0: none), and the random pairs per training scan."""

    held_out: int
    pairs_per_scan: int
    msssim_pairs_per_scan: int


def group_methods(
    *,
    n_scans: int,
    n_animals: int,
    grid: int,
    models: Sequence[ModelFacts],
    masks: MaskFacts | None,
    compared: ComparisonFacts | None,
    seed: int,
    versions: Mapping[str, str],
    more: Sequence[str] = (),
) -> str:
    """Describe training, synthesis and evaluation.

    Parameters
    ----------
    n_scans, n_animals: real scans that the models learnt from, and the animals they show.
    masks: None where no masks were made.
    compared: None where nothing was evaluated. more: further paragraphs, citing as `compose` says.
    versions: distribution name to version; "bids-alphagan" and "torch" are needed.
    """
    paragraphs = [
        f"Synthetic scans were made with bids-alphagan {versions['bids-alphagan']} after Ferreira et al. "
        f"[@paper], with PyTorch {versions['torch']} [@torch], from {_count(n_scans, 'scan')} of "
        f"{_count(n_animals, 'animal')} in BIDS format [@bids], as volumes of {grid}×{grid}×{grid} voxels "
        f"with intensities from -1 to 1 (seed {seed})."
    ]
    paragraphs += [_model(model) for model in models]
    paragraphs += _masks(masks)
    if masks and models:
        kept = ", ".join(f"{m.n_accepted} of {m.n_accepted + m.n_rejected} by {m.spec.title}" for m in models)
        widths = " and ".join(dict.fromkeys(f"{m.gate_width:g}" for m in models))
        paragraphs.append(
            "Synthetic scans were saved with the header and affine of a real scan. Where a measure "
            f"of its masks' quality lay more than {widths} robust standard deviations from the real scans' "
            f"median, a scan was discarded and drawn again; kept were {kept}."
        )
    if compared is not None:
        paragraphs.append(_comparison(compared))
    paragraphs += more
    return _with_references(paragraphs, masks, models)


def _comparison(facts: ComparisonFacts) -> str:
    """How synthetic scans were compared with real ones."""
    if facts.held_out:
        with_whom = (
            f"Scans of {_count(facts.held_out, 'animal')}, drawn at random and seen by no model, were "
            "compared with synthetic scans; with the training scans, which show what other animals reach; "
            "and with these and Gaussian noise (standard deviation a tenth of the range), as a floor."
        )
    else:
        with_whom = "Synthetic scans were compared with the scans that the models were trained on."
    return (
        f"{with_whom} With intensities from 0 to 1, the normalised cross-correlation, the mean absolute "
        "error, the root mean squared error, the peak signal-to-noise ratio and the squared maximum mean "
        "discrepancy with a linear kernel on voxels [@mmd; kwon] were taken over "
        f"{facts.pairs_per_scan} random pairs per training scan, and the multi-scale structural similarity "
        f"[@msssim] over {facts.msssim_pairs_per_scan} pairs per training scan within each set (all where "
        "there are fewer). Given are means with 95 % bootstrap intervals over animals [@bootstrap]."
    )


def _with_references(paragraphs: Sequence[str], masks: MaskFacts | None, models: Sequence[ModelFacts]) -> str:
    return compose(paragraphs, _citations(masks) | {f"{m.spec.name} source": m.spec.citation for m in models})


def _model(model: ModelFacts) -> str:
    spec = model.spec
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
    betas = " and ".join(f"{beta:g}" for beta in model.adam_betas)
    decay = f", weight decay {spec.weight_decay:g}" if spec.weight_decay else ""
    augmentations = _list([AUGMENTATIONS.get(name, name) for name in spec.augmentations])
    return (
        f"{spec.title} [@{spec.name} source] is a 3D alpha-GAN [@alphagan] of generator, discriminator, "
        f"encoder and code discriminator with {model.latent} latent variables and a base width of "
        f"{model.channels} channels. Encoder and generator minimised the adversarial losses plus {terms}; "
        "both discriminators minimised a Wasserstein loss with gradient penalty [@wgangp], weight "
        f"{spec.gradient_penalty:g}.{spectral} It was trained for {model.iterations} iterations with "
        f"batches of {model.batch_size} scans by {spec.optimiser} [@{spec.optimiser}] (learning rate "
        f"{model.learning_rate:g}, betas {betas}{decay}), with random {augmentations}."
        f"{_departures(spec)}{_average(model)}{_choice(model)}"
    )


def _average(model: ModelFacts) -> str:
    if not model.ema_decay:
        return ""
    return (
        " Scans were drawn from an exponential moving average of the generator's weights [@ema], decay "
        f"{model.ema_decay:g}."
    )


def _choice(model: ModelFacts) -> str:
    if model.chosen_from is None:
        return ""
    every, trained = model.chosen_from
    return (
        f" Of checkpoints at every {every} iterations of {trained}, the one was taken whose samples lay "
        "nearest to the scans that it was trained on, in block-wise means and standard deviations of "
        "intensity."
    )


def _departures(spec: ModelSpec) -> str:
    """What the released code does and the paper's equations do not."""
    told = [f"the {RECONSTRUCTION[name]} had no gradient" for name in spec.without_gradient]
    if spec.generator_updates > 1:
        told.append(f"the generator was updated {spec.generator_updates} times in each iteration")
    return f" As in the code released with the paper, {_list(told)}." if told else ""


def _masks(masks: MaskFacts | None) -> list[str]:
    if masks is None:
        return []
    sources = ["template"] * bool(masks.template_citation) + ["templateflow"] * masks.templateflow
    template = f"{masks.template} [@{'; '.join(sources)}]" if sources else masks.template
    if masks.segmenter.lower().startswith("spm"):
        how = (
            f"by the unified segmentation of {masks.segmenter} {masks.version} [@spm], at ten times the "
            "animal's size, from the tissue probability maps of the template "
            f"{template}, which bias correction [@n4], an affine and a symmetric diffeomorphic registration "
            "[@syn] by ANTs [@ants] had brought to the scan; voxels that it called mixtures of two tissues "
            "were divided as the registered maps expect, and the brain mask is that of the registration"
        )
    else:
        how = (
            f"with {masks.segmenter} {masks.version} [@ants]: after bias correction [@n4], the template "
            f"{template} was registered to the scan by an affine and a symmetric "
            "diffeomorphic transform [@syn], which brought its tissue probability maps to the scan's own "
            "grid, where the scan's intensities moved the tissues' borders"
        )
    return [f"Masks of grey matter, white matter and cerebrospinal fluid were made {how}."]


def _citations(masks: MaskFacts | None) -> dict[str, str]:
    return {"template": masks.template_citation} if masks else {}


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _list(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def compose(paragraphs: Sequence[str], citations: Mapping[str, str]) -> str:
    """Number the citations, ``[@key]`` or ``[@key; key]``, by first use, and add the list of references.

    Parameters
    ----------
    citations: keys beside those of REFERENCES. One with the DOI of a known reference becomes that reference.

    Returns
    -------
    Paragraphs separated by blank lines; the last one is the list, one reference per line.
    """
    known: dict[str, str] = dict(REFERENCES)
    for key, citation in citations.items():
        doi = _doi(citation)
        known[key] = next((r for r in REFERENCES.values() if doi and _doi(r) == doi), citation)
    used: list[str] = []

    def number(match: re.Match[str]) -> str:
        references = [known[key.strip()] for key in match[1].split(";")]
        used.extend(r for r in dict.fromkeys(references) if r not in used)
        return "[" + ", ".join(str(used.index(r) + 1) for r in references) + "]"

    body = [re.sub(r"\[@([^\]]+)\]", number, paragraph) for paragraph in paragraphs]
    listed = "\n".join(f"{i}. {reference}" for i, reference in enumerate(used, start=1))
    return "\n\n".join([*body, f"References\n{listed}"])


def _doi(citation: str) -> str | None:
    found = re.search(r"10\.\d{4,}/\S+", citation)
    return found[0].rstrip(".,;)") if found else None
