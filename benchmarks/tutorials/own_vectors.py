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
from scoresde.ema import EMA
from scoresde.names.config import Config
from scoresde.train import Training, make_optimizer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for the training data")
parser.add_argument("--data", type=Path, help="a .npy file, shape (N, D)")
parser.add_argument("--steps", type=int, default=1500, help="training steps")
parser.add_argument("--n", type=int, default=100, help="held-out vectors")
args = parser.parse_args()

mixture = scoresde.load_dataset("mixture3")
points = np.load(args.data) if args.data else mixture.x.numpy()
args.out.mkdir(parents=True, exist_ok=True)
np.save(args.out / "train.npy", points[: -args.n])

config = Config.from_dict(
    {
        "data": {"name": str(args.out / "train.npy")},
        "sde": {"kind": "vp"},
        "net": {"kind": "mlp", "width": 128},
        "train": {
            "steps": args.steps,
            "batch": 256,
            "learning_rate": 1e-3,
            "warmup": args.steps // 10,
        },
    }
)
data = scoresde.load_dataset(config.data)
model = config.build_model(data.spec)
average = EMA(model.net)
training = Training(model, data, config.objective, config.train)
for step in training.steps(make_optimizer(model.net)):
    average.update(model.net)
    if step.step % 500 == 0:
        print(f"step {step.step}: loss {step.loss:.3f}")

held_out = torch.as_tensor(points[-args.n :], dtype=torch.float32)
with average.applied(model.net):
    found = scoresde.log_likelihood(model, held_out, seed=0)
print(f"mean log p of {args.n} held-out vectors: {found.log_prob.mean():.3f} nats")
if not args.data:
    print(f"exact: {mixture.log_prob(held_out).mean():.3f} nats")
