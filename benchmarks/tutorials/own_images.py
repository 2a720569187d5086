"""Train on a folder of images and draw samples of each class.

    python benchmarks/tutorials/own_images.py --out out/own-images --images pictures

The folder has one subfolder of images per class; all images have the same size. Without `--images`
the script writes the shipped digits as PNG files and uses them.
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
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)

images = args.images or write_digits(args.out / "images")
classes = sum(path.is_dir() for path in images.iterdir())
config = args.out / "config.toml"
steps = {"steps": args.steps, "warmup": args.steps // 10}
config.write_text(CONFIG.format(images=images, classes=classes, **steps))

run = prepare_run(config, args.out / "run")  # continues where an earlier run was stopped
for progress in run.steps():
    if progress.step.step % 100 == 0:
        print(f"step {progress.step.step}: loss {progress.loss:.3f}")
checkpoint = scoresde.load(run.checkpoint)
y = torch.arange(classes).repeat_interleave(8)
ts = scoresde.grid.log_snr(checkpoint.model.sde, steps=19)
shape, sampler = (len(y), *checkpoint.data.shape), scoresde.DPMSolverMultistep()
out = scoresde.sample(checkpoint.model, sampler, ts, shape, seed=0, y=y)
save_image(out.x, args.out / "samples.png", nrow=8, normalize=True, value_range=(-1, 1))
print(args.out / "samples.png")
