"""Networks as people bring them: built from an exact mixture, wrapped, and compared with it."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from scoresde._condition import ConditionSpec
from scoresde.likelihood import Ode, Path, log_likelihood
from scoresde.nets import MLP
from scoresde.samplers import DDIM, sample
from scoresde.score import Call, FunctionScore, NetworkScore, Preconditioning, wrap
from scoresde.sde import VE, VP, CosineVP, TabulatedVP

DOUBLE = torch.float64
LADDER = TabulatedVP(VP().ddpm_betas(100))
EDM = VE(0.002, 80.0)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@dataclass
class Output:
    sample: torch.Tensor


class Net(nn.Module):
    """`predict(x, label)` with a parameter that gives the network its dtype."""

    def __init__(self, predict, dtype=DOUBLE):
        super().__init__()
        self.predict, self.weight = predict, nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self, x, t):
        return self.predict(x, t)


def check(model, exact, t=(0.9, 0.31, 0.05), shape=(2,)):
    """All quantities are those of the exact model, at times per sample and at a common time."""
    t = torch.tensor(t, dtype=DOUBLE)
    x = exact.sde.perturb(exact.sample(len(t), seed=1), t, normal(len(t), *shape))
    for quantity in ("eps", "x0", "v", "score"):
        got, want = getattr(model, quantity)(x, t), getattr(exact, quantity)(x, t)
        # the time is read off a label in rounded units, and multiplied by at most 1/α = 150
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
        got = getattr(model, quantity)(x[:1], float(t[0]))
        torch.testing.assert_close(
            got, getattr(exact, quantity)(x[:1], t[:1]), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("sde", [EDM, VP(), CosineVP()], ids=lambda sde: type(sde).__name__)
def test_a_denoiser_of_x_and_sigma(sde, mixture):
    """EDM's convention, on any SDE. D in closed form, from another mixture: x_0 + σ ε is VE."""
    exact = mixture(sde)
    levels = mixture(VE(1e-6, 1e4))

    def denoiser(x, sigma):
        assert sigma.shape == x.shape[:1]
        return levels.x0(x, levels.sde.t_of_sigma(sigma))

    model = wrap(Net(denoiser), sde, "denoiser")
    check(model, exact)
    x = exact.sample(3, seed=2)
    sigma = torch.tensor([0.01, 0.4, 9.0], dtype=DOUBLE)
    torch.testing.assert_close(model.denoise(x, sigma), denoiser(x, sigma), rtol=1e-9, atol=1e-9)
    got = model.score_at(x, sigma)
    want = (denoiser(x, sigma) - x) / sigma[:, None] ** 2
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)  # (D − x)/σ² loses digits, not ε
    assert model.denoise(x[:1], 0.4).shape == (1, 2)


@pytest.mark.parametrize("target", ["eps", "x0", "v", "score"])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_network_of_x_and_t(target, scale, mixture):
    exact = mixture(VP())
    net = Net(lambda x, t: getattr(exact, target)(x, t / scale))
    check(wrap(net, exact.sde, target, label="time", label_scale=scale), exact)


def test_a_network_of_labels_from_1_to_n(mixture):
    exact = mixture(LADDER)
    net = Net(lambda x, i: exact.eps(x, i / 100))
    check(wrap(net, exact.sde, "eps", label="index", label_offset=1), exact)
    for offset, kind in ((1, torch.int64), (0.5, torch.float32)):
        seen = []
        model = wrap(
            lambda x, i, seen=seen: seen.append(i) or x,
            *(LADDER, "eps"),
            label="rounded_index",
            label_offset=offset,
        )
        model.eps(torch.zeros(1, 2), torch.tensor(0.5))
        assert (seen[0].item(), seen[0].dtype) == (49 + offset, kind)


@pytest.mark.parametrize("target", ["eps", "x0", "v", "score"])
def test_a_network_on_a_ladder(target, mixture):
    """A table for integers, as an embedding makes one, and a function of the index."""
    exact = mixture(LADDER)
    model = getattr(exact, target)
    between = Net(lambda x, i: model(x, (i + 1) / 100))
    check(wrap(between, LADDER, target, label="index"), exact)

    table = torch.arange(1, 101, dtype=DOUBLE) / 100
    rounded = wrap(Net(lambda x, i: model(x, table[i])), LADDER, target, label="rounded_index")
    check(rounded, exact, t=(0.9, 0.31, 0.05))
    assert rounded.snapped


@pytest.mark.parametrize("label", ["sigma", "log_sigma", "edm"])
def test_labels_in_terms_of_sigma(label, mixture):
    exact = mixture(EDM)
    undo = {"sigma": torch.log, "log_sigma": lambda u: u, "edm": lambda u: 4 * u}[label]
    net = Net(lambda x, u: exact.score(x, exact.sde.t_of_lam(-undo(u))))
    check(wrap(net, exact.sde, "score", label=label), exact)


def keyword_only(x, t, *, y=None):
    return x if y is None else x + y


class Fused(nn.Module):
    """As super-resolution networks are called: the condition stands before the noise level."""

    def forward(self, x, image, sigma, lower=None, mode="slow"):
        assert mode == "fast"
        assert sigma.shape == (len(x), 1, 1, 1)
        return x + image + (0 if lower is None else lower)


@pytest.mark.parametrize(
    "give",
    [
        lambda x: Output(x),
        lambda x: (x, "more"),
        lambda x: [x],
        lambda x: {"sample": x},
        lambda x: torch.cat([x, x.exp()], dim=1),
        lambda x: (torch.cat([x, x.exp()], dim=1),),
    ],
    ids=["sample", "tuple", "list", "mapping", "2C", "tuple of 2C"],
)
def test_what_a_network_returns(give, gaussian):
    exact = gaussian(VP(), 2, 3, 3)
    net = Net(lambda x, t: give(exact.eps(x, t)))
    check(wrap(net, exact.sde, "eps", label="time"), exact, shape=(2, 3, 3))
    check(FunctionScore(exact.sde, lambda x, t: give(exact.eps(x, t))), exact, shape=(2, 3, 3))


def test_the_log_likelihood_of_a_wrapped_denoiser(mixture):
    exact = mixture(EDM)
    net = Net(lambda x, sigma: exact.x0(x, exact.sde.t_of_sigma(sigma)))
    x, method = exact.sample(4, seed=3), Ode(rtol=1e-4, atol=1e-4)
    got = log_likelihood(wrap(net, EDM, "denoiser"), x, method).log_prob
    torch.testing.assert_close(got, log_likelihood(exact, x, method).log_prob, rtol=0, atol=1e-6)


def test_where_conditions_go():
    x, t = torch.zeros(3, 2, 4, 4), 0.5
    y = torch.full((3, 2, 4, 4), 2.0, dtype=DOUBLE)
    lower = {"image": y, "lower": y}
    fast = {"mode": "fast"}
    cases = [
        (Fused(), {"condition": "image", "arguments": fast, "label_ndim": 4}, y, 2.0),
        (
            Fused(),
            {"condition": ("image", "lower"), "arguments": fast, "label_ndim": 4},
            lower,
            4.0,
        ),
        (keyword_only, {"condition": "y"}, y, 2.0),
        (keyword_only, {"condition": "y"}, None, 0.0),
        (keyword_only, {}, None, 0.0),
        (lambda x, t, y=None: x + y, {}, y, 2.0),
        (lambda x, t, y, /: x + y, {}, y, 2.0),
        (lambda x, t, y: x if y is None else x + 1, {}, None, 0.0),
        (lambda x, *rest: x + sum(rest[1:]), {}, y, 2.0),
        (lambda x, t, **rest: x + rest["c"], {"condition": "c"}, y, 2.0),
        (
            torch.compile(Fused(), backend="eager"),
            {"condition": "image", "arguments": fast},
            y,
            2.0,
        ),
        (nn.DataParallel(Fused()), {"condition": "image", "arguments": fast}, y, 2.0),
    ]
    for net, options, condition, want in cases:
        model = wrap(net, VP(), "eps", label="time", **{"label_ndim": 4} | options)
        assert model.given(condition).eps(x, t).unique().item() == want
    for net in (
        lambda x, t: x,
        lambda x, t, return_dict=True: x,
        lambda x, t, x_self_cond=None, mask=None: x,  # no condition, and it might be ignored
        lambda x, t, *args, **more: x,
        keyword_only,
    ):
        model = wrap(net, VP(), "eps", label="time")
        assert model.condition == ConditionSpec()
        with pytest.raises(
            ValueError, match=r"no condition that scoresde could tell; wrap\(…, cond"
        ):
            model.labelled(y, 3, "cpu")


def test_an_exported_network_takes_a_condition_by_position():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(3, 2)

        def forward(self, x, t, labels):
            return x + self.table(labels)

    arguments = torch.ones(3, 2), torch.ones(3), torch.tensor([2, 0, 1])
    net = Table()
    exported = torch.export.export(net, arguments).module()
    for same in (net, exported):
        model = wrap(same, VP(), "eps", label="time", classes=3).given(arguments[2])
        assert torch.equal(model.eps(torch.ones(3, 2), 0.5), 1 + net.table.weight[arguments[2]])


def test_functions_of_a_condition():
    model = FunctionScore(VP(), lambda x, t, y: x + y[:, None])
    y = torch.tensor([0, 1, 2])
    assert model.condition is None  # any condition is passed on
    assert model.given(y).eps(torch.zeros(3, 2), 0.5)[:, 0].tolist() == [0, 1, 2]
    assert FunctionScore(VP(), lambda x, t: x).condition == ConditionSpec()


def test_integer_labels_reach_an_embedding_and_a_column_a_linear_layer():
    class Toy(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.linear = nn.Embedding(100, 2), nn.Linear(3, 2)

        def forward(self, x, t):
            if t.ndim == 1:
                return self.table(t)
            return self.linear(torch.cat([x, t], dim=1))

    x = torch.zeros(3, 2)
    for options in ({"label": "rounded_index"}, {"label": "index", "label_ndim": 2}):
        assert wrap(Toy(), LADDER, "eps", **options).eps(x, 0.5).shape == (3, 2)


def test_a_network_may_change_its_arguments_and_reuse_its_memory(mixture):
    """The samples are those of the well-behaved network."""
    exact = mixture(EDM)
    kept = torch.empty(4, 2, dtype=DOUBLE)

    def rude(x, sigma):
        kept.copy_(exact.x0(x, exact.sde.t_of_sigma(sigma)))
        x.zero_(), sigma.zero_()
        return kept

    polite, rude = (
        wrap(Net(exact_denoiser(exact)), EDM, "denoiser"),
        wrap(Net(rude), EDM, "denoiser"),
    )
    runs = [sample(m, DDIM(), [1.0, 0.6, 0.2], (4, 2), seed=0).x for m in (polite, rude)]
    assert torch.equal(*runs)


def exact_denoiser(exact):
    return lambda x, sigma: exact.x0(x, exact.sde.t_of_sigma(sigma))


def two(x, t):
    return x


def four(x, t, a, b):
    return x


@pytest.mark.parametrize(
    ("net", "options", "error", "message"),
    [
        (
            two,
            {"target": "eps"},
            ValueError,
            "label must say what the network receives .* got none",
        ),
        (two, {"target": "noise"}, ValueError, "target must be one of eps, x0, v, score, denoiser"),
        (two, {"target": "edm"}, ValueError, "target must be one of eps, x0, v, score, denoiser"),
        (two, {"label": "t"}, ValueError, "label must be one of log_sigma, edm, time, index"),
        (two, {"label": "index"}, ValueError, "label 'index' needs a TabulatedVP, got VP"),
        (two, {"label_scale": 0}, ValueError, "label_scale must not be 0"),
        (two, {"label_ndim": 0}, ValueError, "label_ndim must be at least 1, got 0"),
        (two, {"condition": "z"}, TypeError, "two has no parameter 'z'; it has x, t"),
        (two, {"condition": 3}, TypeError, "condition must be a name or a tuple of names, got 3"),
        (two, {"arguments": {"z": 1}}, TypeError, "two has no parameter 'z'; it has x, t"),
        (two, {"arguments": {"z": torch.ones(1)}}, TypeError, "arguments must hold no tensor, got"),
        (two, {"classes": 3}, ValueError, "classes must be None for a network without a condition"),
        (
            lambda x, image, sigma: x,
            {},
            TypeError,
            r"third parameter of <lambda> is 'sigma', .* give condition='image', or arguments=",
        ),
        (four, {}, TypeError, "four needs 'b': give arguments={'b': …}, or condition='b'"),
        (lambda x: x, {}, TypeError, "must take x and a noise label, but takes x by position"),
        (nn.Identity(), {}, TypeError, "Identity.forward must take x and a noise label, but takes"),
        (
            nn.Bilinear,
            {},
            TypeError,
            r"must be an object, not the class Bilinear: write Bilinear\(",
        ),
        (3, {}, TypeError, "net must be a module or a function, got int"),
    ],
)
def test_what_cannot_be_wrapped(net, options, error, message):
    with pytest.raises(error, match=message):
        wrap(net, VP(), **{"target": "denoiser"} | options)


def test_conditions_by_several_names_are_dicts_of_these():
    model = wrap(lambda x, t, a=None, b=None: x, VP(), "denoiser", condition=("a", "b"))
    for y, got in ((torch.zeros(2), "Tensor"), ({"a": torch.zeros(2)}, "the keys a")):
        with pytest.raises(ValueError, match=f"y must be a dict with the keys a, b, got {got}"):
            model.given(y).eps(torch.zeros(2, 2), 0.5)


def test_errors_inside_a_network_say_how_it_was_called():
    model = wrap(nn.Bilinear(2, 2, 2), VP(), "denoiser")
    with pytest.raises(RuntimeError) as raised:
        model.eps(torch.zeros(3, 2), 0.5)
    note = "scoresde called Bilinear with x (3, 2) torch.float32, label (3,) torch.float32"
    assert raised.value.__notes__ == [note]


def test_sigma_is_checked():
    model = wrap(two, VP(), "denoiser")
    for sigma in (1e4, -1.0, 0.0, math.nan, torch.tensor([1.0, 1e4])):
        with pytest.raises(ValueError, match=r"sigma must lie in 0 to 152\.\d* for VP, got|t_min"):
            model.denoise(torch.zeros(2, 2), sigma)
    for sde in (VP(), EDM, CosineVP(), LADDER):
        sigma = torch.tensor([0.01, 1.0, 50.0], dtype=DOUBLE)
        t = sde.t_of_sigma(sigma)
        torch.testing.assert_close(sde.sigma(t) / sde.alpha(t), sigma, rtol=1e-9, atol=0)
        assert float(sde.t_of_sigma(math.exp(-float(sde.lam(1.0))))) == pytest.approx(1, abs=1e-9)


def test_the_path_method_takes_a_wrapped_network_with_a_condition():
    net = Net(lambda x, s: x / (1 + s[:, None] ** 2))  # D of data N(0, I)
    x = normal(5, 2)
    got = log_likelihood(wrap(net, EDM, "denoiser"), x, Path(), seed=0)
    want = -x.square().sum(1) / 2 - math.log(2 * math.pi)
    assert bool(((got.log_prob - want).abs() < 6 * got.std_error + 1e-3).all())


def test_a_network_that_does_not_follow_our_convention_is_not_guessed():
    """Otherwise a DDPM network would get log σ for its index, without a word."""
    for net in (Net(two), nn.DataParallel(Net(two)), torch.compile(Net(two), backend="eager")):
        with pytest.raises(
            ValueError, match=r"got none; write scoresde.wrap\(net, sde, target, la"
        ):
            NetworkScore(net, VP())
    ours = MLP((2,), 4, 1)
    for net in (ours, nn.DataParallel(ours)):
        assert NetworkScore(net, VP()).preconditioning == Preconditioning()


def test_a_preconditioning_with_a_call():
    net = Fused()
    call = Call("image", {"mode": "fast"}, 4)
    model = NetworkScore(net, VP(), Preconditioning(label="time"), call=call)
    y = torch.ones(2, 1, 4, 4)
    assert model.given(y).eps(torch.zeros(2, 1, 4, 4), 0.3).unique().item() == 1.0
