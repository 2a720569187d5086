import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from scoresde.data import DataSource, DataSpec, has_test_split, load_dataset


def grey(value=0, size=(4, 3)):
    return Image.new("L", size, value)


def pixel(path):
    """The one value, or the (R, G, B), of the first pixel of the only image in a folder."""
    x = load_dataset(path).x[0, :, 0, 0]
    return x.tolist() if len(x) > 1 else int(x)


def test_folder_is_read_in_the_order_of_names(tmp_path):
    for name, value in (("b.png", 20), ("a.bmp", 10), ("c.PGM", 30)):
        grey(value).save(tmp_path / name)
    data = load_dataset(tmp_path)
    assert data.x.shape == (3, 1, 3, 4)
    assert data.x[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert data.spec == DataSpec((1, 3, 4), -1, 1, levels=256, name=tmp_path.name)
    assert data.labels is None


def test_grey_joins_colour_as_three_equal_channels(tmp_path):
    grey(7).save(tmp_path / "a.png")
    Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "b.png")
    with pytest.warns(UserWarning, match=r"\(2 in all\): 1 in grey \(repeated"):
        data = load_dataset(tmp_path)
    assert data.x[:, :, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


def tree(folder, *paths):
    """Grey images at these paths, the first with value 0, the second with 1 and so on."""
    for value, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        grey(value).save(folder / path)


def values(data):
    """The value of each image with its label."""
    return dict(zip(data.x[:, 0, 0, 0].tolist(), data.labels.tolist(), strict=True))


def test_subfolders_are_classes_or_splits(tmp_path):
    tree(tmp_path, "train/cat/0.png", "train/cat/1.png", "train/dog/0.png", "test/dog/0.png")
    train, test = load_dataset(tmp_path), load_dataset(tmp_path, "test")
    assert (train.spec.classes, train.spec.class_names) == (2, ("cat", "dog"))
    assert values(train) == {0: 0, 1: 0, 2: 1}
    assert values(test) == {3: 1}
    assert test.spec.class_names == train.spec.class_names
    with pytest.raises(ValueError, match="has no test split"):
        load_dataset(tmp_path / "train", "test")
    grey().save(tmp_path / "train" / "stray.png")
    with pytest.raises(ValueError, match=r"got both: stray.png and cat/"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "names", [["0", "1", "2", "10", "11"], ["9", "10", "b2", "b10"], ["-1", "A", "a", "ä"]]
)
def test_class_numbers_follow_the_natural_order_of_names(tmp_path, names):
    tree(tmp_path, *(f"{name}/0.png" for name in names))
    data = load_dataset(tmp_path)
    assert data.spec.class_names == tuple(names)
    assert values(data) == {n: n for n in range(len(names))}


def test_a_class_has_its_number_in_every_split(tmp_path):
    names = ["10", "9", "cat", "dog", "fox"]
    tree(tmp_path, *(f"train/{name}/0.png" for name in names))
    tree(tmp_path, *(f"test/{name}/0.png" for name in names))
    train = values(load_dataset(tmp_path))
    for missing in names:
        (tmp_path / "test" / missing / "0.png").unlink()
        (tmp_path / "test" / missing).rmdir()
        if missing != names[-1]:
            found = values(load_dataset(tmp_path, "test"))
            assert found == {value: train[value] for value in found}
    tree(tmp_path, "test/owl/0.png")
    with pytest.raises(ValueError, match="class owl is none of the classes; they are 9, 10, cat"):
        load_dataset(tmp_path, "test")


def test_known_classes_number_a_folder(tmp_path):
    tree(tmp_path, "dog/0.png", "cat/0.png")
    data = load_dataset(tmp_path, classes=("fox", "dog", "cat"))
    assert (values(data), data.spec.classes) == ({0: 1, 1: 2}, 3)
    assert data.spec.class_names == ("fox", "dog", "cat")
    for classes in (("fox", "dog"), 3):
        with pytest.raises(ValueError, match="class .* is none of the classes"):
            load_dataset(tmp_path, classes=classes)
    unlabelled = load_dataset(tmp_path, classes=3, labels=False)
    assert (unlabelled.labels, unlabelled.spec.classes) == (None, None)


JUNK = [".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"]
JUNK += ["System Volume Information", "#recycle", "__pycache__", ".Trash-1000", "~snapshot"]


@pytest.mark.parametrize("place", ["", "cat", "train", "train/cat"])
def test_hidden_and_system_entries_change_nothing(tmp_path, place):
    top = "train/" if place.startswith("train") else ""
    tree(tmp_path, f"{top}cat/0.png", f"{top}dog/0.png")
    clean = load_dataset(tmp_path)
    tree(tmp_path / place, *(f"{name}/0.png" for name in JUNK))
    (tmp_path / place / "__MACOSX" / "._0.png").write_bytes(b"\0\5\x16\7")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r", "._cat.png", ".hidden.png"):
        (tmp_path / place / name).write_bytes(b"\0\5\x16\7")
    assert load_dataset(tmp_path).fingerprint == clean.fingerprint


@pytest.mark.parametrize("name", ["train", "test", "Train", "val", "validation", "training"])
def test_a_class_with_the_name_of_a_split_is_refused(tmp_path, name):
    tree(tmp_path, "bus/0.png", f"{name}/0.png")
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=rf"{name}/ has the name of a split, but bus lies"):
            load_dataset(tmp_path, split)
        with pytest.raises(ValueError, match="has the name of a split"):
            has_test_split(tmp_path)


def test_splits_may_have_capitals_and_a_validation_split_beside_them(tmp_path):
    tree(tmp_path, "Train/0.png", "TEST/0.png", "val/0.png")
    assert not has_test_split(tmp_path / "Train")
    (tmp_path / "docs").mkdir()  # holds no image, so it is no class
    assert int(load_dataset(tmp_path).x[0, 0, 0, 0]) == 0
    assert int(load_dataset(tmp_path, "test").x[0, 0, 0, 0]) == 1
    assert has_test_split(tmp_path)
    (tmp_path / "Train" / "0.png").rename(tmp_path / "stray.png")
    with pytest.raises(ValueError, match=r"has the name of a split, but stray.png lies"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("beside", ["TRAIN/cat", "extra/cat", "extra/deep/cat"])
def test_images_beside_the_splits_are_not_left_out_silently(tmp_path, beside):
    tree(tmp_path, "train/cat/0.png", "test/cat/0.png", f"{beside}/0.png")
    with pytest.raises(ValueError, match="has the name of a split, but .* lies beside it"):
        load_dataset(tmp_path)


def test_splits_of_other_names_are_no_classes(tmp_path):
    tree(tmp_path, "training/0.png", "testing/0.png")
    with pytest.raises(ValueError, match=r"has no train split; a subfolder train/ would be one"):
        load_dataset(tmp_path)


def test_which_data_have_a_test_split(tmp_path):
    assert has_test_split("digits")
    assert has_test_split("rings")
    assert not has_test_split("./digits")
    tree(tmp_path, "test/0.png")
    assert has_test_split(tmp_path)
    with pytest.raises(ValueError, match="has no train split"):
        load_dataset(tmp_path)


def test_one_warning_counts_all_that_was_left_out(tmp_path):
    tree(tmp_path, "cat/0.png", "cat/more/1.png", "cat/more/still/2.png", "dog/0.png")
    for name in ("a.heic", "b.HEIC", "notes.txt", "LICENSE"):
        (tmp_path / "cat" / name).write_text("")
    (tmp_path / "dog" / "1.png").symlink_to("/nowhere.png")
    (tmp_path / "dog" / "2.png").symlink_to("2.png")
    (tmp_path / "fox").mkdir()
    with pytest.warns(UserWarning, match=f"left out of {tmp_path}") as told:
        data = load_dataset(tmp_path)
    assert (len(data), len(told)) == (2, 1)
    for part in (
        ".heic files: 2 (first cat/a.heic)",
        ".txt files: 1 (first cat/notes.txt)",
        "files without suffix: 1 (first cat/LICENSE)",
        "links without a target: 2 (first dog/1.png)",
        "images in deeper folders: 2 (first cat/more/1.png)",
        "folders without images: 1 (first fox)",
    ):
        assert part in str(told[0].message)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".pbm", ".pnm"])
def test_every_suffix_of_the_formats_is_read(tmp_path, suffix):
    kind = "JPEG" if suffix[1] in "jJ" else "PPM"
    grey().save(tmp_path / f"a{suffix}", kind)
    assert load_dataset(tmp_path).x.shape == (1, 1, 3, 4)


def test_images_that_lie_too_deep_are_counted(tmp_path):
    tree(tmp_path, "animals/cat/0.png", "animals/dog/0.png")
    with pytest.raises(
        ValueError, match=r"holds no image .*; it holds images in deeper folders: 2"
    ):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("image", "expected", "told"),
    [
        (Image.fromarray(np.full((2, 2), 257 * 99 + 128, np.uint16)), 99, "8 bits"),
        (Image.fromarray(np.full((2, 2), 257 * 99 + 129, np.uint16)), 100, "8 bits"),
        (Image.new("1", (2, 2), 1), 255, None),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 0)), [255, 255, 255], "transparency"),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 255)), [10, 20, 30], "transparency"),
        (Image.new("LA", (2, 2), (40, 0)), 255, "transparency"),
        (Image.new("RGB", (2, 2), (10, 20, 30)).quantize(), [10, 20, 30], "palette"),
    ],
    ids=["16 bit down", "16 bit up", "1 bit", "clear", "opaque", "clear grey", "palette"],
)
def test_unusual_images_become_8_bit(tmp_path, image, expected, told):
    image.save(tmp_path / "a.png")
    if told is None:
        assert pixel(tmp_path) == expected
    else:
        with pytest.warns(UserWarning, match=rf"converted images .* \(1 in all\): 1 .*{told}"):
            assert pixel(tmp_path) == expected


def test_one_warning_counts_all_that_was_converted(tmp_path):
    for i in range(3):
        Image.new("LA", (2, 2), (i, 255)).save(tmp_path / f"a{i}.png")
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "b.png")
    grey(size=(2, 2)).save(tmp_path / "c.png")
    with pytest.warns(UserWarning, match=r"5 in all\): 3 with transp.*, 1 with more") as told:
        load_dataset(tmp_path)
    assert len(told) == 1


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
    (tmp_path / "empty").rmdir()
    Image.new("F", (2, 2), 0.5).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a.tiff cannot be decoded.*float images have no levels"):
        load_dataset(tmp_path)
    with pytest.raises(ValueError, match="levels of an image folder must be 256, got 32"):
        load_dataset(DataSource(tmp_path, levels=32))
