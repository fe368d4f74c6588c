"""The output data sets: descriptions, sidecars, and the files of the participant level."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_alphagan import __version__
from bids_alphagan.bids.names import TISSUES, ScanName, sidecar, uri
from bids_alphagan.common.errors import UserError, unwritable
from bids_alphagan.common.files import read_json, write_json, write_text, write_tsv
from bids_alphagan.common.volume import save, with_grid, with_header

BIDS_VERSION = "1.10.0"
_MAKER = "bids-alphagan"
SYNTHESIS_RECORD = "synthesis.json"  # in a model's folder: how its cohort was made
# No trailing slashes, with which the validator would still read the folders.
_IGNORED = ("*.html", "figures", "models", "group_*")
_SECONDS = {"msec": 1e-3, "usec": 1e-6}
_README = """\
{name}

Made by bids-alphagan {version} from {source}.

{body}
"""
_PARTICIPANT_README = """\
sub-*/          prepared scans (desc-reference: one volume on the scan's own grid; desc-preproc: the cube that
                the networks see, in [-1, 1]; desc-biascorrected, optional: without coil shading), tissue
                probability maps, dseg (1 GM, 2 WM, 3 CSF), brain masks
sub-*.html      one report per animal: open these first
models/         training runs: configuration, losses, checkpoints
derivatives/    the synthetic cohorts, one BIDS data set per model
group.html      the group report; group_*.tsv: its numbers, each with a JSON file that describes the columns
logs/           the runs, with all options"""
_COHORT_README = """\
Every scan in this data set is synthetic: no animal was scanned for it. The sidecars name the model, the seed
and the real scan whose header and grid were used. participants.tsv lists seeds and quality measures."""


def is_foreign(folder: Path) -> bool:
    """Whether `folder` is a data set of other software, which must not be overwritten.

    Raises UserError if its description cannot be read.
    """
    description = folder / "dataset_description.json"
    try:
        makers = read_json(description)["GeneratedBy"] if description.exists() else [{"Name": _MAKER}]
        return _MAKER not in [maker["Name"] for maker in makers]
    except (KeyError, TypeError):
        return True
    except ValueError as error:
        raise UserError(
            f"{description}: empty or damaged ({error}). Remove it if the folder is an output of this app; "
            "else give another OUTPUT_DIR."
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error


def describe_output(output_dir: Path, bids_dir: Path) -> None:
    """Make `output_dir` a derivative data set. Several runs may do so at once."""
    name = "bids-alphagan derivatives"
    links = {"raw": bids_dir.resolve().as_uri()}
    write_json(output_dir / "dataset_description.json", _description(name, links))
    write_text(output_dir / ".bidsignore", "\n".join(_IGNORED) + "\n")
    write_text(output_dir / "README", _readme(name, "the data set named in it as 'raw'", _PARTICIPANT_README))
    _write_dseg_table(output_dir)


def describe_cohort(folder: Path, model: str, bids_dir: Path) -> None:
    """Make `folder` a data set of its own that holds the synthetic cohort of one model."""
    name = f"Synthetic rat-brain MRI ({model})"
    links = {"raw": bids_dir.resolve().as_uri(), "alphagan": "../.."}
    write_json(folder / "dataset_description.json", _description(name, links))
    write_text(folder / "README", _readme(name, "the data set in ../..", _COHORT_README))
    _write_dseg_table(folder)


def _readme(name: str, source: str, body: str) -> str:
    return _README.format(name=name, version=__version__, source=source, body=body)


def _description(name: str, links: Mapping[str, str]) -> dict[str, Any]:
    made_by: dict[str, Any] = {
        "Name": _MAKER,
        "Version": __version__,
        "Description": "3D alpha-GANs for rat-brain MRI (Ferreira et al. 2022, doi 10.3390/app12104844)",
    }
    if container := os.environ.get("BIDS_ALPHAGAN_CONTAINER"):  # type:tag, set inside our images
        kind, _, tag = container.partition(":")
        made_by["Container"] = {"Type": kind, "Tag": tag}
    return {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
        "SourceDatasets": [{"URL": url} for url in links.values()],
        "DatasetLinks": dict(links),
        "HowToAcknowledge": "Please cite doi 10.3390/app12104844 and the references in the reports.",
    }


def _write_dseg_table(folder: Path) -> None:
    names = {"GM": "Gray Matter", "WM": "White Matter", "CSF": "Cerebrospinal Fluid"}
    rows = [
        {"index": i + 1, "name": names[tissue], "abbreviation": tissue} for i, tissue in enumerate(TISSUES)
    ]
    write_tsv(folder / "dseg.tsv", rows)


def write_scan(
    root: Path,
    path: Path,
    image: nib.Nifti1Image,
    description: str,
    sources: Sequence[str],
    keys: Mapping[str, Any],
) -> None:
    """Write an image and its sidecar with `keys`. The sidecar comes first, so that no image lacks one."""
    facts = {"Description": description, "SkullStripped": False, "Sources": list(sources)}
    write_json(sidecar(root / path), {**keys, **facts})
    save(image, root / path)


def write_prepared(
    root: Path,
    name: ScanName,
    raw: nib.Nifti1Image,
    raw_uri: str,
    reference: np.ndarray,
    cube: nib.Nifti1Image,
    record: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> None:
    """Write desc-reference (with the raw scan's header and data type) and desc-preproc (the network's cube).

    reference: (x, y, z) on the scan's own grid. cube: (N, N, N) in [-1, 1]. record: the sidecar's "Preparation".
    metadata: the raw scan's.
    """
    is_bold = name.suffix == "bold"
    data = np.asarray(cube.dataobj, np.float32)
    cube = nib.Nifti1Image(data[..., None] if is_bold else data, cube.affine)
    cube.header.set_xyzt_units("mm", "sec")
    cube.set_sform(cube.affine, code=1)
    cube.set_qform(cube.affine, code=1)
    timing = {}
    seconds = float(raw.header["pixdim"][4]) * _SECONDS.get(raw.header.get_xyzt_units()[1], 1.0)
    if is_bold and (repetition := metadata.get("RepetitionTime") or seconds):
        cube.header["pixdim"][4] = repetition
        timing["RepetitionTime"] = repetition
    task = {key: metadata[key] for key in ("TaskName",) if key in metadata}
    write_scan(
        root,
        name.image("reference"),
        with_header(reference, raw, time_axis=is_bold),  # BIDS: bold is 4D, anatomical scans are 3D
        "Magnitude image, averaged over the volumes that agree with one another, on the scan's own grid",
        [raw_uri],
        metadata,
    )
    write_scan(
        root,
        name.image("preproc"),
        cube,
        "Scan on the network's grid (RAS axes, zero padded), intensities in [-1, 1]",
        [raw_uri],
        {**task, **timing, "Preparation": dict(record)},
    )


def write_corrected(
    root: Path,
    name: ScanName,
    raw: nib.Nifti1Image,
    data: np.ndarray,
    source: str,
    method: str,
    metadata: Mapping[str, Any],
) -> None:
    """Write desc-biascorrected: `data` (x, y, z) with the raw scan's header, as float32.

    source: URI of the image that was corrected. method: how.
    """
    data = np.asarray(data, dtype=np.float32)
    image = with_grid(data[..., None] if name.suffix == "bold" else data, raw)
    what = "Reference image without the slow changes of intensity that the coil makes"
    path = name.image("biascorrected")
    write_scan(root, path, image, what, [source], {**metadata, "BiasCorrection": method})


def write_masks(
    root: Path,
    name: ScanName,
    like: nib.Nifti1Image,
    maps: Mapping[str, np.ndarray],
    source: str,
    segmentation: Mapping[str, Any],
    quality: Mapping[str, float | None],
    desc: str | None = None,
) -> None:
    """Write probability maps, dseg and brain mask with sidecars, on the grid and affine of `like`.

    maps: "GM", "WM", "CSF" (float, [0, 1]), "dseg" (0 to 3), "brain" (bool), each (x, y, z).
    source: URI of the image that was segmented, and whose space the masks are in.
    """
    what = dict.fromkeys(TISSUES, "Tissue probability") | {
        "dseg": "Most probable tissue",
        "brain": "Brain mask",
    }
    for key, path in name.masks(desc).items():
        data = maps[key].astype(np.float32 if key in TISSUES else np.uint8)
        facts: dict[str, Any] = {"Description": what[key] + (f" of {key}" if key in TISSUES else "")}
        facts |= {"Sources": [source], "SpatialReference": source, "Segmentation": dict(segmentation)}
        if key == "brain":
            facts["Type"] = "Brain"
        if key == "dseg":
            facts["Quality"] = dict(quality)
        write_json(sidecar(root / path), facts)
        save(with_grid(data, like), root / path)


def forget(root: Path, name: ScanName) -> bool:
    """Remove all derivatives of a scan, so that the group level does not use it. True if there were any."""
    images = [name.image(desc) for desc in ("preproc", "reference", "biascorrected")]
    return remove(root, [*images, *name.masks().values()])


def remove(root: Path, images: Iterable[Path]) -> bool:
    """Remove images and their sidecars, if they exist. True if there were any."""
    files = [path for image in images for path in (root / image, sidecar(root / image)) if path.is_file()]
    for path in files:
        path.unlink()
    return bool(files)


def model_folder(output_dir: Path, model: str) -> Path:
    """The folder of a model's training run."""
    return output_dir / "models" / model


def cohort_folder(output_dir: Path, model: str) -> Path:
    """The folder of a model's synthetic cohort; BIDS does not allow output_dir/synthetic."""
    return output_dir / "derivatives" / model


def synthetic_name(index: int, like: ScanName) -> ScanName:
    """Name of synthetic scan `index` (from 1): that of the real scan without session and run."""
    rest = like.without("sub", "ses", "run").entities
    return ScanName((("sub", f"synth{index:04d}"), *rest), like.suffix)


def real_uri(output_dir: Path, path: Path) -> str:
    """URI of a file of `output_dir`, from a cohort in it."""
    return uri(path.relative_to(output_dir), "alphagan")


def write_participants(folder: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Write participants.tsv and .json of a cohort; `columns` describes every column."""
    write_tsv(folder / "participants.tsv", rows, list(columns))
    write_json(folder / "participants.json", {name: {"Description": text} for name, text in columns.items()})
