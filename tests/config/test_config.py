"""Options: one declaration serves flags, TOML, presets, the run record and the help text."""

import inspect
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from paths import ROOT

from bids_alphagan import __version__
from bids_alphagan.cli import main as cli
from bids_alphagan.common.errors import UserError
from bids_alphagan.config import Config
from bids_alphagan.config.files import preset_values, to_toml
from bids_alphagan.config.training import PRESETS
from bids_alphagan.group.synthesise import Synthesise
from bids_alphagan.group.train import Train
from bids_alphagan.models import MODELS

CALL = ["in", "out", "group"]
# A value for each field other than its default, as TOML would hold it.
OTHER = {
    "participant_label": ["01", "02"],
    "session_label": ["1"],
    "task_id": ["rest"],
    "suffix": ["T1w"],
    "bids_filter_file": "/filter.json",
    "skip_bids_validation": True,
    "work_dir": "/scratch",
    "nprocs": 3,
    "omp_nthreads": 2,
    "mem_mb": 4000,
    "use_plugin": "/plugin.yml",
    "stop_on_first_crash": True,
    "verbose": 2,
    "grid": 128,
    "intensity_percentile": 99.5,
    "template": "RESILIENT:cohort-2",
    "segmenter": "ants",
    "spm_cmd": '/opt/my spm/run "script"',
    "spm_time_limit": 12.5,
    "bias_corrected": True,
    "quick_masks": True,
    "model": ["adni", "sigmarat1"],
    "preset": "fast",
    "variant": "released",
    "precision": "bf16",
    "speedups": ["slope", "fused"],
    "iterations": 7,
    "batch_size": 3,
    "learning_rate": 0.003,
    "adam_betas": [0.5, 0.9],
    "ema_decay": 0.99,
    "channels": 8,
    "latent_size": 11,
    "checkpoint_every": 13,
    "keep_checkpoints": 5,
    "use_checkpoint": "best",
    "on_divergence": "rollback",
    "log_every": 17,
    "seed": 19,
    "device": "cpu",
    "devices": 2,
    "num_nodes": 2,
    "resume": "never",
    "n_synthetic": 23,
    "max_draws": 29,
    "gate_width": 2.5,
    "gate_limits": "/limits.json",
    "keep_rejected": True,
    "protocol": "paper",
    "held_out": 0.4,
    "pairs_per_scan": 31,
    "msssim_pairs_per_scan": 37,
    "downstream_arms": ["r1", "r0.5+s2"],
    "downstream_steps": 41,
    "downstream_seeds": 9,
    "downstream_batch_size": 6,
    "downstream_channels": [4, 8],
    "downstream_residual_units": 1,
    "downstream_learning_rate": 0.01,
    "steps": ["evaluate", "report"],
}
OPTIONAL = [
    f.name for f in fields(Config) if f.name not in ("bids_dir", "output_dir", "analysis_level", "config")
]


def flags(values: dict) -> list[str]:
    words = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if name == "verbose":
            words += [flag] * value
        elif value is True:
            words.append(flag)
        else:
            words += [flag, *map(str, value if isinstance(value, list) else [value])]
    return words


def test_all_speedups_can_be_left_out() -> None:
    assert cli.parse([*CALL, "--speedups"]).speedups == []


def test_every_option_has_another_value_here() -> None:
    assert sorted(OTHER) == sorted(OPTIONAL)


@pytest.mark.parametrize("name", OPTIONAL)
def test_flag_toml_and_record_agree(tmp_path: Path, name: str) -> None:
    default = cli.parse(CALL)
    by_flag = cli.parse(CALL + flags({name: OTHER[name]}))
    assert getattr(by_flag, name) != getattr(default, name)
    toml = tmp_path / "options.toml"
    toml.write_text(to_toml({name.replace("_", "-"): OTHER[name]}))
    by_file = cli.parse([*CALL, "--config", str(toml)])
    assert getattr(by_file, name) == getattr(by_flag, name)
    record = by_flag.record()
    assert record[name] == OTHER[name]
    # The record is TOML that gives the same run again.
    toml.write_text(to_toml(record))
    again = cli.parse([*CALL, "--config", str(toml)])
    assert {f.name: getattr(again, f.name) for f in fields(Config) if f.name != "config"} == {
        f.name: getattr(by_flag, f.name) for f in fields(Config) if f.name != "config"
    }


@pytest.mark.parametrize("name", OPTIONAL)
def test_help_tells_of_every_option(name: str) -> None:
    assert "--" + name.replace("_", "-") in cli.parser().format_help()


def test_later_wins_default_preset_file_flag(tmp_path: Path) -> None:
    toml = tmp_path / "options.toml"
    toml.write_text('preset = "demo"\nchannels = 5\n')
    demo = preset_values("demo")
    assert cli.parse(CALL).grid == 64
    config = cli.parse([*CALL, "--config", str(toml)])
    assert (config.grid, config.channels) == (demo["grid"], 5)
    assert cli.parse([*CALL, "--config", str(toml), "--channels", "6"]).channels == 6
    assert cli.parse([*CALL, "--config", str(toml), "--preset", "paper"]).grid == 64


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset: str) -> None:
    config = cli.parse([*CALL, "--preset", preset])
    assert config.preset == preset
    assert all(getattr(config, name) == value for name, value in preset_values(preset).items())


def test_labels_with_and_without_prefix_and_underscores() -> None:
    config = cli.parse([*CALL, "--participant_label", "sub-01", "02", "--session-label=ses-a"])
    assert config.participant_label == ["01", "02"]
    assert config.session_label == ["a"]
    assert cli.parse([*CALL, "--n_synthetic=9"]).n_synthetic == 9


def test_unknown_toml_key_names_the_nearest(tmp_path: Path) -> None:
    toml = tmp_path / "options.toml"
    toml.write_text("iteratons = 5\n")
    with pytest.raises(UserError, match=r"'iteratons'.*Did you mean 'iterations'"):
        cli.parse([*CALL, "--config", str(toml)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 'one'", "must be int"),
        ("seed = true", "must be int"),
        ("template = 3", "must be text"),
        ("stop_on_first_crash = 1", "must be bool"),
        ("model = ['sigmarat3']", "choose from"),
        ("seed = [1]", "must be int"),
        ("seed", "cannot be read as TOML"),
    ],
)
def test_wrong_toml_values(tmp_path: Path, text: str, message: str) -> None:
    toml = tmp_path / "options.toml"
    toml.write_text(text)
    with pytest.raises(UserError, match=message):
        cli.parse([*CALL, "--config", str(toml)])


def test_processes_fit_into_the_memory() -> None:
    def processes_of(gigabytes: float, *words: str) -> int:
        return Synthesise.with_options(cli.parse([*CALL, *words])).machine.processes_of(gigabytes)

    few = ("--nprocs", "8", "--mem-mb", "5000")
    assert processes_of(1.0, *few) == 4
    assert processes_of(100.0, *few) == 1
    assert processes_of(0.1, *few) == 8
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    assert processes_of(memory / 2, "--nprocs", "8") == 1


def test_nothing_to_correct_without_a_segmenter() -> None:
    with pytest.raises(UserError, match="--bias-corrected"):
        cli.parse([*CALL, "--bias-corrected", "--segmenter", "none"])


@pytest.mark.parametrize(
    "words",
    [
        ["--spm-time-limit", "0"],
        ["--iterations", "0"],
        ["--batch-size", "-1"],
        ["--grid", "50"],
        ["--grid", "512"],
        ["--seed", "-1"],
        ["--n-synthetic", "0"],
        ["--nprocs", "0"],
        ["--intensity-percentile", "101"],
    ],
)
def test_absurd_numbers_are_refused_by_name(words: list[str]) -> None:
    with pytest.raises(UserError, match=words[0]):
        cli.parse(CALL + words)


def test_bad_words_end_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--no-such"], ["--model", "other"], ["--iterations", "many"]):
        with pytest.raises(SystemExit) as stop:
            cli.parse(CALL + words)
        assert stop.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_models_that_can_be_chosen_are_the_models() -> None:
    assert cli.parse([*CALL, "--model", *MODELS]).model == list(MODELS)
    assert f"--model {{{','.join(MODELS)}}}" in cli.parser().format_help()


def test_settings_follow_their_step() -> None:
    settings = cli.parse(CALL).settings("evaluate")
    assert settings == {
        "protocol": "held-out",
        "held_out": 0.2,
        "pairs_per_scan": 100,
        "msssim_pairs_per_scan": 10,
    }


def test_record_is_toml() -> None:
    text = to_toml({"a": 'x "y" \\ \n', "b": [1, 2], "c": True, "d": 0.5})
    assert tomllib.loads(text) == {"a": 'x "y" \\ \n', "b": [1, 2], "c": True, "d": 0.5}


PACKAGE = ROOT / "bids_alphagan"


def code_of(*rooms: str) -> str:
    return "".join(path.read_text() for room in rooms for path in sorted((PACKAGE / room).rglob("*.py")))


# Config is known here alone; the evaluation gets those options by name that its steps depend on.
READERS = code_of("cli", "participant", "group") + (PACKAGE / "config" / "run.py").read_text()
EVALUATION = code_of("evaluation")


def attributes_with(name: str) -> Iterator[str]:
    """The attributes of Config that an option is read by: its own, and properties made of it."""
    yield name
    for attribute, value in inspect.getmembers(Config, lambda value: isinstance(value, property)):
        if re.search(rf"\bself\.{name}\b", inspect.getsource(value.fget)):
            yield from attributes_with(attribute)


@pytest.mark.parametrize("name", OPTIONAL)
def test_every_option_is_read_somewhere(name: str) -> None:
    owners = r"(\bconfig|\bfirst|\.parse_args\(argv\))"
    read = any(re.search(rf"{owners}\.{word}\b", READERS) for word in attributes_with(name))
    if Config.__dataclass_fields__[name].metadata.get("step") in ("evaluate", "downstream"):
        assert "config.settings(" in READERS
        read |= f'["{name}"]' in EVALUATION
    assert read


TRAINING = [f.name for f in fields(Config) if f.metadata.get("step") == "train" and f.name != "variant"]
SAFETY = ["checkpoint_every", "keep_checkpoints", "use_checkpoint", "on_divergence"]


@pytest.mark.parametrize("name", [*TRAINING, *SAFETY])
def test_options_of_training_reach_it(name: str) -> None:
    plain = {"precision": "fp32"}  # "auto" is what the processor can do
    changed = cli.parse(CALL + flags({**plain, name: OTHER[name]}))
    default = cli.parse(CALL + flags(plain))
    assert Train.with_options(changed).settings != Train.with_options(default).settings


def test_record_works_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rat").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.parse([*CALL, "--template", "rat"]).template == str(tmp_path / "rat")
    assert cli.parse([*CALL, "--template", "RESILIENT:cohort-1"]).template == "RESILIENT:cohort-1"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("./spm.sh script", "'{}/a b/spm.sh' script"),
        ('"my spm/spm.sh" script', "'{}/a b/my spm/spm.sh' script"),
        ("spm-octave script", "spm-octave script"),
        ("'/opt/my spm/run' \"script\"", "'/opt/my spm/run' \"script\""),
        ("./spm 'x", "./spm 'x"),
    ],
)
def test_program_of_spm_from_any_folder(tmp_path: Path, monkeypatch, given: str, kept: str) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path / "a b")
    assert cli.parse([*CALL, "--spm-cmd", given]).spm_cmd == kept.format(tmp_path)


def test_the_images_carry_the_version() -> None:
    for recipe in ("Dockerfile", "Singularity.def", "CITATION.cff"):
        text = (ROOT / recipe).read_text()
        assert set(re.findall(r"\b\d+\.\d+\.\d+(?:\.\w+)?\b", text)) - {"1.2.0"} == {__version__}
