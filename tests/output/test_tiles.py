"""Pictures of samples of every kind of data: what is drawn where."""

import numpy as np
import pytest
import torch

from scoresde.data import DataSpec
from scoresde.output.figures import new_figure
from scoresde.output.tiles import draw_datum, marginals, sample_figure, save_samples, slices

SETS = DataSpec((5, 2), -2, 2, sizes=(2, 5))


def drawn(x, spec):
    axes = new_figure(1, 1).subplots()
    draw_datum(axes, x, spec)
    return axes


def test_a_series_has_a_line_for_each_channel():
    x = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    lines = drawn(x, DataSpec((3, 10), -4, 4)).get_lines()
    assert all(np.array_equal(v, line.get_ydata()) for v, line in zip(x, lines, strict=True))


def test_only_the_points_of_a_set_are_drawn():
    x = torch.zeros(5, 2)
    x[:3] = torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.0, 1.5]])
    (line,) = drawn(x, SETS).get_lines()
    assert np.array_equal(np.stack(line.get_data(), 1), x[:3])
    (line,) = drawn(x[:, :1], DataSpec((5, 1), -2, 2, sizes=(2, 5))).get_lines()
    assert line.get_ydata().tolist() == [0, 0]  # the third point, 0, is taken for padding


def test_slices_of_a_volume_go_through_its_middle():
    x = torch.zeros(1, 4, 6, 8)
    x[0, 2] = 0.25  # the slice across D
    x[0, :, 3] = 0.5
    x[0, :, :, 4] = 1.0
    found = slices(x, DataSpec((1, 4, 6, 8), 0, 1))
    across_d, across_h, across_w = found[:, :8], found[:4, 9:17], found[:4, 18:24]
    assert torch.equal(across_d, x[0, 2])
    assert torch.equal(across_h, x[0, :, 3])
    assert torch.equal(across_w, x[0, :, :, 4])


@pytest.mark.slow
def test_marginals_are_histograms_of_samples_and_data():
    x = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    figure = marginals(x, DataSpec((30,), -3, 3), x + 1)
    shown = [axis for axis in figure.axes if axis.patches]
    assert len(shown) == 24
    assert "the first 24 of 30 numbers" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("spec", "axes"),
    [
        (SETS, 7),
        (DataSpec((1, 9), -1, 1), 7),
        (DataSpec((1, 4, 4, 4), -1, 1), 7),
        (DataSpec((2, 4, 4), -1, 1), 7),
        (DataSpec((2,), -1, 1), 1),
        (DataSpec((3,), -1, 1), 3),
    ],
)
def test_every_kind_is_drawn(spec, axes):
    x = torch.zeros(7, *spec.shape) + 0.1
    figure = sample_figure(x, spec)
    assert sum(axis.axison for axis in figure.axes) == axes


def test_files(tmp_path):
    save_samples(tmp_path / "x.png", torch.ones(3, 5, 2), SETS)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
