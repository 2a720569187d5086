"""Train on a folder of images, draw samples of each class, and compare samplers.

    python benchmarks/tutorials/own_images.py --out out/own-images --images pictures

The folder has one subfolder of images, all of one size, per class. Without `--images` the script
uses the shipped digits as PNG files.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torchvision.utils import save_image

import scoresde
from scoresde.tasks.train.prepare import prepare_run

CONFIG = """
data = {{ name = "{images}" }}
sde = {{ kind = "vp" }}
net = {{ kind = "unet", channels = 24, multipliers = [1, 2], classes = {classes} }}
train = {{ steps = {steps}, batch = 64, learning_rate = 1e-3, warmup = {warmup} }}
"""


def write_digits(folder: Path) -> Path:
    """Write the shipped digits as PNG files, one subfolder per class."""
    digits = scoresde.load_dataset("digits")
    for i, (levels, label) in enumerate(zip(digits.x, digits.labels, strict=True)):
        path = folder / str(int(label)) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((15 * levels[0]).numpy()).save(path)
    return folder


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for everything")
parser.add_argument("--images", type=Path, help="folder of images")
parser.add_argument("--steps", type=int, default=1000, help="training steps")
parser.add_argument("--n", type=int, default=200, help="samples in the comparison")
args = parser.parse_args()

images = args.images or write_digits(args.out / "images")
classes = scoresde.load_dataset(images).spec.classes if images.is_dir() else None
if classes is None:
    parser.error(f"--images {images}: not a folder with a subfolder of images for each class")
config, steps = args.out / "config.toml", {"steps": args.steps, "warmup": args.steps // 10}
config.write_text(CONFIG.format(images=images, classes=classes, **steps))
run = prepare_run(config, args.out / "run")  # continues where an earlier run was stopped
for progress in run.steps():
    if progress.step.step % 100 == 0:
        print(f"step {progress.step.step}: loss {progress.loss:.3f}")

model = scoresde.load(run.checkpoint).model
y = torch.arange(classes).repeat_interleave(8)
x = scoresde.sample(model, n=len(y), y=y).x  # with 20 evaluations and the best settings for them
save_image(x, args.out / "samples.png", nrow=8, normalize=True, value_range=(-1, 1))
samplers, place = ["dpmpp-2m", "unipc", "heun"], args.out / "bench"
print(scoresde.bench(model, samplers, [6, 12], data=images, n=args.n, out=place).report)
