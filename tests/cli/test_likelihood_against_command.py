"""`scoresde likelihood --against`: two checkpoints on the command line."""

import json

import numpy as np
import pytest


@pytest.fixture
def other_checkpoint(write_checkpoint, tmp_path_factory):
    """Of the same data as `points_checkpoint`, under another SDE."""
    net = {"kind": "mlp", "width": 8, "depth": 1}
    folder = tmp_path_factory.mktemp("other")
    return write_checkpoint(folder, data={"name": "mixture3"}, sde={"kind": "vp"}, net=net)


def test_the_difference_of_two_checkpoints(scoresde, points_checkpoint, other_checkpoint, tmp_path):
    coarse = ("--n", 6, "--measured", 2, "--rtol", 1e-2, "--atol", 1e-2, "--t-min", 1e-3)
    pair = ("likelihood", "--checkpoint", points_checkpoint, "--against", other_checkpoint)
    done = scoresde(*pair, *coarse, "--out", tmp_path / "out", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    rows = np.load(tmp_path / "out" / "per_image.npz")
    a, b = rows["nats_per_dim_a"], rows["nats_per_dim_b"]
    assert found["difference"] == pytest.approx((a - b).mean(), abs=1e-9)
    assert found["budget"]["std_error"] == pytest.approx((a - b).std(ddof=1) / 6**0.5, rel=1e-6)
    again = scoresde(*pair, *coarse, "--out", tmp_path / "out")  # finds its results
    assert again.out.splitlines()[0] == found["verdict"]


def test_two_models_of_other_data_are_one_line(scoresde, points_checkpoint, tmp_path):
    asked = ("likelihood", "--checkpoint", points_checkpoint, "--against", "digits-vp")
    done = scoresde(*asked, "--n", 2, "--out", tmp_path / "out")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "--against: " in done.err
    assert list(tmp_path.iterdir()) == []
