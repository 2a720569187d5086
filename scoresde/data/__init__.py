"""Data: what they are (`DataSpec`), and where they come from (`load_dataset`)."""

from .catalog import DatasetStatus, dataset_status, has_test_split, load_dataset
from .densities import DENSITIES, Density2D
from .spec import Dataset, DataSpec

__all__ = [
    "DENSITIES",
    "DataSpec",
    "Dataset",
    "DatasetStatus",
    "Density2D",
    "dataset_status",
    "has_test_split",
    "load_dataset",
]
