"""TemplateFlow's archive: what it offers, and how parts of it come here whole or not at all.

Its client writes each file where it is to stay, and takes any that is not empty for complete. So it works in
a folder of its own here, from which finished files are moved to their place: an interrupted download leaves
nothing that counts as there, and jobs that start at once do not see each other's halves.
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
    """Fetch the parts of a template that are not in `home`, or all of them `again`.

    What a lab has added there itself counts as the template's, and is left as it is. Of several resolutions
    it is the highest index, TemplateFlow's coarsest. Raises UserError when the archive has no such template,
    and whatever the client raises when the download fails.
    """
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=home) as scratch:
        stage, newest = Path(scratch) / "home", Path(scratch) / "newest"
        listing = offered()
        if not any(path.parts[0] == f"tpl-{name}" for path in listing):
            listing = _newest(newest)
        parts = parts_of([*listing, *_own(home, name, listing)], name, cohort)
        wanted = [path for path in parts if path in listing and (again or not there(home / path))]
        for path in wanted:
            (stage / path).parent.mkdir(parents=True, exist_ok=True)
            (stage / path).touch()
            log.info("Downloading %s/%s", ARCHIVE, path)
        if wanted:
            _client(stage).get(name, raise_empty=True)
            _move(stage, home, wanted)
        _describe(home, name, newest)


def reachable() -> bool:
    """Whether the archive answers from here."""
    import requests  # the client's own means, with the same proxies and certificates

    try:
        requests.head(ARCHIVE, timeout=5)
    except requests.RequestException:
        return False
    return True


def offered() -> list[PurePosixPath]:
    """All files of TemplateFlow's archive, as the installed client knows it. No network is needed."""
    with ZipFile(_list()) as listing:
        return [PurePosixPath(entry) for entry in listing.namelist() if not entry.endswith("/")]


def _list() -> Path:
    package = importlib.util.find_spec("templateflow")  # importing it would write into its home
    assert package  # it is a dependency
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0], "conf", "templateflow-skel.zip")


def parts_of(listing: list[PurePosixPath], name: str, cohort: str) -> list[PurePosixPath]:
    """The files of a template that are needed, of one resolution. Raises UserError when it has not all."""
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
            f"TemplateFlow has {name} as " + ", ".join(f"{name}:{one}" for one in cohorts) + "; choose one"
        )
    most = max((set(parts) for parts in sets_of(here).values()), key=len, default=set())
    lacks = ", ".join(label for part, label in LABELS.items() if part not in most)
    raise UserError(f"what TemplateFlow has of {name} does not suffice: it has no {lacks}")


def _own(home: Path, name: str, listing: list[PurePosixPath]) -> list[PurePosixPath]:
    """What a lab has added to a template, such as maps for one that comes without."""
    files = (PurePosixPath(path.relative_to(home)) for path in images(home / f"tpl-{name}", 1) if there(path))
    return [path for path in files if path not in listing]


def by_hand(home: Path, name: str, cohort: str) -> str:
    """Which files to place where, for a machine without a network."""
    folder = home / f"tpl-{name}" / cohort
    try:
        parts = parts_of([*offered(), *_own(home, name, offered())], name, cohort)
        files = [path for path in parts if not there(home / path)]
    except UserError as error:
        stem = "_".join(filter(None, (f"tpl-{name}", cohort)))
        return (
            f"{str(error)[0].upper()}{str(error)[1:]}. If you have it elsewhere, place {stem}_T2w.nii.gz, "
            f"{stem}_desc-brain_mask.nii.gz and {stem}_label-{{GM,WM,CSF}}_probseg.nii.gz in {folder} "
            f"(TEMPLATEFLOW_HOME={home})."
        )
    spec = f"{name}:{cohort}" if cohort else name
    return (
        f"Without a network, run bids-alphagan-template {spec} on a machine that has one and copy its folder "
        f"tpl-{name} to {home} (TEMPLATEFLOW_HOME={home}); or place in {folder}, from "
        f"{ARCHIVE}/{files[0].parent}/: {', '.join(path.name for path in files)}."
    )


def _newest(scratch: Path) -> list[PurePosixPath]:
    """The archive's files by today's list; the packaged one where there is no network."""
    scratch.mkdir()
    (scratch / "here").touch()  # the client fills an empty folder by itself
    _client(scratch).cache.update(local=False, overwrite=False, silent=True)
    return [
        PurePosixPath(path.relative_to(scratch).as_posix())
        for path in scratch.rglob("*")
        if path.parent != scratch and path.is_file()
    ]


def _client(root: Path) -> Any:
    with _templateflow_home(root):  # importing the client lays out its default folder
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
            raise UserError(f"{ARCHIVE}/{path} came empty")
    for path in paths:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (stage / path).replace(home / path)


def _describe(home: Path, name: str, newest: Path) -> None:
    """Species, authors and links beside the images: the lists, the packaged and the newest, contain them."""
    inside = f"tpl-{name}/template_description.json"
    if there(home / inside):
        return
    if there(newest / inside):
        write_text(home / inside, (newest / inside).read_text(encoding="utf-8"))
    elif PurePosixPath(inside) in offered():
        with ZipFile(_list()) as listing:
            write_text(home / inside, listing.read(inside).decode())
