"""Samplers of other libraries behind one interface, `ForeignSampler`; one module for each library.

No module here imports the library: a scheduler, a sampler or a function comes from its owner.
"""

from .base import Denoiser, End, ForeignSampler, GivenLevels, Levels, NotMeasured, Start
from .recognition import foreign_sampler

__all__ = [
    "Denoiser",
    "End",
    "ForeignSampler",
    "GivenLevels",
    "Levels",
    "NotMeasured",
    "Start",
    "foreign_sampler",
]
