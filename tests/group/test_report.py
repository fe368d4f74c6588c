"""group.html of small studies: complete, self-contained, escaped, and true to what former steps left."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cohorts
import pytest
from answers import cohort, downstream, pairs
from browser import PROGRAM, dom
from pages import EVIL, Page, fits_a_browser, read

from bids_alphagan.bids.study import Study
from bids_alphagan.common.files import read_json, write_json
from bids_alphagan.evaluation.question import Answer
from bids_alphagan.group.report import Report
from bids_alphagan.group.step import Cohorts, Quality
from bids_alphagan.models import MODELS
from bids_alphagan.segmenters.methods import MaskFacts

MASKS = MaskFacts("antspyx", "0.6", "RatPhantom", "A phantom", templateflow=False)
BOTH = ("sigmarat2", "adni")  # the first one's scans have masks


def studied(root: Path, animals: int, models: Sequence[str], held_out: float = 0.2, **facts: Any) -> Study:
    """A study whose models were trained and have drawn two scans each; only the first one's have masks.

    facts: of each cohort's record.
    """
    cohorts.real(root, range(animals))
    for number, model in enumerate(models):
        heads = [cohorts.animal(20 + 2 * number + i) for i in range(2)]
        cohorts.synthetic(root, heads, masks=model == models[0], model=model)
    study = cohorts.study(root, held_out)
    for model in models:
        cohorts.trained(study, model, iterations=60)
        cohorts.drawn(study, model, **facts)
    return study


def report(study: Study, *models: str, options: Mapping[str, Any] | None = None) -> Page:
    """The page that the step report writes."""
    Report(Cohorts(models, 0, True), Quality(5.0, None), options or {"iterations": 60}).run(study)
    return read(study.output_dir / "group.html")


def methods_text(page: Page) -> str:
    """The methods section as a reader copies it, a reference on each line."""
    text = page.text.partition('id="methods-text">')[2].partition("</div>")[0]
    return html.unescape(re.sub(r"<[^>]+>", "", text.replace("<br>", "\n")))


def test_the_page_is_complete_and_self_contained(tmp_path: Path) -> None:
    study = studied(tmp_path / "out", 1, BOTH, n_accepted=6, n_rejected=2)
    cohorts.losses(study.model_folder("sigmarat2"))
    cohorts.answered(study, {"pairs": pairs()}, *BOTH)
    page = report(study, *BOTH)
    for words in (
        "12 synthetic scans from 1 real one",
        "Only 1 training scan: a model trained on so few scans tends to repeat them.",
        "No animal was held out",
        "The limits of quality control come from only 1 training scan, too few to estimate their spread",
        "75 % acceptance",
        "Normalised cross-correlation. Pairs of a real and a synthetic scan.",
        "The same latents through training",
        "iterations 60",
    ):
        assert words in page.words
    for name in ("distribution", "anatomy", "memorisation"):
        assert f'<section id="{name}">' in page.text
    assert page.words.count("Not computed for these scans: run --steps evaluate report.") == 3
    # Scans of three sets, these to scroll through in three planes, masks of two, quality, the metrics, and the
    # loss curves and the samples through training of one model.
    assert len(page.sources) == 3 + 3 * (1 + 2 + 2) + 2 + 1 + 1 + 2
    assert "from 1 scan of 1 animal in BIDS format" in methods_text(page)
    assert "https://doi.org/10.1038/sdata.2016.44" in page.links
    assert (study.output_dir / "group.html").stat().st_size < 2e6


def test_the_page_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    study = studied(tmp_path / "out", 4, ["sigmarat2"])
    cohorts.losses(study.model_folder("sigmarat2"))
    cohorts.answered(study, {"pairs": pairs(), **cohort()})
    assert report(study, "sigmarat2").text == report(cohorts.study(study.output_dir), "sigmarat2").text


def test_the_page_begins_with_the_answers_and_they_lead_to_their_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "sigmarat2", replace(MODELS["sigmarat2"], title=EVIL))
    study = studied(tmp_path / "out", 1, BOTH)
    assert "Is it real?" not in report(study, *BOTH).text
    cohorts.answered(study, {"pairs": pairs(), **cohort()}, *BOTH)
    page = report(study, *BOTH)
    before = page.words[: page.words.index("Memorisation")]
    first, second = before.split(f"report. {EVIL} Is it real?")  # models in the paper's order, ADNI first
    assert second.startswith(" ✗ As a set, they differ from the training animals")
    assert "Is it a copy? – Not asked" in first
    assert "Is it a copy? ✓ None of 3 scans" in second
    assert before.count("Does it help? – Not asked: run --steps downstream report.") == 2
    assert page.links[:4] == ["#pairs", "#distribution", "#memorisation", "#memorisation"]
    assert EVIL not in page.text


def test_sections_are_of_what_was_asked_and_of_todays_scans(tmp_path: Path) -> None:
    study = studied(tmp_path / "out", 4, ["sigmarat2"])
    page = report(study, "sigmarat2")
    assert "These scans have not been evaluated: run --steps evaluate report." in page.words
    assert 'id="pairs"' not in page.text
    assert 'id="downstream"' not in page.text
    assert "Does it help?" not in page.words
    assert "downstream" not in methods_text(page)
    cohorts.answered(study, {"downstream": downstream(0.05, "yes")})
    page = report(study, "sigmarat2")
    assert "Yes do the scans of α-WGAN-SigmaRat2 help?" in page.words
    assert "Does it help? ✓ Yes: Dice +0.050" in page.words
    assert 'id="pairs"' not in page.text
    dseg = next(study.cohort_folder("sigmarat2").glob("sub-*/anat/*_dseg.nii.gz"))
    dseg.write_bytes(next(study.output_dir.glob("sub-00/anat/*_dseg.nii.gz")).read_bytes())
    assert 'id="downstream"' not in report(study, "sigmarat2").text


def test_names_from_data_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "sigmarat2", replace(MODELS["sigmarat2"], title=EVIL, citation=EVIL))
    draw = {"scan": EVIL, "draw": 1, "seed": 1, "passed": False, "reasons": [EVIL], "measures": {}}
    study = studied(tmp_path / "out", 4, ["sigmarat2"], draws=[draw])
    settings = study.model_folder("sigmarat2") / "config.json"
    write_json(settings, {**read_json(settings), EVIL: [EVIL, {EVIL: EVIL}]})
    cohorts.answered(study, {"anatomy": Answer({}, reason=EVIL), "pairs": pairs(notes=[EVIL])})
    page = report(study, "sigmarat2", options={EVIL: EVIL})
    assert EVIL not in page.text
    assert page.words.count(EVIL) > 12


def test_the_methods_describe_data_models_masks_quality_and_questions(tmp_path: Path) -> None:
    facts = {"n_accepted": 8, "n_rejected": 3, "gate_width": 5.0, "masks": asdict(MASKS), "step": 200}
    study = studied(tmp_path / "out", 8, list(MODELS), 0.25, **facts)
    cohorts.answered(study, {"pairs": pairs()}, *MODELS)
    text = methods_text(report(study, *MODELS))
    for name, entry in MODELS.items():
        assert f"{entry.title} [" in text
        assert f"8 of 11 by {entry.title}" in text, name
    assert text.count("It was trained for 200 iterations") == len(MODELS)
    assert "from 6 scans of 6 animals in BIDS format" in text
    assert "16×16×16 voxels with intensities from -1 to 1 (seed 0)" in text
    assert "Masks of grey matter, white matter and cerebrospinal fluid were made with antspyx 0.6" in text
    assert "more than 5 robust standard deviations" in text
    assert "100 random pairs per training scan" in text
    assert "Scans of 2 animals, drawn at random and not used for training" in text
    assert text.count("doi:10.3390/app12104844") == 1
    cited = {int(n) for group in re.findall(r"\[((?:\d+(?:, )?)+)\]", text) for n in group.split(", ")}
    listed = [int(n) for n in re.findall(r"^(\d+)\. ", text, flags=re.MULTILINE)]
    assert listed == sorted(cited) == list(range(1, len(listed) + 1))


def test_the_methods_say_nothing_of_an_evaluation_that_was_not_made(tmp_path: Path) -> None:
    study = studied(tmp_path / "out", 2, ["sigmarat2"])
    text = methods_text(report(study, "sigmarat2"))
    assert "cross-correlation" not in text
    assert "Masks of grey matter" not in text
    cohorts.answered(study, {"pairs": pairs()})
    text = methods_text(report(study, "sigmarat2"))
    assert "the scans that the models were trained on" in text


@pytest.mark.skipif(PROGRAM is None, reason="needs the browser chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_whole_page(tmp_path: Path, width: int) -> None:
    reason = "a reason of many words " * 9
    draw = {"scan": "synth0001", "draw": 1, "seed": 1, "passed": False, "reasons": [reason], "measures": {}}
    study = studied(tmp_path / "out", 4, ["sigmarat2"], draws=[draw])
    cohorts.losses(study.model_folder("sigmarat2"))
    cohorts.answered(study, {"pairs": pairs(), **cohort(), "downstream": downstream(0.05, "no")})
    report(study, "sigmarat2", options={"template": "/a/folder/" + "x" * 300})
    assert fits_a_browser(study.output_dir / "group.html", tmp_path / "profile", width)


@pytest.mark.skipif(PROGRAM is None, reason="needs the browser chromium")
def test_in_a_browser_the_slider_moves_all_scans(tmp_path: Path) -> None:
    cohorts.real(tmp_path / "out", [1])
    cohorts.synthetic(tmp_path / "out", [cohorts.animal(20)])
    study = cohorts.study(tmp_path / "out")
    cohorts.trained(study)
    cohorts.drawn(study)
    report(study, "sigmarat2")
    page = study.output_dir / "group.html"
    probe = """<script>addEventListener("load", function () {
      var found = [], level = document.getElementById("level");
      function look() {
        var tiles = Array.from(document.querySelectorAll(".tile"));
        tiles = tiles.filter(function (tile) { return tile.offsetParent; });
        found.push(tiles.map(function (tile) {
          var a = tile.getBoundingClientRect(), b = tile.firstChild.getBoundingClientRect();
          return tile.firstChild.alt.split(" ").pop() + Math.round(10 * (a.left - b.left) / a.width) / 10;
        }).join(","));
      }
      look();
      level.value = 3; level.dispatchEvent(new Event("input")); look();
      var turn = new WheelEvent("wheel", { deltaY: 9, bubbles: true, cancelable: true });
      document.querySelector(".tile").dispatchEvent(turn);
      look();
      document.querySelector("[value=sagittal]").click(); look();
      document.title = found.join(" ");
    });</script>"""
    page.write_text(page.read_text().replace("<head>", "<head>" + probe))
    words = "axial12,axial12 axial3,axial3 axial4,axial4 sagittal4,sagittal4"
    assert f"<title>{words}</title>" in dom(page, tmp_path / "profile")
