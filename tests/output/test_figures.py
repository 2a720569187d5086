import pytest
import torch
from PIL import Image

from scoresde.data import DataSpec
from scoresde.output.figures import new_figure, png_bytes, save_grid, save_training_figure, to_grid

GREY = DataSpec((1, 8, 8), -1, 1, 17)


def row(step: int, loss: float | None, errors: list[float | None]) -> dict:
    return {"step": step, "loss": loss, "error_by_t": errors}


def test_grid_is_in_reading_order_with_the_full_grey_scale():
    levels = torch.tensor([0, 8, 16]).reshape(3, 1, 1, 1).expand(3, 1, 8, 8)
    picture = to_grid(GREY.encode(levels), GREY, columns=2)
    side, pad = 8 * 4, 2  # 28/8 rounds to a factor of 4
    assert picture.size == (2 * (side + pad) + pad, 2 * (side + pad) + pad)
    centres = [
        (pad + side // 2 + c * (side + pad), pad + side // 2 + r * (side + pad))
        for r, c in ((0, 0), (0, 1), (1, 0))
    ]
    assert [picture.getpixel(p)[0] for p in centres] == [0, 128, 255]  # 127.5 rounds to even
    assert picture.getpixel((0, 0)) == (128, 128, 128)


def test_values_outside_the_range_are_clamped_and_the_samples_stay(rng_untouched):
    x = torch.full((1, 1, 8, 8), 3.0)
    before = x.clone()
    assert to_grid(x, GREY).getextrema() == ((255, 255),) * 3
    assert to_grid(-x, GREY).getextrema() == ((0, 0),) * 3
    assert torch.equal(x, before)


def test_continuous_and_colour_images():
    spec = DataSpec((3, 4, 6), 0, 2)
    x = torch.tensor([2.0, 1.0, 0.0]).reshape(1, 3, 1, 1).expand(5, 3, 4, 6)
    picture = to_grid(x.double(), spec)  # 3 columns, 2 rows, enlarged 5 times
    assert picture.size == (3 * (30 + 2) + 2, 2 * (20 + 2) + 2)
    assert picture.getpixel((10, 10)) == (255, 128, 0)


def test_saved_grid_is_the_picture(tmp_path):
    x = torch.linspace(-1, 1, 256).reshape(4, 1, 8, 8)
    save_grid(tmp_path / "grid.png", x, GREY)
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.tobytes() == to_grid(x, GREY).tobytes()


def test_training_figure_is_written_without_touching_pyplot(tmp_path):
    import matplotlib.pyplot as plt

    path = tmp_path / "loss.png"
    save_training_figure(path, [row(10, 1.0, [1.0, 0.5]), row(20, 0.5, [0.9, None])])
    with Image.open(path) as picture:
        assert picture.size == (1100, 440)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "rows",
    [
        [row(10, 1.0, [None, None])],  # no time was drawn in any bin
        [row(10, 1.0, [0.0, 1.0]), row(20, None, [None, None])],
    ],
)
def test_training_figure_of_incomplete_logs(tmp_path, rows):
    save_training_figure(tmp_path / "loss.png", rows)
    assert (tmp_path / "loss.png").exists()


def test_no_training_figure_of_nothing(tmp_path):
    save_training_figure(tmp_path / "loss.png", [])
    save_training_figure(tmp_path / "loss.png", [row(10, None, [None])])
    assert list(tmp_path.iterdir()) == []


def test_png_bytes_are_reproducible():
    def picture() -> bytes:
        figure = new_figure(2, 1)
        figure.subplots().plot([0, 1])
        return png_bytes(figure)

    assert picture() == picture()
    assert picture().startswith(b"\x89PNG")
