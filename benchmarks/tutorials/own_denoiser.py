"""Turn a denoiser D(x, σ) into a score model, and compute log p in nats.

    python benchmarks/tutorials/own_denoiser.py

A denoiser takes x = x0 + σ ε and returns the mean of x0 given x, as EDM's networks do. This one is
a formula: Gaussians around given points, a kernel density estimate, whose log p is known.
"""

import argparse
import math

import torch
from torch import Tensor, nn

import scoresde
from scoresde.likelihood import Ode


class KernelDenoiser(nn.Module):
    """E[x0 | x0 + σ ε] for x0 = one of the points + width · normal noise."""

    def __init__(self, points: Tensor, width: float) -> None:
        super().__init__()
        self.register_buffer("points", points)
        self.width = width

    def exponents(self, x: Tensor, variance: Tensor | float) -> Tensor:
        """log N(x; point, variance) of each x and each point, but for its constant."""
        return -(x[:, None] - self.points).square().sum(-1) / (2 * variance)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised x, from x of shape (B, D) and σ of shape (B,)."""
        variance = (self.width**2 + sigma**2)[:, None]
        mean = torch.softmax(self.exponents(x, variance), dim=1) @ self.points
        return mean + self.width**2 / variance * (x - mean)

    def log_prob(self, x: Tensor) -> Tensor:
        """The exact log p, nats."""
        (count, dims), variance = self.points.shape, self.width**2
        constant = math.log(count) + dims / 2 * math.log(2 * math.pi * variance)
        return self.exponents(x, variance).logsumexp(dim=1) - constant


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--n", type=int, default=8, help="points whose log p is computed")
args = parser.parse_args()

points = scoresde.load_dataset("moons").x[:200]
test = scoresde.load_dataset("moons", split="test").x[: args.n]
denoiser = KernelDenoiser(points, width=0.2)
model = scoresde.wrap(denoiser, scoresde.VE(0.002, 80.0), "denoiser")
found = scoresde.log_likelihood(model, test, Ode(), seed=0)
exact = denoiser.log_prob(test)
print("log p, nats:", found.log_prob.tolist())
print("exact:      ", exact.tolist())
print(f"largest error: {(found.log_prob - exact).abs().max():.1e} nats, of the prior at σ = 80")

x = scoresde.sample(model, shape=(1000, 2)).x
print("samples: mean", x.mean(0).tolist(), "std", x.std(0).tolist())
print("points:  mean", points.mean(0).tolist(), "std", points.std(0).tolist())
