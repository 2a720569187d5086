"""The learned variance of DDPM's reverse steps: formula, loss, bound, sampler, refusals."""

import pytest
import torch
from scoresde_cli.main import run
from torch import nn
from torch.distributions import Normal, kl_divergence

import scoresde
from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import DDPMVLB, log_likelihood
from scoresde.loss import Objective, bound_term
from scoresde.names.config import Config
from scoresde.nets import DDPMUNet, UNet
from scoresde.plain import ConfigError
from scoresde.samplers import Ancestral, Langevin, PredictorCorrector, sample
from scoresde.score import NetworkScore, wrap
from scoresde.sde import VE, VP, TabulatedVP
from scoresde.sde.reverse import gaussian_kl, learned_std

DOUBLE = torch.float64
SDE = TabulatedVP(torch.linspace(0.02, 0.6, 6))
SHORT = SDE.ladder()[[0, 2, 5]]
FOUR = DataSpec((2,), -1.0, 1.0, levels=4)
COMMON = {"sde": {"kind": "tabulated", "betas": "linear:steps=6"}, "data": {"name": "digits"}}


def with_share(exact, share, learned_variance=True):
    """The exact score with w = share(t) for each element."""

    def net(x, t):
        w = share(t)[:, None].expand(x.shape) if callable(share) else torch.full_like(x, share)
        return torch.cat([exact.eps(x, t), 2 * w - 1], dim=1)

    return wrap(net, exact.sde, "eps", label="time", learned_variance=learned_variance)


def corrected(variance):
    """The sampler as the predictor of another one."""
    return PredictorCorrector(Ancestral(variance), Langevin())


def bound_of(model, x, given, times=6, **settings):
    """The bound of x at ε = ±1, for which the control variate is 0."""
    signs = torch.tensor([[-1.0], [1.0]], dtype=DOUBLE).repeat(len(x) // 2, 1)
    chain = DDPMVLB(times, draws=1, **settings)
    return log_likelihood(model, x, chain, noise=given(*[signs] * 6))


def two_points():
    """x_0 = mean ± std of N(0.3, 0.5²), for both signs of ε: exact means of quadratic functions."""
    return torch.tensor([[-0.2], [-0.2], [0.8], [0.8]], dtype=DOUBLE)


def test_formulas():
    w, kl = torch.linspace(-0.5, 1.5, 9, dtype=DOUBLE), (0.3, 0.2)
    log_v = 2 * torch.log(learned_std(0.2, 0.7, w))
    low, high = 2 * torch.tensor([0.2 * 0.7, 0.2], dtype=DOUBLE).log()
    torch.testing.assert_close(log_v, w * high + (1 - w) * low)
    first, second = (Normal(m, torch.tensor(v).sqrt()) for m, v in zip((0.1, 0.6), kl, strict=True))
    found = gaussian_kl(torch.tensor(0.25), *map(torch.tensor, kl))
    torch.testing.assert_close(found, kl_divergence(first, second))


@pytest.mark.parametrize(("share", "fixed"), [(0.0, "beta_tilde"), (1.0, "beta")])
class TestEnds:
    @pytest.mark.parametrize("sde", [SDE, VE()], ids=type)
    def test_of_samples_on_a_part_of_the_ladder(self, gaussian, share, fixed, sde):
        model, settings = with_share(gaussian(sde), share), {"seed": 0, "dtype": DOUBLE}
        for make in (Ancestral, corrected):
            samplers = make("learned"), make(fixed)
            one, other = (sample(model, s, SHORT, (5, 1), **settings).x for s in samplers)
            assert torch.equal(one, other)

    @pytest.mark.parametrize("times", [6, SHORT], ids=["whole", "part"])
    def test_of_bounds(self, gaussian, given, share, fixed, times):
        model, x = with_share(gaussian(SDE), share), two_points()
        one = bound_of(model, x, given, times, variance="learned")
        other = bound_of(model, x, given, times, variance=fixed, decoder=fixed)
        torch.testing.assert_close(one.terms, other.terms, rtol=1e-12, atol=1e-13)

    @pytest.mark.parametrize("spec", [None, FOUR], ids=["continuous", "levels"])
    @pytest.mark.parametrize("strata", [None, 3])
    def test_of_drawn_steps_and_cells(self, gaussian, share, fixed, strata, spec):
        """At w = 0 the control variates differ, and constants are drawn: equal on average."""
        exact, k = gaussian(SDE, 2), torch.tensor([[0, 3], [2, 1]]).repeat(300, 1)
        x = k if spec else k.double() / 2
        found = [
            log_likelihood(
                with_share(exact, share), x, DDPMVLB(6, spec, variance, decoder, strata), seed=0
            )
            for variance, decoder in (("learned", None), (fixed, fixed))
        ]
        gap = found[0].log_prob - found[1].log_prob
        error = float(gap.std()) / len(x) ** 0.5
        assert abs(float(gap.mean())) <= 4 * error + 1e-5  # float32 of the quantized data
        if share == 1 and strata is None:
            assert float(gap.abs().max()) < 1e-4


@pytest.fixture(scope="module")
def head():
    """w at each time of the ladder, trained by L_hybrid with the exact score."""
    exact = GaussianMixture(SDE, [1.0], torch.full((1, 1), 0.3, dtype=DOUBLE), [0.25])
    table = torch.full((6,), 0.5, dtype=DOUBLE, requires_grad=True)
    model = with_share(exact, lambda t: table[(6 * t).round().long() - 1])
    x0 = two_points().repeat(6, 1)
    eps = torch.tensor([[-1.0], [1.0]], dtype=DOUBLE).repeat(12, 1)
    u = (torch.arange(6, dtype=DOUBLE).repeat_interleave(4) + 0.5) / 6
    objective = Objective(times="ladder", levels=6, vlb_weight=1.0)
    for _ in range(10):  # Newton's method; every entry has a loss of its own
        loss = objective(model, x0, u, eps)[0].mean()
        (slope,) = torch.autograd.grad(loss, table, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), table)
        table.data -= (slope / curvature).detach()
    return exact, model, table.detach()


def test_training_finds_the_variance_of_the_exact_reversal(head):
    """Var[x_s | x_t] of the joint normal distribution, and Var[x_0 | x_1] for the decoder."""
    _, _, table = head
    nodes = SDE.nodes(SDE.ladder())
    for i, (t, s) in enumerate(zip(nodes, [*nodes[1:], None], strict=True)):
        a, b = (t.alpha, t.sigma) if s is None else SDE.transition(t, s)
        before = 0.25 if s is None else 0.25 * s.alpha**2 + s.sigma**2
        wanted = before - (a * before) ** 2 / (a**2 * before + b**2)
        if s is not None:
            b, ratio = SDE.transition(t, s)[1], s.sigma / t.sigma
        else:  # between β_1 and β̃_2
            two = nodes[-2]
            b, ratio = t.sigma, SDE.transition(two, t)[1] / two.sigma
        assert float(learned_std(b, ratio, table[5 - i])) ** 2 == pytest.approx(wanted, rel=1e-9)


def test_its_bound_is_better_than_those_of_the_fixed_ones(head, given):
    exact, model, _ = head
    learned, *fixed = (
        -float(bound_of(model, two_points(), given, variance=v).log_prob.mean())
        for v in ("learned", "beta", "beta_tilde")
    )
    best = float(log_likelihood(exact, two_points(), DDPMVLB(6), seed=0).prior.mean())
    assert learned < min(fixed) - 0.01
    entropy = float(Normal(0.3, 0.5).entropy())
    assert entropy < learned < entropy + best + 1e-6  # the reversal is exact but for the prior


def test_the_loss_holds_the_terms_of_the_bound(gaussian, given):
    """Two codes: float64 numbers for each step in one, tensors of all times in the other."""
    model, x0 = with_share(gaussian(SDE), lambda t: 0.2 + t), torch.tensor([[0.7]], dtype=DOUBLE)
    signs = torch.ones(1, 1, dtype=DOUBLE)
    found = log_likelihood(
        model, x0, DDPMVLB(6, variance="learned", draws=1), noise=given(*[signs] * 6)
    )
    t = SDE.ladder()
    eps, x0 = torch.ones(6, 1, dtype=DOUBLE), x0.expand(6, 1)
    predicted, share = model.with_share("eps", SDE.perturb(x0, t, eps), t)
    terms = bound_term(SDE, t, 6, (predicted - eps).square(), share)
    torch.testing.assert_close(terms, found.terms[0, 1:], rtol=1e-10, atol=1e-12)


class Two(nn.Module):
    """2C outputs with a parameter for each half."""

    def __init__(self):
        super().__init__()
        self.mean, self.share = (nn.Parameter(torch.tensor(v)) for v in (0.5, 0.2))

    def forward(self, x, label):
        return torch.cat([self.mean * x, self.share * x.tanh()], dim=1)


def test_the_bound_in_the_loss_trains_the_variance_alone():
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 30, 1, 2, 2, generator=generator)
    u, gradients = torch.rand(30, generator=generator, dtype=DOUBLE), []
    for learned in (False, True):
        net = Two()
        model = wrap(net, SDE, "eps", label="index", learned_variance=learned)
        Objective(times="ladder", levels=6)(model, x0, u, eps)[0].mean().backward()
        gradients.append(net)
    simple, hybrid = gradients
    assert torch.equal(simple.mean.grad, hybrid.mean.grad)
    assert float(simple.share.grad) == 0
    assert float(hybrid.share.grad.abs()) > 1e-5


@pytest.mark.parametrize("kind", [DDPMUNet, UNet])
def test_networks_with_both_halves(kind, tmp_path):
    net = kind((2, 6, 5), channels=8, multipliers=(1, 2), blocks=1, learned_variance=True)
    assert net(torch.zeros(3, 2, 6, 5), torch.zeros(3)).shape == (3, 4, 6, 5)
    assert net(torch.zeros(0, 2, 6, 5), torch.zeros(0)).shape == (0, 4, 6, 5)
    with torch.no_grad():
        net.head.bias.copy_(torch.linspace(-1, 1, len(net.head.bias)))
    model = NetworkScore(net, VP())
    scoresde.save(tmp_path / "net.safetensors", model)
    again = scoresde.load(tmp_path / "net.safetensors").model
    x = torch.ones(1, 2, 6, 5)
    eps, share = again.with_share("eps", x, 0.5)
    assert torch.equal(eps, model.eps(x, 0.5))
    torch.testing.assert_close(share.amin((0, 2, 3)), 0.5 * (net.head.bias[2:] + 1))


def test_a_wrapped_network_is_declared_once(tmp_path):
    model = wrap(Two(), SDE, "eps", label="index", learned_variance=True)
    scoresde.save(tmp_path / "two.safetensors", model, DataSpec((1, 2, 2), -1.0, 1.0))
    again = scoresde.load(tmp_path / "two.safetensors", net=Two()).model
    assert again.learned_variance
    assert sample(again, Ancestral("learned"), SHORT, (3, 1, 2, 2), seed=0).x.isfinite().all()


def test_a_network_without_the_second_half_is_refused():
    model = wrap(lambda x, t: x, SDE, "eps", label="index", learned_variance=True)
    with pytest.raises(RuntimeError, match="expected a tensor of twice its channels for learned_v"):
        sample(model, Ancestral("learned"), SHORT, (2, 1), seed=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: sample(model, Ancestral("learned"), SHORT, (2, 1), seed=0),
        lambda model: log_likelihood(model, torch.zeros(2, 1), DDPMVLB(6, None, "learned"), seed=0),
    ],
)
def test_other_models_are_refused(gaussian, call):
    for model in (gaussian(SDE), with_share(gaussian(SDE), 0.5, learned_variance=False)):
        with pytest.raises(ValueError, match="'learned' needs a network with 2C output channels"):
            call(model)


def test_bad_settings(tmp_path, capsys):
    with pytest.raises(ValueError, match="variance must be one of beta, beta_tilde, learned, got"):
        Ancestral("both")
    with pytest.raises(ValueError, match="decoder must be None, because variance"):
        DDPMVLB(6, variance="learned", decoder="beta")
    with pytest.raises(ValueError, match="vlb_weight must be greater than 0, got 0"):
        Objective(vlb_weight=0)
    values = {**COMMON, "net": {"kind": "ddpm_unet", "learned_variance": True}}
    values["train"] = {"steps": 1, "batch": 1}
    with pytest.raises(ConfigError, match="objective: times must be 'ladder' for a network with"):
        Config.from_dict(values, own=True)
    commands = [
        ["sample", "--sampler", "ancestral:variance=learned"],
        ["likelihood", "--protocol", "vlb-ddpm", "--variance", "learned"],
    ]
    for command in commands:
        out = tmp_path / command[0]
        assert run([*command, "--checkpoint", "digits-vp", "--out", str(out)]) == 2
        assert "needs a network with 2C output channels" in capsys.readouterr().err
        assert not out.exists()
