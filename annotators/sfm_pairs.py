"""Which pictures to match: neighbours in time, and places seen again (loop closures) found from the features themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_NEAR = (1, 2, 3, 4, 5, 6, 8, 11, 16, 23, 32)
_WORDS = 32
_SAMPLE_PER_VIEW = 200
_VLAD_VALUES_PER_WORD = 32
LOOPS_PER_VIEW = 2
LOOP_SIMILARITY = 0.3
_LOOP_DISTANCE = 8


def sequential_pairs(count: int) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of `count` views in time order: the six next ones, then ever farther up to 32 views away."""
    return [(i, i + step) for i in range(count) for step in _NEAR if i + step < count]


def vlad(descriptors: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.float32]:
    """One unit vector per view from its SIFT descriptors (n_i, 128): VLAD (Jégou et al. 2010) with a vocabulary of the capture's own."""
    from scipy.cluster.vq import kmeans2, vq

    sample = np.concatenate([d[rng.permutation(len(d))[:_SAMPLE_PER_VIEW]] for d in descriptors]).astype(np.float32)
    if len(sample) < 4 * _WORDS:
        return np.zeros((len(descriptors), _WORDS * _VLAD_VALUES_PER_WORD), np.float32)
    basis = np.linalg.svd(np.cov(sample.T))[0][:, :_VLAD_VALUES_PER_WORD].astype(np.float32)
    words, _ = kmeans2(sample @ basis, _WORDS, iter=10, minit="points", rng=rng)
    out = np.zeros((len(descriptors), _WORDS, _VLAD_VALUES_PER_WORD), np.float32)
    for view, d in enumerate(descriptors):
        if len(d):
            reduced = d.astype(np.float32) @ basis
            nearest, _ = vq(reduced, words)
            np.add.at(out[view], nearest, reduced - words[nearest])
    out = np.sign(out) * np.sqrt(np.abs(out))
    flat = out.reshape(len(descriptors), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


def loop_pairs(signatures: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, at least 8 views apart whose signatures agree best: at most two per view and only above a similarity of 0.3."""
    likeness = signatures @ signatures.T
    number = np.arange(len(signatures))
    likeness[np.abs(number[:, None] - number) < _LOOP_DISTANCE] = -1.0
    found = set()
    for i in range(len(signatures)):
        for j in np.argsort(-likeness[i], kind="stable")[:LOOPS_PER_VIEW]:
            if likeness[i, j] >= LOOP_SIMILARITY:
                found.add((min(i, int(j)), max(i, int(j))))
    return sorted(found)


def nearest_keyframes(view: int, keyframes: Sequence[int], count: int) -> list[int]:
    """The `count` keyframes closest to a view in time, nearest first (earlier first on a tie)."""
    return sorted(keyframes, key=lambda k: (abs(k - view), k))[:count]
