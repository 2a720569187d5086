"""Train on series, volumes and sets of points, sample them, and draw the samples.

    python benchmarks/tutorials/own_kinds.py --out out/own-kinds

The data are sine waves of length 128, balls in 16³ voxels, and 3 to 20 points on a circle.
"""

import argparse
from pathlib import Path

import numpy as np

import scoresde
from scoresde.output.tiles import save_samples

SETTINGS = {  # small networks, for minutes of one core; the defaults are larger
    "series": {
        "net": {"kind": "unet", "channels": 16, "blocks": 1, "patch": 4},
        "train": {"batch": 32, "learning_rate": 2e-3, "ema_decay": 0.98},
    },
    "volumes": {
        "net": {"kind": "transformer", "width": 96, "depth": 3, "patch": 4},
        "train": {"batch": 32, "learning_rate": 2e-3, "ema_decay": 0.98},
    },
    "sets": {
        "net": {"kind": "transformer", "width": 64, "depth": 3},
        "train": {"batch": 32, "learning_rate": 2e-3, "ema_decay": 0.98},
    },
}
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for everything")
parser.add_argument("--steps", type=int, default=500, help="training steps of each network")
parser.add_argument("--n", type=int, default=16, help="samples of each kind")
args = parser.parse_args()

rng, N = np.random.default_rng(0), 2000
turns, phase = rng.integers(1, 4, (N, 1, 1)), rng.uniform(0, 2 * np.pi, (N, 1, 1))
series = np.sin(2 * np.pi * turns * np.arange(128) / 128 + phase)  # (N, C, L)
place = np.stack(np.meshgrid(*[np.linspace(-1, 1, 16)] * 3, indexing="ij"))
centre, radius = rng.uniform(-0.4, 0.4, (N, 3, 1, 1, 1)), rng.uniform(0.3, 0.6, (N, 1, 1, 1))
distance = np.sqrt(((place - centre) ** 2).sum(1))
volumes = np.tanh(6 * (radius - distance))[:, None]  # (N, C, D, H, W)
angles = [rng.uniform(0, 2 * np.pi, n) for n in rng.integers(3, 21, N)]
sets = [np.stack([np.cos(a), np.sin(a)], 1) + 0.03 * rng.normal(size=(len(a), 2)) for a in angles]

for kind, data in {"series": series, "volumes": volumes, "sets": sets}.items():
    # The same call goes on where it was stopped, and is free when it is complete.
    checkpoint = scoresde.fit(data, args.out / kind, steps=args.steps, config=SETTINGS[kind])
    out = scoresde.sample(checkpoint.model, n=args.n)  # sizes of sets as often as in the data
    save_samples(args.out / f"{kind}.png", out.scaled, checkpoint.data)
    print(f"{kind}: samples of shape {tuple(out.x.shape)} in {kind}.png")
print("points of the sets:", [len(points) for points in out.sets])
