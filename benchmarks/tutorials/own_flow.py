"""Samples and log p of a flow-matching network of your own, and which convention it has.

    python benchmarks/tutorials/own_flow.py

The training is rectified flow as most people write it: time 1 is the data, the network predicts
data − noise. Five lines then make it a model of scoresde: any sampler, likelihood and check.
"""

import argparse

import torch
from torch import Tensor, nn

import scoresde


class Velocity(nn.Module):
    """A network of x and the time, for points in the plane."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(5, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()),
            *(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The velocity, from x of shape (B, 2) and t of shape (B,)."""
        u = t[:, None]
        return self.layers(torch.cat([x, u, torch.sin(6.3 * u), torch.cos(6.3 * u)], dim=1))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=4000, help="training steps of 256 points")
args = parser.parse_args()
data = scoresde.load_dataset("moons")
torch.manual_seed(0)
net = Velocity()
optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, args.steps)
for _ in range(args.steps):
    x1 = data.x[torch.randint(len(data.x), (256,))]
    x0, t = torch.randn_like(x1), torch.rand(256)
    x = t[:, None] * x1 + (1 - t[:, None]) * x0
    loss = (net(x, t) - (x1 - x0)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    rates.step()

model = scoresde.wrap(net, scoresde.Linear(), "velocity", label="time", data_at=1, data=data.spec)
test = scoresde.load_dataset("moons", split="test").x
samples = scoresde.sample(model, n=1000, nfe=20).x
print("samples: mean", samples.mean(0).tolist(), "std", samples.std(0).tolist())
print("data:    mean", test.mean(0).tolist(), "std", test.std(0).tolist())
found = scoresde.log_likelihood(model, test[:256], seed=0)
print("mean log p, nats:", float(found.log_prob.mean()))
mixed = scoresde.wrap(net, scoresde.Linear(), "velocity", label="time", data=data.spec)
for name, claim in {"data_at=1": model, "data_at=0": mixed}.items():
    print(f"claimed {name}:", scoresde.doctor(claim, test).mistakes or "no mistake found")
