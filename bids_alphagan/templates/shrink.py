"""A true-size copy of a template that was enlarged for SPM."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import atomic_write
from bids_alphagan.common.volume import load
from bids_alphagan.templates.checks import ENLARGED
from bids_alphagan.templates.names import Parts, there


def shrink(parts: Parts, folder: Path) -> None:
    """Copy a template's parts to `folder` with voxel sizes and positions, in mm, divided by ten.

    Intensities are unchanged. Raises UserError if `folder` is not empty, or a part is damaged.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty. Give a new folder.")
    for path in parts.values():
        try:
            image = load(path)
            data = np.asanyarray(image.dataobj)
        except Exception as error:  # nibabel, zlib and the file system each raise their own
            raise UserError(f"{path} is damaged: it cannot be read ({error}). Copy it again.") from error
        affine = np.diag([1 / ENLARGED] * 3 + [1.0]) @ image.affine
        copy = nib.Nifti1Image(data, affine, dtype=data.dtype)
        copy.set_qform(affine, code=2)
        copy.set_sform(affine, code=2)
        copy.header.set_xyzt_units("mm")
        with atomic_write(folder / path.name) as temporary:
            nib.save(copy, temporary)
    for source in (parts["t2w"].parent, parts["t2w"].parent.parent):
        if there(source / "template_description.json"):
            shutil.copyfile(source / "template_description.json", folder / "template_description.json")
            break
