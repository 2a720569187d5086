"""The forward processes that the doctor tries in place of a claimed one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

from ..._tensor import equally_spaced
from ...score.preconditioning import INDEX_LABELS
from ...sde import SDE, VE, VP, CosineVP, Linear, SubVP, TabulatedVP, cosine_betas
from .reading import Reading
from .words import straight

__all__ = ["LADDER", "processes", "scaled_process", "sde_in_words"]

LADDER = 1000  # levels of a network of times, whose ladder is not known
LARGEST = 0.999  # β of a table, as of `cosine_betas`
SCALED = {"beta_max": "β_max", "sigma_max": "σ_max"}  # parameters that are often wrong


def processes(reading: Reading) -> Iterator[tuple[str, SDE]]:
    """Usual processes with their names."""
    levels = reading.sde.levels
    if reading.meaning.label not in INDEX_LABELS:
        named = (VP(), SubVP(), CosineVP(), VE(0.01, 50.0), VE(0.002, 80.0), Linear())
        yield from ((sde_in_words(sde), sde) for sde in named)
    yield from _tables(levels or LADDER).items()
    if levels not in (None, LADDER):
        for name, sde in _tables(LADDER).items():
            yield f"{name} in {LADDER} levels", sde


def scaled_process(sde: SDE, factor: float) -> tuple[str, SDE] | None:
    """The process with its largest β or σ times a factor, with its name; None if it has none.

    Of a table all β are multiplied.
    """
    if isinstance(sde, TabulatedVP):
        betas = tuple(min(factor * beta, LARGEST) for beta in sde.betas)
        return f"a table of β from {betas[0]:.3g} to {betas[-1]:.3g}", TabulatedVP(betas)
    for name in SCALED:
        if hasattr(sde, name):
            low = getattr(sde, name.replace("max", "min"))
            other = replace(sde, **{name: max(1.01 * low, factor * getattr(sde, name))})
            return sde_in_words(other), other
    return None


@functools.cache
def _tables(levels: int) -> dict[str, SDE]:
    """The usual tables of β, for another number of levels than 1,000 of the same total noise."""
    many = LADDER / levels
    tables = {"the cosine β of improved DDPM": cosine_betas(levels)}
    if 0.02 * many < 1:
        tables["DDPM's linear β"] = equally_spaced(1e-4 * many, 0.02 * many, levels)
        ends = (0.00085 * many) ** 0.5, (0.012 * many) ** 0.5
        tables["Stable Diffusion's scaled-linear β"] = equally_spaced(*ends, levels).square()
    return {name: TabulatedVP(betas) for name, betas in tables.items()}


def sde_in_words(sde: SDE) -> str:
    """Name of the class and its parameters; of a table, the number of its steps."""
    if isinstance(sde, TabulatedVP):
        return f"the claimed table of {sde.levels} β"
    if straight(sde):
        return "the linear schedule of flow matching"
    values = ", ".join(f"{value:.3g}" for value in vars(sde).values() if isinstance(value, float))
    return f"{type(sde).__name__}({values})"
