"""The ledger: what is damaged is said and done again, what is valid stays, and each file is hashed once."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cohorts
import pytest
import tiny
from pages import read
from toys.segmenter import ToySegmenter

from bids_alphagan import group
from bids_alphagan.bids import study as studies
from bids_alphagan.bids.prepared import synthetic_scans
from bids_alphagan.bids.study import Study
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import file_digest, read_json, read_tsv, write_json
from bids_alphagan.config import STEPS, Config
from bids_alphagan.evaluation import EVALUATE, QUESTIONS, Entry, record_name
from bids_alphagan.evaluation.question import Answer, Columns, Question
from bids_alphagan.evaluation.scans import Scans
from bids_alphagan.group import ledger
from bids_alphagan.group.evaluate import Evaluate
from bids_alphagan.group.report import Report
from bids_alphagan.group.step import Cohorts, Quality
from bids_alphagan.group.train import Train
from bids_alphagan.segmenters import SEGMENTERS

ASKED = {name: record_name(name) for name, entry in QUESTIONS.items() if entry.step == EVALUATE}
Damage = Callable[[dict[str, Any]], Any]  # a record file's content -> what it becomes


def evaluate(root: Path) -> Study:
    study = cohorts.study(root)
    Evaluate(cohorts.SETTINGS, Cohorts((cohorts.MODEL,), 0, True), "cpu").run(study)
    return study


def report(root: Path) -> None:
    Report(Cohorts((cohorts.MODEL,), 0, True), Quality(5.0, None), {}).run(cohorts.study(root))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study, evaluated, with a finished network of the step downstream."""
    root = tmp_path_factory.mktemp("evaluated") / "out"
    cohorts.real(root, range(8))
    cohorts.synthetic(root, [cohorts.animal(n) for n in (20, 21, 22)])
    study = cohorts.study(root)
    cohorts.trained(study)
    cohorts.drawn(study)
    evaluate(root)
    write_json(root / "models" / "downstream" / "r1_seed-0.json", {"fingerprint": "x", "rows": []})
    return root


@pytest.fixture
def out(evaluated: Path, tmp_path: Path) -> Path:
    shutil.copytree(evaluated, tmp_path / "out")
    return tmp_path / "out"


# Damaged records


def unlike(**changes: Any) -> Damage:
    return lambda content: {**content, **changes}


def with_record(**changes: Any) -> Damage:
    """As a record that another program, or a hand, has changed; its fingerprint is right."""
    return lambda content: {**content, "record": {**content["record"], **changes}}


DAMAGES: dict[str, Damage] = {
    "a list": lambda _: [],
    "a text": lambda _: "record",
    "nothing in it": lambda _: {},
    "no fingerprint": lambda content: {"record": content["record"]},
    "no record": lambda content: {"fingerprint": content["fingerprint"]},
    "a record that is a list": unlike(record=[]),
    "a record that is null": unlike(record=None),
    "tables that are a list": with_record(tables=["group_anatomy.tsv"]),
    "tables that hold no rows": with_record(tables={"anatomy": ["a row"]}),
    "a table that is a number": with_record(tables={"anatomy": 3}),
    "notes that are a text": with_record(notes="a note"),
    "more that is a list": with_record(more=[1]),
    "a reason that is a list": with_record(reason=[]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_said_and_made_again(
    out: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    record = out / "models" / "anatomy.json"
    content, before = read_json(record), tiny.snapshot(out)
    record.write_text(json.dumps(DAMAGES[damage](content)))
    with caplog.at_level(logging.WARNING):
        evaluate(out)
    assert f"{record} is damaged and not used" in caplog.text
    assert read_json(record) == content
    after = tiny.snapshot(out)
    made_again = {name for name in before if before[name] != after.get(name)}
    folders = {str(out), str(out / "models")}
    assert made_again - folders <= {str(record), *map(str, out.glob("group_anatomy.*"))}
    assert set(after) == set(before)


def test_of_several_damaged_records_each_is_made_again(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Cut off in the middle, as a full disk leaves them; an old one, empty; bytes that are no text."""
    contents = {name: read_json(out / "models" / file) for name, file in ASKED.items()}
    tables = {path: path.read_text() for path in out.glob("group_*.*")}
    leftovers = (b'{"fingerprint": "', b"", b"{", b"\xff\xfe\x00")
    for file, leftover in zip(ASKED.values(), leftovers, strict=True):
        (out / "models" / file).write_bytes(leftover)
    with caplog.at_level(logging.WARNING):
        evaluate(out)
    for name, file in ASKED.items():
        assert f"{out / 'models' / file} is damaged and not used" in caplog.text
        assert read_json(out / "models" / file) == contents[name]
    assert {path: path.read_text() for path in out.glob("group_*.*")} == tables
    assert (out / "models" / "downstream" / "r1_seed-0.json").is_file()


def test_a_report_leaves_out_what_is_damaged_and_keeps_the_rest(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path for path in out.rglob("*") if path.is_file()}
    (out / "models" / "anatomy.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        report(out)
    assert "anatomy.json is damaged and not used" in caplog.text
    page = read(out / "group.html")
    assert page.words.count("Not computed for these scans: run --steps evaluate report.") == 1
    assert "Multi-scale structural similarity" in page.words
    lost = before - {path for path in out.rglob("*") if path.is_file()}
    assert lost == {out / "group_anatomy.tsv", out / "group_anatomy.json"}  # nobody knows of which scans


def test_a_cohort_with_a_damaged_record_is_missing_and_its_files_stay(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = out / "models" / cohorts.MODEL / "synthesis.json"
    before = tiny.snapshot(out / "derivatives")
    for text in ("{", "[]", '{"fingerprint": "x", "record": {"n_accepted": 3}}'):
        record.write_text(text)
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(UserError, match=r"do not exist\. Draw them first"),
        ):
            report(out)
        assert f"{record} is damaged and not used" in caplog.text
        assert tiny.snapshot(out / "derivatives") == before
        caplog.clear()


def config(root: Path, *steps: str, **changes: Any) -> Config:
    """All that is small: two iterations, three scans, networks of two channels."""
    small: dict[str, Any] = {
        **{"grid": cohorts.GRID, "held_out": 0.34, "device": "cpu", "nprocs": 1, "omp_nthreads": 1},
        **{"iterations": 2, "batch_size": 2, "channels": 2, "latent_size": 4, "checkpoint_every": 1},
        **{"log_every": 1, "n_synthetic": 3, "gate_width": 1e9, "segmenter": "none"},
        **{"pairs_per_scan": 2, "msssim_pairs_per_scan": 1, "downstream_arms": ["r1", "s0.5"]},
        **{"downstream_steps": 2, "downstream_seeds": 1, "downstream_channels": [2, 2]},
        **{"downstream_residual_units": 0, "steps": list(steps)},
    }
    return Config(bids_dir=root.parent / "raw", output_dir=root, analysis_level="group", **(small | changes))


@pytest.mark.parametrize("text", ["{", "[]", '{"model": {}, "settings": 3, "data": {}}', None])
def test_a_model_whose_configuration_is_damaged_is_not_lost(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Its checkpoint says what it is of: nothing is trained again, and config.json comes back."""
    root = tmp_path / "out"
    cohorts.real(root, range(6), masks=False)
    train = Train.with_options(config(root, "train"))
    train.run(cohorts.study(root, 0.34))
    folder = root / "models" / cohorts.MODEL
    files = ("generator.safetensors", "losses.tsv", "config.json")
    before = {name: (folder / name).read_bytes() for name in files}
    record = folder / "config.json"
    record.unlink() if text is None else record.write_text(text)
    with caplog.at_level(logging.INFO):
        train.run(cohorts.study(root, 0.34))
    assert f"{record} is damaged and not used" in caplog.text
    assert "resumes from its checkpoint at iteration 2" in caplog.text
    assert {name: (folder / name).read_bytes() for name in files} == before
    assert [path.name for path in (root / "models").iterdir()] == [cohorts.MODEL]


def test_a_report_says_how_to_mend_a_damaged_configuration(out: Path) -> None:
    record = out / "models" / cohorts.MODEL / "config.json"
    record.write_text("{")
    with pytest.raises(UserError, match=f"{record}: cannot be read .* --steps train"):
        report(out)


# Each file is hashed once


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each file was hashed."""
    count = Counter[Path]()

    def counted(path: Path) -> str:
        count[path.resolve()] += 1
        return file_digest(path)

    monkeypatch.setattr(studies, "file_digest", counted)
    return count


def test_each_file_is_hashed_once_in_a_whole_run(
    tmp_path: Path, template: Path, hashed: Counter[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SEGMENTERS, "toy", ToySegmenter)
    root = tmp_path / "out"
    cohorts.real(root, range(6))
    every = config(root, *STEPS, segmenter="toy", template=str(template))
    assert group.run(every) == 0
    scans = list(root.glob("sub-*/anat/*desc-preproc*.nii.gz"))
    labels = list(root.glob("sub-*/anat/*_dseg.nii.gz"))
    drawn = synthetic_scans(root / "derivatives" / cohorts.MODEL)
    assert (len(scans), len(labels), len(drawn)) == (6, 6, 3)
    generator = root / "models" / cohorts.MODEL / "generator.safetensors"
    assert {*scans, *labels, *drawn, generator} <= set(hashed)
    assert set(hashed.values()) == {1}

    before = set(hashed)
    hashed.clear()
    assert group.run(every) == 0
    assert set(hashed) == before
    assert set(hashed.values()) == {1}


def test_a_file_that_changes_is_hashed_again(out: Path, hashed: Counter[Path]) -> None:
    study = cohorts.study(out)
    path = study.scans[0].preproc
    first = study.digest(path)
    assert study.digest(path) == first == file_digest(path)
    assert hashed[path] == 1
    path.write_bytes(path.read_bytes() + b"more")
    assert study.digest(path) == file_digest(path) != first
    assert hashed[path] == 2


# Questions that cannot be answered


class Toy(Question):
    """How many scans are there?"""

    def columns(self) -> Mapping[str, Columns]:
        return {"toy": {"model": {"Description": "The model."}, "n": {"Description": "Scans."}}}

    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        return Answer({"toy": [{"model": model, "n": len(paths)} for model, paths in scans.paths.items()]})


class Refusing(Toy):
    version = Toy.version + 1

    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        raise UserError("Three scans are too few.")


class Wanting(Toy):
    def facts(self, scans: Scans) -> dict[str, Any]:
        raise UserError("There is no atlas.")


class Failing(Toy):
    version = Toy.version + 1

    def answer(self, scans: Scans, settings: Mapping[str, Any]) -> Answer:
        raise MemoryError("no room")


class Needed(Refusing):
    optional = False


Ask = Callable[[type[Question]], None]


@pytest.fixture
def toy() -> Iterator[Ask]:
    """Has a toy question asked before all others."""
    others = dict(QUESTIONS)

    def ask(question: type[Question]) -> None:
        QUESTIONS.clear()
        QUESTIONS.update({"toy": Entry("Toy", question), **others})

    yield ask
    QUESTIONS.clear()
    QUESTIONS.update(others)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (Refusing, "Three scans are too few."),
        (Wanting, "There is no atlas."),
        (Failing, "MemoryError: no room"),
    ],
)
def test_a_question_without_an_answer_is_left_out_with_its_reason(
    out: Path, toy: Ask, question: type[Question], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    toy(Toy)
    evaluate(out)
    assert read_tsv(out / "group_toy.tsv") == [{"model": cohorts.MODEL, "n": "3"}]
    before = {path: path.read_text() for path in out.glob("group_*.tsv") if path.name != "group_toy.tsv"}
    for path in before:
        path.unlink()
    toy(question)
    with caplog.at_level(logging.INFO):
        evaluate(out)
    assert f"toy: {reason}" in caplog.text
    assert not list(out.glob("group_toy.*"))
    assert {path: path.read_text() for path in before} == before  # the others went on
    report(out)
    kept = {Refusing: reason}  # what failed is asked again by the next run
    shown = kept.get(question, "Not computed for these scans: run --steps evaluate report.")
    assert f"Toy Left out {shown}" in read(out / "group.html").words


def test_the_reason_of_a_refusal_is_kept(out: Path, toy: Ask, caplog: pytest.LogCaptureFixture) -> None:
    toy(Refusing)
    evaluate(out)
    assert read_json(out / "models" / "toy.json")["record"]["reason"] == "Three scans are too few."
    caplog.clear()
    with caplog.at_level(logging.INFO):
        evaluate(out)
    assert "toy: nothing has changed" in caplog.text  # the same scans are too few again
    assert "toy: Three scans are too few." in caplog.text


def test_a_question_that_is_not_optional_ends_the_run(out: Path, toy: Ask) -> None:
    toy(Needed)
    with pytest.raises(UserError, match="too few"):
        evaluate(out)


# Which options make a cohort valid again


def cohorts_of(root: Path, held_out: float, seed: int, *models: str) -> dict[str, Path]:
    return ledger.find_cohorts(cohorts.study(root, held_out), models, seed)


@pytest.mark.parametrize(
    ("held_out", "seed", "message"),
    [
        (0.2, 7, r"were made with other seed\. Use --seed 0, or draw them again: --steps train synthesise"),
        (
            0.5,
            0,
            r"other scans\. Use the original --protocol and --held-out "
            r"\(6 training scans, not 4\), or draw them again",
        ),
        (
            0.0,
            3,
            r"other scans and seed\. Use the original --protocol and --held-out "
            r"\(6 training scans, not 8\) and --seed 0, or draw them again",
        ),
    ],
)
def test_a_message_says_which_options_make_the_cohort_valid_again(
    out: Path, held_out: float, seed: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        cohorts_of(out, held_out, seed, cohorts.MODEL)
    assert list(cohorts_of(out, 0.2, 0, cohorts.MODEL)) == [cohorts.MODEL]  # with these they are


def test_labels_are_named_where_scans_of_then_are_missing(out: Path) -> None:
    shutil.rmtree(out / f"sub-{cohorts.study(out).training[0].name.subject}")
    with pytest.raises(UserError, match=r"Use the original labels, --suffix, --protocol and --held-out \(6 "):
        cohorts_of(out, 0.2, 0, cohorts.MODEL)


def test_no_option_brings_back_the_cohort_of_another_generator(out: Path) -> None:
    (out / "models" / cohorts.MODEL / "generator.safetensors").write_bytes(b"another")
    with pytest.raises(
        UserError, match=r"other generator\. Draw them first: --steps train synthesise --model"
    ):
        cohorts_of(out, 0.2, 0, cohorts.MODEL)


def test_a_cohort_that_was_not_asked_for_is_left_out(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert cohorts_of(out, 0.2, 1) == {}
    assert "sigmarat2 is left out: its synthetic scans were made with other seed" in caplog.text
