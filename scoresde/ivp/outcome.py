"""The result of a solver: a solution with its counts, or an error with its counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor

__all__ = [
    "FLOAT32_TOLERANCE",
    "Counts",
    "OnStep",
    "Solution",
    "SolverError",
    "Status",
    "error_norm",
]

# The least tolerance in float32, which rounds by 6e-8. A smaller tolerance would measure rounding.
FLOAT32_TOLERANCE = 1e-7

# Called after steps with (steps done, time that every sample has reached, state).
OnStep = Callable[[int, float, Tensor], None]


class Status(IntEnum):
    """The state of one sample: done, still running, or the reason why its solver stopped."""

    DONE = 0
    RUNNING = 1
    EVALUATIONS = 2  # more of them would be needed than allowed
    UNDERFLOW = 3  # the step size fell below the rounding of the time
    NOT_FINITE = 4  # likewise, because every step ended in infinity or NaN


@dataclass(frozen=True)
class Counts:
    """Status, steps and evaluations of each sample; all of shape (B,), int64, on the CPU.

    Attributes:
        status: A `Status`; in a solution all samples have 0, `Status.DONE`.
        accepted: Accepted steps.
        rejected: Rejected steps.
        evaluations: Evaluations of the right-hand side.
    """

    status: Tensor
    accepted: Tensor
    rejected: Tensor
    evaluations: Tensor

    @classmethod
    def fill(
        cls, n: int, status: Status, accepted: int = 0, rejected: int = 0, evaluations: int = 0
    ) -> Counts:
        """The same counts for each of n samples."""
        values = (status, accepted, rejected, evaluations)
        return cls(*(torch.full((n,), int(v), device="cpu") for v in values))

    @classmethod
    def cat(cls, parts: Sequence[Counts]) -> Counts:
        """The counts of several batches as one."""
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def to(self, device: torch.device | str) -> Counts:
        """The same counts on another device."""
        return Counts(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class Solution:
    """The state at the last time, with the counts.

    Attributes:
        state: State at the last time, like the first one.
        counts: Counts of each sample; None if the steps were given in advance.
        effective: Least effective number of particles of each sample, shape (B,), float64; None
            unless a sample is made of particles.
    """

    state: Tensor
    counts: Counts | None = None
    effective: Tensor | None = None


class SolverError(RuntimeError):
    """A solver failed; the message says where, why and what to try.

    Attributes:
        counts: Counts of each sample until then, with the status of those that failed.
    """

    def __init__(self, message: str, counts: Counts) -> None:
        super().__init__(message)
        self.counts = counts


def error_norm(error: Tensor, dims: int, share: Tensor | None = None) -> Tensor:
    """Size of each sample's error: max(RMS of its first `dims` numbers, |each of the others|).

    The first numbers are one point in space. The others are integrals, each of which must be
    accurate.

    Args:
        error: Error over tolerance, shape (B, N).
        dims: D, in 1..N.
        share: Share of these D numbers that exist, shape (B,); the error of the others is 0, and
            they do not count in the mean. None: all exist.

    Returns:
        Shape (B,).
    """
    rms = error[:, :dims].square().mean(1).sqrt()
    if share is not None:
        rms = rms / share.to(rms).sqrt()
    if error.shape[1] == dims:
        return rms
    return torch.maximum(rms, error[:, dims:].abs().amax(1))
