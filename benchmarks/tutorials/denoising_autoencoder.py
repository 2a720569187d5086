"""From a denoising autoencoder to a generative model of 8×8 digits, in four steps.

    python benchmarks/tutorials/denoising_autoencoder.py --figure out/autoencoder.png

1. A network D learns to remove noise of one level σ: it minimizes |D(x0 + σ ε, σ) − x0|². The best
   D is the mean of x0 given x = x0 + σ ε. Then (D(x, σ) − x)/σ² is the score of the noisy images.
2. One level does not generate. With a score one can walk from noise to noisy images by Langevin's
   steps x ← x + c/2 (D − x) + √c σ ε, and remove their noise by D. If σ is small, D has never seen
   the states where the walk begins, and the walk is lost. If σ is large, the walk arrives, but D is
   the mean of many digits there, which is blurred.
3. So D learns all levels and is told which level it sees. A sampler goes from large σ to small σ.
4. For a finite set of images the exact score is known. D comes near it where σ is large. Where σ
   is small, the exact score leads back to the nearest training image, so that samples with it
   only repeat these images. D does not learn this, and therefore makes new digits.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import scoresde
from scoresde.output.figures import new_figure, save_figure, to_grid

STD = 0.75  # of the digits' pixels on the scale from −1 to 1, about
BATCH = 128


class Autoencoder(nn.Module):
    """D(x, σ) = a x + b F(x, log σ), with a = d²/(σ² + d²) and b = σ d/√(σ² + d²), d = STD.

    F is the network. This form keeps what F must produce of size 1 at every level, and makes D
    exact where it is easy: D = x at σ = 0.
    """

    def __init__(self, width: int = 384) -> None:
        super().__init__()
        layers = [m for n in (65, width, width) for m in (nn.Linear(n, width), nn.SiLU())]
        self.net = nn.Sequential(*layers, nn.Linear(width, 64))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised x, from x of shape (B, 1, 8, 8) and σ of shape (B,)."""
        flat, sigma = x.flatten(1), sigma[:, None]
        size = (sigma**2 + STD**2).sqrt()
        out = self.net(torch.cat([flat / size, sigma.log() / 4], dim=1))
        return (STD**2 / size**2 * flat + sigma * STD / size * out).reshape(x.shape)


def train(x0: Tensor, low: float, high: float, steps: int) -> Autoencoder:
    """Train on levels between low and high, equally often in log σ."""
    torch.manual_seed(0)
    denoise = Autoencoder()
    optimizer = torch.optim.Adam(denoise.parameters())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        x = x0[torch.randint(len(x0), (BATCH,))]
        sigma = low * (high / low) ** torch.rand(BATCH)
        noise = sigma[:, None, None, None] * torch.randn_like(x)
        error = (denoise(x + noise, sigma) - x).square().flatten(1).mean(1)
        # Without this weight the large levels, with their large errors, would drown the small ones.
        loss = (error * (1 / sigma**2 + 1 / STD**2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return denoise.requires_grad_(False)


def walk(denoise: nn.Module, sigma: float, n: int, steps: int = 300, c: float = 0.2) -> Tensor:
    """Langevin's walk at one level, from noise of standard deviation 3; its end denoised."""
    x, level = 3 * torch.randn(n, 1, 8, 8), torch.full((n,), sigma)
    for _ in range(steps):
        x = x + c / 2 * (denoise(x, level) - x) + c**0.5 * sigma * torch.randn_like(x)
    return denoise(x, level)


def describe(title: str, x: Tensor, x0: Tensor) -> None:
    """Print how many images ran away, and how the others differ and lie, per pixel."""
    nearest = torch.cdist(x.flatten(1), x0.flatten(1)).min(1).values / 8
    there = x[nearest < 3]
    spread = (there - x0.mean(0)).square().mean().sqrt()
    print(f"{title:<21}{len(x) - len(there):>8}{spread:>9.2f}{nearest.median():>13.2g}")


parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--steps", type=int, default=8000, help="training steps of the last model")
parser.add_argument("--n", type=int, default=40, help="images of each kind")
parser.add_argument("--figure", type=Path, default=Path("out/autoencoder.png"))
args = parser.parse_args()

data = scoresde.load_dataset("digits")
x0, spec = data.spec.encode(data.x), data.spec
test = spec.encode(scoresde.load_dataset("digits", split="test").x)[: args.n]

small, large = 0.3, 2.0
one = {sigma: train(x0, sigma, sigma, args.steps // 5) for sigma in (small, large)}
noisy = test + small * torch.randn_like(test)
clean = one[small](noisy, torch.full((len(test),), small))
print(f"1. noise of {small} on test images: root mean square error", end=" ")
print(f"{(noisy - test).square().mean().sqrt():.3f} → {(clean - test).square().mean().sqrt():.3f}")

sde = scoresde.VE(0.02, 10.0)
many = train(x0, sde.sigma_min, sde.sigma_max, args.steps)
model, exact = scoresde.wrap(many, sde, "denoiser"), scoresde.FiniteData(sde, x0)
shape = (args.n, 1, 8, 8)
pictures = {
    f"2. a walk at σ = {small}": walk(one[small], small, args.n),
    f"2. a walk at σ = {large}": walk(one[large], large, args.n),
    "3. all levels": scoresde.sample(model, shape=shape, nfe=50).x,
    "4. the exact score": scoresde.sample(exact, shape=shape, nfe=50).x,
}
print("Images that are lost; of the others, root mean square distance from the mean image; and")
print("the median distance to the nearest training image:")
for title, x in (pictures | {"test digits": test}).items():
    describe(title, x, x0)

ts = torch.linspace(0, 1, 13)
errors = {"training images": [], "test images": []}
for t in ts:
    for what, x in zip(errors, (x0[: len(test)], test), strict=True):
        x_t = sde.perturb(x, t, torch.randn_like(x))
        truth, score = exact.score(x_t, t), model.score(x_t, t)
        errors[what].append(float((score - truth).square().sum() / truth.square().sum()) ** 0.5)
print("4. relative error of the score:", *(f"{s:>6.2f}" for s in sde.sigma(ts)), "  σ")
for what, values in errors.items():
    print(f"   {what:<28}", *(f"{e:>6.3f}" for e in values))

figure = new_figure(12, 6)
*places, last = figure.subplots(2, 3).ravel()
rows = torch.cat([test[:10], noisy[:10], clean[:10]])
shown = {f"1. test digits; with noise of {small}; denoised": rows} | pictures
for axis, (title, x) in zip(places, shown.items(), strict=True):
    axis.imshow(to_grid(x, spec, columns=10))
    axis.set_title(title)
    axis.axis("off")
for what, values in errors.items():
    last.plot(sde.sigma(ts), values, "o-", label=f"noise added to {what}")
last.set(xscale="log", yscale="log", xlabel="σ", title="4. relative error of the score")
last.legend()
last.grid(alpha=0.3)
args.figure.parent.mkdir(parents=True, exist_ok=True)
save_figure(args.figure, figure)
print(args.figure)
