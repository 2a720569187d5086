import dataclasses
import json
import math
from dataclasses import replace

import pytest
import torch

from scoresde.data import Dataset, DataSpec

BYTES = DataSpec((1, 8, 8), -1, 1, levels=256)
DIGITS = DataSpec((1, 8, 8), -1, 1, levels=17)


@pytest.mark.parametrize(
    ("levels", "low", "high", "offset"), [(256, -1, 1, 7), (256, 0, 1, 8), (32, -1, 1, 4)]
)
def test_bits_offset_is_the_log_volume_of_a_cell(levels, low, high, offset):
    assert DataSpec((3,), low, high, levels=levels).bits_offset == offset


def test_continuous_data_have_no_levels_and_no_bits():
    spec = DataSpec((2,), -4, 4)
    with pytest.raises(ValueError, match="bits_offset needs quantized data, got levels = None"):
        _ = spec.bits_offset
    with pytest.raises(ValueError, match="to_levels needs quantized data"):
        spec.to_levels(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="dequantize needs quantized data"):
        spec.encode(torch.zeros(1, 2, dtype=torch.uint8))


@pytest.mark.parametrize("spec", [BYTES, DIGITS, DataSpec((1,), 0.1, 0.7, levels=1000)])
def test_levels_survive_encoding_and_dequantization(spec):
    k = torch.arange(spec.levels)
    assert torch.equal(spec.to_levels(spec.encode(k)).long(), k)
    # Off the cell borders by more than float32 rounding, which is 1e-7 · 1000 levels.
    for u in (0.001, 0.5, 0.999):
        x = spec.dequantize(k, torch.full((spec.levels,), u))
        assert x.dtype == torch.float32
        assert torch.equal(spec.to_levels(x).long(), k)


def test_dequantized_data_fill_the_scale_exactly_and_uniformly():
    k = torch.arange(17)
    zero, one = torch.zeros(17, dtype=torch.float64), torch.ones(17, dtype=torch.float64)
    lower, upper = DIGITS.dequantize(k, zero), DIGITS.dequantize(k, one)
    assert lower[0] == -1
    assert upper[-1] == 1
    torch.testing.assert_close(upper[:-1], lower[1:], rtol=0, atol=1e-15)
    torch.testing.assert_close(upper - lower, 2 * one / 17, rtol=0, atol=1e-15)


def test_levels_are_rounded_not_truncated_and_ends_are_exact():
    ends = torch.tensor([-1.0, 1.0, -1.3, 1.3, math.inf, -math.inf])
    assert BYTES.to_levels(ends).tolist() == [0, 255, 0, 255, 255, 0]
    assert BYTES.to_levels(ends).dtype == torch.uint8
    # k + r is r levels from the centre of cell k: below half a level it is k, from half on k + 1.
    for k in (0, 100, 254):
        x = torch.tensor([-1 + 2 * (k + 0.5 + r) / 256 for r in (-0.49, 0.49, 0.5, 0.51)])
        assert BYTES.to_levels(x).tolist() == [k, k, k + 1, k + 1]


def test_level_arguments_are_checked():
    with pytest.raises(ValueError, match=r"k must lie in 0..16, got 0..17"):
        DIGITS.encode(torch.tensor([0, 17]))
    with pytest.raises(TypeError, match=r"k must be an integer tensor.*float32"):
        DIGITS.encode(torch.tensor([0.5]))
    with pytest.raises(TypeError, match=r"u must be a float tensor.*int64"):
        DIGITS.dequantize(torch.tensor([1]), torch.tensor([1]))
    with pytest.raises(ValueError, match="x must not hold NaN, got 1"):
        DIGITS.to_levels(torch.tensor([math.nan, 0.0]))


def test_spec_survives_json_and_is_strict():
    spec = DataSpec((3, 32, 32), -1, 1, levels=256, classes=10, name="cifar10")
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(ValueError, match="DataSpec: unknown key 'level'; did you mean levels"):
        DataSpec.from_dict({"shape": [2], "low": 0, "high": 1, "level": 2})
    with pytest.raises(ValueError, match="DataSpec: missing high"):
        DataSpec.from_dict({"shape": [2], "low": 0})
    for key, value in (("shape", 2), ("class_names", "ab")):
        with pytest.raises(ValueError, match=f"DataSpec.{key} must be a list of .* got"):
            DataSpec.from_dict({"shape": [2], "low": 0, "high": 1, "classes": 2, key: value})


def test_class_names_survive_json_and_are_absent_without_classes():
    spec = replace(BYTES, classes=2, class_names=["cat", "dog"])
    assert spec.class_names == ("cat", "dog")
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    # So a checkpoint from before there were names is equal to one of today without names.
    assert "class_names" not in BYTES.to_dict()


def test_the_class_map_is_one_printable_line():
    assert BYTES.class_map is None
    names = ("cat", "\x1b[31mdog\n", "\udcff")
    assert replace(BYTES, classes=3, class_names=names).class_map == (
        r"0 cat, 1 \x1b[31mdog\n, 2 \udcff"
    )
    many = replace(BYTES, classes=13, class_names=tuple("abcdefghijklm")).class_map
    assert many.endswith("8 i, 9 j, …, 12 m")


def test_the_first_class_without_a_datum_is_named():
    def data(labels, **changes):
        spec = replace(BYTES, **changes)
        return Dataset("d", torch.zeros(len(labels), 1, 8, 8), torch.tensor(labels), spec)

    assert data([0, 1, 1], classes=2).empty_class is None
    assert data([0, 1, 1], classes=4).empty_class == "class 2"
    assert data([1, 2], classes=3).empty_class == "class 0"
    assert data([0, 2], classes=3, class_names=("a", "b", "c")).empty_class == "class 1 (b)"
    assert replace(data([1], classes=2), labels=None).empty_class is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shape": ()}, ValueError, "shape must have at least one axis"),
        ({"shape": (1, 0)}, ValueError, "shape must be at least 1, got 0"),
        ({"shape": (1.5,)}, TypeError, "shape must be an integer, got 1.5"),
        ({"low": 1.0}, ValueError, "low must be below high"),
        ({"high": math.nan}, ValueError, "high must be finite, got nan"),
        ({"high": 10**400}, ValueError, "high must be at most"),
        ({"low": "0"}, TypeError, "low must be a number, got '0'"),
        ({"shape": (1 << 30, 1 << 30)}, ValueError, "the product of shape must be at most 2.40"),
        ({"levels": 10**400}, ValueError, "levels must be at most 2.40"),
        ({"classes": 10**400}, ValueError, "classes must be at most 2.40"),
        ({"name": 3}, TypeError, "name must be text, got 3"),
        ({"class_names": ("a", "b")}, ValueError, "class_names must be None different names"),
        ({"classes": 3, "class_names": ("a", "b")}, ValueError, "must be 3 different names.*'a'"),
        ({"classes": 2, "class_names": ("a", "a")}, ValueError, "must be 2 different names"),
        ({"classes": 2, "class_names": ("a", "")}, ValueError, "must be 2 different names"),
        ({"classes": 2, "class_names": ("a", 1)}, TypeError, "class_names must be text"),
        ({"levels": 1}, ValueError, "levels must be at least 2, got 1"),
        ({"levels": 17.0}, TypeError, "levels must be an integer, got 17.0"),
        ({"classes": 0}, ValueError, "classes must be at least 1, got 0"),
    ],
)
def test_spec_refuses_nonsense(change, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(BYTES, **change)


def test_the_fingerprint_of_a_dataset_is_that_of_its_content():
    x, y = torch.arange(12, dtype=torch.uint8).reshape(3, 4), torch.tensor([0, 1, 0])
    spec = DataSpec((4,), -1, 1, 256, 2, "a")
    data = Dataset("a", x, y, spec)
    renamed = replace(data, name="b", spec=replace(spec, name="b"), split="test")
    assert renamed.fingerprint == data.fingerprint == data.fingerprint
    others = [
        replace(data, x=x.flip(0)),
        replace(data, labels=y.flip(0).roll(1)),
        replace(data, labels=None),
        replace(data, x=x.long()),
        replace(data, spec=replace(spec, levels=255)),
        replace(data, spec=replace(spec, low=-2)),
        replace(data, spec=replace(spec, class_names=("cat", "dog"))),
        replace(data, spec=replace(spec, class_names=("dog", "cat"))),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 9
