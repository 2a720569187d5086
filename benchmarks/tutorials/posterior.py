"""Infer the two parameters of a simulator, and check the coverage of the posterior.

    python benchmarks/tutorials/posterior.py --out out/posterior

θ is uniform in [−1, 1]² and y = (|θ1| + θ2², θ2) + noise: p(θ | y) is a pair of moons.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.distributions import Normal

import scoresde
from scoresde.output.figures import new_figure, save_figure
from scoresde.tasks.train.prepare import prepare_run


def observation(theta: torch.Tensor) -> Normal:
    """p(y | θ)."""
    a, b = theta.unbind(-1)
    return Normal(torch.stack([a.abs() + b**2, b], -1), torch.tensor([0.05, 0.4]))


def exact(theta: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """log p(θ | y) in the square, with the integral of p(y | θ) by quadrature in θ2."""
    t = torch.linspace(-1, 1, 401)
    inner = 2 * Normal(t**2, 0.05).cdf(y[..., :1]) - 2 * Normal(t**2 + 1, 0.05).cdf(y[..., :1])
    evidence = torch.trapezoid(inner * Normal(t, 0.4).log_prob(y[..., 1:]).exp(), t)
    return observation(theta).log_prob(y).sum(-1) - evidence.log()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for everything")
parser.add_argument("--steps", type=int, default=3000, help="training steps")
parser.add_argument("--n", type=int, default=200, help="observations for the coverage")
args, _ = parser.parse_args(), torch.manual_seed(0)
n, k, theta = args.n, args.steps, 2 * torch.rand(50_000 + args.n, 2) - 1
y, config = observation(theta).sample(), args.out / "config.toml"
args.out.mkdir(parents=True, exist_ok=True)
np.savez(args.out / "pairs.npz", x=theta[n:], y=y[n:])
config.write_text(f"""data.name = "{args.out}/pairs.npz"
sde.kind = "vp"
net = {{ kind = "mlp", vector = 2 }}
train = {{ steps = {k}, batch = 256, learning_rate = 3e-3, warmup = 0, cooldown = {k // 2} }}
""")
run = prepare_run(config, args.out / "run")  # continues where an earlier run was stopped
print("last loss:", [progress.loss for progress in run.steps()][-1:])
posterior = scoresde.Distribution(scoresde.load(run.checkpoint).model, y[:n], method="path")
draws, log_p = posterior.sample(100), posterior.log_prob(theta[:n])
ranks = (posterior.log_prob(draws) > log_p).float().mean(0)  # share of the posterior above θ
for c in (0.5, 0.8, 0.95):
    print(f"{c:.0%} regions: {(ranks < c).float().mean():.1%} ± {(c * (1 - c) / n) ** 0.5:.1%}")
gap = log_p - exact(theta[:n], y[:n])
print(f"log p(θ | y) − exact: {gap.mean():.3f} ± {gap.std() / n**0.5:.3f} nats")
left, right = (figure := new_figure(8, 4)).subplots(1, 2, sharex=True, sharey=True)
left.scatter(*draws[:, 0].T, s=4)
right.scatter(*theta.T, c=exact(theta, y[0]).exp(), s=1)
save_figure(args.out / "posterior.png", figure)
