"""The nodes of the participant level's workflow: the processing of one scan, as nipype interfaces."""

import traceback
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    BaseInterface,
    BaseInterfaceInputSpec,
    File,
    TraitedSpec,
    traits,
)

from bids_alphagan import __version__
from bids_alphagan.bids.derivatives import remove, write_corrected, write_masks, write_prepared
from bids_alphagan.bids.names import ScanName, uri
from bids_alphagan.common.errors import ScanError
from bids_alphagan.common.files import read_json, write_json
from bids_alphagan.common.volume import conform, load, read_reference

N4 = "N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908), extreme values clipped"
# The files that nodes pass on, each in its node's folder.
FILES = {
    "reference": "reference.nii.gz",
    "reading": "reading.json",
    "cube": "cube.nii.gz",
    "conforming": "conforming.json",
    "maps": "maps.npz",
    "segmentation": "segmentation.json",
    "result": "result.json",
}


class _ScanInput(BaseInterfaceInputSpec):
    version = traits.Str(__version__, usedefault=True, desc="of this app; another version repeats the work")
    failure_file = File(desc="records a failure, so that the report can give its reason", nohash=True)


class _ScanInterface(BaseInterface):
    """An interface that records the reason of a failure before nipype handles it."""

    def _run_interface(self, runtime: Any) -> Any:
        try:
            self._process(Path(runtime.cwd))
        except Exception as error:
            bad_scan = isinstance(error, ScanError)
            reason = str(error) if bad_scan else f"{type(error).__name__}: {error}"
            facts = {"reason": reason, "bad_scan": bad_scan, "traceback": traceback.format_exc()}
            write_json(Path(self.inputs.failure_file), facts)
            raise
        return runtime

    def _process(self, folder: Path) -> None:
        raise AssertionError("subclasses implement _process")

    def _list_outputs(self) -> dict[str, Any]:
        outputs = self.output_spec().get()
        return {name: str(Path.cwd() / FILES[name]) for name in outputs}


class _ReadInput(_ScanInput):
    in_file = File(mandatory=True)


class _ReadOutput(TraitedSpec):
    reference = File(exists=True)
    reading = File(exists=True)


class ReadReference(_ScanInterface):
    """Raw scan -> one 3D float volume (see `volume.read_reference`)."""

    input_spec = _ReadInput
    output_spec = _ReadOutput

    def _process(self, folder: Path) -> None:
        image, record = read_reference(Path(self.inputs.in_file))
        image.header.set_data_dtype(np.float32)
        nib.save(image, folder / FILES["reference"])
        write_json(folder / FILES["reading"], record)


class _ConformInput(_ScanInput):
    reference = File(exists=True, mandatory=True)
    grid = traits.Int(mandatory=True)
    upper_percentile = traits.Float(mandatory=True)


class _ConformOutput(TraitedSpec):
    cube = File(exists=True)
    conforming = File(exists=True)


class ConformToGrid(_ScanInterface):
    """3D volume -> the network's cube in [-1, 1] (see `volume.conform`)."""

    input_spec = _ConformInput
    output_spec = _ConformOutput

    def _process(self, folder: Path) -> None:
        cube = conform(load(self.inputs.reference), self.inputs.grid, self.inputs.upper_percentile)
        nib.save(nib.Nifti1Image(cube.data, cube.affine), folder / FILES["cube"])
        write_json(folder / FILES["conforming"], cube.record)


class _SegmentInput(_ScanInput):
    reference = File(exists=True, mandatory=True)
    segment = traits.Any(mandatory=True, desc="a frozen dataclass: its repr enters nipype's hash")


class _SegmentOutput(TraitedSpec):
    maps = File(exists=True)
    segmentation = File(exists=True)


class SegmentTissue(_ScanInterface):
    """3D volume -> tissue probability maps, dseg and brain mask on the scan's own grid."""

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _process(self, folder: Path) -> None:
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        try:
            segmentation = self.inputs.segment(Path(self.inputs.reference), scratch)
        except ScanError as error:  # users know the scan by its own path, not by that of this copy
            raise ScanError(str(error).removeprefix(f"{self.inputs.reference}: ")) from error
        maps = {**segmentation.probseg, "dseg": segmentation.dseg, "brain": segmentation.brain}
        if segmentation.corrected is not None:
            maps["corrected"] = segmentation.corrected
        np.savez_compressed(folder / FILES["maps"], **maps)
        facts = {"provenance": segmentation.provenance, "quality": segmentation.measures}
        write_json(folder / FILES["segmentation"], facts)


class _WriteInput(_ScanInput):
    in_file = File(exists=True, mandatory=True)
    reference = File(exists=True, mandatory=True)
    reading = File(exists=True, mandatory=True)
    cube = File(exists=True, mandatory=True)
    conforming = File(exists=True, mandatory=True)
    maps = File(exists=True)
    segmentation = File(exists=True)
    output_dir = traits.Str(mandatory=True)
    raw_path = traits.Str(mandatory=True, desc="path of the raw scan in its data set")
    metadata = traits.Dict(mandatory=True)
    bias_corrected = traits.Bool(False, usedefault=True, desc="also write the scan without coil shading")


class _WriteOutput(TraitedSpec):
    result = File(exists=True)


class WriteDerivatives(_ScanInterface):
    """All derivatives of one scan -> output_dir. The prepared cube is written last: with it the set is complete."""

    input_spec = _WriteInput
    output_spec = _WriteOutput

    def _process(self, folder: Path) -> None:
        inputs = self.inputs
        root, name = Path(inputs.output_dir), ScanName.parse(Path(inputs.raw_path).name)
        raw = load(inputs.in_file)
        reference = load(inputs.reference)
        record = read_json(Path(inputs.reading)) | read_json(Path(inputs.conforming))
        facts: dict[str, Any] = {"provenance": {}, "quality": {}}
        has_corrected = False
        if inputs.maps:
            facts = read_json(Path(inputs.segmentation))
            with np.load(inputs.maps, allow_pickle=False) as maps:
                source = uri(name.image("reference"))
                write_masks(root, name, reference, maps, source, facts["provenance"], facts["quality"])
                has_corrected = inputs.bias_corrected and "corrected" in maps
                if has_corrected:
                    method = facts["provenance"].get("BiasCorrection", N4)
                    write_corrected(root, name, raw, maps["corrected"], source, method, inputs.metadata)
        stale = [] if inputs.maps else list(name.masks().values())  # from an earlier run with a segmenter
        remove(root, stale if has_corrected else [*stale, name.image("biascorrected")])
        raw_uri = uri(Path(inputs.raw_path), "raw")
        data = np.asarray(reference.dataobj)
        write_prepared(root, name, raw, raw_uri, data, load(inputs.cube), record, inputs.metadata)
        write_json(folder / FILES["result"], facts | {"record": record})
