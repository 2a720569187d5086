"""Transforms between the user's units and the model's scale, with known log-determinants."""

from .base import Chain, Transform, apply_chain, invert_chain, log_det_of_chain
from .bounded import Log, Logit
from .fitting import Blocks, Moments, fit_chain
from .linear import Affine, Standardize
from .text import (
    TRANSFORMS,
    TransformText,
    chain_from_list,
    chain_in_words,
    chain_to_list,
    parse_transforms,
)

__all__ = [
    "TRANSFORMS",
    "Affine",
    "Blocks",
    "Chain",
    "Log",
    "Logit",
    "Moments",
    "Standardize",
    "Transform",
    "TransformText",
    "apply_chain",
    "chain_from_list",
    "chain_in_words",
    "chain_to_list",
    "fit_chain",
    "invert_chain",
    "log_det_of_chain",
    "parse_transforms",
]
