"""Transforms between the user's units and the model's scale."""

import json
import math
import warnings

import pytest
import torch

from scoresde.data import Affine, DataSpec, Log, Logit, Standardize, parse_transforms
from scoresde.data.transforms import fit_chain
from scoresde.plain import ConfigError

SHAPES = {"vector": (3,), "image": (3, 2, 4), "set": (5, 3)}

CHAINS = {
    "standardize": lambda axis: (Standardize((1.0, -2.0, 3e3), (0.5, 2.0, 1e-3), axis=axis),),
    "affine": lambda axis: (Affine(-2.0, 1.0, columns=(1,), axis=axis),),
    "log": lambda axis: (Log(axis=axis),),
    "logit": lambda axis: (Logit(0.0, (2.0, 9.0), columns=(2, 0), axis=axis),),
    "chain": lambda axis: (
        Log(columns=(0, 2), axis=axis),
        Standardize(0.3, (1.5, 2.0, 0.1), axis=axis),
        Affine((3.0, 1.0, -1.0), 0.25, axis=axis),
    ),
}


def spec_of(name, chain):
    """Data whose features are in the axis that the kind of data has."""
    sizes = (1, 5) if name == "set" else None
    return DataSpec(SHAPES[name], -4, 4, sizes=sizes, transform=chain(-1 if sizes else 1))


def data_of(name, n=4):
    """Positive numbers below 2, as all chains accept them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, *SHAPES[name], generator=generator, dtype=torch.float64)
    return 0.1 + 1.8 * x


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("chain", CHAINS)
def test_log_determinants_are_those_of_autograd_and_units_come_back(name, chain):
    spec, x = spec_of(name, CHAINS[chain]), data_of(name)
    z = spec.to_model(x)
    # an inverse in float64 rounds once or twice per transform; 3e3 with 1e-3 loses 6 digits more
    assert torch.allclose(spec.to_units(z), x, rtol=1e-12, atol=1e-12 if chain != "chain" else 1e-9)
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(
            lambda row: spec.to_model(row[None])[0].flatten(), x[i]
        )
        expected = torch.linalg.slogdet(jacobian.reshape(spec.dims, spec.dims))[1]
        assert abs(float(spec.log_det(x)[i] - expected)) < 1e-9


def test_points_that_do_not_exist_count_nothing():
    spec, x = spec_of("set", CHAINS["chain"]), data_of("set", n=2)
    present = torch.tensor([[True] * 5, [True, True, False, False, False]])
    padded = torch.where(present[..., None], x, 0)
    z = spec.to_model(padded, present)
    assert torch.equal(z[0], spec.to_model(x)[0])
    assert torch.equal(z[1, :2], spec.to_model(x)[1, :2])
    assert not z[1, 2:].any()
    assert torch.equal(spec.to_units(z, present)[1, 2:], torch.zeros(3, 3).double())
    slopes = sum(float(spec.log_det(x[1:, i : i + 1].expand(1, 5, 3))) / 5 for i in range(2))
    assert abs(float(spec.log_det(padded, present)[1]) - slopes) < 1e-12


def test_standardizing_uses_all_blocks_and_the_transforms_before_it():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(60, 2, generator=generator, dtype=torch.float64).exp() * 1e3
    texts = parse_transforms(["log:columns=mass", "standardize"])
    chain, _ = fit_chain(
        texts, lambda: ((part, None) for part in x.split(7)), (2,), ("mass", "flux")
    )
    expected = torch.stack([x[:, 0].log(), x[:, 1]], dim=1)
    assert chain[0] == Log(columns=(0,))
    # one sum of 60 numbers in another order
    assert chain[1].mean == pytest.approx(expected.mean(0).tolist(), rel=1e-13)
    assert chain[1].std == pytest.approx(expected.std(0, correction=0).tolist(), rel=1e-13)


def test_a_spec_is_the_same_after_json_and_old_ones_have_no_new_key():
    chain = CHAINS["chain"](1)
    spec = DataSpec((3,), -1, 1, transform=chain, feature_names=("a", "b", "c"))
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert set(DataSpec((3,), -1, 1).to_dict()) == {
        *("shape", "low", "high", "levels", "classes", "name")
    }
    with pytest.raises(ConfigError, match=r"transform\[0\].kind: 'sqrt' is unknown"):
        DataSpec.from_dict({"shape": [1], "low": 0, "high": 1, "transform": [{"kind": "sqrt"}]})
    with pytest.raises(ConfigError, match="must be a list of tables"):
        DataSpec.from_dict({"shape": [1], "low": 0, "high": 1, "transform": "log"})


def fit(texts, x, names=None):
    return fit_chain(parse_transforms(texts), lambda: iter([(x, None)]), tuple(x.shape[1:]), names)[
        0
    ]


def test_data_that_a_transform_cannot_take_are_refused_by_feature_row_and_value():
    x = torch.tensor([[1.0, 5.0], [2.0, 5.0], [-3.0, 5.0]])
    with pytest.raises(ValueError, match="feature 1 is constant, 5 in every training row"):
        fit("standardize", x)
    with pytest.raises(ValueError, match="feature 'flux' is constant"):
        fit("standardize", x, ("mass", "flux"))
    with pytest.raises(ValueError, match="'mass' must be above 0 for the transform log, got -3 in"):
        fit("log", x, ("mass", "flux"))
    spec = DataSpec((2,), 0, 1, transform=(Logit(0, 9, columns=(0,)),))
    with pytest.raises(ValueError, match=r"feature 0 must be between 0.0 and 9.0.*-3 in row 2"):
        spec.to_model(x)
    with pytest.raises(ValueError, match="no column 'speed'; columns are mass, flux or 0 … 1"):
        fit("log:columns=speed", x, ("mass", "flux"))
    assert fit("standardize:columns=0", x)[0].columns == (0,)


def test_a_large_offset_that_float32_cannot_resolve_gives_a_warning():
    x = 1.6e9 + 500 * torch.randn(100, 1, dtype=torch.float64)
    with pytest.warns(UserWarning, match="float32 keeps about"):
        fit("standardize", x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit("standardize", x - 1.6e9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("standardise", "data.transform: 'standardise' is unknown; did you mean standardize"),
        ([], "must name at least one transform"),
        (["none", "log"], "'none' must stand alone"),
        ("log:0,2", "each of columns=… may come once, got '0,2'"),
        ("log:columns=0:columns=1", "may come once"),
        ("log:columns=0,,1", "columns must be names or numbers"),
        ("standardize:mean=0", "each of columns=… may come once, got 'mean=0'"),
        ("affine:scale=a", "scale must be a number"),
        ("affine:scale=0", "scale must not be 0"),
        ("logit:low=1", "low must be below high"),
        ("affine:scale=nan", "scale must be finite"),
    ],
)
def test_a_wrong_text_is_refused_by_key_path(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_transforms(text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Standardize(0.0, (1.0, 0.0)), "std must be above 0, got 0"),
        (lambda: Standardize((0.0, 1.0), (1.0, 1.0, 2.0)), "one number for each feature"),
        (lambda: Log(columns=(1, 1)), "columns must be different features"),
        (lambda: Log(axis=2), "axis must be 1 or -1"),
        (lambda: DataSpec((2,), 0, 1, transform=(Log(columns=(2,)),)), "features 0 … 1"),
        (lambda: DataSpec((2,), 0, 1, transform=(Standardize((0.0,), 1.0),)), "hold 2 numbers"),
        (lambda: DataSpec((2,), 0, 1, transform=(Log(axis=-1),)), "axis must be 1 for these"),
        (lambda: DataSpec((2,), 0, 1, 4, transform=(Log(),)), "None for quantized data"),
        (lambda: DataSpec((2,), 0, 1, feature_names=("a",)), "must be 2 different names"),
    ],
)
def test_transforms_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_logit_keeps_numbers_near_both_bounds():
    logit, z = Logit(-1.0, 1.0), torch.tensor([[-40.0], [-3.0], [0.0], [20.0]]).double()
    x = logit.inverse(z)
    assert (x.abs() <= 1).all()
    assert math.isclose(float(x[1]), math.tanh(-1.5), rel_tol=1e-15)
