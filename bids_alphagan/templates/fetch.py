"""TemplateFlow's archive: its content, and complete downloads from it.

TemplateFlow's client writes each file to its final path and takes any file that is not empty for complete. It
therefore works in a temporary folder here, from which finished files are moved to their place: an interrupted
download leaves no partial files, and parallel jobs do not see each other's.
"""

import difflib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipFile

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import write_text
from bids_alphagan.templates.names import LABELS, complete, images, sets_of, there

log = logging.getLogger(__name__)

ARCHIVE = "https://templateflow.s3.amazonaws.com"


def download(home: Path, name: str, cohort: str, again: bool = False) -> None:
    """Fetch the missing parts of a template to `home`, or all of them with `again`.

    Files that a lab has added there count as parts of the template and are left as they are. Of several
    resolutions the one with the highest index is fetched, TemplateFlow's coarsest. Raises UserError if the archive
    has no such template, and the client's own errors if the download fails.
    """
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=home) as scratch:
        stage, newest = Path(scratch) / "home", Path(scratch) / "newest"
        listing = offered()
        if not any(path.parts[0] == f"tpl-{name}" for path in listing):
            listing = _newest(newest)
        parts = parts_of([*listing, *_own(home, name, listing)], name, cohort)
        to_fetch = [path for path in parts if path in listing and (again or not there(home / path))]
        for path in to_fetch:
            (stage / path).parent.mkdir(parents=True, exist_ok=True)
            (stage / path).touch()
            log.info("Downloading %s/%s", ARCHIVE, path)
        if to_fetch:
            _client(stage).get(name, raise_empty=True)
            _move(stage, home, to_fetch)
        _describe(home, name, newest)


def reachable() -> bool:
    """Whether the archive can be reached from this machine."""
    import requests  # as the client does, with the same proxies and certificates

    try:
        requests.head(ARCHIVE, timeout=5)
    except requests.RequestException:
        return False
    return True


def offered() -> list[PurePosixPath]:
    """All files of TemplateFlow's archive, as listed in the installed client. Needs no network."""
    with ZipFile(_list()) as listing:
        return [PurePosixPath(entry) for entry in listing.namelist() if not entry.endswith("/")]


def _list() -> Path:
    package = importlib.util.find_spec("templateflow")  # importing it would write to its home
    assert package  # it is a dependency
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0], "conf", "templateflow-skel.zip")


def parts_of(listing: list[PurePosixPath], name: str, cohort: str) -> list[PurePosixPath]:
    """The files that a template needs, of one resolution. Raises UserError if one is missing."""
    everything = [
        path for path in listing if path.parts[0] == f"tpl-{name}" and path.name.endswith(".nii.gz")
    ]
    if not everything:
        names = sorted({path.parts[0].removeprefix("tpl-") for path in listing})
        close = [other for other in names if other.lower() == name.lower()]
        close = close or difflib.get_close_matches(name, names, n=1)
        hint = f", but {close[0]}" if close else ""
        raise UserError(f"TemplateFlow has no template {name}{hint}")
    here = [Path(path) for path in everything if path.parent == PurePosixPath(f"tpl-{name}", cohort)]
    sets = {
        key: parts for key, parts in complete(sets_of(here)).items() if key.prefix == f"tpl-{name}".lower()
    }
    if sets:
        coarsest = max(sets, key=lambda key: int(key.resolution or 0))
        return [PurePosixPath(sets[coarsest][part]) for part in LABELS]
    cohorts = sorted({path.parent.name for path in everything if path.parent.name.startswith("cohort-")})
    if cohorts:
        raise UserError(
            f"TemplateFlow has {name} as "
            + ", ".join(f"{name}:{cohort_name}" for cohort_name in cohorts)
            + "; choose one"
        )
    most = max((set(parts) for parts in sets_of(here).values()), key=len, default=set())
    lacks = ", ".join(label for part, label in LABELS.items() if part not in most)
    raise UserError(f"TemplateFlow's {name} is incomplete: it has no {lacks}")


def _own(home: Path, name: str, listing: list[PurePosixPath]) -> list[PurePosixPath]:
    """Files that a lab has added to a template, such as maps that it lacks."""
    files = (PurePosixPath(path.relative_to(home)) for path in images(home / f"tpl-{name}", 1) if there(path))
    return [path for path in files if path not in listing]


def by_hand(home: Path, name: str, cohort: str) -> str:
    """Which files to put where, for a machine without a network."""
    folder = home / f"tpl-{name}" / cohort
    try:
        parts = parts_of([*offered(), *_own(home, name, offered())], name, cohort)
        files = [path for path in parts if not there(home / path)]
    except UserError as error:
        stem = "_".join(filter(None, (f"tpl-{name}", cohort)))
        return (
            f"{str(error)[0].upper()}{str(error)[1:]}. If you have the template, put {stem}_T2w.nii.gz, "
            f"{stem}_desc-brain_mask.nii.gz and {stem}_label-{{GM,WM,CSF}}_probseg.nii.gz in {folder} "
            f"(TEMPLATEFLOW_HOME={home})."
        )
    spec = f"{name}:{cohort}" if cohort else name
    return (
        f"Without a network, run bids-alphagan-template {spec} on a machine that has one and copy its folder "
        f"tpl-{name} to {home} (TEMPLATEFLOW_HOME={home}); or put into {folder}, from "
        f"{ARCHIVE}/{files[0].parent}/: {', '.join(path.name for path in files)}."
    )


def _newest(scratch: Path) -> list[PurePosixPath]:
    """The archive's current file list, or the packaged one without a network."""
    scratch.mkdir()
    (scratch / "here").touch()  # the client fills an empty folder
    _client(scratch).cache.update(local=False, overwrite=False, silent=True)
    return [
        PurePosixPath(path.relative_to(scratch).as_posix())
        for path in scratch.rglob("*")
        if path.parent != scratch and path.is_file()
    ]


def _client(root: Path) -> Any:
    with _templateflow_home(root):  # importing the client fills its default folder
        from templateflow.client import TemplateFlowClient
    return TemplateFlowClient(root=root, s3_root=ARCHIVE, use_datalad=False)


@contextmanager
def _templateflow_home(folder: Path) -> Iterator[None]:
    before = os.environ.get("TEMPLATEFLOW_HOME")
    os.environ["TEMPLATEFLOW_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TEMPLATEFLOW_HOME"]
        if before is not None:
            os.environ["TEMPLATEFLOW_HOME"] = before


def _move(stage: Path, home: Path, paths: list[PurePosixPath]) -> None:
    for path in paths:
        if not there(stage / path):
            raise UserError(f"{ARCHIVE}/{path} was downloaded as an empty file")
    for path in paths:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (stage / path).replace(home / path)


def _describe(home: Path, name: str, newest: Path) -> None:
    """Write template_description.json (species, authors, links), which the file lists contain, beside the images."""
    inside = f"tpl-{name}/template_description.json"
    if there(home / inside):
        return
    if there(newest / inside):
        write_text(home / inside, (newest / inside).read_text(encoding="utf-8"))
    elif PurePosixPath(inside) in offered():
        with ZipFile(_list()) as listing:
            write_text(home / inside, listing.read(inside).decode())
