"""Problems: a model, data, and their true log-likelihoods by the probability-flow ODE."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from paired import mixture
from script import write
from torch import Tensor

import scoresde
from scoresde.exact import GaussianMixture
from scoresde.likelihood import ExactTrace, Ode, Probing, encode, fit_gaussian, log_likelihood
from scoresde.likelihood.flow import log_prior
from scoresde.likelihood.trace.choice import PASS_COST
from scoresde.likelihood.trace.jacobian import linearize
from scoresde.noise import SampleNoise
from scoresde.score import ScoreModel
from scoresde.sde import VP

__all__ = ["Problem", "exact_problem", "held_out", "network_problem", "pass_cost"]

EXACT_TRUTH_UP_TO = 64  # dimensions; above, the truth has random probes
TRUTH_SEED = 2**40  # differs from the seeds of the draws


@dataclass(frozen=True)
class Problem:
    """A model, points, and their true log-likelihoods.

    Attributes:
        name: Name of the problem, for the table.
        model: The score model, its weights frozen.
        x: Points, shape (n, *D).
        control: The Gaussian of other data.
        t_min: Start time of x.
        truth: log p(x) in nats by the ODE, shape (n,), float64.
        truth_error: Standard error of `truth`, in nats, shape (n,).
        about: How the truth was computed, in words.
        pass_cost: Cost of a derivative pass, in forward passes.
    """

    name: str
    model: ScoreModel
    x: Tensor
    control: GaussianMixture
    t_min: float
    truth: Tensor
    truth_error: Tensor
    about: str
    pass_cost: float

    @property
    def dims(self) -> int:
        """D."""
        return math.prod(self.x.shape[1:])

    @property
    def bits(self) -> float:
        """One nat of log p, in bits/dim."""
        return 1 / (self.dims * math.log(2))

    def first(self, n: int) -> Problem:
        """The problem with its first n points only."""
        truth, error = self.truth[:n], self.truth_error[:n]
        return replace(self, x=self.x[:n], truth=truth, truth_error=error)


def exact_problem(modes: bool, seed: int, n: int, t_min: float, tolerance: float = 1e-9) -> Problem:
    """n data of a mixture whose densities are known.

    The exact ODE maps the density p_{t_min} to p_1, so that

        log p(x) = log p_{t_min}(x) − log p_1(x(1)) + log prior(x(1))

    needs only x(1) from a solve. `log_likelihood` of eight points with exact traces and the same
    solver must agree; `about` states the difference.
    """
    model = _modes(seed) if modes else _mixture(seed)
    x = model.sample(n, seed=seed)
    ode = Ode("dop853", tolerance, tolerance, trace="exact", t_min=t_min)
    last = encode(model, x, ode).latent
    truth = model.log_prob(x, t_min) - model.log_prob(last, 1.0)
    truth = truth + log_prior(last, model.sde.prior_std)
    other = log_likelihood(model, x[:8], ode).log_prob
    difference = float((other - truth[:8]).abs().max())
    about = f"closed form after dop853 per sample at {tolerance:g}"
    return Problem(
        name=f"{len(model.weights)} {'modes' if modes else 'Gaussians'}, D = {x.shape[1]}, "
        f"mixture of seed {seed}",
        model=model,
        x=x,
        control=fit_gaussian(model.sde, model.sample(5000, seed=seed + 1)),
        t_min=t_min,
        truth=truth,
        truth_error=torch.zeros_like(truth),
        about=f"{about}; with exact traces of 8 points within {difference:.0e} nats of that",
        pass_cost=PASS_COST,  # the ratio of an exact score says nothing about networks
    )


def _mixture(seed: int) -> GaussianMixture:
    """The mixture of `paired` under VP, because a table of noise levels is not smooth to 1e-9."""
    known = mixture(seed, 1, tolerance=1e-3).levels.model
    covs = known.axes @ torch.diag_embed(known.variances) @ known.axes.mT
    return GaussianMixture(VP(), known.weights, known.means, covs)


def _modes(seed: int) -> GaussianMixture:
    """Four Gaussians in 32 dimensions, about 17 apart, with standard deviations of 0.1 to 1."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    k, d = 4, 32
    a = draw(k, d, d)
    covs = a @ a.mT / (4 * d) + 0.01 * torch.eye(d, dtype=torch.float64)
    return GaussianMixture(VP(), [1 / k] * k, 2 * draw(k, d), covs)


def held_out(checkpoint: str, seed: int, n: int) -> tuple[ScoreModel, Tensor, GaussianMixture]:
    """A checkpoint's model, dequantized test data, and the Gaussian of its training data."""
    loaded = scoresde.load(checkpoint)
    model = loaded.model.eval().requires_grad_(False)
    train, test = (scoresde.load_dataset(loaded.data.name, split=s) for s in ("train", "test"))

    def points(x: Tensor, seed: int) -> Tensor:
        noise = SampleNoise(seed, range(len(x)))
        u = noise.uniform(x)
        return train.spec.dequantize(x, u).float()

    x = points(test.x[:n], seed)
    control = fit_gaussian(model.sde, points(train.x[:20_000], seed + 1))
    return model, x, control


def network_problem(
    checkpoint: str,
    seed: int,
    n: int,
    t_min: float,
    tolerance: float = 1e-6,
    blocks: int = 4,
    file: Path | None = None,
) -> Problem:
    """n dequantized test data of a checkpoint; their truth is read from `file`, or written there.

    The truth is computed by dopri5 at `tolerance`, with exact traces up to D = 64, and above with
    blocks of Probing(8) and the control variate.
    """
    model, x, control = held_out(checkpoint, seed, n)
    exact = math.prod(x.shape[1:]) <= EXACT_TRUTH_UP_TO
    rule = ExactTrace() if exact else Probing(8, blocks)
    key = [checkpoint, seed, n, t_min, tolerance, str(rule)]

    def solve() -> tuple[Tensor, Tensor]:
        ode = Ode(rtol=tolerance, atol=tolerance, trace=rule, control=control, t_min=t_min)
        done = log_likelihood(model, x, ode, seed=TRUTH_SEED)
        return done.log_prob, done.std_error

    truth, error = _cached(file, key, solve)
    return Problem(
        name=f"{checkpoint}, test data dequantized with seed {seed}",
        model=model,
        x=x,
        control=control,
        t_min=t_min,
        truth=truth,
        truth_error=error,
        about=f"dopri5 at {tolerance:g}, {'exact traces' if exact else f'{rule} and control'}",
        pass_cost=pass_cost(model, x[:16]),
    )


def _cached(
    file: Path | None, key: list[object], solve: Callable[[], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Two vectors, read from a JSON file with this key, or computed and written to it."""
    if file is not None and file.exists():
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["key"] != key:
            raise ValueError(f"{file} holds the truth of {held['key']}, not of {key}")
        return tuple(torch.tensor(held[k], dtype=torch.float64) for k in ("truth", "error"))
    truth, error = solve()
    if file is not None:
        values = {"key": key, "truth": truth.tolist(), "error": error.tolist()}
        write(file, json.dumps(values).encode())
    return truth, error


@torch.no_grad()
def pass_cost(model: ScoreModel, x: Tensor, repeats: int = 25) -> float:
    """Time of a vector–Jacobian product in forward passes, the median over pairs of runs."""
    node, v = model.sde.at(0.3, x), torch.ones_like(x)

    def field(z: Tensor) -> Tensor:
        return model.v(z, node)

    runs = (lambda: field(x), lambda: linearize(field, x).vjp(v))
    ratios = []
    for _ in range(repeats + 1):
        # one directly after the other, so that other work of the machine slows both
        forward, both = (_seconds(run) for run in runs)
        ratios.append(both / forward)
    return statistics.median(ratios[1:]) - 1  # the first warms up


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
