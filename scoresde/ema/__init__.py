"""Averages of a network's weights over training, and averages of other lengths made afterwards."""

from .average import EMA, WeightAverage
from .posthoc import Profile, Reconstruction, reconstruct
from .power import LARGEST_SIGMA_REL, PowerEMA, power_exponent

__all__ = [
    "EMA",
    "LARGEST_SIGMA_REL",
    "PowerEMA",
    "Profile",
    "Reconstruction",
    "WeightAverage",
    "power_exponent",
    "reconstruct",
]
