"""Fill in the hidden middle of digits, with the uncertainty of every pixel.

    python benchmarks/tutorials/inpainting.py --out out/inpainting

A measurement hides most of a digit. One filled-in image says nothing about what could be there
instead. Many samples do: where they agree the pixel is known, and where they differ it is not. For
exact samples the central 90 % of them hold 90 % of the true pixels. PiGDM is not exact, and the
last lines show by how much its samples are too sure.
"""

import argparse
from pathlib import Path

import torch

import scoresde
from scoresde.inverse import Mask, PiGDM
from scoresde.metrics import interval_coverage
from scoresde.output.restored import Tiles, save_restoration
from scoresde.samplers import DDIM

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for the picture")
parser.add_argument("--n", type=int, default=12, help="digits")
parser.add_argument("--samples", type=int, default=16, help="samples for each digit")
args = parser.parse_args()

model = scoresde.load("digits-vp").model
spec, noise = model.data, 0.1  # σ_y, at the model's scale from −1 to 1
digits = scoresde.load_dataset("digits", "test").x[: args.n]
generator = torch.Generator().manual_seed(0)
# The model knows digits with a uniform place in the cell of each of their 17 levels.
x = spec.dequantize(digits, torch.rand(digits.shape, generator=generator))

keep = torch.ones(8, 8, dtype=torch.bool)
keep[1:6, 2:6] = False
operator = Mask(keep, spec.shape)  # y = A x + noise: the pixels that are kept
y = operator.A(x)
y = y + noise * torch.randn(y.shape, generator=generator)

# Row i · samples + j is sample j of digit i. Ancestral steps forget the errors of earlier ones.
guided, rows = PiGDM(model, operator, noise, data_var=0.25), y.repeat_interleave(args.samples, 0)
drawn = scoresde.sample(guided, DDIM(eta=1.0), y=rows, nfe=50, seed=0)
samples = drawn.x.unflatten(0, (args.n, args.samples))
mean, std = samples.mean(1), samples.std(1)
hidden = ~operator.keep
print(f"{drawn.nfe} evaluations; std of hidden pixels {std[:, hidden].mean():.2f}, of the others")
print(f"{std[:, ~hidden].mean():.2f}; error of the mean {(mean - x).square().mean().sqrt():.2f}")
for share in (0.5, 0.9):
    inside = interval_coverage(samples[:, :, hidden], x[:, hidden], share)
    found = f"{inside.mean():.1%} ± {inside.std() / args.n**0.5:.1%}"
    print(f"the central {share:.0%} hold {found} of the hidden pixels")

rows = [x, *samples[:, :3].unbind(1), mean]
names = ["truth", *(f"sample {i + 1}" for i in range(len(rows) - 2)), "mean"]
tiles = [Tiles(*row) for row in zip(names, ((r - spec.low) / spec.span for r in rows), strict=True)]
tiles.insert(1, Tiles("measured", (operator.A_adjoint(y) - spec.low) / spec.span, hidden=~keep))
tiles.append(Tiles("std", std / std.max()))
args.out.mkdir(parents=True, exist_ok=True)
save_restoration(args.out / "inpainting.png", tiles, "hidden pixels, filled in")
