"""`DataSource`: where data come from, and how their numbers are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..plain import ConfigError
from .densities import DENSITIES
from .images import IMAGE_SETS
from .spec import DataSpec
from .transforms import TransformText, parse_transforms
from .uci import UCI_SETS

__all__ = ["IMAGE_NAMES", "NAMES", "DataSource"]

IMAGE_NAMES = ("digits", *IMAGE_SETS)

NAMES = (*IMAGE_NAMES, *UCI_SETS, *DENSITIES)  # of all data sets


@dataclass(frozen=True)
class DataSource:
    """The source of data, and the reading of their numbers: the table `[data]` of a config.

    Args:
        name: Name of a data set (`dataset_status` lists them), or path of a folder of images, of a
            `.npy`, `.npz`, `.csv` or `.tsv` file. A name wins over an equal path; write ./name for
            the path.
        root: Folder searched first for the files of a named set, and for a relative path.
            Without it, relative paths start at the working directory.
        levels: Number of levels of a file's data; see `load_array`.
        low: Lower end of the model's scale, default −1 for quantized data. Continuous data must
            lie in [low, high]; if both are missing, their range is taken from the data.
        high: Upper end of the model's scale, default 1 for quantized data.
        size: Side in pixels to which square images are resized, by bilinear interpolation with
            antialiasing; integer levels stay integers. None keeps the images as they are.
        workers: Number of processes that read data which are not held in memory, and that decode
            the images of a folder. None or 0 does this in the process that needs them. The data do
            not depend on it.
        labels: Name of the column of a table that holds the condition of each row: integers or text
            are class labels, other numbers a vector of length 1. None if all columns are data.
        transform: How training maps the data to the model's scale: a text or list of texts as
            `parse_transforms` reads them, "none" for data that are at this scale already. None:
            "standardize" for the floats of a file and for the sets of `UCI_SETS`, unless `low` and
            `high` are given, and "none" for all other data. `load_dataset` itself transforms
            nothing: a data set is in units.

    Raises:
        ConfigError: If a transform is unknown or wrong, or is given together with `levels`, `low`
            or `high`.
    """

    name: str | Path
    root: str | Path | None = None
    levels: int | None = None
    low: float | None = None
    high: float | None = None
    size: int | None = None
    workers: int | None = None
    labels: str | None = None
    transform: str | list[str] | None = None

    def __post_init__(self) -> None:
        if self.transform is None:
            return
        if isinstance(self.transform, (list, tuple)):
            object.__setattr__(self, "transform", tuple(self.transform))
        if parse_transforms(self.transform) and (given := self._scale):
            raise ConfigError(
                f"data.transform must be absent or 'none' together with data.{given}, which says "
                "what the model's scale is"
            )

    @property
    def _scale(self) -> str | None:
        """The first setting that says what the model's scale is."""
        names = ("levels", "low", "high")
        return next((name for name in names if getattr(self, name) is not None), None)

    def transforms_of(self, spec: DataSpec) -> tuple[TransformText, ...]:
        """The transforms that training fits to these data; see `transform`.

        Args:
            spec: Description of the data.

        Raises:
            ConfigError: If quantized data are to be transformed.
        """
        if self.transform is not None:
            found = parse_transforms(self.transform)
            if found and spec.levels is not None:
                raise ConfigError(
                    f"data.transform must be absent for the {spec.levels} levels of {spec.name}, "
                    "got a transform; data.low and data.high say what their scale is"
                )
            return found
        own = (
            (self.named and self.name not in UCI_SETS)
            or spec.levels is not None
            or self._scale is not None
        )
        return () if own else parse_transforms("standardize")

    def below(self, root: str | Path | None) -> DataSource:
        """This source with another root, if one is given."""
        return self if root is None else replace(self, root=str(root))

    @property
    def path(self) -> Path:
        """The path of a file or folder: inside `root` if it exists there."""
        inside = Path(self.root or "") / self.name
        return inside if inside.exists() else Path(self.name)

    @property
    def named(self) -> bool:
        """Whether the name is that of a known data set, not a path."""
        return isinstance(self.name, str) and self.name in NAMES
