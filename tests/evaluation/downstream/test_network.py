"""The segmentation network: shapes, batches, augmentation; it learns."""

from dataclasses import replace

import numpy as np
import torch
from toy_scans import LEARNING, QUICK, REAL, SHAPE, toys

from bids_alphagan.evaluation.downstream import network
from bids_alphagan.evaluation.downstream.measures import measure
from bids_alphagan.evaluation.downstream.network import Settings


def test_odd_sizes_come_back_whole_and_a_seed_is_a_network() -> None:
    data = network.Data(REAL, 4, torch.device("cpu"))
    assert data.images.shape == (7, 1, 8, 8, 12)
    assert data.images[..., 7:, :, :].abs().sum() == 0
    settings = Settings(**{**vars(QUICK), "channels": (2, 3, 4, 5)})
    state = torch.get_rng_state()
    first, again, other = (network.train_network(data, [0, 1], settings, True, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    made = network.segment(first, data, 0)
    assert (made.shape, made.dtype) == (SHAPE, np.uint8)
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_augmentation_moves_image_and_labels_together() -> None:
    labels = np.zeros((1, 20, 22, 24), np.uint8)
    labels[0, 3:9, 5:17, 6:18] = 1
    pair = {"image": torch.from_numpy(labels).float(), "labels": torch.from_numpy(labels)}
    change, moved = network.augmentation(0), 0
    with network.plain_tensors():
        for _ in range(12):
            made = change(dict(pair))
            values, kept = (made[key].numpy().ravel() for key in ("image", "labels"))
            assert set(np.unique(kept)) == {0, 1}
            assert np.corrcoef(values, kept)[0, 1] > 0.85
            moved += np.corrcoef(kept, labels.ravel())[0, 1] < 0.85
    assert moved > 2


def test_each_scan_of_the_pool_is_seen_as_often() -> None:
    batches = list(network.draw_batches([3, 5, 8], 2, 6, seed=0))
    assert [len(batch) for batch in batches] == [2] * 6
    assert np.bincount(np.ravel(batches)).tolist() == [0, 0, 0, 4, 0, 4, 0, 0, 4]


def test_a_small_network_learns_the_tissues() -> None:
    scans = toys("abcdefgh")
    data = network.Data(scans, LEARNING.multiple, torch.device("cpu"))
    untrained, made = (
        network.train_network(data, range(6), replace(LEARNING, learning_rate=rate), False, 0)
        for rate in (0.0, 3e-2)
    )
    for index in (6, 7):
        scan = scans[index]
        found, before = (
            measure(network.segment(net, data, index), scan.labels, scan.spacing, {})
            for net in (made, untrained)
        )
        assert min(row["dice"] for row in found) > 0.8
        assert max(row["surface_distance"] for row in found if row["tissue"] != "global") < 0.3
        assert before[-1]["dice"] < 0.6
