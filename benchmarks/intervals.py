"""How often the 95 % intervals of the metrics hold what they state, on exactly known samples.

    python benchmarks/intervals.py --cases 600 --n 256 --data plane

Each case draws a reference, and the samples of five "samplers" from exactly known distributions:

    equal        the distribution of the reference
    small shift  moved by 0.2 standard deviations
    large shift  moved by 1 standard deviation
    scale 1.2    noise of 1.2 times the standard deviation
    own start    the distribution of the reference, drawn independently of the other four

The first four share the noise of a case up to a jitter, as samplers share x_T. The true value of a
metric is its mean over all cases. A metric that is biased at finite n has no other value that an
interval could hold. The columns:

    held       percentage of the intervals that hold the true value
    high, low  percentage of intervals that lie wholly above and wholly below the true value
    width      mean of the stated standard error, divided by the standard deviation over the cases
    best       percentage of cases in which the confidence set of the best holds the truly best

Data: `plane`, a mixture of three Gaussians in 2 dimensions; `space`, a mixture of two Gaussians in
16 dimensions with unequal variances; `features`, 64 rectified features of 12 hidden dimensions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import click
import numpy as np
import torch
from script import print_header
from torch import Tensor

from scoresde.comparison.measures import QUALITY_METRICS, RealData, measured
from scoresde.comparison.metric_table import METRICS
from scoresde.comparison.ranking import rank
from scoresde.comparison.records import CellResult
from scoresde.metrics import CubicKernel, Estimate, GaussianKernel, difference, ratio

CELLS = {
    "equal": (0.0, 1.0),
    "small shift": (0.2, 1.0),
    "large shift": (1.0, 1.0),
    "scale 1.2": (0.0, 1.2),
    "own start": (0.0, 1.0),
}
JITTER = 0.3  # of the noise of a cell that it does not share with the others


@dataclass(frozen=True)
class Family:
    """Exactly known distributions: x = features(mean of a component + scale · noise + shift).

    Attributes:
        means: Means of the components, shape (components, d).
        std: Standard deviations of the noise, shape (d,).
        features: Function of the rows.
    """

    means: Tensor
    std: Tensor
    features: Callable[[Tensor], Tensor] = lambda x: x

    def draw(self, labels: Tensor, noise: Tensor, shift: float, scale: float) -> Tensor:
        """Rows of the distribution from components (n,) and N(0, I) noise (n, d)."""
        along = self.std * shift / len(self.std) ** 0.5
        return self.features(self.means[labels] + scale * self.std * noise + along)


def families() -> dict[str, Family]:
    """The kinds of data by name."""
    normal = np.random.default_rng(7).standard_normal
    plane = torch.tensor([[-2.0, 0.0], [1.5, 1.0], [0.5, -1.5]], dtype=torch.float64)
    spread = torch.linspace(1.5, 0.4, 16, dtype=torch.float64)
    far = torch.stack([spread, -spread])
    layer, bias = (torch.from_numpy(normal(shape)) for shape in ((12, 64), (64,)))

    def rectified(x: Tensor) -> Tensor:
        return torch.relu(x @ layer / 12**0.5 + 0.5 * bias)

    hidden = torch.from_numpy(normal((4, 12)))
    return {
        "plane": Family(plane, torch.full((2,), 0.6, dtype=torch.float64)),
        "space": Family(far, spread),
        "features": Family(hidden, torch.ones(12, dtype=torch.float64), rectified),
    }


def one_case(
    family: Family, n: int, m: int, seed: int, metrics: tuple[str, ...], gaussian: bool
) -> dict[str, dict[str, Estimate]]:
    """The estimates of all metrics for all cells of a case, by cell and metric."""
    draw = torch.Generator().manual_seed(seed)

    def noise(rows: int) -> Tensor:
        return torch.randn(rows, len(family.std), generator=draw, dtype=torch.float64)

    def labels(rows: int) -> Tensor:
        return torch.randint(len(family.means), (rows,), generator=draw)

    y, held = (family.draw(labels(rows), noise(rows), 0.0, 1.0) for rows in (m, n))
    kernel = GaussianKernel(float(y.std(0).norm())) if gaussian else CubicKernel()
    real = RealData(y, y, held, kernel, "raw", y, held)
    common, chosen, found = noise(n), labels(n), {}
    for name, (shift, scale) in CELLS.items():
        if name == "own start":
            common, chosen = noise(n), labels(n)
        own = (common + JITTER * noise(n)) / (1 + JITTER**2) ** 0.5
        x = family.draw(chosen, own, shift, scale)
        found[name] = measured(metrics, real, x, x)
    return found


def as_cell(name: str, estimates: dict[str, Estimate]) -> CellResult:
    """A result of a comparison with these metrics."""
    start = name if name == "own start" else "common"
    n = next(iter(estimates.values())).n[0]
    return CellResult(
        name, name, "", 5, None, "done", True, n=n, x_init_sha256=start, metrics=estimates
    )


def row(estimates: list[Estimate], truth: float) -> str:
    """Coverage, misses on each side, and width ratio of the intervals of all cases."""
    usable = [each for each in estimates if each.std_error == each.std_error]
    if len(usable) < 0.9 * len(estimates):
        return f"{'no interval in ' + str(len(estimates) - len(usable)) + ' cases':>28s}"
    low, high = np.array([each.interval() for each in usable]).T
    values = np.array([each.value for each in usable])
    spread = values.std(ddof=1)
    width = np.mean([each.std_error for each in usable]) / spread if spread else np.nan
    above, below = 100 * (low > truth).mean(), 100 * (high < truth).mean()
    return f"{100 - above - below:6.1f} {above:6.1f} {below:6.1f} {width:7.2f}"


def print_metric(metric: str, cases: list[dict[str, dict[str, Estimate]]]) -> None:
    """The rows of a metric: each cell, differences of pairs, and the set of the best."""
    by_cell = {name: [case[name][metric] for case in cases] for name in CELLS}
    truth = {name: float(np.mean([e.value for e in found])) for name, found in by_cell.items()}
    for name, found in by_cell.items():
        print(f"{metric:17s} {name:38s} {truth[name]:9.4f} {row(found, truth[name])}")
    for a, b in itertools.combinations(CELLS, 2):
        paired = "own start" not in (a, b)
        pairs = list(zip(by_cell[b], by_cell[a], strict=True))
        gaps = [difference(x, y, paired=paired) for x, y in pairs]
        what = f"{b} − {a}"
        exact = truth[b] - truth[a]
        print(f"{metric:17s} {what:38s} {exact:9.4f} {row(gaps, exact)}")
        if METRICS[metric].has_ratio and paired:
            exact = truth[b] / truth[a]
            quotients = [ratio(x, y, paired=paired) for x, y in pairs]
            print(f"{metric:17s} {f'{b} / {a}':38s} {exact:9.4f} {row(quotients, exact)}")
    if METRICS[metric].better:
        best = "equal", "own start"  # equal distributions: both are best
        sets = [rank([as_cell(n, c[n]) for n in CELLS], metric).leading for c in cases]
        led = [100 * np.mean([any(c.sampler == b for c in s) for s in sets]) for b in best]
        size = np.mean([len(s) for s in sets])
        print(f"{metric:17s} best in the set: {led[0]:.1f}, {led[1]:.1f}; mean size {size:.1f}")


@click.command(help=__doc__.partition("\n")[0])
@click.option("--data", type=click.Choice(list(families())), default="plane", show_default=True)
@click.option("--n", type=click.IntRange(8), default=256, show_default=True)
@click.option("--reference", type=click.IntRange(8), help="Rows of the reference; default n.")
@click.option("--cases", type=click.IntRange(2), default=600, show_default=True)
@click.option("--metric", type=click.Choice(QUALITY_METRICS), multiple=True, help="Default: all.")
@click.option("--gaussian", is_flag=True, help="MMD² with a Gaussian instead of a cubic kernel.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def main(
    data: str,
    n: int,
    reference: int | None,
    cases: int,
    metric: tuple[str, ...],
    gaussian: bool,
    seed: int,
) -> None:
    """Print one row for each metric and cell, and for each pair of cells."""
    torch.set_num_threads(1)
    print_header(seed=seed)
    metrics, m, family = metric or QUALITY_METRICS, reference or n, families()[data]
    print(f"{data}: {n} samples, reference of {m} rows, {cases} cases\n")
    found = [one_case(family, n, m, seed * 10**6 + i, metrics, gaussian) for i in range(cases)]
    columns = "".join(f"{name:>7s}" for name in ("held", "high", "low"))
    print(f"{'metric':17s} {'of':38s} {'true':>9s}{columns} {'width':>7s}")
    for name in metrics:
        print_metric(name, found)


if __name__ == "__main__":
    main()
