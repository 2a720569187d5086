"""`sigma_max = "pairwise"`: a VE whose σ_max is measured on the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._rows import Rows
from .._tensor import check_number, plain_numbers
from ..data import Dataset
from ..plain import ConfigError
from ..sde import VE

__all__ = ["PAIRWISE", "PairwiseVE", "is_pairwise"]

PAIRWISE = "pairwise"


@dataclass(frozen=True)
class PairwiseVE:
    """A VE whose σ_max will be the largest distance between two training data.

    Song & Ermon 2020, arXiv:2006.09011, technique 1; see `VE.from_data`.

    Args:
        sigma_min: σ(0) > 0.
    """

    sigma_min: float = VE.sigma_min

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("sigma_min", self.sigma_min, above=0)

    def of(self, data: Dataset) -> VE:
        """The VE of these data, on the model's scale; of quantized data, at the cells' centres."""
        if isinstance(data.x, Rows):
            raise ValueError(
                f'sigma_max must be a number for data that are not held in memory, got "{PAIRWISE}"'
            )
        x = data.scaled.x if data.spec.levels is None else data.spec.encode(data.x)
        return VE.from_data(x, self.sigma_min)


def is_pairwise(values: Mapping[str, Any], where: str) -> bool:
    """Whether a table `[sde]` asks for a measured σ_max.

    Raises:
        ConfigError: If `sigma_max` of kind "ve" is another text.
    """
    sigma_max = values.get("sigma_max")
    if values.get("kind") != "ve" or not isinstance(sigma_max, str):
        return False
    if sigma_max != PAIRWISE:
        raise ConfigError(f'{where}.sigma_max must be a number or "{PAIRWISE}", got {sigma_max!r}')
    return True
