"""Metrics: tensors in, an `Estimate` with its uncertainty out."""

from .classifier import CNNFeatures, SmallCNN, load_features
from .estimate import Estimate
from .features import FeatureSpace, PCAFeatures, RawFeatures
from .frechet import GaussianStats, frechet_bias, frechet_distance
from .mmd import CubicKernel, GaussianKernel, mmd2
from .paired import paired_rmse
from .sliced_wasserstein import directions, sliced_wasserstein

__all__ = [
    "CNNFeatures",
    "CubicKernel",
    "Estimate",
    "FeatureSpace",
    "GaussianKernel",
    "GaussianStats",
    "PCAFeatures",
    "RawFeatures",
    "SmallCNN",
    "directions",
    "frechet_bias",
    "frechet_distance",
    "load_features",
    "mmd2",
    "paired_rmse",
    "sliced_wasserstein",
]
