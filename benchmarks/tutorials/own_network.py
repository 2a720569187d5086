"""Bring a network of your own: ε(x, i) on 1,000 β, trained by DDPM's loop in plain PyTorch.

    python benchmarks/tutorials/own_network.py --out out/own-network

One line makes a score model of it. Samples, log p and a comparison of samplers follow.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import scoresde


class Network(nn.Module):
    """Predicts ε of points in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(6) / 1000)
        self.layers = nn.Sequential(
            *(nn.Linear(14, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2))
        )

    def forward(self, x: Tensor, i: Tensor) -> Tensor:
        """ε from x_t, shape (B, 2), and the indices 0 … 999 of the noise levels, shape (B,)."""
        angle = i[:, None] * self.frequencies
        return self.layers(torch.cat([x, angle.sin(), angle.cos()], dim=1))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for the results")
parser.add_argument("--steps", type=int, default=2000, help="training steps")
parser.add_argument("--n", type=int, default=500, help="samples and test points")
args = parser.parse_args()
# What you have: a network and the 1,000 β that it was trained with.
torch.manual_seed(0)
net, data = Network(), scoresde.load_dataset("mixture3")
betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
alpha_bar = (1 - betas).cumprod(0).float()
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
for _ in range(args.steps):
    x0, i = data.x[torch.randint(len(data.x), (256,))], torch.randint(1000, (256,))
    eps, level = torch.randn_like(x0), alpha_bar[i, None]
    optimizer.zero_grad()
    (net(level.sqrt() * x0 + (1 - level).sqrt() * eps, i) - eps).square().mean().backward()
    optimizer.step()

# What you write.
model = scoresde.wrap(net, scoresde.TabulatedVP(betas), "eps", label="index", data=data.spec)
x = scoresde.sample(model, n=args.n).x
print("samples: mean", x.mean(0).tolist(), "std", x.std(0).tolist())
test = scoresde.load_dataset("mixture3", split="test").x[: args.n]
found = scoresde.log_likelihood(model, test, seed=0).log_prob.mean()
print(f"log p: {found:.3f} nats, by the density of the data {data.log_prob(test).mean():.3f}")
samplers, place = ["ddim", scoresde.DPMSolverMultistep(), "unipc"], args.out / "bench"
print(scoresde.bench(model, samplers, [5, 10], data="mixture3", n=args.n, out=place).report)
scoresde.save(args.out / "model.safetensors", model)  # scoresde.load(path, net=Network())
