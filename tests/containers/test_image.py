"""The image, as a site runs it: any user, read-only root, no network, no home (engine.py has how)."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from base import REVISION
from engine import Engine

from bids_alphagan import __version__

TEMPLATE = "/data/derivatives/templateflow/tpl-RatPhantom"
DEMO = ("--preset", "demo", "--template", TEMPLATE)
SMALL = (*DEMO, "--model", "sigmarat1", "--iterations", "4", "--n-synthetic", "2", "--qc-width", "1e9")
BUILD_TOOLS = ("gcc", "cc", "g++", "c++", "make", "ld", "as", "pip", "pip3")
LIMIT = 2.5e9  # bytes, without what the base has


@pytest.fixture
def mounts(heads: Path, output: Path) -> list[str]:
    return [f"{heads}:/data:ro", f"{output}:/out"]


@pytest.fixture(scope="module")
def prepared(engine: Engine, image: str, heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUTPUT_DIR after the participant level, done without a /tmp to write to."""
    output = tmp_path_factory.mktemp("prepared") / "out"
    output.mkdir()
    output.chmod(0o777)
    where = [f"{heads}:/data:ro", f"{output}:/out"]
    done = engine.run(image, "/data", "/out", "participant", *DEMO, mounts=where)
    assert done.code == 0, done.err[-3000:]
    assert "4 of 4 scans are ready" in done.err
    assert "100%" in done.err  # progress is shown where there is no terminal
    return output


@pytest.fixture
def copy_of(output: Path) -> Callable[[Path], Path]:
    def copied(folder: Path) -> Path:
        subprocess.run(["cp", "-a", f"{folder}/.", output], check=True)
        return output

    return copied


def test_labels_say_what_it_is(engine: Engine, image: str) -> None:
    labels = {key.rpartition(".")[2]: value for key, value in engine.labels(image).items()}
    assert labels["version"] == __version__
    assert labels["revision"] == REVISION
    assert labels["licenses"] == "Apache-2.0"
    assert {"title", "description", "authors", "source"} <= labels.keys()


def test_help_comes_within_two_seconds(engine: Engine, image: str) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = engine.run(image, "--help")
        seconds.append(time.perf_counter() - start)
        assert done.code == 0
        assert "exit codes" in done.out
    print(f"start to --help: {min(seconds):.2f} s, the best of {len(seconds)}")
    assert min(seconds) < 2


def test_version(engine: Engine, image: str) -> None:
    done = engine.run(image, "--version")
    assert (done.code, done.out.strip()) == (0, f"bids-alphagan {__version__}")


def test_size(contents: Path, debian: Path) -> None:
    def size(*folders: Path) -> int:
        said = subprocess.run(["du", "-xscB1", *folders], capture_output=True, text=True, check=True).stdout
        return int(said.splitlines()[-1].split()[0])

    packages = next((contents / "opt/bids-alphagan/lib").glob("python3*/site-packages"))
    parts = sorted(((size(path), path.name) for path in packages.iterdir()), reverse=True)
    added = size(contents) - size(debian)
    print(
        f"the image adds {added / 1e9:.2f} GB to its base of {size(debian) / 1e9:.2f} GB; its largest parts:"
    )
    print("\n".join(f"  {bytes_ / 1e6:5.0f} MB  {name}" for bytes_, name in parts[:12]))
    assert added < LIMIT


def test_no_build_tools_nor_leftovers(contents: Path, debian: Path) -> None:
    def there(root: Path, *patterns: str) -> set[str]:
        return {str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern)}

    programs = [f"{folder}/{name}" for folder in ("usr/bin", "opt/bids-alphagan/bin") for name in BUILD_TOOLS]
    assert there(contents, *programs) == set()
    assert there(contents, "opt/bids-alphagan/lib/python3*/site-packages/pip*") == set()
    left = (
        "**/direct_url.json",
        "wheels/*",
        "src",
        "root/.cache",
        "root/.config",
        "tmp/*",
        "etc/pip.conf",
        "etc/xdg/pip",
    )
    lists = ("var/lib/apt/lists/*_*", "var/cache/apt/archives/*.deb", "var/log/dpkg.log", "var/log/apt/*")
    assert there(contents, *left, *lists) == set()


def test_byte_code_is_there_and_needs_no_look_at_its_source(contents: Path) -> None:
    found = list((contents / "opt/bids-alphagan").glob("lib/python3*/site-packages/bids_alphagan/**/*.pyc"))
    assert len(found) > 50
    assert all(path.read_bytes()[4:8] == b"\x01\x00\x00\x00" for path in found)  # unchecked-hash, PEP 552


def errors(engine: Engine, image: str, folder: str, mounts: list[str]) -> list[dict[str, object]]:
    """What the BIDS validator, the image's own, has against a folder."""
    done = engine.run(image, "--json", folder, mounts=mounts, entrypoint="bids-validator-deno")
    report = json.loads(done.out)
    assert report["summary"]["totalFiles"] > 10
    return [issue for issue in report["issues"]["issues"] if issue["severity"] == "error"]


def test_participant_level(engine: Engine, image: str, heads: Path, prepared: Path) -> None:
    assert errors(engine, image, "/out", [f"{prepared}:/out:ro"]) == []
    assert len(list(prepared.glob("sub-*/func/*_dseg.nii.gz"))) == 4
    made_by = json.loads((prepared / "dataset_description.json").read_text())["GeneratedBy"][0]
    assert made_by["Container"]["Tag"].endswith(f"bids-alphagan:{__version__}")


def test_a_home_that_may_not_be_searched(engine: Engine, image: str, mounts: list[str]) -> None:
    words = ("--participant-label", "01", "--segmenter", "none", "--preset", "demo")
    where = {
        "mounts": mounts,
        "environment": {"HOME": "/root", "XDG_CACHE_HOME": "/root/x", "TMPDIR": "/root/y"},
    }
    done = engine.run(image, "/data", "/out", "participant", *words, **where)
    assert done.code == 0, done.err[-3000:]
    assert "1 of 1 scans are ready" in done.err


def test_a_work_folder_of_another_user_is_code_2(
    engine: Engine, image: str, mounts: list[str], output: Path
) -> None:
    for name in ("tmp", "cache"):
        (output / "wk" / name).mkdir(parents=True)
    done = engine.run(image, "/data", "/out", "participant", *DEMO, "-w", "/out/wk", mounts=mounts)
    assert done.code == 2
    assert done.err.startswith("bids-alphagan: error: /out/wk: cannot be written (Permission denied)")
    (output / "wk").chmod(0o777)
    done = engine.run(image, "/data", "/out", "participant", *DEMO, "-w", "/out/wk", mounts=mounts)
    assert done.code == 2
    assert done.err.startswith("bids-alphagan: error: /out/wk/tmp: cannot be written (Permission denied)")
    assert len(done.err.splitlines()) == 1


def test_a_template_that_is_not_there_is_fetched_to_the_work_folder(
    engine: Engine, image: str, mounts: list[str], contents: Path
) -> None:
    """As far as can be seen without a network: it is the download that fails, not the writing."""
    assert (contents / "opt/templateflow").stat().st_mode & 0o777 == 0o755
    done = engine.run(image, "/data", "/out", "participant", "--preset", "demo", mounts=mounts)
    home = "/out/.work/cache/xdg_cache_home/templateflow"
    assert done.code == 2
    assert f"not in /opt/templateflow/tpl-Fischer344 nor in {home}/tpl-Fischer344" in done.err
    assert "the download failed" in done.err
    assert f"copy its folder tpl-Fischer344 to {home} " in done.err
    assert "Permission denied" not in done.err
    assert "Read-only" not in done.err


def test_the_check_says_whether_a_run_is_possible(engine: Engine, image: str, mounts: list[str]) -> None:
    where = {"mounts": mounts, "tmpfs": True, "entrypoint": "bids-alphagan-check"}
    done = engine.run(image, **where)
    assert (done.code, done.out.splitlines()[-1]) == (1, "A run is not possible: see template.")
    done = engine.run(image, "--template", TEMPLATE, **where)
    assert (done.code, done.out.splitlines()[-1]) == (0, "A run is possible.")


def test_group_level(
    engine: Engine, image: str, heads: Path, prepared: Path, copy_of: Callable[[Path], Path]
) -> None:
    """With a /tmp in memory, as `docker run --read-only --tmpfs /tmp`."""
    out = copy_of(prepared)
    where = [f"{heads}:/data:ro", f"{out}:/out"]
    done = engine.run(image, "/data", "/out", "group", *SMALL, mounts=where, tmpfs=True)
    assert done.code == 0, done.err[-3000:]
    assert (out / "group.html").is_file()
    assert len(list(out.glob("derivatives/sigmarat1/sub-*/func/*_bold.nii.gz"))) == 2
    for folder in ("/out", "/out/derivatives/sigmarat1"):
        assert errors(engine, image, folder, [f"{out}:/out:ro"]) == []


def test_sigterm_saves_and_the_same_command_goes_on(
    engine: Engine, image: str, heads: Path, prepared: Path, copy_of: Callable[[Path], Path]
) -> None:
    out = copy_of(prepared)
    where = [f"{heads}:/data:ro", f"{out}:/out"]
    words = ["/data", "/out", "group", *SMALL, "--log-every", "1", "--steps", "train", "--iterations"]
    running = engine.start(image, *words, "100000", mounts=where)
    losses = out / "models" / "sigmarat1" / "losses.tsv"
    deadline = time.monotonic() + 120
    while not (losses.is_file() and len(losses.read_text().splitlines()) > 3):
        assert running.process.poll() is None, running.wait().err[-3000:]
        assert time.monotonic() < deadline, "it does not train"
        time.sleep(0.5)
    running.send(signal.SIGTERM)
    done = running.wait()
    assert done.code == 143, done.err[-3000:]
    assert "SIGTERM" in done.err
    reached = int(losses.read_text().splitlines()[-1].split("\t")[0])

    done = engine.run(image, *words, str(reached + 10), mounts=where)
    assert done.code == 0, done.err[-3000:]
    assert "resumes from its checkpoint at iteration" in done.err
    steps = [int(line.split("\t")[0]) for line in losses.read_text().splitlines()[1:]]
    assert steps == list(range(1, reached + 11))


def test_a_call_that_cannot_be_done_is_code_2(engine: Engine, image: str, heads: Path) -> None:
    done = engine.run(image, "/data", "/data/out", "participant", *DEMO, mounts=[f"{heads}:/data:ro"])
    assert done.code == 2
    assert done.err.startswith("bids-alphagan: error: /data/out/.work: cannot be written (Read-only file sys")
    assert len(done.err.splitlines()) == 1
