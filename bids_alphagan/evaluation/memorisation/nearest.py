"""The nearest scans of each scan in another set, in any pose, mirrored or not."""

from dataclasses import dataclass

import numpy as np

from bids_alphagan.evaluation.memorisation.alignment import Aligned, Library, Region, on_pairs, to_mean

CANDIDATES = 6  # animals with which each scan is aligned, the most similar ones in the mean's pose
CLOSEST = 1e-3  # smallest distance, about the rounding error


@dataclass(frozen=True)
class Queries:
    """Scans whose neighbours are searched, unchanged and mirrored along the first axis (left and right)."""

    plain: Aligned
    mirrored: Aligned

    @classmethod
    def of(cls, scans: np.ndarray, reference: np.ndarray, region: Region) -> "Queries":
        """From scans (n, x, y, z), aligned with `reference`; they are mirrored at the region's middle."""
        mirrored = np.ascontiguousarray(scans[:, ::-1])
        return cls(to_mean(scans, reference, region), to_mean(mirrored, reference, region))

    def __len__(self) -> int:
        return len(self.plain)


@dataclass(frozen=True)
class Nearest:
    """The most similar scans of up to CANDIDATES different animals, nearest first: all (n, k).

    index: of the scan in the library, -1 if there are fewer. similarity: correlation in [0, 1], 0 for index -1.
    mirrored: whether the query is mirrored. moves: (n, k, 3, 4), from the mean's points to the query's.
    """

    index: np.ndarray
    similarity: np.ndarray
    mirrored: np.ndarray
    moves: np.ndarray

    @property
    def distance(self) -> np.ndarray:
        """Euclidean distance of the scans with mean 0 and length 1: sqrt(2 (1 - similarity))."""
        return np.maximum(np.sqrt(np.maximum(2 * (1 - self.similarity), 0)), CLOSEST)


def nearest(queries: Queries, library: Library, region: Region, own: np.ndarray | None = None) -> Nearest:
    """Search `library`. `own`: each query's animal, whose scans are excluded.

    The candidate animals are chosen in the mean's pose; then the query is aligned with the best scan of each.
    """
    likeness = np.stack(
        [(side.values @ library.aligned.values.T).numpy() for side in (queries.plain, queries.mirrored)]
    ).astype(float)
    if own is not None:
        likeness[:, own[:, None] == library.animals[None, :]] = -np.inf
    best = likeness.max(axis=0)
    candidates = np.stack([_candidates(row, library.animals) for row in best])
    n, k = candidates.shape
    similarity, moves = np.zeros((n, k)), np.tile(np.eye(3, 4), (n, k, 1, 1))
    rows = np.repeat(np.arange(n), k)
    flat = candidates.ravel()
    mirrored = (likeness[1] > likeness[0])[rows, flat.clip(min=0)].reshape(n, k)
    for turned, side in ((False, queries.plain), (True, queries.mirrored)):
        selected = (flat >= 0) & (mirrored.ravel() == turned)
        correlations, movements = on_pairs(
            side, library, np.stack([rows[selected], flat[selected]], axis=1), region
        )
        similarity.reshape(-1)[selected] = correlations
        moves.reshape(-1, 3, 4)[selected] = movements
    order = np.argsort(-similarity, axis=1, kind="stable")
    sort = np.arange(n)[:, None], order
    return Nearest(candidates[sort], similarity[sort], mirrored[sort], moves[sort])


def _candidates(likeness: np.ndarray, animals: np.ndarray) -> np.ndarray:
    """The most similar scan of each of the most similar animals: (CANDIDATES,), -1 if there are fewer."""
    order = np.argsort(-likeness, kind="stable")
    order = order[np.isfinite(likeness[order])]
    _, first = np.unique(animals[order], return_index=True)
    chosen = order[np.sort(first)[:CANDIDATES]]
    return np.concatenate([chosen, np.full(CANDIDATES - len(chosen), -1)]).astype(int)
