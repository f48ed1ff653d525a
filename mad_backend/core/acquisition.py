"""Choosing images by what a target says of them: highest score, k-center, nearest neighbours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CENTERS_AT_ONCE = 256
"""Distances to so many centers are in memory at once."""


@dataclass(frozen=True)
class AcquisitionScores:
    """What a target says of n images, in the order of `image_ids`; images that cannot be read are not among them.

    Averages are over the pixels of the image's own area, at the resolution of the network's logits and over its own
    classes. `no_information` says why there is no `mutual_information`, "" where there is.
    """

    image_ids: tuple[str, ...]
    entropy: NDArray[np.float32]
    """(n,) mean pixel entropy in nats (App. A): large = uncertain"""
    margin: NDArray[np.float32]
    """(n,) mean of the largest probability less the second: small = uncertain"""
    mutual_information: NDArray[np.float32] | None
    """(n,) mean BALD in nats (Houlsby et al. 2011; Gal et al. 2017): large = uncertain"""
    embeddings: NDArray[np.float32]
    """(n, d), each of length 1 but for rounding to float16"""
    no_information: str
    unreadable: Mapping[str, str]
    """image id -> reason"""


def highest(image_ids: Sequence[str], scores: NDArray[np.floating], count: int) -> list[str]:
    """The `count` images of the highest (n,) scores, all if there are fewer; highest first, ties by image id.

    For a score of which small means uncertain, such as the margin, give its negative.
    """
    order = sorted(range(len(image_ids)), key=lambda i: (-float(scores[i]), image_ids[i]))
    return [image_ids[i] for i in order[:count]]


def k_center(embeddings: NDArray[np.float32], centers: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Rows of (n, d) `embeddings` that greedy k-center takes one after the other, all if n < `count`.

    Each is the one farthest (Euclidean) from every center so far (Sener and Savarese 2018, Algorithm 1); `centers` are
    the (m, d) embeddings of what is labelled already. Without any, the first is the row nearest to the mean. Ties: the
    first row. O((m + count) n d) time, O(n) memory beside the input.
    """
    n = len(embeddings)
    lengths = np.einsum("nd,nd->n", embeddings, embeddings)
    farness: NDArray[np.float32] = np.full(n, np.inf, np.float32)
    for start in range(0, len(centers), CENTERS_AT_ONCE):
        block = centers[start : start + CENTERS_AT_ONCE]
        farness = np.minimum(farness, _squared_distances(embeddings, lengths, block).min(axis=1))
    chosen: list[int] = []
    while len(chosen) < min(count, n):
        if not len(centers) and not chosen:
            mean = embeddings.mean(axis=0, keepdims=True)
            following = int(_squared_distances(embeddings, lengths, mean).argmin())
        else:
            following = int(farness.argmax())
        chosen.append(following)
        row = embeddings[following : following + 1]
        farness = np.minimum(farness, _squared_distances(embeddings, lengths, row)[:, 0])
        farness[chosen] = -1  # a copy of a chosen row may still be chosen, the row itself not again
    return np.array(chosen, np.int64)


def nearest(
    embedding: NDArray[np.float32], embeddings: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of (n, d) `embeddings` most like the (d,) `embedding`, best first, and the cosine of each; ties: first row.

    `count` of them, all if there are fewer. A vector of length 0 is like nothing: cosine 0.
    """
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(embedding)
    cosines = embeddings @ embedding / np.where(lengths > 0, lengths, 1)
    rows = np.argsort(-cosines, kind="stable")[:count]
    return rows, cosines[rows].astype(np.float32)


def _squared_distances(
    embeddings: NDArray[np.float32], lengths: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(n, k) of (n, d), whose squared lengths are (n,), to (k, d)."""
    own = np.einsum("kd,kd->k", others, others)
    squares: NDArray[np.float32] = lengths[:, None] + own - 2 * (embeddings @ others.T)
    return np.maximum(squares, np.float32(0))
