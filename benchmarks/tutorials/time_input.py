"""Measure what the time input and the scale of the data mean to a fully connected network.

    python benchmarks/tutorials/time_input.py --data mnist --out out/time-input

It is trained on pixels in [-1, 1], on pixels in [0, 1], and without t. The script prints the error
of ε at some noise levels and the MMD² of samples, and draws the samples.
"""

import argparse
from pathlib import Path

import torch

import scoresde
from scoresde.metrics import GaussianKernel, mmd2
from scoresde.output.figures import save_grid
from scoresde.tasks.train.prepare import prepare_run

CONFIG = """
data = {{ name = "{data}"{low} }}
sde = {{ kind = "tabulated", betas = "linear:steps=1000" }}
net = {{ kind = "dense_unet", widths = [2000, 1000, 500], time_input = {time} }}
preconditioning = {{ label = "time" }}
objective = {{ times = "ladder" }}
[train]
steps = {steps}
batch = 128
learning_rate = 5e-4
warmup = {warmup}
cooldown = {cooldown}
autocast = "bfloat16"
"""
VARIANTS = {"scaled": ("", "true"), "unscaled": (", low = 0", "true"), "timeless": ("", "false")}
TIMES = torch.tensor([0.01, 0.05, 0.2, 0.5, 1.0])

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", default="digits", help="digits, mnist or fashion-mnist")
parser.add_argument("--out", type=Path, required=True, help="folder for everything")
parser.add_argument("--steps", type=int, default=800, help="training steps of each network")
parser.add_argument("--n", type=int, default=250, help="test images, and samples")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
sizes = {"steps": args.steps, "warmup": args.steps // 4, "cooldown": 5 * args.steps // 16}
print("network  | error of ε at t =", *(f"{t:.2f}" for t in TIMES), "| MMD² of the samples")
for name, (low, time) in VARIANTS.items():
    path = args.out / f"{name}.toml"
    path.write_text(CONFIG.format(data=args.data, low=low, time=time, **sizes))
    run = prepare_run(path, args.out / name)  # continues where an earlier run was stopped
    list(run.steps())
    made = scoresde.load(run.checkpoint)
    model, spec = made.model, made.data
    test = spec.encode(scoresde.load_dataset(made.config.data, "test").x[: args.n])
    eps = torch.randn(test.shape, generator=torch.Generator().manual_seed(0))
    x0, noise = (v.repeat(len(TIMES), 1, 1, 1) for v in (test, eps))
    errors = scoresde.denoising_error(model, x0, TIMES.repeat_interleave(len(test)), noise)
    x = scoresde.sample(model, scoresde.Ancestral(), n=args.n, nfe=100, seed=0).x
    far = mmd2(x, test, GaussianKernel.median(test))
    shown = [f"{e:.4f}" for e in errors.reshape(5, -1).mean(1) / spec.dims]
    print(f"{name:8s} |", *shown, f"| {far}")
    save_grid(args.out / f"{name}.png", x[:64], spec)
