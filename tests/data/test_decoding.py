"""One law for all formats: black becomes 0, white 255, and grey the value in between."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from scoresde.data.decoding import BadImageError, decode_image


def tiff(bits, data, shape, photometric=1, order="<", sample_format=None):
    """A TIFF of one strip and one sample per pixel."""
    (height, width), mark = shape, {"<": b"II", ">": b"MM"}[order]
    tags = {256: (4, width), 257: (4, height), 258: (3, bits), 259: (3, 1), 262: (3, photometric)}
    tags |= {277: (3, 1), 278: (4, height), 279: (4, len(data))}
    if sample_format is not None:
        tags[339] = (3, sample_format)
    offset = 8 + 2 + 12 * (len(tags) + 1) + 4
    tags[273] = (4, offset)
    out = struct.pack(order + "2sHIH", mark, 42, 8, len(tags))
    for tag, (kind, value) in sorted(tags.items()):
        out += struct.pack(
            order + ("HHIHH" if kind == 3 else "HHII"), tag, kind, 1, value, *[0] * (kind == 3)
        )
    return out + struct.pack(order + "I", 0) + data


def png(depth, colour, width, rows, transparent=None):
    """A PNG of packed rows."""

    def chunk(kind, body):
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    clear = b"" if transparent is None else chunk(b"tRNS", transparent)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + clear
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def packed(values, bits):
    """Integers packed with `bits` bits each, the first in the highest bits."""
    places = np.array(values)[:, None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(places.astype(np.uint8).ravel()).tobytes()


def ramp(white, count=16):
    """Grey from black to white in so many pixels, on a scale of 0 … white."""
    return np.linspace(0, white, count).round().astype(int)


def decoded(tmp_path, content):
    (tmp_path / "image").write_bytes(content)
    return decode_image(tmp_path / "image")


def check(level, values, white):
    """Levels are 255 v/white, rounded: ½ off at most."""
    assert level.dtype == np.uint8
    assert np.abs(level.ravel() - 255 * values / white).max() <= 0.5
    assert (level.ravel()[0], level.ravel()[-1]) == (0, 255)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [False, True])
def test_grey_png_of_every_depth(tmp_path, depth, clear):
    white = 2**depth - 1
    values = ramp(white)
    mark = values[6]  # neither black nor white from 2 bits on
    rows = [packed(values, depth)] * 2
    transparent = struct.pack(">H", mark) if clear else None
    level, done = decoded(tmp_path, png(depth, 0, len(values), rows, transparent))
    expected = np.where(values == mark, white, values) if clear else values
    assert np.abs(level - 255 * expected / white).max() <= 0.5
    assert any("transparency" in what for what in done) == clear
    assert any("more than 8 bits" in what for what in done) == (depth == 16)


UNKNOWN_TO_PILLOW = {(12, True, "<"), (12, False, ">"), (12, True, ">"), (16, True, ">")}


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_tiff_of_every_depth(tmp_path, bits, white_is_zero, order):
    values = ramp(2**bits - 1)
    stored = values[::-1] if white_is_zero else values
    data = stored.astype(f"{order}u2").tobytes() if bits == 16 else packed(stored, bits)
    content = tiff(bits, data, (1, 16), 1 - white_is_zero, order)
    if (bits, white_is_zero, order) in UNKNOWN_TO_PILLOW:
        with pytest.raises(BadImageError, match="cannot identify"):
            decoded(tmp_path, content)
        return
    level, done = decoded(tmp_path, content)
    check(level, values, 2**bits - 1)
    assert any("more than 8 bits" in what for what in done) == (bits > 8)


@pytest.mark.parametrize("white", [1, 15, 100, 255, 256, 1023, 4095, 65535])
def test_pgm_of_every_white(tmp_path, white):
    values = ramp(white)
    data = values.astype("u1" if white < 256 else ">u2").tobytes()
    level, done = decoded(tmp_path, b"P5 16 1 %d\n" % white + data)
    check(level, values, white)
    assert any("more than 8 bits" in what for what in done) == (white > 255)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff(8, bytes(16), (1, 16), sample_format=2), "signed samples"),
        (tiff(16, bytes(32), (1, 16), sample_format=2), "signed samples"),
        (tiff(32, bytes(64), (1, 16), sample_format=2), "signed samples"),
        (tiff(32, bytes(64), (1, 16), sample_format=1), "32-bit integers"),
        (tiff(32, bytes(64), (1, 16)), "32-bit integers"),
        (tiff(32, bytes(64), (1, 16), sample_format=3), "float images"),
        (tiff(10, bytes(20), (1, 16)), "cannot identify"),
        (tiff(14, bytes(28), (1, 16)), "cannot identify"),
        (png(16, 2, 1, [bytes(6)], bytes(6)), "transparent colour of 16 bits"),
    ],
)
def test_values_without_a_known_white_are_refused(tmp_path, content, message):
    with pytest.raises(BadImageError, match=message):
        decoded(tmp_path, content)


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_with_alpha_stays_grey_and_is_put_on_white(tmp_path, depth):
    half, full = 2 ** (depth - 1), 2**depth - 1
    pairs = np.array([[0, full], [0, 0], [half, full], [0, half]])
    row = pairs.astype("u1" if depth == 8 else ">u2").tobytes()
    level, done = decoded(tmp_path, png(depth, 4, 4, [row]))
    assert level.tolist() == [[0, 255, 128, 127]]
    assert done[-1].startswith("with transparency")


def test_a_palette_with_transparency_is_put_on_white(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 200, 100, 50, 9, 9, 9])
    image.putdata([0, 1, 2])
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes([255, 255, 0]))
    level, done = decoded(tmp_path, file.getvalue())
    assert level.tolist() == [[[0, 0, 0], [200, 100, 50], [255, 255, 255]]]
    assert len(done) == 2


def test_other_colour_spaces_and_frames_are_told(tmp_path):
    file = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(file, "JPEG", quality=100)
    level, done = decoded(tmp_path, file.getvalue())
    assert level.min() >= 254  # no ink is white; JPEG may round
    assert done == ["in CMYK (made RGB)"]
    file = io.BytesIO()
    frames = [Image.new("L", (2, 2), value) for value in (10, 20)]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    level, done = decoded(tmp_path, file.getvalue())
    assert (level == 10).all()
    assert done == ["with several frames or pages (the first was taken)"]


@pytest.fixture(scope="module")
def whole_images():
    noise = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    files = {}
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, kind)
        files[kind] = file.getvalue()
    return files


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_a_damaged_file_is_an_image_or_a_value_error(tmp_path, whole_images, kind):
    rng, whole = np.random.default_rng(1), whole_images[kind]
    reasons = []
    for trial in range(60):
        damaged = bytearray(whole)
        if trial % 3 == 0:
            del damaged[rng.integers(len(whole)) :]
        for _ in range(trial % 3 if damaged else 0):
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            level, _ = decoded(tmp_path, bytes(damaged))
            assert level.dtype == np.uint8
        except ValueError as error:
            reasons.append(str(error))
    assert all(str(tmp_path / "image") in reason for reason in reasons)
    assert len(reasons) >= 10  # of the 20 that are cut, most lack pixels
