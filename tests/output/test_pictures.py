import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.data import DataSpec
from scoresde.output import pictures as figures
from scoresde.output.tiles import can_show, in_tiles

GREY = DataSpec((1, 8, 8), -1, 1, 17)
POINTS = DataSpec((2,), -4, 4)
VECTORS = DataSpec((16,), 0, 1)


@pytest.fixture
def shown(monkeypatch):
    """The images in [0, 1] in the order of drawing, and the texts."""
    images, texts = [], []

    def save(path, figure):
        for axis in figure.axes:
            texts.extend([axis.get_ylabel(), axis.get_xlabel()])
            images.extend(np.asarray(drawn.get_array()) for drawn in axis.get_images())

    monkeypatch.setattr(figures, "save_figure", save)
    return images, texts


def flat(k):
    """Images of one grey level each."""
    return GREY.encode(torch.tensor(k).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8))


def greys(images):
    return [round(float(image.mean()) * 16) for image in images]


def test_extremes_are_the_ends_of_the_order(shown, monkeypatch):
    monkeypatch.setattr(figures, "MOST_EXTREMES", 2)
    images, texts = shown
    values = torch.tensor([3.0, 1.0, 5.0, 2.0, 4.0])
    figures.extremes("x.png", flat([3, 1, 5, 2, 4]), values, GREY)
    assert greys(images) == [1, 2, 5, 4]
    assert [t for t in texts if t] == [
        *("most likely", "1.000", "2.000"),
        *("least likely", "5.000", "4.000"),
    ]


@pytest.mark.parametrize(("n", "k", "expected"), [(1, 10, [0, 0]), (3, 10, [0, 2]), (4, 1, [0, 3])])
def test_extremes_of_few(shown, monkeypatch, n, k, expected):
    monkeypatch.setattr(figures, "MOST_EXTREMES", k)
    figures.extremes("x.png", flat(list(range(n))), torch.arange(float(n)), GREY)
    assert greys(shown[0]) == expected


def test_sorted_by_value(shown, monkeypatch):
    monkeypatch.setattr(figures, "IMAGES_IN_A_ROW", 2)
    values = torch.tensor([3.0, 1.0, 2.0])
    figures.sorted_by_value("x.png", flat([3, 1, 2]), values, GREY)
    assert greys(shown[0]) == [1, 2, 3]


def test_differences_are_seen(shown):
    """The largest difference is drawn 0.2 to 0.5 of the grey scale away from the middle."""
    images, texts = shown
    x = flat([4, 8])
    for size in (0.5, 3e-4, 1e-9):
        images.clear()
        decoded = x.double()
        decoded[0, 0, 0, 0] += size
        figures.round_trip("x.png", x, torch.zeros_like(x), decoded, GREY)
        latent, difference = images[2:4], images[6:8]
        assert all((image == 0.5).all() for image in latent)
        assert 0.2 <= difference[0].max() - 0.5 <= 0.5
        assert (difference[1] == 0.5).all()
    assert "difference\n× 2000" in texts


def test_no_difference_at_all(shown):
    figures.round_trip("x.png", flat([4]), flat([4]), flat([4]), GREY)
    assert (shown[0][-1] == 0.5).all()


def test_paths_are_rows(shown):
    x = torch.stack([flat([1, 2, 3]), flat([4, 5, 6])])
    figures.interpolation("x.png", x, GREY)
    assert greys(shown[0]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        pytest.param(GREY, (1, 8, 8), marks=pytest.mark.slow),
        (DataSpec((3, 4, 6), 0, 2), (3, 4, 6)),
        (POINTS, (2,)),
    ],
)
@pytest.mark.by_default("spec2")
def test_files_are_pictures_and_nothing_is_changed(tmp_path, rng_untouched, spec, shape):
    import matplotlib.pyplot as plt

    # few data: matplotlib takes 20 ms for each of them in each picture
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)) * spec.span + spec.low
    before, values = x.clone(), torch.linspace(1, 2, 4)
    figures.extremes(tmp_path / "extremes.png", x, values, spec)
    figures.sorted_by_value(tmp_path / "sorted.png", x, values, spec)
    figures.round_trip(tmp_path / "round_trip.png", x, x, x + 1e-3, spec)
    figures.interpolation(tmp_path / "paths.png", x.reshape(2, 2, *shape), spec)
    for name in ("extremes", "sorted", "round_trip", "paths"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 100
    assert torch.equal(x, before)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("shape", "tiles"),
    [((1, 8, 8), True), ((2, 4, 6), True), ((4, 6), True), ((1, 4, 4, 4), True)]
    + [((2,), False), ((16,), False)],
)
def test_all_kinds_have_pictures_and_vectors_no_tiles(shape, tiles):
    assert can_show(DataSpec(shape, 0, 2))
    assert in_tiles(DataSpec(shape, 0, 2)) is tiles


def test_arrays_of_many_axes_have_no_picture():
    assert not can_show(DataSpec((1, 2, 2, 2, 2), 0, 2))
