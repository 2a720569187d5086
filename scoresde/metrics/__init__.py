"""Metrics: functions from tensors to an `Estimate` with its uncertainty."""

from .classifier import CNNFeatures, SmallCNN, load_features
from .compare import difference, ratio
from .estimate import Estimate, SquareLaw
from .features import FeatureSpace, PCAFeatures
from .frechet import GaussianStats, frechet_bias, frechet_distance
from .mmd import CubicKernel, GaussianKernel, Kernel, mmd2
from .paired import paired_rmse
from .sliced_wasserstein import directions, sliced_wasserstein

__all__ = [
    "CNNFeatures",
    "CubicKernel",
    "Estimate",
    "FeatureSpace",
    "GaussianKernel",
    "GaussianStats",
    "Kernel",
    "PCAFeatures",
    "SmallCNN",
    "SquareLaw",
    "difference",
    "directions",
    "frechet_bias",
    "frechet_distance",
    "load_features",
    "mmd2",
    "paired_rmse",
    "ratio",
    "sliced_wasserstein",
]
