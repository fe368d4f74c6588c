"""bids-alphagan-slurm: what it writes and refuses; its scripts run with sbatch and apptainer played."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import tiny
from paths import ROOT

from bids_alphagan.cli import main as cli
from bids_alphagan.cli.slurm import main
from bids_alphagan.config import DEFAULT_STEPS
from bids_alphagan.slurm import STAGES

TEMPLATE = ("--", "--segmenter", "none", "--preset", "demo")
# They say how they were called; sbatch also runs what it is given, as the first task of an array.
SBATCH = """#!/bin/bash
printf '<%s>' "$@" >>"$CALLS"; echo >>"$CALLS"
export SLURM_SUBMIT_DIR=$PWD SLURM_JOB_ID=7
export SLURM_ARRAY_TASK_ID=${TASK:-1} SLURM_ARRAY_TASK_MIN=${FIRST_TASK:-1}
export SLURM_CPUS_PER_TASK=3 SLURM_MEM_PER_NODE=4096
bash "${@: -1}" >&2 || exit
echo "$((100 + $(wc -l <"$CALLS")));far"
"""
PROGRAM = """#!/bin/bash
printf '<%s>' "$@" >>"$CALLS"; echo >>"$CALLS"
"""


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
    for name, text in (("sbatch", SBATCH), ("scancel", PROGRAM), ("apptainer", PROGRAM)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("TEMPLATEFLOW_HOME", raising=False)
    return folder


def sif(path: Path) -> Path:
    """What looks like an apptainer image."""
    path.write_bytes(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0")
    return path


def calls(tmp_path: Path) -> list[list[str]]:
    lines = (tmp_path / "calls").read_text().splitlines()
    return [line.removeprefix("<").removesuffix(">").split("><") for line in lines]


# Jobs with an image and all defaults, and jobs without one and with a word for everything.
MANY = ("--array", "%5", "--animals-per-task", 2, "--strict", "--gpus", "train=2", "--setup", "true")
SITE = (
    "--partition",
    "cpu",
    "train=gpu",
    "--account",
    "rats",
    "--sbatch",
    "qos=long",
    "train=constraint=a100",
)
KINDS = {"image": (), "many words": (*MANY, *SITE, "--stages", *STAGES)}
# Of sbatch(1), what the scripts use.
SBATCH_OPTIONS = {
    *("job-name", "time", "ntasks", "cpus-per-task", "mem", "gpus-per-node", "partition", "account"),
    *("output", "signal", "requeue", "open-mode", "qos", "constraint"),
}


@pytest.fixture(params=KINDS)
def written(request: pytest.FixtureRequest, rats: Path, tmp_path: Path) -> list[Path]:
    """The scripts of one of the KINDS."""
    image = () if KINDS[request.param] else ("--image", sif(tmp_path / "bids-alphagan.sif"))
    call(rats, tmp_path / "out", *image, *KINDS[request.param], *TEMPLATE)
    folder = tmp_path / "out" / "code" / "slurm"
    return sorted(path for path in folder.iterdir() if path.name != "participants.txt")


def test_a_script_for_each_stage(written: list[Path], request: pytest.FixtureRequest) -> None:
    many = "many" in request.node.name
    names = {f"{stage}.sbatch" for stage in (STAGES if many else ["participant", *DEFAULT_STEPS])}
    assert {path.name for path in written} == {"settings.sh", "submit.sh", *names}
    assert [path.name for path in written if os.access(path, os.X_OK)] == ["submit.sh"]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(written: list[Path]) -> None:
    names = [path.name for path in written]
    done = subprocess.run(["shellcheck", *names], cwd=written[0].parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_bash_reads_the_scripts_and_sbatch_all_their_options(written: list[Path]) -> None:
    """sbatch stops looking for options at the first command, and refuses those that it does not know."""
    for path in written:
        done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        first, *lines = path.read_text().splitlines()
        if path.suffix != ".sbatch":
            continue
        assert first == "#!/bin/bash"
        options = list(itertools.takewhile(lambda line: line.startswith("#SBATCH "), lines))
        assert [line for line in lines if "#SBATCH" in line] == options
        assert len(set(options)) == len(options)
        names = [re.fullmatch(r"#SBATCH --([a-z-]+)(=\S+)?", line)[1] for line in options]
        assert set(names) <= SBATCH_OPTIONS
        assert {"job-name", "time", "ntasks", "cpus-per-task", "mem", "output"} <= set(names)


def template(folder: Path) -> None:
    folder.mkdir()
    for part in ("T2w", "mask", "GM", "WM", "CSF"):
        (folder / f"Lab_{part}.nii.gz").write_bytes(b"looked at by name alone")


def call(*words: object, code: int = 0) -> None:
    assert main([str(word) for word in words]) == code


def test_jobs_are_submitted_in_their_order_and_run_the_app(rats, tmp_path, played, capsys) -> None:
    out, image = tmp_path / "o u t", sif(tmp_path / "an image.sif")
    mine = tmp_path / "$my template"
    mine.mkdir()
    words = ["--image", image, "--submit", "--array", "%2", "--gpus", "train=2", "--setup", "export FIRST=1"]
    call(rats, out, *words, "--", "--segmenter", "none", f"--template={mine}")
    assert (out / "code/slurm/participants.txt").read_text().split() == ["01", "02", "10"]

    run = [
        *("run", "--cleanenv", "--nv", "--bind", f"{rats}:{rats}:ro", "--bind", str(out)),
        *("--bind", str(mine), str(image), str(rats), str(out)),
    ]
    made = calls(tmp_path)
    jobs = [line for line in made if line[-1].endswith(".sbatch")]
    assert [line[-1].removesuffix(".sbatch") for line in jobs] == ["participant", *DEFAULT_STEPS]
    assert "--array=1-3%2" in jobs[0]
    assert "--dependency=afterany:102" in jobs[1]
    assert "--dependency=afterok:104" in jobs[2]
    ran = [line for line in made if line[0] == "run"]
    assert all(line[: len(run)] == run for line in ran)
    options = ["--segmenter", "none", f"--template={mine}"]
    limits = ["--nprocs", "3", "--mem-mb", "4096"]
    assert [line[len(run) :] for line in ran] == [
        ["participant", *limits, *options, "--participant-label", "01"],
        ["group", *limits, "--devices", "2", *options, "--steps", "train"],
        *(["group", *limits, *options, "--steps", step] for step in ("synthesise", "evaluate", "report")),
    ]
    assert "to cancel all: scancel 102 104 106 108 110" in capsys.readouterr().out


def test_each_task_has_its_animals(rats, tmp_path, played, monkeypatch) -> None:
    out = tmp_path / "out"
    words = [
        "--image",
        sif(tmp_path / "x.sif"),
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


def test_the_first_task_that_is_asked_for_validates(rats, tmp_path, played, monkeypatch) -> None:
    words = ["--image", sif(tmp_path / "x.sif"), "--array", "2-3%1", "--stages", "participant"]
    call(rats, tmp_path / "out", *words, *TEMPLATE)
    monkeypatch.setenv("FIRST_TASK", "2")
    for task in ("2", "3"):
        monkeypatch.setenv("TASK", task)
        subprocess.run([tmp_path / "out/code/slurm/submit.sh"], check=True)
    asked, two, _, three = calls(tmp_path)
    assert "--array=2-3%1" in asked
    assert two[-2:] == ["--participant-label", "02"]
    assert three[-3:] == ["--participant-label", "10", "--skip-bids-validation"]


@pytest.mark.parametrize("task", ["0", "4"])
def test_a_task_without_an_animal_does_nothing(rats, tmp_path, played, monkeypatch, task) -> None:
    call(rats, tmp_path / "out", "--image", sif(tmp_path / "x.sif"), *TEMPLATE)
    monkeypatch.setenv("TASK", task)
    done = subprocess.run(
        ["sbatch", "participant.sbatch"], cwd=tmp_path / "out/code/slurm", capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"participants.txt has no line {task}" in done.stderr
    assert len(calls(tmp_path)) == 1  # the app was not called


def test_animals_that_are_asked_for(rats, tmp_path) -> None:
    call(rats, tmp_path / "out", *TEMPLATE, "--participant-label", "sub-10", "01")
    assert (tmp_path / "out/code/slurm/participants.txt").read_text().split() == ["01", "10"]


def test_what_each_stage_asks_for(rats, tmp_path) -> None:
    words = [
        "--gpus",
        "2",
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
    for line in ("--time=2-00", "--partition=gpu", "--qos=long", "--x=y", "--gpus-per-node=2"):
        assert f"#SBATCH {line}\n" in text["train"]
    for line in ("--time=3:00:00", "--partition=cpu", "--qos=long"):
        assert f"#SBATCH {line}\n" in text["participant"]
    assert "--x=y" not in text["participant"]
    assert "--gpus" not in text["participant"]


def test_paths_of_options_are_absolute(rats, tmp_path, monkeypatch) -> None:
    (tmp_path / "my.toml").write_text("grid = 32\n")
    template(tmp_path / "SIGMA")
    monkeypatch.chdir(tmp_path)
    call(rats.name, "out", "--", "--config", "my.toml", "--work_dir=w", "--template", "SIGMA")
    made = (tmp_path / "out/code/slurm/settings.sh").read_text()
    paths = ["--config", "my.toml", "--work-dir", "w", "--template", "SIGMA"]
    config, work, sigma = (str(tmp_path / name) for name in paths[1::2])
    assert f"OPTIONS=(--config {config} --work-dir={work} --template {sigma})" in made
    call(rats, "other", "--", "--template", "Fischer344")
    assert "OPTIONS=(--template Fischer344)" in (tmp_path / "other/code/slurm/settings.sh").read_text()


def test_an_image_sees_what_a_config_file_names(rats, tmp_path, played, monkeypatch) -> None:
    template(tmp_path / "SIGMA")
    (tmp_path / "flow").mkdir()
    sif(tmp_path / "x.sif")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", "flow")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    (tmp_path / "my.toml").write_text(f'template = "SIGMA"\nwork_dir = "{tmp_path}/w"\n')
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


def test_what_a_config_file_says_is_what_jobs_are_told(rats, tmp_path, played, monkeypatch) -> None:
    """Its paths from any folder, and its limits though Slurm's are given as flags, too."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "spm.sh").touch()
    lines = ['work_dir = "w w"', 'bids-filter-file = "f.json"', 'spm_cmd = "./spm.sh script"']
    lines += ["nprocs = 2", "mem_mb = 700", "devices = 2", 'preset = "demo"', 'segmenter = "none"']
    (tmp_path / "sub/e.toml").write_text("\n".join(lines))
    (tmp_path / "f.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    words = ["--image", sif(tmp_path / "x.sif"), "--gpus", "train=2", "--stages", "train"]
    call(rats, "out", *words, "--", "--config", "sub/e.toml", "--mem-mb", "800")
    subprocess.run([tmp_path / "out/code/slurm/submit.sh"], check=True)
    _, run = calls(tmp_path)
    bound = {after for word, after in itertools.pairwise(run) if word == "--bind"}
    assert {str(tmp_path / name) for name in ("sub/e.toml", "w w", "f.json")} < bound
    monkeypatch.chdir("/")
    parsed = cli.parse(run[run.index(str(rats)) :])
    assert (parsed.work_dir, parsed.bids_filter_file) == (tmp_path / "w w", tmp_path / "f.json")
    assert parsed.spm_cmd == f"{tmp_path}/spm.sh script"
    assert (parsed.nprocs, parsed.mem_mb, parsed.devices) == (2, 800, 2)


def test_edited_scripts_are_not_written_over(rats, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    call(rats, out, *TEMPLATE)
    call(rats, out, *TEMPLATE)
    settings = out / "code/slurm/settings.sh"
    settings.write_text(settings.read_text() + "# mine\n")
    call(rats, out, *TEMPLATE, code=2)
    assert "settings.sh exists and differs. Give --overwrite" in capsys.readouterr().err
    call(rats, out, "--overwrite", *TEMPLATE)
    assert "# mine" not in settings.read_text()


@pytest.mark.parametrize(
    ("words", "parsed"),
    [
        (["--time", "soon"], "--time soon: must be a time such as 30 (minutes), 8:00:00"),
        (["--time", "train=0:04:00"], "--time 0:04:00 of train: must be longer than --warn 300 s"),
        (["--mem", "lots"], "--mem lots: must be a size such as 16G"),
        (["--gpus", "train=-1"], "--gpus train=-1: must be a number of at least 0"),
        (["--cpus", "wrong=4"], "--cpus wrong=4: must be a number of at least 1"),
        (["--partition", "a b"], "--partition a b: must be a name"),
        (["--sbatch", "qos=a\nb"], "must be an option of sbatch"),
        (["--array", "8%"], "--array 8%: give tasks"),
        *(
            (["--array", array], f"--array {array}: {parsed}")
            for array, parsed in [
                ("7,,9", "give tasks"),
                ("1:2", "give tasks"),
                ("1-3:0", "give tasks"),
                ("2%0", "give tasks"),
                ("0-3", "0-3 is not among the tasks, which are 1 to 3"),
                ("2,50-60", "50-60 is not among"),
                ("3-1", "3-1 is not among"),
            ]
        ),
        (["--array", "3", "--animals-per-task", "2"], "3 is not among the tasks, which are 1 to 2"),
        (["--image", "/nowhere.sif"], "--image /nowhere.sif: does not exist"),
        (["--image", __file__], "is not an apptainer image"),
        (["--gpus", "train=3"], "--batch-size 4 is shared by all devices and cannot be divided by 3"),
        (["--gpus", "train=2", "--", "--batch-size", "3"], "--batch-size 3 is shared by all devices"),
        (["--gpus", "train=2", "--", "--devices", "2", "--batch-size", "3"], "cannot be divided by 2"),
        (
            ["--", "--batch-size", "1", "--model", "sigmarat2", "adni"],
            "--batch-size 1: must be at least 2, because adni",
        ),
        (["--", "--devices", "2"], "--devices 2: there is only 1 GPU. Give at most 1"),
        (["--", "--num-nodes", "2"], "--num-nodes 2: start the same command on each machine"),
        (["--", "--device", "cuda"], "--device cuda: no GPU is requested for synthesise, evaluate, report"),
        (["--", "--template", "nope/dir"], "'nope/dir' is neither a folder nor a name"),
        (["--", "--template", str(ROOT / "docs")], "docs is not a template: missing"),
        (["--", "--use-plugin", "nope.yml"], "nope.yml: cannot be read"),
        (["--", "--bids-filter-file", "nope.json"], "nope.json: cannot be read"),
        (["--", "--qc-limits", "nope.toml"], "nope.toml: cannot be read"),
        (["--", "--grid", "33"], "--grid 33"),
        (["--", "--steps", "train"], "--steps: cannot be used here; choose the steps with --stages"),
        (["--", "--participant-label", "99"], "unknown participant label 99"),
        (["--", "--suffix", "T1w"], "no participant has a T1w scan"),
        (["--", "--template", "a\nb"], "line breaks"),
    ],
)
def test_one_error_and_nothing_written(rats, tmp_path, capsys, words, parsed) -> None:
    call(rats, tmp_path / "out", *words, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bids-alphagan-slurm: error: ")
    assert parsed in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["5%", r"\d"])
def test_slurm_would_expand_the_place_of_logs(rats, tmp_path, capsys, name) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / name)
    for place in (tmp_path / name / "out", tmp_path / "link" / "out"):
        for words in ([place], [tmp_path / "out", "--scripts", place]):
            call(rats, *words, *TEMPLATE, code=2)
            error = capsys.readouterr().err
            assert "reads % and \\ in the path of its logs as patterns. Give another OUTPUT_DIR" in error
    assert not list((tmp_path / name).iterdir())
    call(rats, tmp_path / name / "out", "--scripts", tmp_path / "scripts", *TEMPLATE)


@pytest.mark.parametrize("place", [".", "sub-01/scripts"])
def test_no_scripts_among_the_raw_data(rats, tmp_path, capsys, place) -> None:
    rats = rats.rename(tmp_path / "rats")
    before = sorted(rats.rglob("*"))
    call(rats, tmp_path / "out", "--scripts", rats / place, *TEMPLATE, code=2)
    assert "is inside the raw data" in capsys.readouterr().err
    assert sorted(rats.rglob("*")) == before
    call(rats, tmp_path / "out", "--scripts", rats / "code", *TEMPLATE)


def test_templates_of_an_image_must_be_there(rats, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", "/no/such")
    call(rats, tmp_path / "out", "--image", sif(tmp_path / "x.sif"), *TEMPLATE, code=2)
    assert "TEMPLATEFLOW_HOME=/no/such: no such folder" in capsys.readouterr().err


def test_apptainer_cannot_bind_every_path(tmp_path, capsys) -> None:
    data = tiny.dataset(tmp_path / "a:b")
    tiny.scan(data / "sub-01/anat/sub-01_T2w.nii.gz", tiny.values())
    sif(tmp_path / "x.sif")
    call(data, tmp_path / "out", "--image", tmp_path / "x.sif", *TEMPLATE, code=2)
    assert "cannot bind a path with a colon or a comma" in capsys.readouterr().err


def test_a_refused_submission_is_told(rats, tmp_path, played, capsys) -> None:
    (played / "sbatch").write_text("#!/bin/bash\necho 'invalid partition specified: gpu' >&2; exit 1\n")
    call(rats, tmp_path / "out", "--submit", *TEMPLATE, code=2)
    assert "the jobs could not be submitted: invalid partition specified: gpu" in capsys.readouterr().err


def test_what_was_queued_is_cancelled_where_not_all_could_be(rats, tmp_path, played, capsys) -> None:
    refuse = 'if [ "${@: -1}" = synthesise.sbatch ]; then echo "no such qos" >&2; exit 1; fi\n'
    (played / "sbatch").write_text(SBATCH.replace("bash ", refuse + "bash "))
    call(rats, tmp_path / "out", "--image", sif(tmp_path / "x.sif"), "--submit", *TEMPLATE, code=2)
    parsed = capsys.readouterr()
    assert calls(tmp_path)[-1] == ["102", "104"]
    assert "no such qos" in parsed.err
    assert "not all jobs could be queued; cancelling the others: scancel 102 104" in parsed.err
    assert "to cancel all" not in parsed.out


def edited(scripts: Path, folder: Path, bids_dir: Path) -> Path:
    """A copy of the scripts for another data set, as a user edits them."""
    shutil.copytree(scripts, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("participants.txt"))
    settings = (scripts / "settings.sh").read_text()
    (line,) = re.findall("^BIDS_DIR=.*$", settings, re.MULTILINE)
    text = settings.replace(line, f"BIDS_DIR={shlex.quote(str(bids_dir))}")
    (folder / "settings.sh").write_text(text)
    return folder / "submit.sh"


@pytest.fixture
def scripts(rats: Path, tmp_path: Path) -> Path:
    """A folder of scripts, to be copied."""
    call(rats, tmp_path / "out", "--image", sif(tmp_path / "x.sif"), *TEMPLATE)
    return tmp_path / "out" / "code" / "slurm"


def test_a_mistyped_input_leaves_no_list_of_animals(rats, scripts, tmp_path, played) -> None:
    (tmp_path / "nothing").mkdir()
    folder = tmp_path / "jobs"
    for wrong in ("typo", "nothing"):
        done = subprocess.run([edited(scripts, folder, tmp_path / wrong)], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr == f"BIDS_DIR={tmp_path / wrong}: it has no sub-* folders\n"
        assert not (tmp_path / "calls").exists()
        assert not list(folder.glob("participants*"))
    (folder / "participants.txt").touch()  # left by whatever
    subprocess.run([edited(scripts, folder, rats), "participant"], check=True)
    assert (folder / "participants.txt").read_text().split() == ["sub-01", "sub-02", "sub-03", "sub-10"]
    assert "--array=1-4" in calls(tmp_path)[0]


def test_scripts_in_a_place_that_slurm_would_expand(rats, scripts, tmp_path, played) -> None:
    done = subprocess.run([edited(scripts, tmp_path / "a%A", rats)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "a%A: Slurm reads % and \\ in the path of its logs as patterns" in done.stderr
    assert not (tmp_path / "calls").exists()
