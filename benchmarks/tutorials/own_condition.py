"""Train a network on pairs (x, y) with vectors y, draw samples given y, and compute log p(x | y).

    python benchmarks/tutorials/own_condition.py --out out/own-condition --data pairs.npz

The file holds floats x, shape (N, D), and y, shape (N, V). Without it, x is near y on a circle.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import scoresde
from scoresde.tasks.train.prepare import prepare_run

CONFIG = """
data = {{ name = "{data}" }}
sde = {{ kind = "vp" }}
net = {{ kind = "mlp", width = 128, vector = {length} }}
train = {{ steps = {steps}, batch = 256, learning_rate = 1e-3, warmup = 0, label_dropout = 0.1 }}
"""
WIDTH = 0.2  # standard deviation of x given y


def write_circle(path: Path) -> Path:
    """Write pairs of y on the unit circle and x = y + WIDTH · normal noise."""
    random = np.random.default_rng(0)
    y = random.standard_normal((20_000, 2))
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    np.savez(path, x=y + WIDTH * random.standard_normal(y.shape), y=y)
    return path


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for everything")
parser.add_argument("--data", type=Path, help="a .npz file with x and y")
parser.add_argument("--steps", type=int, default=2000, help="training steps")
parser.add_argument("--n", type=int, default=200, help="samples")
args = parser.parse_args()
if args.data and not args.data.is_file():
    parser.error(f"--data {args.data}: no such file")
args.out.mkdir(parents=True, exist_ok=True)
config, data = args.out / "config.toml", args.data or write_circle(args.out / "pairs.npz")
y = torch.as_tensor(np.load(data)["y"], dtype=torch.float32)
config.write_text(CONFIG.format(data=data, length=y.shape[1], steps=args.steps))
run = prepare_run(config, args.out / "run")  # continues where an earlier run was stopped
for progress in run.steps():
    if progress.step.step % 500 == 0:
        print(f"step {progress.step.step}: loss {progress.loss:.3f}")
model = scoresde.load(run.checkpoint).model
x = scoresde.sample(model, n=args.n, y=y[:1]).x  # one condition is repeated for all samples
print("y =", y[0].tolist(), "samples: mean", x.mean(0).tolist(), "std", x.std(0).tolist())
found = scoresde.log_likelihood(model, x, y=y[:1], seed=0).log_prob
print(f"log p(x | y): {found.mean():.3f} nats")
if not args.data:
    exact = -(x - y[0]).square().sum(1) / (2 * WIDTH**2) - np.log(2 * np.pi * WIDTH**2)
    print(f"exact, at the same x: {exact.mean():.3f} nats")
x = scoresde.sample(model, n=args.n).x  # label_dropout has trained "no condition" as well
print("no y, samples: mean", x.mean(0).tolist(), "std", x.std(0).tolist())
