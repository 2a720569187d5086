"""Train on series, volumes and sets of points, sample them, and draw the samples.

    python benchmarks/tutorials/own_kinds.py --out out/own-kinds

The data are sine waves of length 128, balls in 16³ voxels, and 3 to 20 points on a circle.
"""

import argparse
from pathlib import Path

import numpy as np

import scoresde
from scoresde.output.tiles import save_samples
from scoresde.tasks.train.prepare import prepare_run

CONFIG = """
data = {{ name = "{data}" }}
sde = {{ kind = "vp" }}
net = {{ {net} }}
preconditioning = {{ target = "v" }}
train = {{ steps = {steps}, batch = 32, learning_rate = 2e-3, warmup = 20, ema_decay = 0.98 }}
"""
NETS = {
    "series": 'kind = "unet", channels = 16, blocks = 1, patch = 4',
    "volumes": 'kind = "transformer", width = 64, depth = 2, patch = 4',
    "sets": 'kind = "transformer", width = 64, depth = 3',
}
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for everything")
parser.add_argument("--steps", type=int, default=500, help="training steps of each network")
parser.add_argument("--n", type=int, default=16, help="samples of each kind")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)

rng = np.random.default_rng(0)
# Series (N, C, L), and volumes (N, C, D, H, W), are arrays in .npy files.
turns, phase = rng.integers(1, 4, (2000, 1, 1)), rng.uniform(0, 2 * np.pi, (2000, 1, 1))
np.save(args.out / "series.npy", np.sin(2 * np.pi * turns * np.arange(128) / 128 + phase))
place = np.stack(np.meshgrid(*[np.linspace(-1, 1, 16)] * 3, indexing="ij"))
centre, radius = rng.uniform(-0.4, 0.4, (2000, 3, 1, 1, 1)), rng.uniform(0.3, 0.6, (2000, 1, 1, 1))
distance = np.sqrt(((place - centre) ** 2).sum(1))
np.save(args.out / "volumes.npy", np.tanh(6 * (radius - distance))[:, None].astype(np.float32))
# Sets: padded with zeros to the largest, with their sizes.
angle = [rng.uniform(0, 2 * np.pi, n) for n in rng.integers(3, 21, 2000)]
sets = [np.stack([np.cos(a), np.sin(a)], 1) + 0.03 * rng.normal(size=(len(a), 2)) for a in angle]
data = scoresde.Dataset.of_sets(sets)
np.savez(args.out / "sets.npz", x=data.x.numpy(), sizes=data.labels.numpy())

for kind, net in NETS.items():
    config = args.out / f"{kind}.toml"
    path = args.out / (f"{kind}.npz" if kind == "sets" else f"{kind}.npy")
    config.write_text(CONFIG.format(data=path, net=net, steps=args.steps))
    run = prepare_run(config, args.out / kind)  # continues where an earlier run was stopped
    *_, last = run.steps()
    model = scoresde.load(run.checkpoint).model
    out = scoresde.sample(model, n=args.n)  # the sizes of sets have the shares of the data
    save_samples(args.out / f"{kind}.png", out.x, model.data)
    print(f"{kind}: loss {last.loss:.3f}, samples of shape {tuple(out.x.shape)} in {kind}.png")
print("points of the sets:", [len(points) for points in out.sets])
