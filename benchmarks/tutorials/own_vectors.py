"""Train on a file of vectors and compute log p of held-out vectors in nats.

    python benchmarks/tutorials/own_vectors.py --out out/own-vectors --data points.npy

The file holds an array of floats, shape (N, D). Its last rows are held out. Without `--data` the
script uses points of a mixture of Gaussians in the plane, whose exact log-density is known.
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
net = {{ kind = "mlp", width = 128 }}
train = {{ steps = {steps}, batch = 256, learning_rate = 1e-3, warmup = {warmup} }}
"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for everything")
parser.add_argument("--data", type=Path, help="a .npy file, shape (N, D)")
parser.add_argument("--steps", type=int, default=1500, help="training steps")
parser.add_argument("--n", type=int, default=100, help="held-out vectors")
args = parser.parse_args()

if args.data and not args.data.is_file():
    parser.error(f"--data {args.data}: no such file")
mixture = scoresde.load_dataset("mixture3")
points = np.load(args.data) if args.data else mixture.x.numpy()
if points.ndim != 2 or len(points) <= args.n:
    parser.error(f"--data: shape {points.shape}, but (N, D) with N above --n {args.n} is needed")
args.out.mkdir(parents=True, exist_ok=True)
data, config = args.out / "train.npy", args.out / "config.toml"
np.save(data, points[: -args.n])
config.write_text(CONFIG.format(data=data, steps=args.steps, warmup=args.steps // 10))

run = prepare_run(config, args.out / "run")  # continues where an earlier run was stopped
for progress in run.steps():
    if progress.step.step % 500 == 0:
        print(f"step {progress.step.step}: loss {progress.loss:.3f}")

model = scoresde.load(run.checkpoint).model
held_out = torch.as_tensor(points[-args.n :], dtype=torch.float32)
found = scoresde.log_likelihood(model, held_out, seed=0)
print(f"mean log p of {args.n} held-out vectors: {found.log_prob.mean():.3f} nats")
if not args.data:
    print(f"exact: {mixture.log_prob(held_out).mean():.3f} nats")
