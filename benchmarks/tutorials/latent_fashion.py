"""Train a score model in the latent space of an autoencoder of Fashion-MNIST, and draw clothes.

    scoresde train --config fashion_mnist_vae --out runs/fashion-vae
    python benchmarks/tutorials/latent_fashion.py --autoencoder runs/fashion-vae --out out/clothes

The score model sees latents of shape (4, 7, 7), a quarter of the 784 pixels, so that a small
network is enough. Its samples are decoded once at the end. How far reconstructions are from real
images shows what the autoencoder loses: no sampler makes up for it.
"""

import argparse
from pathlib import Path

import torch

import scoresde
from scoresde.metrics import frechet_distance, load_features
from scoresde.output.figures import save_grid

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--autoencoder", required=True, help="its checkpoint, or folder of training")
parser.add_argument("--out", type=Path, required=True, help="folder for everything")
parser.add_argument("--steps", type=int, default=700, help="training steps")
parser.add_argument("--n", type=int, default=500, help="samples that are compared with data")
args = parser.parse_args()

config = {
    "latent": {"autoencoder": args.autoencoder},
    "net": {"kind": "unet", "channels": 64, "multipliers": [1], "attention": [7], "classes": 10},
    # In a tenth of the examples the class is left out, so that samples can be guided.
    "train": {"learning_rate": 2e-3, "cooldown": args.steps // 2, "label_dropout": 0.1},
}
trained = scoresde.fit("fashion-mnist", args.out / "run", steps=args.steps, config=config)
model, decoder = trained.model, trained.model.decoder
spec, test = decoder.spec, scoresde.load_dataset("fashion-mnist", "test")
space, y = load_features("fashion-mnist"), torch.arange(args.n) % 10


def show(name: str, x: torch.Tensor) -> None:
    """Print the Fréchet distance of images to real ones, and draw the first 40."""
    x = spec.encode(spec.to_levels(x))  # on the 256 levels of the data
    distance = frechet_distance(space(x), space(spec.encode(test.x[-5000:])))
    print(f"{name:16} Fréchet distance {distance}")
    save_grid(args.out / f"{name.replace(' ', '-')}.png", x[:40], spec)


with torch.no_grad():
    show("reconstructions", decoder(decoder.autoencoder.encode(test.x[: args.n])))
for scale in (1, 2):
    guided = scoresde.guidance.ClassifierFree(model, scale)
    drawn = scoresde.sample(guided, n=args.n, y=y, nfe=20 * scale, seed=0)
    show(f"guidance {scale}", drawn.x)
method = scoresde.Dequantized(spec, "path", scoresde.ThroughAutoencoder(), draws=4)
found = scoresde.log_likelihood(model, test.x[:32], method, seed=0, y=test.labels[:32])
bits = found.bits_per_dim(spec)
print(f"bound through the autoencoder: {bits.mean():.2f} bits/dim for {len(bits)} test images")
