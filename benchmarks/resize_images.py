"""Make a folder of square images of one size, on which a config for a folder trains.

    python benchmarks/resize_images.py --images pictures --side 64 --out data/mine
    python benchmarks/resize_images.py --lsun lsun --side 64 --out data/church64
    python benchmarks/resize_images.py --photos --side 64 --out data/church64

`--images` reads all images of a folder and of its subfolders. `--lsun` reads torchvision's LSUN:
its reader needs the package lmdb, and the folder holds church_outdoor_train_lmdb. `--photos` needs
no data: it takes random squares of photographs in the package scikit-image. Of each image the
square of `--crop` pixels in the middle, or the largest one, is resized with Lanczos' filter.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click
import numpy as np
from PIL import Image
from script import print_header

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def from_folder(folder: Path) -> Iterator[Image.Image]:
    """The images of a folder and of its subfolders, in the order of their paths."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise click.UsageError(f"--images {folder}: holds no image ({', '.join(SUFFIXES)})")
    for path in files:
        with Image.open(path) as image:
            yield image


def from_lsun(folder: Path, category: str) -> Iterator[Image.Image]:
    """The training images of a category of LSUN."""
    from torchvision.datasets import LSUN

    try:
        data = LSUN(str(folder), classes=[f"{category}_train"])
    except ImportError:
        message = f"--lsun {folder}: the package lmdb is missing: pip install lmdb"
        raise click.UsageError(message) from None
    except Exception as error:  # lmdb's errors have a common base only in lmdb
        raise click.UsageError(
            f"--lsun {folder}: {category}_train_lmdb cannot be read: {error}"
        ) from error
    for i in range(len(data)):
        yield data[i][0]


def from_photos(n: int, smallest: int) -> Iterator[Image.Image]:
    """Random squares of the photographs of scikit-image, their sides between `smallest` and all."""
    try:
        from skimage import data
    except ImportError:
        message = "--photos: the package scikit-image is missing: pip install scikit-image"
        raise click.UsageError(message) from None
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


@click.command(help=__doc__.partition("\n")[0])
@click.option("--images", type=click.Path(path_type=Path), help="Folder of images.")
@click.option("--lsun", type=click.Path(path_type=Path), help="Folder with torchvision's LSUN.")
@click.option("--photos", is_flag=True, help="Squares of scikit-image's photographs.")
@click.option("--category", default="church_outdoor", show_default=True, help="Of LSUN.")
@click.option("--n", type=click.IntRange(1), help="Images; all by default, 2000 for --photos.")
@click.option("--crop", type=click.IntRange(1), help="Pixels of the square in the middle.")
@click.option("--side", type=click.IntRange(1), default=64, show_default=True, help="New side.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
def main(
    images: Path | None,
    lsun: Path | None,
    photos: bool,
    category: str,
    n: int | None,
    crop: int | None,
    side: int,
    out: Path,
) -> None:
    """Write the images as PNG files, numbered from 0."""
    print_header()
    if sum(map(bool, (images, lsun, photos))) != 1:
        raise click.UsageError("give exactly one of --images, --lsun and --photos")
    if out.exists() and any(out.iterdir()):
        raise click.UsageError(f"--out {out}: must be a new or an empty folder")
    if photos:
        found = from_photos(n or 2000, side)
    else:
        found = from_folder(images) if images else from_lsun(lsun, category)
    made = 0
    for image in islice(found, n):
        small = resized(image, side, crop)
        out.mkdir(parents=True, exist_ok=True)
        small.save(out / f"{made:06d}.png")
        made += 1
    print(f"{made} images of {side}×{side} pixels in {out}")


if __name__ == "__main__":
    main()
