"""Make a folder of square images of one size, on which a config for a folder trains.

    python benchmarks/resize_images.py --images pictures --side 64 --out data/mine
    python benchmarks/resize_images.py --lsun lsun --side 64 --out data/church64
    python benchmarks/resize_images.py --photos --side 64 --out data/church64

`--images` reads all images of a folder and of its subfolders. `--lsun` reads torchvision's LSUN:
its reader needs the package lmdb, and the folder holds church_outdoor_train_lmdb. `--photos` needs
no data: it takes random squares of photographs in the package scikit-image. Of each image the
square of `--crop` pixels in the middle, or the largest one, is resized with Lanczos' filter.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def from_folder(folder: Path) -> Iterator[Image.Image]:
    """The images of a folder and of its subfolders, in the order of their paths."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        parser.error(f"--images {folder}: holds no image ({', '.join(SUFFIXES)})")
    for path in files:
        with Image.open(path) as image:
            yield image


def from_lsun(folder: Path, category: str) -> Iterator[Image.Image]:
    """The training images of a category of LSUN."""
    from torchvision.datasets import LSUN

    try:
        data = LSUN(str(folder), classes=[f"{category}_train"])
    except ImportError:
        parser.error(f"--lsun {folder}: the package lmdb is missing: pip install lmdb")
    except Exception as error:  # lmdb's errors have a common base only in lmdb
        parser.error(f"--lsun {folder}: {category}_train_lmdb cannot be read: {error}")
    for i in range(len(data)):
        yield data[i][0]


def from_photos(n: int, smallest: int) -> Iterator[Image.Image]:
    """Random squares of the photographs of scikit-image, their sides between `smallest` and all."""
    try:
        from skimage import data
    except ImportError:
        parser.error("--photos: the package scikit-image is missing: pip install scikit-image")
    photos = [Image.fromarray(getattr(data, name)()[..., :3]) for name in PHOTOS]
    rng = np.random.default_rng(0)
    for i in range(n):
        photo = photos[i % len(photos)]
        side = int(rng.integers(min(2 * smallest, min(photo.size)), min(photo.size) + 1))
        left, top = (int(rng.integers(0, size - side + 1)) for size in photo.size)
        yield photo.crop((left, top, left + side, top + side))


def resized(image: Image.Image, side: int, crop: int | None) -> Image.Image:
    """The square in the middle of an image, brought to a side."""
    wide, tall = image.size
    square = min(wide, tall, crop or min(wide, tall))
    left, top = (wide - square) // 2, (tall - square) // 2
    box = (left, top, left + square, top + square)
    return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS, box)


parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
source = parser.add_mutually_exclusive_group(required=True)
source.add_argument("--images", type=Path, help="folder of images")
source.add_argument("--lsun", type=Path, help="folder with torchvision's LSUN")
source.add_argument("--photos", action="store_true", help="squares of scikit-image's photographs")
parser.add_argument("--category", default="church_outdoor", help="of LSUN")
parser.add_argument("--n", type=int, help="number of images; all by default, 2000 for --photos")
parser.add_argument("--crop", type=int, help="side in pixels of the square in the middle")
parser.add_argument("--side", type=int, default=64, help="side of the new images")
parser.add_argument("--out", type=Path, required=True, help="a new folder")
args = parser.parse_args()

for name in ("n", "crop", "side"):
    value = getattr(args, name)
    if value is not None and value < 1:
        parser.error(f"--{name} must be at least 1, got {value}")
if args.out.exists() and any(args.out.iterdir()):
    parser.error(f"--out {args.out}: must be a new or an empty folder")
if args.photos:
    images = from_photos(args.n or 2000, args.side)
else:
    images = from_folder(args.images) if args.images else from_lsun(args.lsun, args.category)
made = 0
for image in images:
    if args.n is not None and made == args.n:
        break
    small = resized(image, args.side, args.crop)
    args.out.mkdir(parents=True, exist_ok=True)
    small.save(args.out / f"{made:06d}.png")
    made += 1
print(f"{made} images of {args.side}×{args.side} pixels in {args.out}")
