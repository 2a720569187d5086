"""The error of log p along samples of the SDE (Itô) and of the ODE, against their evaluations.

    python benchmarks/ito_density.py                                # a mixture in 16 dimensions
    python benchmarks/ito_density.py --checkpoint digits-vp --n 48  # a shipped network

For an exact model the error is that of the computation alone: log p_t + (prior − log p_1)(x(1)) is
the exact value for both. For a network it is the difference from log p of the ODE at the same
points, which is another density than that of the SDE's samples.
"""

from __future__ import annotations

import math

import click
import torch
from paired import mixture
from script import print_header
from torch import Tensor

import scoresde
from scoresde.exact import GaussianMixture
from scoresde.likelihood import (
    ExactTrace,
    Ito,
    Ode,
    Path,
    ScoredSamples,
    log_likelihood,
    sample_with_log_prob,
)
from scoresde.likelihood.flow import log_prior
from scoresde.score import ScoreModel

TRUTH = Path(steps=64, nodes=24, trace="hutchinson:probes=8")
TOLERANCES = (1e-2, 1e-3, 1e-4)


def truth(model: ScoreModel, out: ScoredSamples, seed: int) -> tuple[Tensor, float]:
    """The value of log p that each sample should have, and the standard error of these values."""
    if isinstance(model, GaussianMixture):
        mismatch = log_prior(out.latent.double(), model.sde.prior_std)
        mismatch = mismatch - model.log_prob(out.latent.double(), 1.0)
        return model.log_prob(out.x.double(), out.t_min) + mismatch, 0.0
    found = log_likelihood(model, out.x, TRUTH, seed=seed + 1, batch=64)
    return found.log_prob, float(found.std_error.square().mean().sqrt())


def _trace(method: Ode) -> str:
    return "exact trace" if isinstance(method.trace, ExactTrace) else "1 probe"


def row(model: ScoreModel, method: Ito | Ode, shape: tuple[int, ...], seed: int) -> str:
    """One line of the table."""
    # exact scores are computed in float64, so that rounding does not show
    exact = isinstance(model, GaussianMixture)
    dtype = torch.float64 if exact else torch.float32
    out = sample_with_log_prob(model, shape, method, seed=seed, dtype=dtype, batch=512)
    expected, error = truth(model, out, seed)
    off, n = out.log_prob - expected, shape[0]
    stated = float(out.std_error.square().mean().sqrt())
    if isinstance(method, Ito):
        name = f"Ito, scale {method.scale:g}, {method.steps} steps"
    else:
        name = f"{method.method}, tolerance {method.rtol:g}, {_trace(method)}"
    numbers = (
        f"{off.mean():+9.4f} ± {off.std() / math.sqrt(n):.4f}  {off.std():9.4f}  {stated:9.4f}"
    )
    return f"{name:<44} {out.nfe:>6} {out.nfe_derivative:>6}  {numbers}  {error:.2f}"


@click.command(help=__doc__.partition("\n")[0])
@click.option("--checkpoint", help="A network; the mixture if not given.")
@click.option("--n", type=click.IntRange(2), default=400, show_default=True, help="Samples.")
@click.option("--steps", default="32,128,512,2048", show_default=True, help="Steps of the SDE.")
@click.option("--scales", default="0.1,0.25,1", show_default=True, help="Scales d of its steps.")
@click.option("--seed", default=0, show_default=True)
def main(checkpoint: str | None, n: int, steps: str, scales: str, seed: int) -> None:
    """Print the table."""
    print_header(seed=seed)
    model = scoresde.load(checkpoint).model if checkpoint else mixture(seed, 1).levels.model
    shape = (n, *(model.data.shape if checkpoint else model.shape))
    click.echo(f"{checkpoint or 'mixture'}, shape {shape}; errors in nats")
    click.echo(
        f"{'':<44} {'NFE':>6} {'deriv.':>6}  mean error          std        stated     truth ±"
    )
    for scale in map(float, scales.split(",")):
        for count in map(int, steps.split(",")):
            click.echo(row(model, Ito(count, scale), shape, seed))
    traces = ["hutchinson"] if checkpoint else ["hutchinson", "exact"]
    for trace in traces:
        for tolerance in TOLERANCES:
            click.echo(row(model, Ode("dopri5", tolerance, tolerance, trace=trace), shape, seed))


if __name__ == "__main__":
    main()
