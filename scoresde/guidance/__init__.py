"""Guidance: score models made of other score models, which any sampler runs.

A guided model extrapolates from a weak prediction of x0 to a strong one,

    x0 = weak + w (strong − weak),

and the same w makes ε and v, because all are linear in x0 for a given x. At w = 1 it is the strong
model, at w = 0 the weak one. For w > 1 it is no score of a density of the data: samples move to
where the two models differ most.
"""

from .base import Guided, Scale
from .classifier import ClassifierGuided
from .classifier_free import AutoGuided, ClassifierFree
from .projected import Projected
from .thresholding import DynamicallyThresholded

__all__ = [
    "AutoGuided",
    "ClassifierFree",
    "ClassifierGuided",
    "DynamicallyThresholded",
    "Guided",
    "Projected",
    "Scale",
]
