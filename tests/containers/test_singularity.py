"""Singularity.def: read by spython, its sections run in a root as Apptainer would run them."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from base import DATE, ROOT
from trees import differences, files

from bids_alphagan import __version__

TEXT = (ROOT / "Singularity.def").read_text()
SECTIONS = dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", TEXT, re.MULTILINE | re.DOTALL))
DEFAULTS = dict(re.findall(r"^ *(\w+)=(.*)$", SECTIONS["arguments"], re.MULTILINE))


def filled(section: str, **arguments: str) -> str:
    """A section with its {{ arguments }} in place."""
    values = DEFAULTS | arguments
    return re.sub(r"\{\{ *(\w+) *\}\}", lambda found: values[found[1]], SECTIONS[section])


def test_spython_reads_it(tool: Callable[[str], str]) -> None:
    python = Path(tool("spython")).with_name("python")
    program = (
        "from spython.main.parse.parsers import SingularityParser as P; import json; "
        "(r,) = P('Singularity.def').parse().values(); "
        "print(json.dumps([r.fromHeader, r.files, r.install, r.labels, r.cmd, r.test]))"
    )
    said = subprocess.run([python, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    for part in ("{{ spm_image }}", "container /src/container", "install.sh app /src", "bids-alphagan"):
        assert part in said.stdout


@pytest.fixture(scope="module")
def root(debian: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the base root after %files and %post, as an image made by Apptainer has it."""
    place = tmp_path_factory.mktemp("singularity") / "root"
    subprocess.run(["cp", "-a", debian, place], check=True)
    for line in SECTIONS["files"].strip().splitlines():
        source, target = line.split()
        (place / target[1:]).parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__")
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place / target[1:], ignore=ignored)
        else:
            shutil.copy(ROOT / source, place / target[1:])
    (place / "wheels").mkdir()
    (place / "etc/resolv.conf").write_text(Path("/etc/resolv.conf").read_text())
    within(place, filled("post", TORCH="cpu"), binds=[f"mount --bind {wheels} {place}/wheels"], user="0:0")
    yield place
    shutil.rmtree(place)


def within(
    root: Path, script: str, *words: str, binds: list[str] | None = None, user: str = "4321:4321"
) -> str:
    """Run a section's text by the root's own shell, in namespaces for mounts and processes."""
    lines = ["set -e", f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc", *(binds or [])]
    lines += [f"mount --rbind /dev {root}/dev", f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp"]
    read_only = [f"mount -o remount,bind,ro {root}"] if user != "0:0" else []
    place = ["/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"SOURCE_DATE_EPOCH={DATE}"]
    inside = f'exec chroot --userspec={user} {root} {" ".join(place)} /bin/sh -e -c "$0" sh "$@"'
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *(["--net"] if read_only else [])]
    command = [*unshare, "sh", "-c", "\n".join([*lines, *read_only, inside]), script, *words]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert said.returncode == 0, f"{script}\n{said.stdout[-3000:]}\n{said.stderr[-3000:]}"
    return said.stdout


def test_test_section_passes(root: Path) -> None:
    assert f"bids-alphagan {__version__}" in within(root, filled("environment") + filled("test"))


def test_runscript_hands_all_words_to_the_app(root: Path) -> None:
    script = filled("environment") + filled("runscript")
    assert within(root, script, "--version") == f"bids-alphagan {__version__}\n"


def test_nothing_but_the_output_is_written(root: Path, heads: Path, output: Path) -> None:
    """Home and /tmp are the host's, and another user may have laid files into a folder there."""
    binds = [f"mkdir -p {root}/data {root}/out", f"mount --bind {heads} {root}/data"]
    binds += [f"mount --bind {output} {root}/out"]
    run = 'export HOME=/tmp/home; mkdir $HOME; bids-alphagan /data /out participant "$@"; '
    run += "ls -AR /tmp; echo ---; env"
    words = ("--participant-label", "01", "--segmenter", "none", "--preset", "demo", "--skip-bids-validation")
    printed = within(root, filled("environment") + run, *words, binds=binds)
    assert printed.startswith("/tmp:\nhome\n\n/tmp/home:\n---\n")
    assert list(output.glob(".work/cache/mplconfigdir/*.json"))
    assert f"BIDS_ALPHAGAN_CONTAINER=singularity:bids-alphagan:{__version__}\n" in printed
    # No template is in this image: the user's own cache is looked at.
    assert "TEMPLATEFLOW_HOME" not in printed


def test_the_app_is_that_of_the_docker_image(root: Path, contents: Path) -> None:
    app = Path("opt/bids-alphagan")
    mine = files(root / app)
    assert len(mine) > 10_000
    assert differences(mine, files(contents / app)) == []


def test_templates_in_the_image_are_for_all_to_read(root: Path, heads: Path) -> None:
    """Where the archive cannot be reached, what lies in its place is checked as what is fetched would be."""
    place = root / "opt/templateflow"
    shutil.copytree(heads / "derivatives/templateflow", place, dirs_exist_ok=True)
    for path in place.rglob("*"):
        path.chmod(0o700)
    shutil.copy(ROOT / "container/install.sh", root / "install.sh")
    output = within(root, "/install.sh templates RatPhantom", user="0:0")
    assert re.search(r"template +RatPhantom", output)
    with pytest.raises(AssertionError, match="not in /opt/templateflow/tpl-Fischer344"):
        within(root, "/install.sh templates Fischer344", user="0:0")
    script = filled("environment") + 'exec bids-alphagan-template "$@"'
    assert "/opt/templateflow/tpl-RatPhantom/" in within(root, script, "RatPhantom", "--no-download")
