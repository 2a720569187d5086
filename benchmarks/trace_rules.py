"""The errors of trace estimates for the same number of derivative passes, and their time.

    python benchmarks/trace_rules.py                                # a mixture in 16 dimensions
    python benchmarks/trace_rules.py --checkpoint digits-vp         # a shipped network
    python benchmarks/trace_rules.py --checkpoint digits-vp --timing

Errors: for each rule and half log-SNR λ, √(variance · passes) of σ tr ∂ε/∂x in nats; `*` marks the
Gaussian control variate, fitted to the training data. The last columns are from `choose_trace`: the
standard deviation of log p in bits/dim for one evaluation, and the forward passes needed for
0.01 bits/dim.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import click
import torch
from likelihood_problems import held_out
from paired import mixture
from script import print_header
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoresde.exact import GaussianMixture
from scoresde.likelihood.trace.choice import TraceSearch, choose_trace, trace_candidates
from scoresde.likelihood.trace.control import fit_gaussian, gaussian_control
from scoresde.likelihood.trace.jacobian import linearize
from scoresde.likelihood.trace.rules import ExactTrace, Hutchinson
from scoresde.noise import SampleNoise
from scoresde.score import ScoreModel

LAMBDAS = (-3.0, -1.5, 0.0, 1.0, 2.0, 3.0, 4.5)


def problem(
    checkpoint: str | None, n: int, seed: int
) -> tuple[ScoreModel, Tensor, GaussianMixture]:
    """A model, some data it was not trained on, and the Gaussian of the training data."""
    if checkpoint is None:
        model = mixture(seed, 1).levels.model
        return (
            model,
            model.sample(n, seed=seed),
            fit_gaussian(model.sde, model.sample(5000, seed=9)),
        )
    return held_out(checkpoint, seed, n)


def errors(
    model: ScoreModel, x: Tensor, reference: GaussianMixture, seed: int, repeats: int
) -> dict[str, list[float]]:
    """Per rule √(variance · passes) of σ tr ∂ε/∂x at each of `LAMBDAS`."""
    dims, noise = math.prod(x.shape[1:]), SampleNoise(seed, range(len(x)))
    rules = [r for r in trace_candidates(dims) if not isinstance(r, ExactTrace)]
    rules += [Hutchinson("gaussian"), Hutchinson("orthogonal", min(8, dims // 2))]
    found: dict[str, list[float]] = {}
    for t in model.sde.t_of_lam(torch.tensor(LAMBDAS, dtype=torch.float64)).tolist():
        node = model.sde.at(t, x)
        x_t = node.alpha * x + node.sigma * noise.fresh(x)
        plain = linearize(lambda z, at=node: model.eps(z, at), x_t)
        controlled = plain.minus(gaussian_control(reference, node, x_t))
        for rule in rules:
            for star, jacobian in (("", plain), (" *", controlled)):
                draws = [
                    rule.estimate(jacobian, rule.draw(noise, x_t)).mean(1) for _ in range(repeats)
                ]
                variance = float(torch.stack(draws).var(0).mean()) * rule.cost(dims)
                found.setdefault(f"{rule}{star}", []).append(node.sigma * math.sqrt(variance))
    return found


def seconds(action: Callable[[], object], repeats: int = 5) -> float:
    """Median time of an action, after one run that is not counted."""
    action()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def timing(model: ScoreModel, x: Tensor) -> None:
    """Print the time of derivatives, with either implementation of attention."""
    node, v = model.sde.at(0.3, x), torch.ones_like(x)

    def field(z: Tensor) -> Tensor:
        return model.eps(z, node)

    click.echo(f"\n{len(x)} points  forward  forward + VJP  forward + JVP  (ratios)")
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend), torch.no_grad():
            forward = seconds(lambda: field(x))
            vjp = seconds(lambda: linearize(field, x).vjp(v))
            try:
                jvp = seconds(lambda: torch.func.jvp(field, (x,), (v,)))
            except (NotImplementedError, RuntimeError) as error:
                click.echo(f"{backend.name}: no forward mode ({str(error).splitlines()[0][:60]})")
                jvp = math.nan
        click.echo(
            f"{backend.name:<16} {forward:.4f} s  {vjp:.4f} s  {jvp:.4f} s  "
            f"(1 : {vjp / forward:.2f} : {jvp / forward:.2f})"
        )


@click.command(help=__doc__.partition("\n")[0])
@click.option("--checkpoint", help="A network; the mixture if not given.")
@click.option("--n", default=8, show_default=True, help="Points.")
@click.option(
    "--repeats", type=click.IntRange(2), default=4, show_default=True, help="Draws of each rule."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--timing", "timed", is_flag=True, help="Seconds instead of errors.")
def main(checkpoint: str | None, n: int, repeats: int, seed: int, timed: bool) -> None:
    """Print the tables."""
    print_header(seed=seed)
    click.echo(f"{checkpoint or 'mixture'}, n {n}")
    model, x, reference = problem(checkpoint, n, seed)
    if timed:
        timing(model, x)
        return
    with torch.no_grad():
        found = errors(model, x, reference, seed, repeats)
    chosen = choose_trace(model, x, TraceSearch(repeats=repeats), seed=seed, control=reference)
    totals = {f"{row.rule}{' *' * row.controlled}": row for row in chosen.table}
    bits = math.prod(x.shape[1:]) * math.log(2)
    click.echo(" " * 46 + "".join(f"{lam:>8g}" for lam in LAMBDAS) + "  bits/dim    forwards")
    for name, row in found.items():
        line = f"{name:<46}" + "".join(f"{value:8.3f}" for value in row)
        total = totals.get(name)
        if total is not None:
            line += f"{math.sqrt(total.variance) / bits:10.4f}{total.total:12.0f}"
        click.echo(line)
    click.echo(f"choose_trace: {chosen.rule}{' with control' * chosen.controlled}")


if __name__ == "__main__":
    main()
