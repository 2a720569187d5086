"""The reduction of variance by importance-sampled times for the likelihood weighting.

    python benchmarks/likelihood_weighting.py
    python benchmarks/likelihood_weighting.py --checkpoint digits-vp --checkpoint digits-subvp

g²/σ² weights small times heavily under VP and sub-VP; with λ uniform it becomes a constant (Song
et al. 2021, arXiv:2101.09258, on importance weighting). The table compares two estimators of one
objective. The models are the exact score of a Gaussian with mean and covariance of the digits, on
draws from this Gaussian, and trained networks, on the dequantized digits. The means of the loss
must agree. The table shows ratios of variances, uniform/log_snr, for the loss of a single sample,
for the mean loss of a batch with stratified times (as in training), and for its gradient (the trace
of its covariance over all weights; networks only). A ratio of r means that uniform times need
batches r times as large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import click
import torch
from script import print_header
from torch import Tensor

from scoresde.data import load_dataset
from scoresde.exact import GaussianMixture
from scoresde.loss import Objective
from scoresde.names.loading import load
from scoresde.score import ScoreModel
from scoresde.sde import SDE, VE, VP, SubVP

SDES: list[SDE] = [VP(), SubVP(), VE(0.01, 10.0)]


@dataclass(frozen=True)
class Spread:
    """Results of one estimator: mean and standard error of the loss, and three variances."""

    mean: float
    std_error: float
    single: float
    batch: float
    gradient: float


def measure(model: ScoreModel, objective: Objective, x: Tensor, batch: int) -> Spread:
    """The estimator on consecutive batches of x, with times and noise of seed 0."""
    generator = torch.Generator().manual_seed(0)
    singles, means, gradients = [], [], []
    weights = [p.requires_grad_() for p in model.parameters()]
    for x0 in x.split(batch):
        eps = torch.randn(x0.shape, generator=generator, dtype=x.dtype)
        free = torch.rand(batch, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            singles.append(objective(model, x0, free, eps)[0])
        stratified = (torch.arange(batch) + free) / batch
        loss = objective(model, x0, stratified, eps)[0].mean()
        means.append(loss.detach())
        if weights:
            parts = torch.autograd.grad(loss, weights)
            gradients.append(torch.cat([part.flatten() for part in parts]))
    single, mean = torch.cat(singles).double(), torch.stack(means).double()
    gradient = float(torch.stack(gradients).var(0).sum()) if gradients else math.nan
    error = float(mean.std()) / math.sqrt(len(mean))
    return Spread(float(mean.mean()), error, float(single.var()), float(mean.var()), gradient)


def compare(model: ScoreModel, x: Tensor, t_min: float, batch: int) -> str:
    """One row of the table: means, and ratios of variances."""
    a, b = (
        measure(model, Objective("likelihood", times, t_min=t_min), x, batch)
        for times in ("uniform", "log_snr")
    )
    ratios = (a.single / b.single, a.batch / b.batch, a.gradient / b.gradient)
    name = f"{type(model.sde).__name__} {'exact' if math.isnan(a.gradient) else 'network'}"
    means = f"{a.mean:8.3f} ± {a.std_error:.3f} {b.mean:8.3f} ± {b.std_error:.3f}"
    return f"{name:13} {t_min:.0e} {means} " + " ".join(f"{r:10.3g}" for r in ratios)


def images(n: int) -> Tensor:
    """n digits, drawn with replacement and dequantized, float32."""
    data, generator = load_dataset("digits"), torch.Generator().manual_seed(1)
    x = data.x[torch.randint(len(data), (n,), generator=generator)]
    return data.spec.dequantize(x, torch.rand(x.shape, generator=generator))


def gaussian(sde: SDE) -> GaussianMixture:
    """The Gaussian with mean and covariance of the dequantized digits."""
    x = images(10_000).double()
    return GaussianMixture(sde, [1.0], x.mean(0)[None], torch.cov(x.flatten(1).T)[None])


@click.command(help=__doc__.partition("\n")[0])
@click.option(
    "--checkpoint", "names", multiple=True, help="Trained on the digits; may be repeated."
)
@click.option("--batch", default=64, show_default=True, type=click.IntRange(min=2))
@click.option("--batches", default=200, show_default=True, type=click.IntRange(min=2))
def main(names: tuple[str, ...], batch: int, batches: int) -> None:
    """Print the table."""
    n = batch * batches
    print_header()
    print(f"data of seed 1, {batches} batches of {batch}")
    print("last three columns: ratios of variances, uniform/log_snr\n")
    print(
        "model         t_min  mean (uniform)    mean (log_snr)    one sample      batch   gradient"
    )
    exact = [gaussian(sde) for sde in SDES]
    cases = [(model, model.sample(n, seed=1)) for model in exact]
    cases += [(load(name).model, images(n)) for name in names]
    for model, x in cases:
        for t_min in (1e-3, 1e-5):
            print(compare(model, x, t_min, batch), flush=True)


if __name__ == "__main__":
    main()
