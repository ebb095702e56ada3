"""Embeddings: a vector for each image, and what can be read from them.

from spanets.embedding import embed, measure_knn, save_embeddings
cells = embed("runs/cells/last.ckpt", "cells")
print(measure_knn(cells)["accuracy"])
save_embeddings(cells, "cells.npz")
"""

from spanets.embedding.duplicates import find_duplicates
from spanets.embedding.extract import embed
from spanets.embedding.neighbours import measure_knn, nearest
from spanets.embedding.probe import measure_probe
from spanets.embedding.storing import load_embeddings, save_embeddings
from spanets.embedding.vectors import Embeddings, Origin

__all__ = [
    "Embeddings",
    "Origin",
    "embed",
    "find_duplicates",
    "load_embeddings",
    "measure_knn",
    "measure_probe",
    "nearest",
    "save_embeddings",
]
