"""Nearest images by cosine similarity, and the weighted k-nearest-neighbour classifier.

Shape legend: `Q` queries, `D` numbers in a vector, `k` neighbours.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spanets.embedding.holdout import Rows, hold_out, score
from spanets.embedding.vectors import Embeddings, blocks_of, to_unit
from spanets_runtime.progress import progress

NEIGHBOURS = 20

TEMPERATURE = 0.07
"""Temperature of the votes; with 20 neighbours the protocol of Wu et al., 2018, and of DINO."""

_QUERIES = 1024  # in a block


def nearest(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], among: Rows, k: int
) -> tuple[NDArray[np.float32], Rows]:
    """Returns the most similar vectors of each query, by blocks of both.

    Args:
        queries: Vectors (Q, D) of any length.
        vectors: Vectors (N, D) of any length.
        among: Rows of `vectors` to search; of equal ones the choice depends on their order.
        k: Neighbours of each query, at most as many as rows.

    Returns:
        Cosine similarities (Q, k), descending, and rows of `vectors` (Q, k).
    """
    k = min(k, len(among))
    shape = (len(queries), k)
    similarities, rows = np.empty(shape, np.float32), np.empty(shape, np.intp)
    steps = range(0, len(queries), _QUERIES)
    for first in progress(steps, "neighbours"):
        place = slice(first, first + _QUERIES)
        found = _nearest_of_block(to_unit(queries[place]), vectors, among, k)
        similarities[place] = found[0].clamp(-1, 1).cpu().numpy()
        rows[place] = among[found[1].cpu().numpy()]
    return similarities, rows


def _nearest_of_block(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], among: Rows, k: int
) -> tuple[Tensor, Tensor]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    block = torch.from_numpy(queries).to(device)
    best = torch.empty(len(queries), 0, device=device)
    numbers = torch.empty(len(queries), 0, dtype=torch.long, device=device)
    for place, found in blocks_of(vectors, among):
        similar = block @ torch.from_numpy(to_unit(found)).to(device).mT
        index = torch.arange(place.start, place.stop, device=device).expand(len(queries), -1)
        best, chosen = torch.cat([best, similar], 1).topk(
            min(k, best.shape[1] + similar.shape[1]), 1
        )
        numbers = torch.cat([numbers, index], 1).gather(1, chosen)
    return best, numbers


def measure_knn(embeddings: Embeddings, k: int = NEIGHBOURS) -> dict[str, Any]:
    """Measures the k-nearest-neighbour classifier on held-out images.

    Each of the k most similar training images votes for its class with weight
    exp(similarity / 0.07). The number of neighbours is limited to the number of training images.

    Returns:
        See `score`, with "k" and "temperature".

    Raises:
        UserError: see `hold_out`.
    """
    split = hold_out(embeddings)
    used = min(k, len(split.train))
    predicted = np.empty(len(split.held_out), np.intp)
    for place, queries in blocks_of(embeddings.vectors, split.held_out):
        similarities, rows = nearest(queries, embeddings.vectors, split.train, used)
        votes = np.zeros((len(queries), len(embeddings.classes)))
        # Relative to similarity 1, so that no weight overflows.
        weights = np.exp((similarities.astype(np.float64) - 1) / TEMPERATURE)
        np.add.at(votes, (np.arange(len(queries))[:, None], embeddings.labels[rows]), weights)
        predicted[place] = votes.argmax(1)
    measured = score(embeddings, split, predicted)
    if used < k:
        measured["notes"].append(f"{used} neighbours, because there are no more training images")
    return {"k": used, "temperature": TEMPERATURE, **measured}
