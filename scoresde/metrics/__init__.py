"""Metrics: functions from tensors to an `Estimate` with its uncertainty."""

from .asked import share_as_asked
from .classifier import CNNFeatures, SmallCNN, load_features
from .compare import difference, ratio
from .copying import copying
from .descriptors import DescriptorFeatures
from .estimate import Estimate, SquareLaw
from .features import FeatureSpace, JointFeatures, PCAFeatures
from .frechet import GaussianStats, frechet_bias, frechet_distance
from .frechet_extrapolated import frechet_extrapolated
from .intervals import interval_coverage
from .mmd import CubicKernel, GaussianKernel, Kernel, KernelReference, mmd2
from .neighbours import Balls, DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from .network_features import NetworkFeatures, efficientnet_file
from .paired import paired_rmse
from .pooled import pooled
from .sliced_wasserstein import directions, sliced_wasserstein
from .statistics_files import load_statistics, save_statistics
from .two_sample_test import classifier_accuracy

__all__ = [
    "Balls",
    "CNNFeatures",
    "CubicKernel",
    "DensityCoverage",
    "DescriptorFeatures",
    "Estimate",
    "FeatureSpace",
    "GaussianKernel",
    "GaussianStats",
    "JointFeatures",
    "Kernel",
    "KernelReference",
    "NetworkFeatures",
    "PCAFeatures",
    "PrecisionRecall",
    "SmallCNN",
    "SquareLaw",
    "classifier_accuracy",
    "copying",
    "density_coverage",
    "difference",
    "directions",
    "efficientnet_file",
    "frechet_bias",
    "frechet_distance",
    "frechet_extrapolated",
    "interval_coverage",
    "load_features",
    "load_statistics",
    "mmd2",
    "paired_rmse",
    "pooled",
    "precision_recall",
    "ratio",
    "save_statistics",
    "share_as_asked",
    "sliced_wasserstein",
]
