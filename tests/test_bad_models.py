"""Bad models, conditions and budgets in Python: one line that names what is wrong, and no files."""

import pytest
import torch
from torch import nn

import scoresde
from scoresde import grid
from scoresde.data import DataSpec
from scoresde.likelihood import Path, log_likelihood
from scoresde.names.samplers import parse_sampler
from scoresde.nets import ConditionSpec
from scoresde.samplers import DDIM, sample
from scoresde.score import FunctionScore, NetworkScore, Preconditioning, wrap
from scoresde.sde import VP

SPEC = DataSpec((3,), -1.0, 1.0)
X = torch.linspace(-1, 1, 24).reshape(8, 3)
TS = grid.log_snr(VP(), 3)

ROUTES = {
    "sample": lambda model, out: sample(model, DDIM(), TS, (4, 3), seed=0),
    "likelihood": lambda model, out: log_likelihood(model, X, Path(steps=4, nodes=2), seed=0),
    "bench": lambda model, out: scoresde.bench(
        model, samplers=["ddim"], nfe=[5], data=X, out=out, n=8
    ),
    "report": lambda model, out: scoresde.likelihood_report(model, X, out=out),
}
OUTPUTS = {
    "shape": (lambda x: x[:, :2], r"network returned \(\d+, 2\) for x of shape \(\d+, 3\)"),
    "broadcast": (lambda x: x[:1], r"network returned \(1, 3\) for x of shape"),
    "nothing": (lambda x: None, "network returned NoneType .*; expected a tensor of that shape"),
    "array": (lambda x: x.detach().numpy(), "network returned ndarray"),
    "tuple": (lambda x: (1, x), "network returned a tuple whose first entry is int"),
    "integers": (lambda x: x.long(), "network returned torch.int64, a floating dtype is needed"),
    "NaN": (lambda x: x * torch.nan, r"network output at t=\S+: (\d+) non-finite values of \1"),
}


@pytest.mark.filterwarnings("ignore:model NetworkScore")  # the identity of a lambda
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.by_default("NaN", "broadcast")
def test_networks_that_return_something_else(route, output, tmp_path):
    returned, message = OUTPUTS[output]
    model = wrap(lambda x, t: returned(x), VP(), "eps", label="time", data=SPEC)
    with pytest.raises(RuntimeError, match=message):
        ROUTES[route](model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Uncalled(nn.Module):
    """A network of classes, a vector and an array that must not be reached."""

    condition = ConditionSpec(3, 2, (1, 4, 4))

    def forward(self, x, label, y=None):
        raise AssertionError("the network was called")


def parts(**changed):
    """The right condition of 4 samples with other entries."""
    right = {
        "class": torch.arange(4) % 3,
        "vector": torch.zeros(4, 2),
        "array": torch.zeros(4, 1, 4, 4),
    }
    return right | changed


CONDITIONS = {
    "none": (None, "y must be given: the network takes 3 classes and a vector of 2 and an array"),
    "one tensor": (torch.zeros(4), "y must be a dict with keys class, vector, array, got Tensor"),
    "a key is missing": ({"class": torch.zeros(4)}, "got the keys class"),
    "too many keys": (parts(more=torch.zeros(4)), "got the keys class, vector, array, more"),
    "text": ("dog", "y must be a tensor of numbers, got str"),
    "another number": (
        parts(vector=torch.zeros(3, 2)),
        "leading dimension 4, or 1 .* shape (3, 2)",
    ),
    "another length": (parts(vector=torch.zeros(4, 5)), "y['vector'] must have shape (4, 2)"),
    "another size": (
        parts(array=torch.zeros(4, 1, 8, 8)),
        "y['array'] must have shape (4, 1, 4, 4)",
    ),
    "no class": (parts(**{"class": torch.full((4,), 3)}), "y['class'] must hold classes 0 to 2"),
    "another kind": (parts(**{"class": torch.zeros(4)}), "y['class'] must hold integer class"),
    "not finite": (parts(vector=torch.full((4, 2), torch.inf)), "y['vector'] must be finite"),
}


@pytest.mark.parametrize("kind", CONDITIONS)
def test_conditions_that_the_network_was_not_built_for(kind):
    y, message = CONDITIONS[kind]
    model, x = NetworkScore(Uncalled(), VP(), Preconditioning()), torch.zeros(4, 1, 4, 4)
    pattern = ".*".join(map(escaped, message.split(" .* ")))
    with pytest.raises((TypeError, ValueError), match=pattern):
        sample(model, DDIM(), TS, x.shape, y=y)
    with pytest.raises((TypeError, ValueError), match=pattern):
        log_likelihood(model, x, Path(steps=4, nodes=2), seed=0, y=y)


def escaped(text):
    for character in "[]()":
        text = text.replace(character, f"\\{character}")
    return text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"nfe": 0}, ValueError, "nfe must be at least 1, got 0"),
        ({"nfe": 2.5}, TypeError, "nfe must be an integer, got 2.5"),
        (
            {"nfe": 2, "sampler": parse_sampler("heun")},
            ValueError,
            "nfe must be at least 3, for one step",
        ),
        ({"nfe": 5, "ts": TS}, ValueError, "nfe must be None if ts is given"),
        ({"nfe": 5, "sampler": parse_sampler("dopri5")}, ValueError, "nfe"),
        ({"sampler": "ddim"}, TypeError, "sampler must be of type Sampler, got str"),
        ({"shape": None}, ValueError, r"shape must be given as \(n, \*D\)"),
    ],
)
def test_budgets_and_samplers(options, error, message):
    model = FunctionScore(VP(), lambda x, t: x)
    with pytest.raises(error, match=message):
        sample(model, **{"shape": (2, 3)} | options)
    assert model.nfe.forward == 0
