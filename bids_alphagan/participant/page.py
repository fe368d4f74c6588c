"""sub-<label>.html: the processing of an animal's scans, and pictures of its masks."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bids_alphagan.bids.names import ScanName
from bids_alphagan.bids.prepared import PreparedScan, scan_masks, subject_scans
from bids_alphagan.participant.workflow import ScanResult
from bids_alphagan.qc.measures import MEASURES
from bids_alphagan.report import charts, figures
from bids_alphagan.report.html import write_page
from bids_alphagan.report.methods import compose
from bids_alphagan.segmenters import masks_text
from bids_alphagan.segmenters.base import Segmenter
from bids_alphagan.segmenters.methods import MaskFacts, mask_facts
from bids_alphagan.templates import Template


@dataclass(frozen=True)
class ScanSection:
    """The content of the page for one scan.

    Attributes
    ----------
    title: the scan's name, as its heading.
    reference: 3D NIfTI, or (x, y, z, 1), on the scan's own grid; None if the scan failed.
    preproc: the network's input, a cube in [-1, 1].
    masks: NIfTI on the reference's grid: probability maps under "GM", "WM", "CSF"; "dseg"; "brain". May be empty.
    measures: quality measures of the masks, with the names of `qc.measures.MEASURES`; empty without masks.
    parameters: of the processing, nested dicts and lists of plain values.
    notes: warnings, shown prominently.
    error: why the scan failed, or None.
    """

    title: str
    reference: Path | None = None
    preproc: Path | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    error: str | None = None


@dataclass(frozen=True)
class Preparation:
    """What all pages say about the run. grid: voxels along each edge of the cube. provenance: see `config.run`.

    intensity_percentile: the percentile of a scan that maps to 1.
    """

    grid: int
    intensity_percentile: float
    provenance: Mapping[str, Any]


def write_pages(
    output_dir: Path,
    results: Sequence[ScanResult],
    template: Template | None,
    segmenters: Mapping[str, Segmenter | None],
    notes: Mapping[str, Sequence[str]],
    preparation: Preparation,
    processes: int,
) -> None:
    """Write sub-<label>.html for each participant of `results`. segmenters, notes: by participant."""
    jobs = []
    for subject in dict.fromkeys(result.scan.name.subject for result in results):
        subject_results = [result for result in results if result.scan.name.subject == subject]
        masks = mask_facts(segmenters[subject], template)
        sections = [_section(output_dir, result, notes[subject]) for result in subject_results]
        names = [result.scan.name for result in subject_results]
        earlier = [scan for scan in subject_scans(output_dir, subject) if scan.name not in names]
        sections += [_earlier(scan) for scan in earlier]
        text = methods(preparation, masks)
        jobs.append((output_dir / f"sub-{subject}.html", subject, sections, preparation.provenance, text))
    if processes == 1 or len(jobs) == 1:
        for job in jobs:
            write_participant_page(*job)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(write_participant_page, *job) for job in jobs]:
            done.result()


def write_participant_page(
    path: Path, subject: str, scans: Sequence[ScanSection], provenance: Mapping[str, Any], methods: str
) -> None:
    """Write the page of one participant.

    Parameters
    ----------
    path: the HTML file; replaced as a whole.
    subject: label without ``sub-``.
    provenance: versions, command line, configuration; nested dicts and lists of plain values.
    methods: paragraphs separated by blank lines; a DOI written ``doi:10...`` becomes a link.
    """
    views = [_figures(scan) for scan in scans]
    write_page(
        path,
        "participant/participant.html.j2",
        described=MEASURES,
        subject=subject,
        scans=list(zip(scans, views, strict=True)),
        provenance=provenance,
        methods=methods,
    )


def methods(preparation: Preparation, masks: MaskFacts | None) -> str:
    """Describe the preparation of the scans for a manuscript. masks: None if there are none."""
    versions, grid = preparation.provenance["Versions"], preparation.grid
    software = (
        f"Scans in BIDS format [@bids] were prepared with bids-alphagan {versions['bids-alphagan']}, which "
        f"follows Ferreira et al. [@paper] and builds on nipype {versions['nipype']} [@nipype] and NiBabel "
        f"{versions['nibabel']} [@nibabel]."
    )
    percentile = preparation.intensity_percentile
    clipping = "" if percentile >= 100 else "; brighter voxels were set to 1"
    text = (
        "Each scan was reduced to one magnitude volume: time series were averaged without volumes that "
        "correlated poorly with the median volume. It was reoriented to RAS axes, padded with zeros to "
        f"{grid}×{grid}×{grid} voxels (resampled first along axes with more voxels) and scaled linearly to "
        f"the range from -1 to 1, where 1 is the scan's {percentile:g}th percentile{clipping}."
    )
    paragraphs = [f"{software} {text}", *([masks_text(masks)] if masks else [])]
    return compose(paragraphs, masks.citations if masks else {})


def _section(output_dir: Path, result: ScanResult, notes: Sequence[str]) -> ScanSection:
    name: ScanName = result.scan.name
    title = f"{name.stem}_{name.suffix}"
    if result.error:
        return ScanSection(title, error=result.error, notes=notes)
    parameters = {"Preparation": result.record}
    if result.provenance:
        parameters |= {"Segmentation": result.provenance}
    return ScanSection(
        title,
        reference=output_dir / name.image("reference"),
        preproc=output_dir / name.image("preproc"),
        masks=scan_masks(output_dir, name),
        measures=result.quality,
        parameters=parameters,
        notes=[*notes, *_warnings(result.provenance)],
    )


def _earlier(scan: PreparedScan) -> ScanSection:
    """A scan of the same animal that another run prepared."""
    parameters = {"Preparation": scan.record}
    if scan.segmentation:
        parameters |= {"Segmentation": scan.segmentation}
    return ScanSection(
        f"{scan.name.stem}_{scan.name.suffix}",
        reference=scan.reference,
        preproc=scan.preproc,
        masks=scan.masks,
        measures=scan.quality,
        parameters=parameters,
        notes=[
            "This scan was prepared by another run than the one that wrote this page.",
            *_warnings(scan.segmentation),
        ],
    )


def _warnings(provenance: Mapping[str, Any]) -> list[str]:
    notes = [str(provenance["Note"])] if "Note" in provenance else []
    return [*notes, *(f"Check the header: {warning}." for warning in provenance.get("Warnings", []))]


def _figures(scan: ScanSection) -> dict[str, Any]:
    if scan.reference is None:
        return {}
    image = figures.load(scan.reference)
    maps = figures.tissue_maps(scan.masks)
    at = figures.centre(image, maps)
    voxel = float(np.prod(image.zooms))
    views: dict[str, Any] = {
        "grid": " × ".join(str(n) for n in image.data.shape),
        "zooms": " × ".join(f"{zoom:.3g}" for zoom in image.zooms),
        "planes": figures.three_planes(image, {}, at),
        "volumes": {t: float(maps[t].sum() * voxel) for t in figures.TISSUES if t in maps},
    }
    if maps:
        views["masks"] = figures.three_planes(image, maps, at)
        views["mosaic"] = figures.mosaic(image, maps)
    if scan.preproc is not None:
        views["histograms"] = charts.histograms(scan.reference, scan.preproc, maps)
    return views
