"""`scoresde.verify`: measure the order of convergence of samplers in Python."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..output.bars import stage_bars
from ..tasks.live import given_model
from .prepare import prepare_verification
from .trials import Measurement

__all__ = ["verify"]


def verify(
    sampler: Any = None,
    *,
    order: int | None = None,
    sdes: str | Sequence[str] | None = None,
    quick: bool = False,
    model: Any = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = False,
) -> list[Measurement]:
    """Measure how the error of samplers falls with the number of steps.

    The data are a mixture or a Gaussian whose exact solutions are known. For a deterministic
    sampler the error is the distance of its end points to those of the ODE; for one that draws
    noise it is the distance of the moments of its output (weak order), which needs steps that are
    affine for Gaussian data; for an adaptive one it is compared with the tolerance.

    Args:
        sampler: A sampler object of your own, a text, or several in a list; None for all claims of
            this package. A text without parameters is measured in all its claims.
        order: The order that you claim for a sampler object; None to measure it without a verdict.
        sdes: Some of "vp", "subvp", "ve", "cosine", "tabulated" and "linear"; None for all, but for
            a sampler object for "vp" and "ve", and with `quick` for "vp".
        quick: The short form.
        model: Measure on this model, which is no exact one, without verdicts: a `ScoreModel` that
            knows its data, a loaded checkpoint, or the name or path of a checkpoint.
        seed: Seed of x_T for a model.
        out: Folder for results.csv, results.json and errors.png; None writes nothing.
        progress: Show bars, if stderr is a terminal.

    Returns:
        One record per claim and SDE, with "observed", "expected" and "verdict": "ok", "MISSED" or
        "no claim".

    Raises:
        ConfigError: If a text names no sampler.
        TypeError: If an argument is of another kind.
        ValueError: If nothing can be measured, an SDE is unknown, or `out` holds other results.
        RuntimeError: If a reference solution fails.
    """
    several = sampler is None or isinstance(sampler, (list, tuple))
    run = prepare_verification(
        sampler if several else [sampler],
        sdes,
        order=order,
        quick=quick,
        given=None if model is None else given_model(model),
        seed=seed,
        folder=None if out is None else Path(out),
    )
    with stage_bars() if progress else nullcontext(_silent) as tell:
        return run.run(tell)


def _silent(stage: str, done: int, total: int | None, note: str) -> None:
    """A `Tell` that shows nothing."""
