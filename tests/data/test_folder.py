import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from scoresde.data import DataSpec, load_dataset


def grey(value=0, size=(4, 3)):
    return Image.new("L", size, value)


def pixel(path):
    """The one value, or the (R, G, B), of the first pixel of the only image in a folder."""
    x = load_dataset(path).x[0, :, 0, 0]
    return x.tolist() if len(x) > 1 else int(x)


def test_folder_is_read_in_the_order_of_names(tmp_path):
    for name, value in (("b.png", 20), ("a.bmp", 10), ("c.PGM", 30)):
        grey(value).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("ignored")
    data = load_dataset(tmp_path)
    assert data.x.shape == (3, 1, 3, 4)
    assert data.x[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert data.spec == DataSpec((1, 3, 4), -1, 1, levels=256, name=tmp_path.name)
    assert data.labels is None


def test_grey_joins_colour_as_three_equal_channels(tmp_path):
    grey(7).save(tmp_path / "a.png")
    Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "b.png")
    assert load_dataset(tmp_path).x[:, :, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


def test_subfolders_are_classes_or_splits(tmp_path):
    for split, n in (("train", 2), ("test", 1)):
        for label, name in enumerate(("cats", "dogs")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(n):
                grey(10 * label + i).save(tmp_path / split / name / f"{i}.png")
    train, test = load_dataset(tmp_path), load_dataset(tmp_path, "test")
    assert (train.labels.tolist(), train.spec.classes) == ([0, 0, 1, 1], 2)
    assert train.x[:, 0, 0, 0].tolist() == [0, 1, 10, 11]
    assert test.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="has no test split"):
        load_dataset(tmp_path / "train", "test")
    grey().save(tmp_path / "train" / "stray.png")
    with pytest.raises(ValueError, match=r"got both: stray.png and cats/"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(np.full((2, 2), 257 * 99 + 128, np.uint16)), 99),
        (Image.fromarray(np.full((2, 2), 257 * 99 + 129, np.uint16)), 100),
        (Image.new("1", (2, 2), 1), 255),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 0)), [255, 255, 255]),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 255)), [10, 20, 30]),
        (Image.new("LA", (2, 2), (40, 0)), 255),
        (Image.new("RGB", (2, 2), (10, 20, 30)).quantize(), [10, 20, 30]),
    ],
    ids=["16 bit down", "16 bit up", "1 bit", "clear", "opaque", "clear grey", "palette"],
)
def test_unusual_images_become_8_bit(tmp_path, image, expected):
    image.save(tmp_path / "a.png")
    assert pixel(tmp_path) == expected


def test_camera_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    grey(size=(4, 2)).save(tmp_path / "a.png", exif=exif)
    assert load_dataset(tmp_path).spec.shape == (1, 4, 2)


def test_mixed_sizes_name_two_files(tmp_path):
    grey(size=(4, 3)).save(tmp_path / "a.png")
    grey(size=(3, 4)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"one size, got 4×3 \(.*a.png\) and 3×4 \(.*b.png\)"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", "cut", "checksum"])
def test_corrupt_image_is_named_or_skipped_on_request(tmp_path, content):
    noise = np.random.default_rng(0).integers(256, size=(30, 40), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise).save(tmp_path / name)
    whole = (tmp_path / "b.png").read_bytes()
    if content == "cut":
        content = whole[: len(whole) // 2]
    elif content == "checksum":
        content = whole.replace(b"IDAT", b"IDAT\x00", 1)
    (tmp_path / "b.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"b.png cannot be decoded as an image"):
        load_dataset(tmp_path)
    with pytest.warns(UserWarning, match=r"left out 1 of 2 images; first: .*b.png"):
        data = load_dataset(tmp_path, skip_bad=True)
    assert np.array_equal(data.x[:, 0].numpy(), noise[None])
    (tmp_path / "a.png").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="holds no readable image"):
            load_dataset(tmp_path, skip_bad=True)


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [5_000, 10_000, 50_000])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_decompression_bomb_is_refused_before_decoding(tmp_path, side, skip_bad):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(ValueError, match=r"bomb.png must have at most 16777216 pixels"):
        load_dataset(tmp_path, skip_bad=skip_bad)


def test_folders_without_images_and_float_images_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no image \(.bmp, .gif"):
        load_dataset(tmp_path / "empty")
    Image.new("F", (2, 2), 0.5).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a.tiff cannot be decoded.*float images have no levels"):
        load_dataset(tmp_path)
    with pytest.raises(ValueError, match="levels of an image folder must be 256, got 32"):
        load_dataset(tmp_path, levels=32)
