"""Inverse problems: how far samplers are from the exact posterior of a mixture.

    python benchmarks/inverse.py

The data are a random mixture of Gaussians, the measurement y = A x + noise has random orthonormal
rows. Measurements are drawn with their true x, and every method draws the same number of samples
for each. Each row is one method at most at a number of evaluations per sample:

- mean      error of the samples' mean in its standard errors, root mean square over coordinates and
            measurements; an exact method has 1
- bias      the same error without the part of sampling, in standard deviations of the posterior
- spread    variance of the samples over that of the posterior, mean over coordinates and
            measurements; an exact method has 1
- sliced W2 to 2000 exact samples of the posterior, mean over measurements ± its standard error;
            the row "exact samples" shows what an exact method has
- cover     share of the true coordinates inside the central 95 % of the samples, ± its standard
            error over measurements; an exact method has 95
- grad      derivative passes per sample

"exact score" is the score of the posterior itself with the same steps, so that its error is that of
the steps. "Langevin" is annealed Langevin dynamics on that score. RePaint does each step five
times. The number behind TwistedSMC is that of its particles, each of which costs evaluations; it
needs noise, and so does the scale of DPS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click
import torch
from script import print_header
from torch import Tensor

import scoresde
from scoresde import VP, AnnealedLangevin, GaussianMixture
from scoresde.inverse import (
    DDNM,
    DDRM,
    DPS,
    Measured,
    PiGDM,
    Projection,
    RePaint,
    Replacement,
    TwistedSMC,
    posterior,
)
from scoresde.metrics import sliced_wasserstein
from scoresde.samplers import DDIM, Sampler
from scoresde.score import ScoreModel, count_nfe

REFERENCE = 2000  # exact samples
PROJECTIONS = 64
EACH = 79  # samples of each measurement: 76 of the 80 ranks of the truth are the central 95 %
INSIDE = (2, 77)
REPEATS = 5  # of RePaint, and Langevin steps at each time
FEWEST = 4  # steps, below which a method has no row
ANCESTRAL = DDIM(eta=1.0)


@dataclass(frozen=True)
class Problem:
    """Measurements of a mixture, with the truth and the exact posteriors.

    Attributes:
        prior: The data.
        operator: A.
        noise: σ_y.
        truth: x, shape (R, D).
        y: Shape (R, M).
        exact: The posterior of each measurement.
        references: Exact samples of each.
    """

    prior: GaussianMixture
    operator: Projection
    noise: float
    truth: Tensor
    y: Tensor
    exact: list[GaussianMixture]
    references: list[Tensor]

    @property
    def data_var(self) -> float:
        """Variance of a coordinate of the data, which the methods are told."""
        return float(self.prior.cov().trace()) / self.prior.dim


def random_problem(dim: int, rows: int, noise: float, many: int, seed: int) -> Problem:
    """A mixture of 6 components of variance 0.02 to 0.5, and measurements of draws from it."""
    generator = torch.Generator().manual_seed(seed)
    draw = {"dtype": torch.float64, "generator": generator}
    means = torch.randn(6, dim, **draw)
    basis = torch.linalg.qr(torch.randn(6, dim, dim, **draw))[0]
    variances = 0.02 * 25 ** torch.rand(6, 1, dim, **draw)
    weights = torch.rand(6, **draw) + 0.2
    covs = (basis * variances) @ basis.mT
    prior = GaussianMixture(VP(), weights / weights.sum(), means, covs)
    operator = Projection.random((dim,), rows, seed)
    truth = prior.sample(many, seed=seed + 1)
    y = operator.A(truth) + noise * torch.randn(many, rows, **draw)
    exact = [posterior(prior, operator, row, noise) for row in y]
    references = [model.sample(REFERENCE, seed=seed + 2) for model in exact]
    return Problem(prior, operator, noise, truth, y, exact, references)


def methods(problem: Problem, nfe: int) -> Iterator[tuple[str, ScoreModel | None, Sampler, int]]:
    """Name, model (None: the exact score of each measurement), sampler and number of steps."""
    parts, v = (problem.prior, problem.operator), problem.data_var
    noise, steps = problem.noise, nfe - 1
    measured = Measured(*parts, noise)
    yield "exact score", None, ANCESTRAL, steps
    if steps // REPEATS - 1 >= 50:  # with fewer noise levels the state diverges between them
        yield "Langevin", None, AnnealedLangevin(REPEATS), steps // REPEATS - 1
    yield "PiGDM", PiGDM(*parts, noise, v), ANCESTRAL, steps
    yield "DDNM", DDNM(*parts, noise, v), ANCESTRAL, steps
    if noise > 0:
        yield "DPS", DPS(*parts, math.sqrt(problem.y.shape[1]) / noise), ANCESTRAL, steps
    yield "DDRM", measured, DDRM(), steps
    yield "Replacement", measured, Replacement(), steps
    yield "RePaint", measured, RePaint(REPEATS, REPEATS), steps // REPEATS
    for k in (4, 16) if noise > 0 else ():
        yield f"TwistedSMC {k}", measured, TwistedSMC(k, data_var=v), steps // k - 1


def drawn(
    problem: Problem, model: ScoreModel | None, sampler: Sampler, steps: int, seed: int
) -> tuple[Tensor, int, int]:
    """Samples of shape (R, L, D), with the evaluations and derivative passes of each."""
    ts = scoresde.grid.log_snr(problem.prior.sde, steps)
    if model is not None:
        y = problem.y.repeat_interleave(EACH, 0)
        with count_nfe(model) as counted:
            out = scoresde.sample(model, sampler, ts, y=y, seed=seed, dtype=torch.float64)
        return out.x.reshape(len(problem.y), EACH, -1), out.nfe, counted.derivative
    found = [
        scoresde.sample(exact, sampler, ts, n=EACH, seed=seed + i, dtype=torch.float64)
        for i, exact in enumerate(problem.exact)
    ]
    return torch.stack([out.x for out in found]), found[0].nfe, 0


def print_row(name: str, problem: Problem, x: Tensor, nfe: int | str, passes: int | str) -> None:
    """The measures of samples x of shape (R, L, D)."""
    means = torch.stack([model.mean() for model in problem.exact])
    stds = torch.stack([model.cov().diagonal().sqrt() for model in problem.exact])
    gaps = (x.mean(1) - means) / (stds / math.sqrt(EACH))
    rank = (x < problem.truth[:, None]).sum(1)
    inside = ((rank >= INSIDE[0]) & (rank <= INSIDE[1])).double().mean(1)
    distances = torch.tensor(
        [
            sliced_wasserstein(one, other, projections=PROJECTIONS).value
            for one, other in zip(x, problem.references, strict=True)
        ]
    )
    distance, cover = in_words(distances, 3), in_words(100 * inside, 1)
    square = float(gaps.square().mean())
    bias = math.sqrt(max(square - 1, 0) / EACH)
    numbers = f"{math.sqrt(square):6.1f}{bias:6.2f}{float((x.var(1) / stds**2).mean()):8.2f}"
    print(f"{problem.noise:5g}  {name:<14}{nfe:>6}{passes:>6}{numbers}  {distance}  {cover}")


def in_words(values: Tensor, digits: int) -> str:
    """Mean and standard error of one value for each measurement."""
    error = float(values.std()) / math.sqrt(len(values))
    return f"{float(values.mean()):5.{digits}f} ± {error:5.{digits}f}"


def compare(make: Callable[[float], Problem], noises: list[float], nfes: list[int]) -> None:
    """Print the rows of every noise level, method and number of evaluations."""
    print("noise  method           NFE  grad  mean  bias  spread  sliced W2      cover, %")
    for noise in noises:
        problem = make(noise)
        models = enumerate(problem.exact)
        samples = torch.stack([model.sample(EACH, seed=1000 + i) for i, model in models])
        print_row("exact samples", problem, samples, "", "")
        for nfe in nfes:
            for name, model, sampler, steps in methods(problem, nfe):
                if steps >= FEWEST:
                    print_row(name, problem, *drawn(problem, model, sampler, steps, seed=100))


@click.command(help=__doc__.partition("\n")[0])
@click.option("--dim", type=click.IntRange(min=2), default=8, show_default=True)
@click.option("--rows", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--measurements", type=click.IntRange(min=2), default=24, show_default=True)
@click.option("--noise", type=click.FloatRange(min=0), multiple=True,
              default=(0.0, 0.05, 0.5), show_default=True)  # fmt: skip
@click.option("--nfe", type=click.IntRange(min=3), multiple=True, default=(20, 100, 400),
              show_default=True)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(
    dim: int,
    rows: int,
    measurements: int,
    noise: tuple[float, ...],
    nfe: tuple[int, ...],
    seed: int,
) -> None:
    """Print the table."""
    print_header(seed=seed)

    def make(noise: float) -> Problem:
        return random_problem(dim, rows, noise, measurements, seed)

    compare(make, list(noise), list(nfe))


if __name__ == "__main__":
    main()
