"""`scoresde.doctor`: it names the mistake in broken models, and finds none in good ones."""

import json
from dataclasses import replace

import pytest
import torch

import scoresde
from scoresde import VP, Dataset, DataSpec, FunctionScore, TabulatedVP, cosine_betas, wrap
from scoresde.data import load_dataset
from scoresde.interop.diffusers_export import write_folder
from scoresde.nets import BlockUNet
from scoresde.verification.diagnosis.measure import compare
from scoresde.verification.diagnosis.reading import reading_of

SHAPE = (3, 4, 4)
N = 32  # data
VARIANCE = 0.02
MEANS = 0.7 * (2 * torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1)) - 1)
SPEC = DataSpec(SHAPE, -1.0, 1.0, name="three clouds")
LADDER = TabulatedVP(VP().ddpm_betas(1000))
TABLE = LADDER.ladder().flip(0)  # the times of the labels 0 … 999
LOG_KAPPA, LOG_ALPHA = -LADDER.lam(TABLE), LADDER.log_alpha(TABLE)


def draw(n=N):
    """Data of three Gaussian clouds of images, almost all of them in [−1, 1]."""
    generator = torch.Generator().manual_seed(2)
    which = torch.randint(3, (n,), generator=generator)
    x = MEANS[which] + VARIANCE**0.5 * torch.randn(n, *SHAPE, generator=generator)
    return Dataset("three clouds", x, None, SPEC, split="all")


def denoised(z, kappa):
    """The exact E[x_0 | z] of z = x_0 + κ ε, with one κ for each row."""
    k2 = kappa.reshape(-1, 1, 1, 1).to(z) ** 2
    distance = (z[:, None] - MEANS.to(z)).square().flatten(2).sum(2)
    share = torch.softmax(-0.5 * distance / (VARIANCE + k2[:, :, 0, 0]), dim=1)
    mean = torch.einsum("bk,kchw->bchw", share, MEANS.to(z))
    return (k2 * mean + VARIANCE * z) / (VARIANCE + k2)


def interpolated(values, i):
    i = i.double().clamp(0, 999)
    low = i.long().clamp(max=998)
    return torch.lerp(values[low], values[low + 1], i - low)


def predicted(x, alpha, kappa, target):
    """The exact value of a target at x_t = α x_0 + α κ ε, with one α and κ for each row."""
    a, k = (value.reshape(-1, 1, 1, 1).to(x) for value in (alpha, kappa))
    x0 = denoised(x / a, kappa)
    eps, sigma = (x / a - x0) / k, a * k
    return {
        **{"eps": eps, "x0": x0, "score": -eps / sigma, "minus eps": -eps},
        **{"v": a * eps - sigma * x0, "velocity": eps - x0, "minus v": sigma * x0 - a * eps},
    }[target]


def indexed(x, i, target="eps"):
    """A network of DDPM's index i."""
    return predicted(x, interpolated(LOG_ALPHA, i).exp(), interpolated(LOG_KAPPA, i).exp(), target)


def logged(x, label, target="eps"):
    """A network of log(σ/α), on a variance-preserving process."""
    kappa = label.double().exp()
    return predicted(x, (1 + kappa**2) ** -0.5, kappa, target)


def of_time(sde):
    """A network of the time of an SDE."""

    def net(x, t):
        t = t.double().clamp(1e-5, 1)
        return predicted(x, sde.log_alpha(t).exp(), torch.exp(-sde.lam(t)), "eps")

    return net


def of_index(change=indexed, sde=LADDER, **named):
    """A model of a network of the index, which is or is not what it claims."""
    return wrap(change, sde, "eps", **({"label": "index"} | named))


def of_log(target="eps", claim="eps"):
    """A model of a network of log(σ/α) with a target that it has or has not."""
    return wrap(lambda x, label: logged(x, label, target), VP(), claim, label="log_sigma")


# Name -> the broken model, the change of the data, and words of the mistake that must be named.
BROKEN = {
    "x0": (of_log("x0"), None, "the network predicts x0, not ε"),
    "v": (of_log("v"), None, "the network predicts v, not ε"),
    "velocity": (of_log("velocity"), None, "the network predicts the velocity ε − x0, not ε"),
    "shift": (of_index(lambda x, i: indexed(x, i + 1)), None, "the labels look shifted by one"),
    "direction": (
        of_index(lambda x, i: indexed(x, 999 - i)),
        None,
        "the direction of time is wrong",
    ),
    "schedule": (of_index(sde=TabulatedVP(cosine_betas(1000))), None, "DDPM's linear β"),
    "σ": (
        wrap(lambda x, s: denoised(x, 2 * s), scoresde.VE(0.01, 20.0), "denoiser"),
        None,
        "σ is scaled: the network acts as if the noise were 0.5 σ",
    ),
    "range": (of_log(), lambda x: (x + 1) / 2, "the data range is [-1, 1], not [0, 1]"),
    "axes": (of_log(), lambda x: x.transpose(-1, -2), "rows and columns"),
    "black and white": (of_log(), lambda x: -x, "black and white are exchanged"),
    "mirrored": (of_log(), lambda x: x.flip(-1), "the images are mirrored, left and right"),
    "channels last": (
        of_log(),
        lambda x: x.movedim(1, -1).reshape(x.shape),
        "(N, H, W, C), but was reshaped to (N, C, H, W)",
    ),
    "largest σ": (
        wrap(of_time(scoresde.VE(0.01, 20.0)), scoresde.VE(0.01, 80.0), "eps", label="time"),
        None,
        "the schedule looks like VE(0.01, 20)",
    ),
    "other data": (of_log(), lambda x: x.roll(1, -1), "these data are not like those"),
    "a function of t": (
        FunctionScore(VP(), lambda x, t: -logged(x, -VP().lam(t).reshape(-1))),
        None,
        "the network predicts minus ε, not ε",
    ),
}
FAST = ("v",)
STEPS, BATCH = 80, 32  # of the training of a tiny network


def examined(model, change=None, n=N, **named):
    data = draw(n)
    if change is not None:
        x = change(data.x)
        low, high = (
            (0.0, 1.0) if 0 <= float(x.min()) + 0.2 and float(x.min()) > -0.3 else (-1.0, 1.0)
        )
        data = replace(data, x=x, spec=replace(SPEC, low=low, high=high))
    return scoresde.doctor(model, data, n=len(data), **named)


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in BROKEN]
)
def test_it_names_the_mistake(name):
    model, change, words = BROKEN[name]
    report = examined(model, change, n=256 if name == "shift" else N)
    assert report.mistakes, report
    assert words in report.mistakes[0]
    assert len(report.mistakes) == 1


@pytest.mark.slow
def test_a_good_model_has_no_mistake_and_the_laws_of_the_optimum_hold():
    report = examined(of_index())
    assert report.healthy, report
    for level in report.levels:
        assert abs(level.slope - 1) < 5 * level.slope_error + 1e-3
        assert abs(level.own - level.error) < 5 * level.own_error + 1e-3
        assert level.error < level.linear + 5 * level.std_error
    assert str(report).startswith(f"{report.model}: no mistake found")


@pytest.mark.slow
def test_two_mistakes_are_found_one_after_the_other():
    report = examined(of_log("v"), lambda x: x.flip(1))
    assert {step.alternative.family for step in report.search.steps} == {"target", "data"}


@pytest.mark.slow
def test_mistakes_that_hide_each_other_are_both_named():
    """Neither of them alone makes a good denoiser; the order in which they are named is free."""
    report = examined(wrap(lambda x, s: logged(x, -s, "v"), VP(), "eps", label="log_sigma"))
    named = "; ".join(report.mistakes)
    assert "the network predicts v, not ε" in named, report
    assert "−log(σ/α)" in named, report


def rough(x, label):
    """The exact ε with an error that does not depend on the noise, as of a short training."""
    return logged(x, label) + 0.6 * torch.sin(40 * x)


def test_a_network_that_some_factor_improves_is_not_said_to_have_this_factor():
    report = examined(wrap(rough, VP(), "eps", label="log_sigma"))
    better = [t for t in report.search.tried if t.better(report.search.limit)]
    assert {t.alternative.family for t in better} & {"output", "noise level"}
    assert report.search.steps == (), report


def of_class(x, label, y):
    """The exact ε of one cloud, that of the class."""
    kappa = label.double().exp()
    k = kappa.reshape(-1, 1, 1, 1).to(x)
    z = x * (1 + k**2).sqrt()
    return k * (z - MEANS.to(x)[y]) / (VARIANCE + k**2)


@pytest.mark.slow
def test_class_labels_that_are_shifted_by_one_are_named():
    model = wrap(of_class, VP(), "eps", label="log_sigma", classes=3)
    which = torch.arange(N) % 3
    x = MEANS[which] + VARIANCE**0.5 * torch.randn(N, *SHAPE, generator=torch.Generator())
    for moved, words in ((0, None), (1, "the class labels look shifted by one")):
        data = Dataset("three clouds", x, (which + moved) % 3, SPEC, split="all")
        report = scoresde.doctor(model, data, n=N)
        assert report.healthy if words is None else words in report.mistakes[0], report


@pytest.mark.slow
def test_times_at_which_the_network_returns_nan_are_told():
    def net(x, label):
        bad = ((label > 0.05) & (label < 0.3)).reshape(-1, 1, 1, 1)
        return torch.where(bad, torch.nan, logged(x, label))

    report = examined(wrap(net, VP(), "eps", label="log_sigma"))
    assert report.mistakes[0].startswith("finite at all times"), report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "words"),
    [("exchange", "sine and cosine are in the wrong order"), ("renew", "were never trained")],
)
def test_wrong_weights_of_a_network_are_told(broken, words):
    model = scoresde.load("digits-vp").model
    with torch.no_grad():
        if broken == "exchange":
            first = next(m for m in model.net.modules() if type(m) is torch.nn.Linear)
            first.weight.copy_(first.weight.roll(first.weight.shape[1] // 2, dims=1))
        else:
            blocks = [m for m in model.net.modules() if "Block" in type(m).__name__]
            torch.manual_seed(0)
            for layer in blocks[len(blocks) // 2].modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
    report = scoresde.doctor(model, "digits", n=8)
    assert words in "; ".join(report.mistakes), report


@pytest.mark.slow
def test_what_cannot_be_told_says_how_many_data_would():
    """A fourth of the numbers in each datum, and of the data, cannot show a shift by one label."""
    report = scoresde.doctor(of_index(), draw(), n=8)
    shifts = [t for t in report.search.tried if t.alternative.family == "label shift"]
    open_ones = [t for t in shifts if not t.out(report.search.limit)]
    assert open_ones
    assert all(t.found.needed(report.search.limit) > 8 for t in open_ones)
    assert "cannot tell whether the labels look shifted by one" in str(report)


@pytest.mark.slow
def test_the_weights_of_a_run_that_are_better_are_named():
    class Net(torch.nn.Module):
        def __init__(self, gain):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(gain))

        def forward(self, x, i):
            return self.gain * logged(x, i)

    model = wrap(Net(0.7), VP(), "eps", label="log_sigma").requires_grad_(False)
    report = examined(model, weights={"averaged": Net(1.0).state_dict()})
    assert report.mistakes[0].startswith("these are not the averaged weights")


def test_paired_errors_show_a_difference_that_single_ones_hide():
    generator = torch.Generator().manual_seed(0)
    base = 1 + torch.rand(64, 4, generator=generator, dtype=torch.float64)
    found = compare(base, base - 0.02 - 0.001 * torch.randn(64, 4, generator=generator).double())
    assert found.z > 100
    assert found.factor == pytest.approx(1 + 0.02 / 1.48, abs=2e-3)
    assert compare(base, base).same
    assert compare(base, torch.full_like(base, float("nan"))) is None


@pytest.mark.slow
def test_mates_and_dropout_are_examined_by_the_laws_of_check():
    def mixing(x, label):
        return logged(x, label) + 0.01 * x.mean(0)

    report = examined(wrap(mixing, VP(), "eps", label="log_sigma"))
    assert "no batch mates" in report.mistakes[0]


BAD = [
    ({"n": 4}, "n must be at least 8, got 4"),
    ({"data": torch.zeros(9, *SHAPE)}, "all values are 0.0"),
    ({"data": draw(5)}, "at least 8 data, got 5"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_bad_arguments_are_refused(changed, message):
    arguments = {"model": of_index(), "data": draw()} | changed
    with pytest.raises(ValueError, match=message):
        scoresde.doctor(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits-vp", "digits-ve", "digits-subvp"])
def test_no_false_alarm_on_shipped_checkpoints(name):
    assert scoresde.doctor(scoresde.load(name).model, "digits", n=16).healthy


def trained(target):
    """A tiny network that diffusers can load, trained on the digits with DDPM's labels."""
    torch.manual_seed(0)
    net = BlockUNet((1, 8, 8), (16,), ("plain",), ("plain",), blocks=1, middle="none", groups=8)
    digits = load_dataset("digits", "train").x.float() / 8 - 1
    alpha, kappa = LOG_ALPHA.exp().float(), LOG_KAPPA.exp().float()
    optimizer = torch.optim.Adam(net.parameters(), 4e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, STEPS)
    for _ in range(STEPS):
        i, which = torch.randint(1000, (BATCH,)), torch.randint(len(digits), (BATCH,))
        a, s = ((v).reshape(-1, 1, 1, 1) for v in (alpha[i], (alpha * kappa)[i]))
        x0, eps = digits[which], torch.randn(BATCH, 1, 8, 8)
        wanted = a * eps - s * x0 if target == "v" else eps
        loss = (net(a * x0 + s * eps, i.float()) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    return wrap(net.eval(), LADDER, target, label="index")


@pytest.mark.slow
def test_a_folder_of_diffusers_is_healthy_but_for_a_wrong_prediction_type(tmp_path):
    """The only mistake is named, and what is then left is the claim of the right folder."""
    folder = tmp_path / "folder"
    write_folder(trained("v"), scoresde.load("digits-vp").data, folder)
    right = reading_of(scoresde.load(folder).model).claim
    path = folder / "scheduler" / "scheduler_config.json"
    stated = json.loads(path.read_text())
    path.write_text(json.dumps(stated | {"prediction_type": "epsilon"}))
    report = scoresde.doctor(scoresde.load(folder).model, "digits", n=16)
    assert report.mistakes == ("the network predicts v, not ε",), report
    assert report.search.reading == right
    assert "the data have 17 levels, the model claims 256" in str(report)
