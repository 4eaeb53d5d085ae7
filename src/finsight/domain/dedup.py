"""Texts that say the same: equal ones, and near-duplicates by MinHash.

Rows are numbers here: a text is the set of its features (32-bit hashes of its masked words and word pairs), and sets are ragged arrays:
``features`` holds those of all rows, row i's from ``offsets[i]`` to ``offsets[i + 1]``.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint32]

# 16 bands of 4: two texts of Jaccard similarity .7 share a band with probability .988, of .8 with .9998, of .5 with .64. Pairs whose
# share of equal minima (an estimate of their similarity, standard deviation .06) is more than SLACK below the threshold are not looked
# at; the others are compared exactly. Broder 1997 (MinHash); Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", ch. 3 (bands).
BANDS, ROWS = 16, 4
SLACK = 0.15
PAIRS_AT_ONCE, ROWS_AT_ONCE = 1 << 18, 1 << 11  # blocks that stay in the processor's cache

_U64 = np.uint64


def scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit integers whose every output bit depends on every input bit (splitmix64's finaliser, Steele et al. 2014)."""
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


# f → a f mod 2^32 with a odd is a bijection of the features, one a position. Fixed, so that groups are the same everywhere.
_MULTIPLIERS = scramble(np.arange(1, BANDS * ROWS + 1, dtype=_U64)).astype(np.uint32) | np.uint32(1)
_MIX = _U64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth, volume 3, 6.4)


def min_hashes(features: Hashes, offsets: Ids) -> tuple[Hashes, NDArray[np.uint8]]:
    """The MinHash bands (n, ``BANDS``) of each row: rows that share one are likely near-duplicates; and a byte of each minimum,
    (n, ``BANDS * ROWS``). A row without features has key 0."""
    sizes = np.diff(offsets)
    keys, sketch = np.zeros((len(sizes), BANDS), dtype=np.uint32), np.zeros((len(sizes), BANDS * ROWS), dtype=np.uint8)
    order = np.argsort(sizes, kind="stable")
    order = order[sizes[order] > 0]
    for start in range(0, len(order), ROWS_AT_ONCE):
        rows = order[start : start + ROWS_AT_ONCE]  # of like size: a block (most features, rows) that repeats each row's last feature
        places = np.minimum(np.arange(sizes[rows[-1]])[:, None], sizes[rows] - 1) + offsets[rows]
        block = features[places]
        room = np.empty_like(block)
        for band in range(BANDS):
            key = np.full(len(rows), band + 1, dtype=_U64)
            for i in range(band * ROWS, (band + 1) * ROWS):
                np.multiply(block, _MULTIPLIERS[i], out=room)
                least = room.min(axis=0)
                sketch[rows, i] = least >> np.uint32(8)
                key = key * _MIX + least
            keys[rows, band] = np.maximum(scramble(key) >> _U64(32), _U64(1))
    return keys, sketch


def groups(linked: Ids, root: Ids) -> Ids:
    """The connected components of ``root`` after linking pairs (m, 2): for each row the lowest row of its component.

    :param root: components so far, in the same form; ``arange(n)`` where nothing is linked yet.
    """
    root, pairs = root.copy(), linked
    while len(pairs):
        ends = root[pairs]
        np.minimum.at(root, ends.reshape(-1), np.repeat(ends.min(axis=1), 2))
        while not np.array_equal(root, jumped := root[root]):
            root = jumped
        pairs = pairs[root[pairs[:, 0]] != root[pairs[:, 1]]]
    return root


def near_groups(root: Ids, keys: Hashes, sketch: NDArray[np.uint8], features: Hashes, offsets: Ids, threshold: float) -> Ids:
    """The components of ``root`` after linking rows whose feature sets have a Jaccard similarity of ``threshold`` or more.

    Within a bucket a row is compared with the bucket's first row and with the one before it, so that the work stays linear where one
    phrase fills a bucket; rows that are linked already are not compared again.

    :param keys: bands and ``sketch`` as :func:`min_hashes` gives them.
    """
    least = int(np.ceil((threshold - SLACK) * sketch.shape[1]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy leaves the interpreter free while it sorts and compares
        for pairs in pool.map(lambda band: _promising(keys[:, band], sketch, least), range(keys.shape[1])):
            pairs = pairs[root[pairs[:, 0]] != root[pairs[:, 1]]]
            pieces = [pairs[start : start + PAIRS_AT_ONCE] for start in range(0, len(pairs), PAIRS_AT_ONCE)]
            similar = [piece[_jaccard(piece, features, offsets) >= threshold] for piece in pieces]
            root = groups(np.concatenate(similar), root) if similar else root
    return root


def equal_pairs(keys: NDArray[np.uint64]) -> Ids:
    """Pairs (m, 2) that link all rows of equal key (n,); key 0 stands for none."""
    order = np.argsort(keys, kind="stable")
    same = (keys[order[1:]] == keys[order[:-1]]) & (keys[order[1:]] != 0)
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def _promising(keys: Hashes, sketch: NDArray[np.uint8], least: int) -> Ids:
    """Pairs (m, 2) of rows that share a bucket, each with the bucket's first and with the one before it, and ``least`` minima or more."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    fresh = np.r_[True, ranked[1:] != ranked[:-1]]
    first = order[np.flatnonzero(fresh)[np.cumsum(fresh) - 1]]
    later = np.flatnonzero(~fresh & (ranked != 0))
    with_first = np.stack([first[later], order[later]], axis=1)
    with_previous = np.stack([order[later - 1], order[later]], axis=1)
    pairs = np.concatenate([with_first, with_previous[with_previous[:, 0] != with_first[:, 0]]])
    equal = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        one, other = pairs[start : start + PAIRS_AT_ONCE].T
        equal.append(np.count_nonzero(sketch[one] == sketch[other], axis=1))
    return pairs[np.concatenate(equal) >= least]


def _jaccard(pairs: Ids, features: Hashes, offsets: Ids) -> NDArray[np.float64]:
    """The Jaccard similarity of each pair of rows (m, 2) → (m,)."""
    sizes = np.diff(offsets)
    lengths = sizes[pairs].sum(axis=1)
    # One sortable integer a feature: the pair's number above, the feature below. A feature that both sides have stands twice.
    rows = pairs.reshape(-1)
    owner = np.repeat(np.arange(len(rows)) // 2, sizes[rows])
    starts = np.repeat(offsets[rows] - np.r_[0, np.cumsum(sizes[rows])[:-1]], sizes[rows])
    both = (owner.astype(_U64) << _U64(32)) | features[starts + np.arange(len(owner))]
    both.sort()
    shared = np.bincount((both[1:][both[1:] == both[:-1]] >> _U64(32)).astype(np.int64), minlength=len(pairs))
    return np.asarray(shared / np.maximum(lengths - shared, 1))
