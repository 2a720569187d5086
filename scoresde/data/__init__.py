"""Data: their description (`DataSpec`), and loading them (`load_dataset`)."""

from .catalog import DatasetStatus, dataset_status, has_test_split, load_dataset
from .dataset import Dataset
from .densities import DENSITIES, Density2D
from .images import download
from .sets import draw_sizes
from .source import DataSource
from .spec import DataSpec
from .stream import Stream

__all__ = [
    "DENSITIES",
    "DataSource",
    "DataSpec",
    "Dataset",
    "DatasetStatus",
    "Density2D",
    "Stream",
    "dataset_status",
    "download",
    "draw_sizes",
    "has_test_split",
    "load_dataset",
]
