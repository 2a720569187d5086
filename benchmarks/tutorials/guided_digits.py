"""Train a model of the digits and their classes, and draw samples under guidance.

    python benchmarks/tutorials/guided_digits.py --out out/guided-digits

Guidance moves samples to where the class is most certain. They become clearer and more alike: a
classifier names more of them as asked, and they cover fewer of the data.
"""

import argparse
from pathlib import Path

import torch

import scoresde
from scoresde.guidance import ClassifierFree, Scale
from scoresde.metrics import load_features, precision_recall
from scoresde.output.figures import save_grid

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for everything")
parser.add_argument("--steps", type=int, default=1000, help="training steps")
parser.add_argument("--n", type=int, default=500, help="samples at each scale, at least 10")
args = parser.parse_args()

config = {
    "net": {"kind": "unet", "channels": 16, "multipliers": [1, 2], "blocks": 1, "classes": 10},
    # In a tenth of the examples the class is left out: this trains the model without a class.
    "train": {
        "batch": 64,
        "learning_rate": 2e-3,
        "label_dropout": 0.1,
        "cooldown": args.steps // 2,
    },
}
trained = scoresde.fit("digits", args.out / "run", steps=args.steps, config=config)
model, spec = trained.model, trained.data
space, data = load_features("digits"), scoresde.load_dataset("digits")
real, y = space(spec.encode(data.x)), torch.arange(args.n) % 10


def show(name: str, guided: scoresde.ScoreModel) -> torch.Tensor:
    """Print how samples do, and return one of each class four times."""
    drawn = scoresde.sample(guided, n=args.n, y=y, nfe=40, seed=0)
    x = spec.encode(spec.to_levels(drawn.x))  # on the levels of the data
    asked = (space.net(x).argmax(1) == y).float().mean()
    precision, recall = (found.value for found in precision_recall(space(x), real))
    print(f"{name:24} {drawn.nfe:3} {asked:9.1%} {precision:9.3f} {recall:7.3f}")
    return x[:40]


print(f"{'':24} NFE  as asked precision  recall")
rows = [show(f"scale {w}", ClassifierFree(model, w)) for w in (1, 2, 4)]
show("scale 4, 0.3 < σ/α < 3", ClassifierFree(model, Scale(4, low=0.3, high=3)))
for w, x in zip((1, 2, 4), rows, strict=True):
    save_grid(args.out / f"scale-{w}.png", x, spec)
print(args.out / "scale-4.png")
