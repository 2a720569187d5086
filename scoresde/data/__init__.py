"""Data: their description (`DataSpec`), and loading them (`load_dataset`)."""

from .catalog import DatasetStatus, dataset_status, has_test_split, load_dataset
from .dataset import Dataset
from .densities import DENSITIES, Density2D
from .images import download
from .sets import draw_sizes
from .source import DataSource
from .spec import DataSpec
from .stream import Stream
from .transforms import Affine, Log, Logit, Standardize, Transform, parse_transforms

__all__ = [
    "Affine",
    "DENSITIES",
    "DataSource",
    "DataSpec",
    "Dataset",
    "DatasetStatus",
    "Density2D",
    "Log",
    "Logit",
    "Standardize",
    "Stream",
    "Transform",
    "dataset_status",
    "download",
    "draw_sizes",
    "has_test_split",
    "load_dataset",
    "parse_transforms",
]
