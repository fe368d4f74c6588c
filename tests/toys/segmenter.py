"""A toy segmenter: bright voxels are brain, cut into three tissues by their intensity."""

from dataclasses import dataclass

import numpy as np

from bids_alphagan.segmenters.base import finish, read_ras


@dataclass(frozen=True)
class ToySegmenter:
    template: object
    name: str = "toy"
    label = "Threshold"
    advice = "It is always there"
    methods = "by a threshold ({name} {version}, template {template})"

    @classmethod
    def missing(cls, options) -> str:
        return ""

    @classmethod
    def create(cls, template, options, note=""):
        return cls(template)

    def memory_gb(self, voxels: int) -> float:
        return 0.1

    def describe(self):
        return {"Name": self.label, "Version": "1", "Template": self.template.name}

    def __call__(self, scan, scratch):
        data, affine, back = read_ras(scan)
        cuts = np.percentile(data, (60, 75, 90))
        band = np.digitize(data, cuts)
        maps = {
            tissue: (band == k).astype(np.float32) for k, tissue in enumerate(("GM", "WM", "CSF"), start=1)
        }
        brain = band > 0
        warped = {**maps, "brain": brain.astype(np.float32), "template": data}
        return finish(data, affine, maps, brain, warped, self.describe(), back)
