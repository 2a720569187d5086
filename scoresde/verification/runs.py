"""Runs of a foreign sampler: under known random states, counted, and judged at one noise level."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..interop.samplers import Denoiser, ForeignSampler, Levels, Start
from ..interop.samplers.base import Call

__all__ = ["Outcome", "run_sampler"]

SIGNALS = 128  # a greater exit status is that of a signal


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        y: The state at the end, shape (B, *D), float64.
        sigma: The noise level at which the library puts it; 0 is the data.
        evaluations: State and noise level of each evaluation.
        used_global: Whether a global random state has changed.
        remarks: What is unusual about the call, in words.
    """

    y: Tensor
    sigma: float
    evaluations: tuple[Call, ...]
    used_global: bool
    remarks: tuple[str, ...] = ()

    @property
    def calls(self) -> tuple[float, ...]:
        """The noise level of each evaluation."""
        return tuple(call.sigma for call in self.evaluations)

    @property
    def last(self) -> Tensor:
        """The state of the last evaluation."""
        return self.evaluations[-1].y

    @property
    def before_zero(self) -> tuple[Tensor, float]:
        """The state and its σ before the step to σ = 0, if the last step goes there.

        The error of a step to 0 is that of one denoising. It depends on the last σ, not on the
        method, so that it would hide the order of the steps before it.
        """
        return (self.last, self.calls[-1]) if self.sigma == 0 else (self.y, self.sigma)


def run_sampler(
    sampler: ForeignSampler,
    denoiser: Denoiser,
    start: Start,
    levels: Levels,
    steps: int,
    seed: int = 0,
    global_seed: int = 0,
) -> Outcome:
    """Run a sampler.

    Args:
        sampler: The sampler.
        denoiser: The model, newly made.
        start: States at a noise level.
        levels: The noise levels.
        steps: The number of steps asked for.
        seed: Seed of the generator that the sampler gets, if it takes one.
        global_seed: Seed of the global random states of torch, NumPy and Python during the run.

    Raises:
        RuntimeError: If the sampler made no evaluation, or returned numbers that are not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    # stdout is for the results of the command
    with redirect_stdout(sys.stderr), _global_states(global_seed) as changed, torch.no_grad():
        try:
            end = sampler.run(denoiser, start, levels, steps, generator)
        except SystemExit as error:
            if isinstance(error.code, int) and error.code > SIGNALS:
                raise
            raise RuntimeError(f"{sampler.name} would end the process: {error!r}") from error
        used = changed()
    if not denoiser.calls:
        raise RuntimeError(f"{sampler.name} made no evaluation in {steps} steps")
    if not bool(end.y.isfinite().all()):
        raise RuntimeError(f"{sampler.name} returned numbers that are not finite")
    return Outcome(end.y, end.sigma, tuple(denoiser.calls), used, end.remarks)


@contextmanager
def _global_states(seed: int) -> Iterator:
    """Seed and restore the global random states, and restore the default dtype.

    Gives a function: have the random states changed?
    """
    python, numpy, dtype = random.getstate(), np.random.get_state(), torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        began = _states()
        try:
            yield lambda: _states() != began
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_default_dtype(dtype)


def _states() -> tuple[object, ...]:
    return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()
