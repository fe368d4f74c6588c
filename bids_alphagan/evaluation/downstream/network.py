"""The segmentation network: a MONAI UNet, its training for a fixed number of steps, and its output."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bids_alphagan.bids.names import TISSUES
from bids_alphagan.common.errors import UserError
from bids_alphagan.evaluation.downstream.arms import ARMS, Arm
from bids_alphagan.evaluation.downstream.scans import Scan

CLASSES = len(TISSUES) + 1


@dataclass(frozen=True)
class Settings:
    """The settings of the trainings, the same for every arm.

    steps: of the optimiser. seeds: trainings per arm. channels: of the network's levels; the first two
    work at full resolution, because white matter may be one voxel thick, each further one at half the resolution.
    residual_units: per level; 0: plain convolutions. learning_rate: of Adam at the first step, with cosine decay to 0.
    """

    arms: tuple[Arm, ...] = ARMS
    steps: int = 3000
    seeds: int = 3
    batch_size: int = 4
    channels: tuple[int, ...] = (16, 32, 64, 128)
    residual_units: int = 2
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if len(self.channels) < 2:
            raise UserError("--downstream-channels: give at least two numbers, one per level of the network.")

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides from level to level."""
        return (1, *(2,) * (len(self.channels) - 2))

    @property
    def multiple(self) -> int:
        """Scans are padded to multiples of this number of voxels."""
        return math.prod(self.strides)


class Data:
    """Scans, on the device if they fit into half of its free memory, else on the host.

    images: float32 (n, 1, X, Y, Z), padded with 0 after the last voxels; labels: uint8, in the same way.
    """

    def __init__(self, scans: Sequence[Scan], multiple: int, device: torch.device) -> None:
        self.device, self.shape = device, scans[0].image.shape
        ends = [-n % multiple for n in self.shape]
        around = [0, ends[2], 0, ends[1], 0, ends[0]]
        images = torch.from_numpy(np.stack([scan.image.astype(np.float32) for scan in scans]))
        labels = torch.from_numpy(np.stack([scan.labels.astype(np.uint8) for scan in scans]))
        home = device if fits(images, device) else torch.device("cpu")
        self.images, self.labels = (
            nn.functional.pad(values, around)[:, None].to(home) for values in (images, labels)
        )

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (b, 1, X, Y, Z) and labels of these scans, on the device."""
        which = torch.as_tensor(list(indices), device=self.images.device)
        return self.images[which].to(self.device), self.labels[which].to(self.device)


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether scans and labels take at most half of the free memory of a GPU."""
    if device.type != "cuda":
        return True
    return images.nbytes * 1.25 < 0.5 * torch.cuda.mem_get_info(device)[0]


def new_network(settings: Settings, seed: int) -> nn.Module:
    """A network with weights from `seed`; torch's random state is unchanged."""
    from monai.networks.nets.unet import UNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=CLASSES,
            channels=settings.channels,
            strides=settings.strides,
            num_res_units=settings.residual_units,
        )


def augmentation(seed: int) -> Callable[[dict[str, Any]], Any]:
    """Conventional augmentation of {"image", "labels"}, each (1, x, y, z) with x from left to right.

    Flip left-right, rotate by up to 6 degrees, zoom by up to 10 %, shift by up to 2 voxels; gamma, noise, coil
    shading.
    """
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.dictionary import (
        RandAdjustContrastd,
        RandBiasFieldd,
        RandGaussianNoised,
    )
    from monai.transforms.spatial.dictionary import RandAffined, RandFlipd

    both = ("image", "labels")
    transform = Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandAffined(
                both,
                prob=0.5,
                rotate_range=(0.1, 0.1, 0.1),
                scale_range=(0.1, 0.1, 0.1),
                translate_range=(2, 2, 2),
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandBiasFieldd("image", prob=0.3, degree=2, coeff_range=(-0.2, 0.2)),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.4)),
            RandGaussianNoised("image", prob=0.3, std=0.03),
        ]
    )
    transform.set_random_state(seed)
    return lambda pair: transform(
        pair
    )  # not the Compose itself: evaluating its truth value (its length) reseeds it


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Make MONAI's transforms return plain tensors, without metadata."""
    from monai.data.meta_obj import get_track_meta, set_track_meta

    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def draw_batches(pool: Sequence[int], size: int, steps: int, seed: int) -> Iterator[list[int]]:
    """`steps` batches of `size` members of the pool, which is traversed in a new order each time."""
    source, waiting = np.random.default_rng([seed, 2]), list[int]()
    for _ in range(steps):
        while len(waiting) < size:
            waiting += [pool[i] for i in source.permutation(len(pool))]
        yield waiting[:size]
        waiting = waiting[size:]


def train_network(
    data: Data,
    pool: Sequence[int],
    settings: Settings,
    augment: bool,
    seed: int,
    after_step: Callable[[], None] = lambda: None,
) -> nn.Module:
    """Train a network on the scans `pool` of `data` for settings.steps steps, whatever their number.

    There is no model selection: the network after the last step is the result. On a CPU with the same number of
    threads the same arguments give the same network. Loss: Dice plus cross-entropy, with equal weights.

    Raises UserError if the loss is not finite at the end.
    """
    from monai.losses.dice import DiceCELoss

    network = new_network(settings, seed).to(data.device)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    loss_of = DiceCELoss(softmax=True, to_onehot_y=True)
    change = augmentation(seed) if augment else None
    loss = torch.zeros(())
    with plain_tensors():
        for indices in draw_batches(pool, settings.batch_size, settings.steps, seed):
            images, labels = data.batch(indices)
            if change:
                pairs = [change({"image": i, "labels": t}) for i, t in zip(images, labels, strict=True)]
                images, labels = (torch.stack([pair[key] for pair in pairs]) for key in ("image", "labels"))
            loss = loss_of(network(images), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            after_step()
    if not torch.isfinite(loss):
        raise UserError(
            f"downstream: the segmentation network diverged at a learning rate of {settings.learning_rate:g}."
            " Give a smaller one."
        )
    return network.eval()


def segment(network: nn.Module, data: Data, index: int) -> np.ndarray:
    """The labels that a network predicts for one scan: uint8 (x, y, z)."""
    with torch.inference_mode():
        scores = network(data.batch([index])[0])[0]
    inside = tuple(slice(0, n) for n in data.shape)
    return scores.argmax(dim=0)[inside].to(torch.uint8).cpu().numpy()
