"""Models of other libraries: readers of their files, one module for each format.

A reader's module has two functions:

    recognizes(path) -> bool    whether a file or folder looks like its format. It is quick, reads
                                no pickle, and never raises.
    read(path) -> Imported      the model. Every mistake in the files is a `CheckpointError`.

No code from a file is ever run.
"""

from types import ModuleType

from . import diffusers, edm, guided_diffusion, score_sde
from .diffusers_sampling import ScheduledRun, as_scheduled
from .imported import Imported, file_record

__all__ = ["FORMATS", "Imported", "ScheduledRun", "as_scheduled", "file_record"]

# For each format its name, as `scoresde import` prints it, and its module. The first that
# recognizes a path reads it.
FORMATS: dict[str, ModuleType] = {
    "diffusers": diffusers,
    "score_sde_pytorch": score_sde,
    "guided-diffusion": guided_diffusion,
    "edm": edm,
}
