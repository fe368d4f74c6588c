"""The visual Turing test: what a kit holds and what it must not, and bad calls."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tiny
from turing_kits import MODELS, head, output, prepared, synthetic

from bids_alphagan.cli.turing import main
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.volume import load, read_cube, restore
from bids_alphagan.turing import KitOptions, make, selection, volumes
from bids_alphagan.turing.selection import Chosen, Grid

FEW = ("--n-real", "6", "--n-per-model", "4")


def run(out: Path, kit: Path, *more: str) -> int:
    return main(["make", str(out), str(kit), *FEW, *more])


def embedded(page: Path) -> dict[str, np.ndarray]:
    """The volumes in a page, by name, in the page's order: (slices, rows, columns)."""
    text = page.read_text()
    facts = json.loads(re.search(r'^{"kit".*}$', text, re.MULTILINE)[0])
    shape = facts["slices"], facts["rows"], facts["columns"]
    found = re.findall(r'<script type="text/plain" id="s-(\w+)">([^<]+)</script>', text)
    assert [name for name, _ in found] == facts["scans"]
    return {name: np.frombuffer(base64.b64decode(c), np.uint8).reshape(shape) for name, c in found}


def read_key(kit: Path) -> dict[str, Any]:
    return json.loads(kit.with_name(f"{kit.name}-key.json").read_text())


def test_a_kit_is_one_page_and_the_key_lies_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, kit = output(tmp_path / "out"), tmp_path / "kit"
    assert run(out, kit, "--seed", "5") == 0
    assert [path.name for path in kit.iterdir()] == ["turing.html"]
    key = read_key(kit)
    truths = [scan["Truth"] for scan in key["Scans"].values()]
    assert {truth: truths.count(truth) for truth in truths} == {"real": 6, "sigmarat1": 4, "sigmarat2": 4}
    assert all((out / scan["File"]).is_file() for scan in key["Scans"].values())
    assert len({scan["File"] for scan in key["Scans"].values()}) == 14
    assert sorted(embedded(kit / "turing.html")) == sorted(key["Scans"])
    assert key["Seed"] == 5
    assert key["Animals"] == 6
    said = capsys.readouterr().out
    assert "6 real, 4 sigmarat1, 4 sigmarat2" in said
    assert "do not give it to the raters" in said


def test_the_page_follows_from_the_grey_values_alone(tmp_path: Path) -> None:
    """Real and synthetic exchanged, the page stays the same to the last byte: nothing in it tells."""
    for name, real, drawn in (("a", range(4), range(4, 8)), ("b", range(4, 8), range(4))):
        for k in real:
            prepared(tmp_path / name, f"sub-{k:02d}_T2w", head(k))
        for k in drawn:
            synthetic(tmp_path / name, "sigmarat1", k, head(k))
        words = ["--n-real", "4", "--n-per-model", "4", "--seed", "1" if name == "a" else "22"]
        assert main(["make", str(tmp_path / name), str(tmp_path / f"kit-{name}"), *words]) == 0
    first, second = (tmp_path / f"kit-{name}" / "turing.html" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    truths = [
        {n: s["Truth"] for n, s in read_key(tmp_path / f"kit-{name}")["Scans"].items()} for name in "ab"
    ]
    assert all((truths[0][name] == "real") != (truths[1][name] == "real") for name in truths[0])


def test_the_page_holds_no_word_of_the_truth(tmp_path: Path) -> None:
    out, kit = output(tmp_path / "secret-out"), tmp_path / "kit"
    assert run(out, kit, "--seed", "987654321") == 0
    text = (kit / "turing.html").read_text()
    words = re.sub(r">[A-Za-z0-9+/=]{100,}<", "><", text)  # grey values may spell anything
    for word in (
        "sigmarat",
        "synth0",
        "sub-",
        "T2w",
        "secret-out",
        "987654321",
        "nii",
        str(tmp_path),
        "http:",
        "https:",
    ):
        assert word not in words
    assert not re.search(r"\b20\d\d-\d\d", words)  # no dates
    lengths = {len(coded) for coded in re.findall(r'id="s-\w+">([^<]+)<', text)}
    assert len(lengths) == 1
    names = list(embedded(kit / "turing.html"))
    assert names == sorted(names)


def test_the_same_seed_makes_the_same_kit_and_none_another(tmp_path: Path) -> None:
    out = output(tmp_path / "out", real=12)
    for kit in ("a", "b"):
        assert run(out, tmp_path / kit, "--seed", "3") == 0
    assert (tmp_path / "a" / "turing.html").read_bytes() == (tmp_path / "b" / "turing.html").read_bytes()
    assert run(out, tmp_path / "a", "--seed", "3") == 0  # again, in its own place
    seeds = set()
    for kit in ("c", "d"):
        assert run(out, tmp_path / kit) == 0
        seeds.add(read_key(tmp_path / kit)["Seed"])
    assert len(seeds) == 2


def test_each_animal_comes_once_before_any_comes_twice(tmp_path: Path) -> None:
    output(tmp_path, real=0)
    for animal in range(4):
        for run_ in range(3):
            prepared(tmp_path, f"sub-{animal:02d}_run-{run_}_T2w", head(10 * animal + run_))
    for n, most in ((4, 1), (7, 2)):
        made = make(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{n}"), KitOptions(n, 4))
        animals = [s.get("Animal") for s in json.loads(made.key.read_text())["Scans"].values()]
        counts = [animals.count(f"sub-{k:02d}") for k in range(4)]
        assert max(counts) == most
        assert min(counts) == 1


def test_exact_zeros_and_clipping_leave_no_mark(tmp_path: Path) -> None:
    """Real: zeros outside, the brightest 2 % clipped. Synthetic: nearly zeros, and nothing at the limits."""
    for k in range(3):
        prepared(tmp_path / "out", f"sub-{k}_T2w", head(k, background=0), percentile=98.0)
        synthetic(tmp_path / "out", "adni", k, head(k + 50, background=31 + k))
    kit = tmp_path / "kit"
    words = ["--n-real", "3", "--n-per-model", "3"]
    assert main(["make", str(tmp_path / "out"), str(kit), *words]) == 0
    truth, scans = read_key(kit)["Scans"], embedded(kit / "turing.html")
    black = {name: (scan == 0).sum() for name, scan in scans.items()}
    white = {name: (scan == 255).sum() for name, scan in scans.items()}
    assert len(set(black.values())) == 1
    assert black[next(iter(black))] > 100
    assert max(white.values()) - min(white.values()) <= 2  # of 13 to 15; unmended 8 apart
    assert {scan["Truth"] for scan in truth.values()} == {"real", "adni"}


def test_real_scans_pass_through_the_networks_cube(tmp_path: Path) -> None:
    """A model that gives back a real scan's cube: the two cannot be told apart by any voxel.

    The cube leaves its marks in every synthetic scan where real ones are longer than it: they are resampled.
    """
    for k in range(2):
        prepared(tmp_path, f"sub-{k}_T2w", head(k, (40, 9, 7)))
    real = selection.real_candidates(tmp_path, None)
    for k, scan in enumerate(real):
        like = load(scan.path)
        made = restore(read_cube(scan.prepared.preproc), like, scan.prepared.record)
        assert not np.array_equal(np.asarray(made.dataobj), np.asarray(like.dataobj))
        synthetic(tmp_path, "adni", k, np.asarray(made.dataobj))
    made = make(tmp_path, tmp_path.with_name(f"{tmp_path.name}-kit"), KitOptions(2, 2))
    truth, shown = read_key(made.page.parent)["Scans"], embedded(made.page)
    sides = [
        {scan.tobytes() for name, scan in shown.items() if (truth[name]["Truth"] == "real") == real_one}
        for real_one in (True, False)
    ]
    assert sides[0] == sides[1]
    assert len(sides[0]) == 2


def test_a_damaged_record_of_a_real_scan_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = output(tmp_path / "out")
    path = next(out.glob("sub-01/anat/*desc-preproc_T2w.json"))
    whole = json.loads(path.read_text())
    for damage in ({"IntensityUpperPercentile": "x"}, {"SourceGrid": 3}, {"IntensityRange": None}):
        path.write_text(json.dumps({"Preparation": whole["Preparation"] | damage}))
        assert run(out, tmp_path / "kit") == 2
        assert "sub-01_desc-reference_T2w.nii.gz: cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("plane", "at"), [("axial", (8, 0, 6)), ("coronal", (7, 0, 6)), ("sagittal", (6, 0, 7))]
)
@pytest.mark.parametrize("stored", ["RAS", "LPI", "SRA"])
def test_slices_show_the_right_side_of_the_animal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plane: str, at: tuple, stored: str
) -> None:
    """The rightmost, foremost, highest corner is in the last slices, first rows, last columns."""
    monkeypatch.setattr(volumes, "heads_box", lambda grey: (slice(None),) * 3)
    data = np.ones(tiny.SHAPE, np.int16)
    data[-2:, -2:, -2:] = 100
    image = nib.Nifti1Image(data, tiny.AFFINE)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(stored)
    )
    image = image.as_reoriented(turn)
    prepared(tmp_path, "sub-1_T2w", np.asarray(image.dataobj), image.affine)
    synthetic(tmp_path, "adni", 1, np.asarray(image.dataobj), image.affine)
    real = selection.real_candidates(tmp_path, None)
    drawn = selection.synthetic_candidates(tmp_path, "adni", "T2w")
    assert real[0].grid == Grid((7, 8, 9), (0.5, 0.75, 1.25))
    stack = volumes.prepare([*real, *drawn], real[0].grid, 10**9, plane)
    for scan in stack.data:
        assert (scan == 255).sum() == 8
        assert scan[at] == 255
    assert sorted(stack.zooms) == [0.5, 0.75, 1.25]


def test_other_grids_come_last_and_are_resampled_without_new_zeros(tmp_path: Path) -> None:
    output(tmp_path, real=3, per_model=3, models=("adni",))
    coarse = nib.affines.from_matvec(np.diag((1.0, 1.5, 2.5)))
    prepared(tmp_path, "sub-09_T2w", np.full((4, 4, 5), 50, np.int16) + head(1, (4, 4, 5)), coarse)
    three = make(tmp_path, tmp_path.with_name("kit3"), KitOptions(3, 3))
    assert "sub-09" not in three.key.read_text()
    assert three.notes == ()
    four = make(tmp_path, tmp_path.with_name("kit4"), KitOptions(4, 3))
    assert four.notes == ("scans resampled to the grid of the others: 1",)
    ramp = np.arange(10, dtype=np.float32)[:, None, None] + np.zeros((10, 4, 4), np.float32)
    own, finer = Grid((10, 4, 4), (1.0, 1.0, 1.0)), Grid((28, 4, 4), (0.5, 1.0, 1.0))
    line = volumes.to_grid(ramp, own, finer)[:, 0, 0]
    np.testing.assert_allclose(line[5:23], np.arange(18) * 0.5 + 0.25)
    assert (line[:4] == 0).all()  # its own outermost voxel, and 9 at the other end
    assert (line[24:] == 9).all()
    assert volumes.to_grid(ramp, own, own) is ramp


def test_a_page_that_would_be_too_large_gets_coarser_slices(tmp_path: Path) -> None:
    output(tmp_path, real=0, per_model=0)
    for k in range(2):
        prepared(tmp_path, f"sub-{k}_T2w", head(k, (60, 64, 9)))
        synthetic(tmp_path, "adni", k, head(k + 9, (60, 64, 9)))
    whole = make(tmp_path, tmp_path.with_name("whole"), KitOptions(2, 2))
    less = make(tmp_path, tmp_path.with_name("less"), KitOptions(2, 2, most_mb=0.1))
    assert less.shape[0] == whole.shape[0]
    assert 0.4 * np.prod(whole.shape) < np.prod(whole.shape) < 1e6
    assert np.prod(less.shape) * 4 <= 0.75e5
    assert "times as large within the slices" in less.notes[0]


def test_twins_keep_names_of_their_own(tmp_path: Path) -> None:
    """A collapsed model draws one scan again and again."""
    output(tmp_path, per_model=0)
    for k in range(3):
        synthetic(tmp_path, "adni", k, head(7))
    made = make(tmp_path, tmp_path.with_name("kit"), KitOptions(6, 3))
    assert len(embedded(made.page)) == 9


def _inside(tmp_path: Path) -> list[str]:
    return ["--key", str(tmp_path / "kit" / "key.json")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n-real", "7"], "too few scans of real: 7 requested, 6 available. Give --n-real 6"),
        (
            ["--n-per-model", "5"],
            "too few scans of sigmarat1: 5 requested, 4 available. Give --n-per-model 4",
        ),
        (
            ["--models", "adni", "--n-real", "7"],
            "no synthetic scans of adni. Available: sigmarat1, sigmarat2",
        ),
        (["--models", "sigmarat2", "adni"], "no synthetic scans of adni. Available: sigmarat1, sigmarat2"),
        (["--suffix", "bold"], "no prepared scans of kind bold"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    out = output(tmp_path / "out")
    assert run(out, tmp_path / "kit", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_key_never_gets_into_the_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, kit = output(tmp_path / "out"), tmp_path / "kit"
    kit.mkdir()
    (tmp_path / "link").symlink_to(kit)
    for key in (kit / "key.json", kit / "deep" / "key.json", tmp_path / "link" / "key.json"):
        assert run(out, kit, "--key", str(key)) == 2
        assert "is in the kit, which raters get" in capsys.readouterr().err
    assert list(kit.iterdir()) == []
    assert run(out, kit, "--key", str(tmp_path / "safe" / "key.json")) == 0
    assert not kit.with_name("kit-key.json").exists()
    assert (tmp_path / "safe" / "key.json").is_file()


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, kit = output(tmp_path / "out", real=12), tmp_path / "kit"
    assert run(out, kit, "--seed", "1") == 0
    before = tiny.snapshot(tmp_path)
    assert run(out, kit, "--seed", "2") == 2
    assert "is the key of another kit" in capsys.readouterr().err
    assert run(out, kit, "--seed", "2", "--key", str(tmp_path / "other.json")) == 2
    assert "exists with other scans" in capsys.readouterr().err
    assert run(out, out, "--seed", "2") == 2
    assert "holds other files" in capsys.readouterr().err
    assert tiny.snapshot(tmp_path) == before
    (tmp_path / "new-key.json").write_text("[]")
    assert run(out, tmp_path / "new") == 2
    assert "not a key of bids-alphagan-turing" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(out, tmp_path / "file") == 2
    assert "is a file" in capsys.readouterr().err


def test_outputs_that_are_not_there_or_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nothing", tmp_path / "kit") == 2
    assert "no such folder" in capsys.readouterr().err
    out = output(tmp_path / "out", per_model=0)
    assert run(out, tmp_path / "kit") == 2
    assert "no synthetic cohorts" in capsys.readouterr().err
    output(out, real=0)
    scan = out / "derivatives" / "sigmarat1" / "sub-synth0002" / "anat" / "sub-synth0002_T2w.nii.gz"
    scan.write_bytes(scan.read_bytes()[:400])
    assert run(out, tmp_path / "kit") == 2
    assert f"{scan}: cannot be" in capsys.readouterr().err
    prepared(out, "sub-01_T1w", head(3))
    assert run(out, tmp_path / "kit") == 2
    assert "scans of several kinds (T1w, T2w): choose with --suffix T1w" in capsys.readouterr().err
    assert not (tmp_path / "kit").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--n-real", "0"],
        ["--n-per-model", "x"],
        ["--plane", "oblique"],
        ["--se"],
        *(["--max-mb", size] for size in ("inf", "1e308", "nan", "0.5")),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, tmp_path / "kit", *words)
    assert stopped.value.code == 2


def test_all_cohorts_are_taken_where_the_papers_two_are_not_there(tmp_path: Path) -> None:
    output(tmp_path, models=("adni",))
    assert selection.models_of(tmp_path, None) == ["adni"]
    output(tmp_path, real=0)
    assert selection.models_of(tmp_path, None) == list(MODELS)
    assert selection.models_of(tmp_path, ["adni", "sigmarat1"]) == ["adni", "sigmarat1"]


def test_choosing_needs_enough() -> None:
    grid = Grid((4, 4, 4), (1.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"too few scans of adni: 2 requested, 1 available\. Give --x 1"):
        selection.choose([Chosen("adni", Path("a"), grid)], 2, grid, np.random.default_rng(0), "--x")


def test_it_needs_neither_torch_nor_pybids_nor_nipype() -> None:
    code = "import sys, bids_alphagan.cli.turing; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "nipype", "bids", "ants", "matplotlib"} & set(loaded.split())
