"""Operators and methods from text."""

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.inverse import DDRM, DPS, Foreign, PiGDM, RePaint, TwistedSMC
from scoresde.names.inverse import METHODS, parse_method
from scoresde.names.operators import parse_operator
from scoresde.plain import ConfigError
from scoresde.sde import VP

SHAPE = (3, 4, 6)
SPEC = DataSpec((2,), -1.0, 1.0, levels=8)


def hidden(text, shape=SHAPE):
    return ~parse_operator(text).of(shape).keep


def test_a_box_is_hidden_in_the_middle_or_where_it_is_asked_for():
    found = hidden("mask:box=2x4")
    assert found.sum() == 3 * 8
    assert bool(found[:, 1:3, 1:5].all())
    assert bool(hidden("mask:box=1x2:at=3x0")[:, 3, :2].all())
    assert hidden("mask:box=2", (5,)).tolist() == [False, True, True, False, False]
    assert hidden("mask:box=3:at=1", (2, 4)).sum() == 6  # series


def test_a_share_hides_whole_pixels_and_follows_its_seed():
    found = hidden("mask:share=0.25:seed=3")
    assert bool((found == found[:1]).all())
    assert found[0].sum() == 6
    assert torch.equal(found, hidden("mask:share=0.25:seed=3"))
    assert not torch.equal(found, hidden("mask:share=0.25"))


def test_a_file_hides_what_is_black(tmp_path):
    keep = np.random.default_rng(0).random((4, 6)) > 0.5
    Image.fromarray((255 * keep).astype(np.uint8)).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", keep)
    for name in ("mask.png", "mask.npy"):
        found = hidden(f"mask:file={tmp_path / name}")
        assert torch.equal(found, ~torch.from_numpy(keep).expand(SHAPE))
    assert "file" not in parse_operator(f"mask:file={tmp_path / 'mask.npy'}").settings


def test_other_operators_and_those_of_the_user(tmp_path, monkeypatch):
    assert parse_operator("downsample:factor=2").of(SHAPE).measured == (3, 2, 3)
    assert parse_operator("grey").of(SHAPE).measured == (1, 4, 6)
    assert parse_operator("blur:std=0.5").of(SHAPE).measured == SHAPE
    assert parse_operator("projection:m=5").of(SHAPE).measured == (5,)
    (tmp_path / "my_operators.py").write_text(
        "class Half:\n"
        "    def __init__(self, factor=0.5): self.factor = factor\n"
        "    def A(self, x): return self.factor * x\n"
        "    A_adjoint = A\n"
    )
    monkeypatch.chdir(tmp_path)
    own = parse_operator("my_operators:Half:factor=0.25").of(SHAPE)
    assert isinstance(own, Foreign)
    assert float(own.A(torch.ones(1, *SHAPE)).mean()) == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("maks:box=2x2", "did you mean mask"),
        ("mask", "one of box, share and file must be given, got none"),
        ("mask:box=2x2:share=0.5", "got box and share"),
        ("mask:share=1", "share must be"),
        ("mask:share=0.5:at=1x1", "at belongs to box"),
        ("downsample:factor=1", "factor must be at least 2"),
        ("projection", "missing m"),
        ("blur:std=0", "std must be"),
    ],
)
def test_wrong_operators_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_operator(text)


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("mask:box=5x2", SHAPE, "inside 4x6, got 5x2 at 0x2"),
        ("mask:box=2", SHAPE, "box must be 2 numbers"),
        ("mask:box=2xx", SHAPE, "such as 4x4"),
        ("mask:share=0.99", (4,), "keep must be True for at least one"),
        ("downsample:factor=4", SHAPE, "factor must divide"),
        ("grey", (1, 4, 4), "several channels"),
        ("blur", (4,), "blur is of"),
        ("projection:m=80", SHAPE, "m must be at most 72"),
    ],
)
def test_operators_that_do_not_suit_the_shape_are_refused(text, shape, message):
    with pytest.raises(ValueError, match=message):
        parse_operator(text).of(shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pgdm", "did you mean pigdm"),
        ("dps:scale=-1", "scale must be"),
        ("smc:particles=0", "particles must be"),
        ("ddrm:eta=2", "eta must be"),
        ("repaint:repeats=0", "repeats must be"),
        ("pigdm:data_var=0", "data_var must be"),
    ],
)
def test_wrong_methods_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_method(text)


def test_a_method_makes_its_model_and_its_sampler():
    prior = GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [1.0])
    operator = parse_operator("mask:box=1").of((2,))
    for name in METHODS:
        method = parse_method(name).for_data(SPEC)
        assert method.of(prior, operator, 0.1).operator is operator
    assert parse_method("ddrm:eta=0.5").sampler == DDRM(0.5)
    assert parse_method("repaint:repeats=3:jump=2").sampler == RePaint(3, 2)
    smc = parse_method("smc:particles=4").for_data(SPEC)
    assert smc.sampler == TwistedSMC(4, data_var=0.25)
    pigdm = parse_method("pigdm").for_data(SPEC).of(prior, operator, 0.1)
    assert isinstance(pigdm, PiGDM)
    assert (pigdm.noise, pigdm.data_var) == (0.1, 0.25)
    assert parse_method("pigdm:data_var=2").for_data(SPEC).data_var == 2
    dps = parse_method("dps").of(prior, parse_operator("projection:m=2").of((2,)), 0.1)
    assert isinstance(dps, DPS)
    assert dps.scale == pytest.approx(2**0.5 / 0.1)


def test_the_usual_variance_grows_with_the_pixels_for_pigdm_alone():
    def usual(text, **values):
        return parse_method(text).for_data(DataSpec(**values)).data_var

    small = {"shape": (1, 8, 8), "low": -1.0, "high": 1.0, "levels": 256}
    large = small | {"shape": (3, 32, 32)}
    assert [usual(name, **small) for name in ("pigdm", "ddnm", "smc")] == [0.25] * 3
    assert [usual(name, **large) for name in ("pigdm", "ddnm", "smc")] == [4.0, 0.25, 0.25]
    assert usual("pigdm", **large | {"low": 0.0}) == 1.0
    assert usual("pigdm", shape=(5,), low=-3.0, high=3.0) == 1.0
