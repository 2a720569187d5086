"""What a sampler is, and `sample`, the one way to run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._tensor import check_integer, check_shape, finite_or_raise
from ..evaluation import count_nfe, evaluating, own_context
from ..grid import check_grid, check_on_ladder
from ..ivp import Counts
from ..noise import Noise, SampleNoise, check_seed
from ..score import ScoreModel
from ..sde import SDE, Node

__all__ = [
    "FLOAT32_RTOL",
    "Corrector",
    "GridSampler",
    "Sampler",
    "Samples",
    "check_rtol",
    "draw_start",
    "sample",
]

# Rounding of a float32 state is 6e-8 of it: below this a step size control measures noise.
FLOAT32_RTOL = 1e-7

State = Any
OnStep = Callable[[int, float, Tensor], None]


@dataclass(frozen=True)
class Sampler(ABC):
    """Hyper-parameters only: a sampler holds no model, no grid and no state.

    `sde_error` says why it cannot serve an SDE; it is asked before the first network call.

    Attributes:
        adaptive: True if it chooses its own steps, by tolerances `rtol` and `atol`, and uses
            nothing of the grid but its ends.
    """

    adaptive: ClassVar[bool] = False

    @abstractmethod
    def run(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> Tensor:
        """Carry x from ts[0] down to ts[-1].

        Args:
            model: Score model.
            x: State at ts[0], shape (B, *D).
            ts: Decreasing float64 times, shape (N + 1,).
            noise: Source of the draws.
            on_step: Called after each step with (steps done, time reached, state).

        Returns:
            State at ts[-1], in the dtype of x.
        """

    def run_counted(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> tuple[Tensor, Counts | None]:
        """`run`, with what each sample took if the sampler is adaptive, else None."""
        return self.run(model, x, ts, noise, on_step), None

    def sde_error(self, sde: SDE) -> str | None:
        """Why this sampler is impossible for `sde`, or None if it is not."""
        return None

    @property
    def off_grid(self) -> bool:
        """Whether it asks the model at times that are not in the grid; no, by default."""
        return False

    def refusal(self, sde: SDE, snapped: bool) -> str | None:
        """Why this sampler cannot run, or None if it can; asked before the first network call.

        Args:
            sde: The model's SDE.
            snapped: Whether the model is exact at the discrete times of its ladder only.
        """
        if snapped and self.off_grid:
            return (
                "it asks the model between the times of the grid, where rounded labels are wrong; "
                "take one that does not, such as ddim or a multistep method"
            )
        return self.sde_error(sde)


@dataclass(frozen=True)
class GridSampler(Sampler):
    """A sampler that takes one `step` per grid interval; `run` is the one loop.

    Attributes:
        multistep: True if a step builds on what earlier steps computed, so that nothing may move
            x in between.
    """

    multistep: ClassVar[bool] = False

    def run(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> Tensor:
        """Step through the grid, then `finish`."""
        nodes = model.sde.nodes(ts)
        state = self.start(model.sde, nodes)
        for i, (t, s) in enumerate(zip(nodes[:-1], nodes[1:], strict=True)):
            x, state = self.step(model, x, t, s, state, noise)
            if on_step is not None:
                on_step(i + 1, s.t, x)
        return self.finish(model, x, nodes[-1], noise)

    def start(self, sde: SDE, nodes: list[Node]) -> State:
        """The state of the first step: what must be known of the whole grid; None by default."""
        return None

    @abstractmethod
    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        """Carry x from t to s < t; `state` is `start`'s at first, then the last step's."""

    def finish(self, model: ScoreModel, x: Tensor, t: Node, noise: Noise) -> Tensor:
        """What remains to be done at the last time; nothing, unless a sampler says so."""
        return x


@dataclass(frozen=True)
class Corrector(ABC):
    """Moves x at a fixed time towards p_t."""

    @abstractmethod
    def correct(self, model: ScoreModel, x: Tensor, t: Node, s: Node, noise: Noise) -> Tensor:
        """Correct x at time s, just reached from t.

        Args:
            model: Score model.
            x: State at s, shape (B, *D).
            t: The time the interval began at, which sets the scale of some step sizes.
            s: The present time.
            noise: Source of the draws.
        """


@dataclass(frozen=True)
class Samples:
    """What `sample` returns.

    Attributes:
        x: Samples, shape (n, *D).
        x_init: The states they started from, shape (n, *D).
        nfe: Network evaluations per sample, counted; the largest if chunks of the batch differ.
        ts: The time grid, shape (N + 1,).
        seed: The seed, or None where noise was given.
        counts: Status, accepted and rejected steps and evaluations of each sample (without the
            final denoise), each of shape (n,), from an adaptive sampler; else None.
    """

    x: Tensor
    x_init: Tensor
    nfe: int
    ts: Tensor
    seed: int | None
    counts: Counts | None = None


@own_context()
def sample(
    model: ScoreModel,
    sampler: Sampler,
    ts: Tensor | Sequence[float],
    shape: Sequence[int],
    *,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Tensor | None = None,
    x_init: Tensor | None = None,
    batch: int | None = None,
    denoise: bool = False,
    max_nfe: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_step: OnStep | None = None,
) -> Samples:
    """Draw samples: from the prior (or `x_init`) at ts[0] down to ts[-1].

    Sample i depends on (seed, i) alone: not on its batch mates, the batch size or `shape[0]`, and
    not on surrounding contexts such as `torch.autocast`. Several threads may sample from one model.

    Args:
        model: Score model.
        sampler: The sampler.
        ts: Time grid, N + 1 decreasing times in a tensor, array or list; see `scoresde.grid`.
        shape: Shape of the result, (n, *D).
        seed: Integer in [0, 2^64); one stream per sample is made from it.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        y: Integer class labels, shape (n,), which a conditional model needs.
        x_init: States at ts[0], shape (n, *D), instead of draws from N(0, s² I), where s is
            `sde.start_std(ts[0])`: the prior's standard deviation at t = 1.
        batch: Run so many samples at a time; None = all at once.
        denoise: Finish with E[x_0 | x] at ts[-1], one more evaluation: removes the noise of
            standard deviation σ(ts[-1]) that the samples rightly still carry.
        max_nfe: Give up with RuntimeError after so many evaluations per sample.
        device: Where to run.
        dtype: Floating dtype of the state.
        on_step: Called after each step with (steps done, time reached, state of the chunk).

    Returns:
        The samples with their counted NFE.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: On a bad argument, a sampler that is impossible for the model's SDE, or a grid
            that starts where only `x_init` can say what x is; for a model of discrete labels, on
            a grid that ends below the first one; for rounded labels, on a sampler that leaves the
            grid and a grid that leaves the ladder.
        RuntimeError: If the network returns anything but finite values of the shape of x, the
            samples overflow, or `max_nfe` is exceeded.
    """
    ts, shape = check_grid(ts), check_shape(shape)
    _check_arguments(model, sampler, shape, seed, noise, x_init, batch, dtype)
    if x_init is None:
        model.sde.start_std(float(ts[0]))  # refuses a start that depends on the data
    model.sde.nodes(ts)  # refuses a time at which σ = 0
    if model.snapped:
        check_on_ladder(model.sde, ts)
    model.check_last(float(ts[-1]))
    seed = None if seed is None else check_seed(seed)
    batch = max(shape[0], 1) if batch is None else check_integer("batch", batch, minimum=1)
    max_nfe = None if max_nfe is None else check_integer("max_nfe", max_nfe, minimum=0)
    model = model.labelled(y, shape[0], device)
    chunks, starts, counts, nfe = [], [], [], 0
    for begin in range(0, shape[0], batch):
        rows = slice(begin, min(begin + batch, shape[0]))
        source = noise or SampleNoise(seed, range(rows.start, rows.stop))
        bound = model.take(rows)
        if x_init is None:
            n = rows.stop - rows.start
            start = draw_start(model.sde, source, (n, *shape[1:]), float(ts[0]))
        else:
            start = x_init[rows]
        start = start.to(device, dtype)
        with evaluating(model), count_nfe(model, limit=max_nfe) as counted:
            x, taken = sampler.run_counted(bound, start, ts, source, on_step)
            if denoise:
                x = bound.x0(x, model.sde.nodes(ts[-1:])[0])
        chunks.append(finite_or_raise(x, f"samples at t={float(ts[-1]):.6g}"))
        starts.append(start)
        counts += [] if taken is None else [taken]
        nfe = max(nfe, counted.forward)
    empty = torch.empty(shape, device=device, dtype=dtype)
    return Samples(
        x=torch.cat(chunks) if chunks else empty,
        x_init=torch.cat(starts) if starts else empty,
        nfe=nfe,
        ts=ts,
        seed=seed,
        counts=Counts.cat(counts) if counts else None,
    )


def draw_start(sde: SDE, noise: Noise, shape: Sequence[int], t: float = 1.0) -> Tensor:
    """The states that sampling starts from at time t, N(0, s² I) with s of `sde.start_std`.

    Args:
        sde: The forward process.
        noise: Source of the draws.
        shape: (B, *D).
        t: First time of the grid.

    Returns:
        Shape (B, *D), float64, on the CPU.

    Raises:
        ValueError: If the state at t depends too much on the data.
    """
    return noise.prior(shape) * sde.start_std(t)


def check_rtol(rtol: float, dtype: torch.dtype) -> None:
    """Raise unless a step size control can tell such a relative tolerance from rounding.

    Raises:
        ValueError: If rtol is below 1e-7 and the dtype is not float64.
    """
    if dtype != torch.float64 and rtol < FLOAT32_RTOL:
        raise ValueError(
            f"rtol must be at least {FLOAT32_RTOL:g} in float32, got {rtol:g}; use float64 for more"
        )


def _check_arguments(
    model: ScoreModel,
    sampler: Sampler,
    shape: tuple[int, ...],
    seed: int | None,
    noise: Noise | None,
    x_init: Tensor | None,
    batch: int | None,
    dtype: torch.dtype,
) -> None:
    if (seed is None) == (noise is None):
        raise ValueError("exactly one of seed and noise must be given")
    if noise is not None and batch is not None:
        raise ValueError("batch needs a seed: a noise source serves the one batch it was made for")
    if not dtype.is_floating_point or dtype.itemsize < 4:
        raise ValueError(f"dtype must be float32 or float64 (autocast the network), got {dtype}")
    if x_init is not None and not isinstance(x_init, Tensor):
        raise TypeError(f"x_init must be a tensor, got {type(x_init).__name__}")
    if x_init is not None and x_init.shape != shape:
        raise ValueError(f"x_init must have shape {shape}, got {tuple(x_init.shape)}")
    reason = sampler.refusal(model.sde, model.snapped)
    if reason is not None:
        raise ValueError(f"{type(sampler).__name__} cannot run: {reason}")
