"""The first steps of every command: a request, and a checkpoint read before it is built."""

from dataclasses import replace

import pytest
import torch

import scoresde
from scoresde.output.manifest import Source
from scoresde.tasks.request import HeldOutRequest, Request, StoredModel


@pytest.fixture(scope="module")
def stored():
    return StoredModel.read("digits-vp")


def origin(request, content="0" * 64, **options):
    return request.origin("sample", {"checkpoint": Source(request.checkpoint, content)}, **options)


def test_places_are_shown_and_contents_compared():
    request = HeldOutRequest("a", data="x.npy")
    other = replace(request, checkpoint="b", data="y.npy", data_root="d", split="test", levels=2)
    assert origin(request).fingerprint == origin(other).fingerprint
    assert origin(request).fingerprint != origin(request, content="1" * 64).fingerprint
    assert origin(request).fingerprint != origin(replace(request, n=3)).fingerprint
    assert origin(request).plain["data"] == "x.npy"


def test_further_options_may_be_shown_or_changed():
    request = Request("a", batch=8)
    assert origin(request, shown=("batch",)).fingerprint == (
        origin(replace(request, batch=9), shown=("batch",)).fingerprint
    )
    assert origin(request, batch=9).plain == origin(replace(request, batch=9)).plain


def test_the_model_is_that_of_load(stored):
    """In float32; the other dtypes are those of the network, or of its autocast alone."""
    x, t = torch.ones(2, 1, 8, 8), torch.tensor(0.5)
    wanted = scoresde.load("digits-vp")
    assert (stored.spec, stored.config) == (wanted.data, wanted.config)
    assert stored.source == Source("digits-vp", wanted.sha256)
    assert torch.equal(stored.build().eps(x, t), wanted.model.eps(x, t))
    double, half = stored.build(dtype="float64"), stored.build(dtype="bfloat16")
    dtypes = [next(model.net.parameters()).dtype for model in (double, half)]
    assert dtypes == [torch.float64, torch.float32]
    assert [model.autocast for model in (double, half)] == [None, torch.bfloat16]


def test_a_time_that_was_asked_for_wins_over_the_default(stored):
    assert stored.last_time(None, 1e-3) == 1e-3
    assert stored.last_time(0.2, 1e-3) == 0.2
    index = replace(stored.config.preconditioning, label="index")
    ladder = scoresde.TabulatedVP(torch.full((50,), 0.02).tolist())
    discrete = replace(stored, config=replace(stored.config, sde=ladder, preconditioning=index))
    assert discrete.last_time(None, 1e-3) == pytest.approx(1 / 50)  # the time of the first label
    discrete.check_first_time(0.03)
    with pytest.raises(ValueError, match="--t-min: 0.01 is below 0.02, the time of the first"):
        discrete.check_first_time(0.01)
