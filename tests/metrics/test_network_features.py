"""Networks of published features: sizes, resize and refusals."""

import pytest
import torch

from scoresde.comparison.feature_choice import choose_features
from scoresde.data import DataSpec
from scoresde.metrics.efficientnet import EfficientNetLite0
from scoresde.metrics.inception import resize_tf1


def test_efficientnet_has_the_published_size():
    net = EfficientNetLite0()
    classifier = 1280 * 1000 + 1000
    assert round((sum(p.numel() for p in net.parameters()) + classifier) / 1e6, 2) == 4.65


def test_the_resize_of_tensorflow_reads_from_the_first_pixel():
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    expected = torch.tensor([0, 0.5, 1, 1.5, 2, 2.5, 3, 3])
    assert torch.equal(resize_tf1(ramp, 8)[0, 0], expected.expand(8, 8))


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("fid", (3, 32, 32), "features must be auto, .* got 'fid'"),
        ("inception", (3, 32, 32), "features must be auto"),
        ("inception:x.pth", (1, 32, 32), r"need RGB images .* got data of shape \(1, 32, 32\)"),
        ("efficientnet_lite0", (2,), "need RGB images"),
    ],
)
def test_wrong_names_and_kinds_of_data_are_refused(name, shape, match):
    with pytest.raises(ValueError, match=match):
        choose_features(name, DataSpec(shape, -1.0, 1.0, name="mine"), torch.zeros(4, *shape))
