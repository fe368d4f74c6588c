"""The methods text of a manuscript: it cites what a run used, and nothing else."""

import re

import numpy as np
import pytest

from bids_alphagan.models import MODELS, load_model
from bids_alphagan.models.alphagan.spec import SPECS
from bids_alphagan.report.methods import compose, count
from bids_alphagan.report.references import REFERENCES
from bids_alphagan.training.configuration import configuration
from bids_alphagan.training.data import Volumes
from bids_alphagan.training.settings import TrainSettings


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_methods_describe_every_model(name: str, best: bool) -> None:
    """best: of checkpoints at every 100 of 1600 iterations, and with averaged weights."""
    spec, model = SPECS[name], load_model(name)
    settings = TrainSettings(iterations=200)
    if best:
        settings = TrainSettings(
            iterations=1600, checkpoint_every=100, use_checkpoint="best", ema_decay=0.999
        )
    training = configuration(Volumes.of(np.zeros((2, 1, 16, 16, 16), np.float32)), model, settings)
    paragraph = model.methods(training, {"step": 200})
    text = compose([paragraph], {f"{name} source": MODELS[name].citation})
    assert text.startswith(f"{spec.title} [1] is a 3D alpha-GAN")
    assert "trained for 200 iterations with batches of 4 scans" in text
    assert ("checkpoints at every 100 iterations of 1600" in text) == best
    assert ("an exponential moving average of the generator's weights" in text) == best
    assert "learning rate 0.0002, betas 0.9 and 0.999" in text
    assert ("doi:10.48550/arXiv.1802.05957" in text) == spec.discriminator.spectral_norm
    cited = {int(n) for group in re.findall(r"\[((?:\d+(?:, )?)+)\]", text) for n in group.split(", ")}
    listed = [int(n) for n in re.findall(r"^(\d+)\. ", text, flags=re.MULTILINE)]
    assert listed == sorted(cited) == list(range(1, len(listed) + 1))


def test_citations_are_numbered_by_first_use_and_merged_by_doi() -> None:
    text = compose(["A [@mine]. B [@paper; bids]. C [@mine]."], {"mine": "F., doi:10.3390/app12104844"})
    assert text.startswith("A [1]. B [1, 2]. C [1].\n\nReferences\n1. Ferreira")
    assert "[@" not in text
    with pytest.raises(KeyError):
        compose(["[@unknown]"], {})


def test_numbers_have_their_nouns() -> None:
    assert [count(n, "scan") for n in (0, 1, 2)] == ["0 scans", "1 scan", "2 scans"]


def test_every_reference_has_a_year_and_an_identifier() -> None:
    for key, reference in REFERENCES.items():
        assert re.search(r"\(\d{4}\)|Zenodo", reference), key
        assert re.search(r"doi:10\.\d{4,5}/\S+[^.\s]$|Machine Learning Research", reference), key
