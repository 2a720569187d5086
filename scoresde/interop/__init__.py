"""Models of other libraries: readers of their files, one module for each format.

A reader's module has two functions:

    recognizes(path) -> bool    whether a file or folder looks like its format. It is quick, reads
                                no pickle, and never raises.
    read(path) -> Imported      the model. Every mistake in the files is a `CheckpointError`.

No code from a file is ever run.
"""

from types import ModuleType

from .imported import Imported, file_record

__all__ = ["FORMATS", "Imported", "file_record"]

# For each format its name, as `scoresde import` prints it, and its module. The first that
# recognizes a path reads it.
FORMATS: dict[str, ModuleType] = {}
