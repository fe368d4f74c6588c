"""bids-alphagan-slurm: what it writes and refuses; its scripts run with sbatch and apptainer played."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from bids_alphagan.choices import DEFAULT_STEPS
from bids_alphagan.hpc_cli import main
from bids_alphagan.slurm import FORMS, STAGES, scripts, stages

HPC = Path(__file__).parents[1] / "hpc"
TEMPLATE = ("--", "--segmenter", "none", "--preset", "demo")
# They say how they were called; sbatch also runs what it is given, as the first task of an array.
SBATCH = """#!/bin/bash
printf '<%s>' "$@" >>"$CALLS"; echo >>"$CALLS"
export SLURM_SUBMIT_DIR=$PWD SLURM_ARRAY_TASK_ID=${TASK:-1} SLURM_JOB_ID=7
export SLURM_CPUS_PER_TASK=3 SLURM_MEM_PER_NODE=4096
bash "${@: -1}" >&2 || exit
echo "$((100 + $(wc -l <"$CALLS")));far"
"""
PROGRAM = """#!/bin/bash
printf '<%s>' "$@" >>"$CALLS"; echo >>"$CALLS"
"""


def example() -> dict[str, str]:
    """What ``hpc/`` holds; ``python tests/test_hpc_cli.py`` writes it."""
    return scripts(
        array="",
        stages=stages(["participant", *DEFAULT_STEPS], dict.fromkeys(FORMS, ()), 300),
        bids_dir="/data/rats",
        output_dir="/data/rats-alphagan",
        image="/images/bids-alphagan.sif",
        app=[],
        options=["--template", "/templates/SIGMA"],
        binds=[],
        work_dir="",
        templateflow_home="",
        per_task=1,
        strict=False,
        warn=300,
        setup=[],
    )


@pytest.fixture
def rats(tmp_path: Path) -> Path:
    data = tiny.dataset(tmp_path / 'rat\'s "heads" & $HOME 5%')
    for label in ("01", "02", "10"):
        tiny.scan(data / f"sub-{label}/anat/sub-{label}_T2w.nii.gz", tiny.values())
    (data / "sub-03" / "anat").mkdir(parents=True)  # nothing in it
    return data


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that note their calls in the file `calls` beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("apptainer", PROGRAM)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("TEMPLATEFLOW_HOME", raising=False)
    return folder


def calls(tmp_path: Path) -> list[list[str]]:
    lines = (tmp_path / "calls").read_text().splitlines()
    return [line.removeprefix("<").removesuffix(">").split("><") for line in lines]


def test_the_examples_are_what_the_command_writes() -> None:
    assert {path.name: path.read_text() for path in HPC.iterdir()} == example()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(rats: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--array", "%5", "--animals-per-task", 2, "--strict", "--gpus", "train=2", "--setup", "true"]
    call(rats, out, *words, "--stages", *STAGES, *TEMPLATE)
    for folder in (HPC, out / "code/slurm"):
        files = [path.name for path in folder.iterdir() if path.name != "participants.txt"]
        done = subprocess.run(["shellcheck", *files], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def call(*words: object, code: int = 0) -> None:
    assert main([str(word) for word in words]) == code


def test_jobs_are_submitted_in_their_order_and_run_the_app(rats, tmp_path, played, capsys) -> None:
    out, image = tmp_path / "o u t", tmp_path / "an image.sif"
    image.touch()
    template = tmp_path / "$my template"
    template.mkdir()
    words = ["--image", image, "--submit", "--array", "%2", "--gpus", "train=2", "--setup", "export FIRST=1"]
    call(rats, out, *words, "--", "--segmenter", "none", f"--template={template}")
    assert (out / "code/slurm/participants.txt").read_text().split() == ["01", "02", "10"]

    run = [
        *("run", "--cleanenv", "--nv", "--bind", f"{rats}:{rats}:ro", "--bind", str(out)),
        *("--bind", str(template), str(image), str(rats), str(out)),
    ]
    made = calls(tmp_path)
    jobs = [line for line in made if line[-1].endswith(".sbatch")]
    assert [line[-1].removesuffix(".sbatch") for line in jobs] == ["participant", *DEFAULT_STEPS]
    assert "--array=1-3%2" in jobs[0]
    assert "--dependency=afterany:102" in jobs[1]
    assert "--dependency=afterok:104" in jobs[2]
    ran = [line for line in made if line[0] == "run"]
    assert all(line[: len(run)] == run for line in ran)
    options = ["--segmenter", "none", f"--template={template}"]
    limits = ["--nprocs", "3", "--mem-mb", "4096"]
    assert [line[len(run) :] for line in ran] == [
        ["participant", *limits, *options, "--participant-label", "01"],
        ["group", *limits, "--devices", "2", *options, "--steps", "train"],
        *(["group", *limits, *options, "--steps", step] for step in ("synthesise", "evaluate", "report")),
    ]
    assert "to end them all: scancel 102 104 106 108 110" in capsys.readouterr().out


def test_each_task_has_its_animals(rats, tmp_path, played, monkeypatch) -> None:
    out = tmp_path / "out"
    (tmp_path / "x.sif").touch()
    words = [
        "--image",
        tmp_path / "x.sif",
        "--animals-per-task",
        2,
        "--strict",
        "--stages",
        "participant",
        "train",
    ]
    call(rats, out, *words, *TEMPLATE)
    monkeypatch.setenv("TASK", "2")
    subprocess.run([out / "code/slurm/submit.sh"], check=True)
    asked, ran, train, _ = calls(tmp_path)
    assert "--array=1-2" in asked
    assert ran[-3:] == [
        "--participant-label",
        "10",
        "--skip-bids-validation",
    ]  # the first task checks for all
    assert "--dependency=afterok:102" in train


def test_animals_that_are_asked_for(rats, tmp_path) -> None:
    call(rats, tmp_path / "out", *TEMPLATE, "--participant-label", "sub-10", "01")
    assert (tmp_path / "out/code/slurm/participants.txt").read_text().split() == ["01", "10"]


def test_what_each_stage_asks_for(rats, tmp_path) -> None:
    words = [
        "--gpus",
        "3",
        "--time",
        "train=2-00",
        "3:00:00",
        "--partition",
        "cpu",
        "train=gpu",
        "--sbatch",
        "qos=long",
        "train=x=y",
    ]
    call(rats, tmp_path / "out", *words, *TEMPLATE)
    text = {path.stem: path.read_text() for path in (tmp_path / "out/code/slurm").glob("*.sbatch")}
    for line in ("--time=2-00", "--partition=gpu", "--qos=long", "--x=y", "--gpus-per-node=3"):
        assert f"#SBATCH {line}\n" in text["train"]
    for line in ("--time=3:00:00", "--partition=cpu", "--qos=long"):
        assert f"#SBATCH {line}\n" in text["participant"]
    assert "--x=y" not in text["participant"]
    assert "--gpus" not in text["participant"]


def test_paths_of_options_are_absolute(rats, tmp_path, monkeypatch) -> None:
    (tmp_path / "my.toml").write_text("grid = 32\n")
    (tmp_path / "SIGMA").mkdir()
    monkeypatch.chdir(tmp_path)
    call(rats.name, "out", "--", "--config", "my.toml", "--work_dir=w", "--template", "SIGMA")
    made = (tmp_path / "out/code/slurm/settings.sh").read_text()
    paths = ["--config", "my.toml", "--work-dir", "w", "--template", "SIGMA"]
    config, work, template = (str(tmp_path / name) for name in paths[1::2])
    assert f"OPTIONS=(--config {config} --work-dir={work} --template {template})" in made
    call(rats, "other", "--", "--template", "Fischer344")
    assert "OPTIONS=(--template Fischer344)" in (tmp_path / "other/code/slurm/settings.sh").read_text()


def test_an_image_sees_what_a_config_file_names(rats, tmp_path, played, monkeypatch) -> None:
    for name in ("SIGMA", "flow"):
        (tmp_path / name).mkdir()
    (tmp_path / "x.sif").touch()
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "flow"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    (tmp_path / "my.toml").write_text(f'template = "{tmp_path}/SIGMA"\nwork_dir = "{tmp_path}/w"\n')
    config = str(tmp_path / "my.toml")
    call(rats, tmp_path / "out", "--image", tmp_path / "x.sif", "--", "--config", config)
    (played / "apptainer").write_text(PROGRAM + 'env >"$CALLS.env"\n')
    subprocess.run([tmp_path / "out/code/slurm/submit.sh", "report"], check=True)
    _, run = calls(tmp_path)
    bound = {after for word, after in itertools.pairwise(run) if word == "--bind"}
    expected = {config, *(str(tmp_path / name) for name in ("out", "SIGMA", "w", "flow"))}
    assert bound == {f"{rats}:{rats}:ro"} | expected
    assert (tmp_path / "w").is_dir()
    seen = (tmp_path / "calls.env").read_text().splitlines()
    assert f"APPTAINERENV_TEMPLATEFLOW_HOME={tmp_path}/flow" in seen
    assert "APPTAINERENV_CUDA_VISIBLE_DEVICES=2,3" in seen


def test_edited_scripts_are_not_written_over(rats, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    call(rats, out, *TEMPLATE)
    call(rats, out, *TEMPLATE)
    settings = out / "code/slurm/settings.sh"
    settings.write_text(settings.read_text() + "# mine\n")
    call(rats, out, *TEMPLATE, code=2)
    assert "settings.sh is there and differs: --overwrite" in capsys.readouterr().err
    call(rats, out, "--overwrite", *TEMPLATE)
    assert "# mine" not in settings.read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--time", "soon"], "--time soon: must be a time such as 30 (minutes), 8:00:00"),
        (["--time", "train=0:04:00"], "--time 0:04:00 of train: must be longer than --warn 300 s"),
        (["--mem", "lots"], "--mem lots: must be a size such as 16G"),
        (["--gpus", "train=-1"], "--gpus train=-1: must be a number from 0"),
        (["--cpus", "wrong=4"], "--cpus wrong=4: must be a number from 1"),
        (["--partition", "a b"], "--partition a b: must be a name"),
        (["--sbatch", "qos=a\nb"], "must be an option of sbatch"),
        (["--array", "8%"], "--array 8%: give tasks"),
        (["--image", "/nowhere.sif"], "--image /nowhere.sif: is not there"),
        (["--", "--grid", "33"], "--grid 33"),
        (["--", "--steps", "train"], "--steps: not here; --stages says what is to be done"),
        (["--", "--participant-label", "99"], "unknown participant label 99"),
        (["--", "--suffix", "T1w"], "no participant has a T1w scan"),
        (["--", "--template", "a\nb"], "line breaks"),
    ],
)
def test_one_error_and_nothing_written(rats, tmp_path, capsys, words, told) -> None:
    call(rats, tmp_path / "out", *words, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bids-alphagan-slurm: error: ")
    assert told in line
    assert not (tmp_path / "out").exists()


def test_apptainer_cannot_bind_every_path(tmp_path, capsys) -> None:
    data = tiny.dataset(tmp_path / "a:b")
    tiny.scan(data / "sub-01/anat/sub-01_T2w.nii.gz", tiny.values())
    (tmp_path / "x.sif").touch()
    call(data, tmp_path / "out", "--image", tmp_path / "x.sif", *TEMPLATE, code=2)
    assert "cannot bind a path with a colon or a comma" in capsys.readouterr().err


def test_a_refused_submission_is_told(rats, tmp_path, played, capsys) -> None:
    (played / "sbatch").write_text("#!/bin/bash\necho 'invalid partition specified: gpu' >&2; exit 1\n")
    call(rats, tmp_path / "out", "--submit", *TEMPLATE, code=2)
    assert "the jobs could not be submitted: invalid partition specified: gpu" in capsys.readouterr().err


if __name__ == "__main__":
    HPC.mkdir(exist_ok=True)
    for name, text in example().items():
        (HPC / name).write_text(text)
    (HPC / "submit.sh").chmod(0o755)
    sys.exit()
