"""Metrics: functions from tensors to an `Estimate` with its uncertainty."""

from .classifier import CNNFeatures, SmallCNN, load_features
from .descriptors import DescriptorFeatures
from .estimate import Estimate
from .features import FeatureSpace, PCAFeatures
from .frechet import GaussianStats, frechet_bias, frechet_distance
from .mmd import CubicKernel, GaussianKernel, Kernel, mmd2
from .network_features import NetworkFeatures, efficientnet_file
from .paired import paired_rmse
from .sliced_wasserstein import directions, sliced_wasserstein

__all__ = [
    "CNNFeatures",
    "CubicKernel",
    "DescriptorFeatures",
    "Estimate",
    "FeatureSpace",
    "GaussianKernel",
    "GaussianStats",
    "Kernel",
    "NetworkFeatures",
    "PCAFeatures",
    "SmallCNN",
    "directions",
    "efficientnet_file",
    "frechet_bias",
    "frechet_distance",
    "load_features",
    "mmd2",
    "paired_rmse",
    "sliced_wasserstein",
]
