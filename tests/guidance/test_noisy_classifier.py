"""Classifiers of noisy data against the exact p_t(y | x) of labelled mixtures."""

import math

import pytest
import torch
from torch import nn

import scoresde
from scoresde.classification import CrossEntropy, NoisyClassifier
from scoresde.data import Dataset, DataSpec
from scoresde.exact import ConditionalMixture
from scoresde.guidance import ClassifierGuided, Scale
from scoresde.loss import Objective
from scoresde.nets import MLPClassifier, UNetClassifier
from scoresde.train import Training, TrainSettings, make_optimizer

MEAN, VARIANCE = torch.tensor([0.8, -0.5], dtype=torch.float64), 0.3
Y = torch.tensor([0, 1, 1, 0])


class ExactLogits(nn.Module):
    """Logits (0, 2 α m·x/(α² s² + σ²)) of N(±m, s² I), from x/√(α² + σ²) and log(σ/α) alone."""

    classes = 2

    def forward(self, x, label):
        ratio = label.exp()
        factor = 2 * (1 + ratio**2).sqrt() / (VARIANCE + ratio**2)
        logit = factor * (x @ MEAN.to(x))
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


@pytest.fixture
def joint():
    """joint(sde): x | y = ±m + N(0, s²), class 1 at +m, both classes equally likely."""

    def make(sde):
        shares = [[1.0, 0.0], [0.0, 1.0]]
        means = torch.stack([-MEAN, MEAN])
        return ConditionalMixture(sde, [0.5, 0.5], means, [VARIANCE] * 2, shares=shares)

    return make


@pytest.fixture
def x():
    return torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_a_network_of_the_ratio_is_the_exact_posterior(sde, joint, x, t):
    model, classifier = joint(sde), NoisyClassifier(ExactLogits(), sde)
    wanted = model.given(Y).log_prob(x, t) + math.log(0.5) - model.marginal.log_prob(x, t)
    torch.testing.assert_close(classifier(x, t, Y), wanted, rtol=1e-9, atol=1e-9)  # rounding
    per_sample = classifier(x, torch.full((4,), t, dtype=torch.float64), Y)
    torch.testing.assert_close(per_sample, wanted, rtol=1e-9, atol=1e-9)
    guided = ClassifierGuided(model.marginal, classifier).given(Y)
    torch.testing.assert_close(guided.score(x, t), model.given(Y).score(x, t), rtol=1e-9, atol=1e-9)
    assert (guided.nfe.forward, guided.nfe.derivative) == (1, 1)
    assert guided.condition.classes == 2


def test_outside_its_interval_guidance_leaves_the_conditional_score(joint, x):
    sde = scoresde.VP()
    model, classifier = joint(sde), NoisyClassifier(ExactLogits(), sde)
    outside = Scale(3.0, high=1e-3)  # σ/α is 0.6 at t = 0.3
    wanted = model.given(Y).eps(x, 0.3)
    alone = ClassifierGuided(model.marginal, classifier, outside).given(Y)
    torch.testing.assert_close(alone.eps(x, 0.3), wanted, rtol=1e-9, atol=1e-9)
    both = ClassifierGuided(model, classifier, outside).given(Y)
    assert torch.equal(both.eps(x, 0.3), wanted)
    assert both.nfe.derivative == 0


def test_the_loss_is_minus_the_log_probability_at_the_objective_s_times(joint, x):
    sde, objective = scoresde.VP(), Objective(t_min=0.01)
    classifier = NoisyClassifier(ExactLogits(), sde).given(Y)
    u = torch.tensor([0.1, 0.35, 0.6, 0.85], dtype=torch.float64)
    eps = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    losses, t, wrong = CrossEntropy(objective)(classifier, x, u, eps)
    assert torch.equal(t, objective.draw_times(sde, u)[0])
    noisy = sde.perturb(x, t, eps)
    torch.testing.assert_close(losses, -classifier(noisy, t, Y), rtol=1e-12, atol=1e-12)
    likely = classifier.probabilities(noisy, t)
    torch.testing.assert_close(likely.sum(1), torch.ones(4, dtype=torch.float64))
    assert wrong.tolist() == [float(p < 0.5) for p in likely[range(4), Y]]


def test_objectives_that_mean_nothing_for_classes_are_refused():
    with pytest.raises(ValueError, match="weighting must be 'simple' for a classifier, got 'edm'"):
        CrossEntropy(Objective(weighting="edm"))
    with pytest.raises(ValueError, match="times must not be 'second_moment'"):
        CrossEntropy(Objective(times="second_moment"))
    with pytest.raises(TypeError, match=r"net\.classes must be an integer"):
        NoisyClassifier(nn.Linear(2, 2), scoresde.VP())


def test_a_classifier_of_another_process_or_of_other_data_is_refused(joint):
    model = joint(scoresde.VP())
    for other, message in [
        (NoisyClassifier(ExactLogits(), scoresde.SubVP()), "classifier must have the SDE of the"),
        (NoisyClassifier(MLPClassifier((2,), 3), scoresde.VP()), "2 classes, got 3 classes"),
    ]:
        with pytest.raises(ValueError, match=message):
            ClassifierGuided(model, other)
    classifier = NoisyClassifier(ExactLogits(), scoresde.VP())
    classifier.data, model.data = DataSpec((3,), -1, 1), DataSpec((2,), -1, 1)
    with pytest.raises(ValueError, match=r"must be of data of shape \(2,\)"):
        ClassifierGuided(model, classifier)


NETS = {
    "vector": lambda: MLPClassifier((3,), 4, width=8),
    "series": lambda: UNetClassifier((2, 7), 4, channels=4, multipliers=(1, 2)),
    "image": lambda: UNetClassifier((1, 6, 5), 4, channels=4, multipliers=(1, 1)),
    "volume": lambda: UNetClassifier((1, 2, 3, 2), 4, channels=4, multipliers=(1,)),
}


@pytest.mark.parametrize("kind", NETS)
def test_our_networks_begin_without_an_opinion_and_are_saved(kind, tmp_path):
    net = NETS[kind]()
    x = torch.randn(3, *net.shape, generator=torch.Generator().manual_seed(0))
    classifier = NoisyClassifier(net, scoresde.VP())
    assert torch.equal(classifier.logits(x, 0.4), torch.zeros(3, 4))
    assert classifier.logits(x[:0], 0.4).shape == (0, 4)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.3)
    spec = DataSpec(net.shape, -1, 1, classes=4)
    scoresde.save(tmp_path / "c.safetensors", classifier, spec)
    loaded = scoresde.load(tmp_path / "c.safetensors")
    assert torch.equal(loaded.model.logits(x, 0.4), classifier.logits(x, 0.4))
    assert loaded.data == loaded.model.data == spec
    assert not loaded.model.training


def test_only_classifiers_of_ours_are_saved(tmp_path):
    class Own(ExactLogits):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

    with pytest.raises(TypeError, match="must be one of the classifiers mlp_classifier, unet_cl"):
        scoresde.save(tmp_path / "c.safetensors", NoisyClassifier(Own(), scoresde.VP()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLPClassifier((2,), 1), "classes must be at least 2, got 1"),
        (lambda: MLPClassifier((1, 4, 4), 2), "series, images and volumes take a UNetClassifier"),
        (lambda: UNetClassifier((2,), 2), "shape must be"),
        (lambda: UNetClassifier((1, 8, 8), 2, attention=[3]), "attention must name resolutions"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_training_loop_takes_it():
    """The loss of the first step is that of guessing, log 2, as the network has no opinion yet."""
    data = Dataset("two", torch.randn(8, 2), torch.arange(8) % 2, DataSpec((2,), -4, 4, classes=2))
    classifier = NoisyClassifier(MLPClassifier((2,), 2, width=8, depth=1), scoresde.VP())
    settings = TrainSettings(steps=2, batch=4, warmup=0)
    training = Training(classifier, data, CrossEntropy(Objective()), settings)
    first, second = training.steps(make_optimizer(classifier.net))
    assert first.loss == pytest.approx(math.log(2), rel=1e-6)  # float32
    assert math.isfinite(second.loss)


@pytest.mark.slow
def test_a_trained_classifier_is_as_accurate_as_the_exact_posterior(joint):
    """At three noise levels, within the spread of a test set and the error of a short training."""
    sde = scoresde.VP()
    model, draw = joint(sde), torch.Generator().manual_seed(0)

    def drawn(n):
        y = torch.arange(n) % 2
        noise = torch.randn(n, 2, generator=draw, dtype=torch.float64) * VARIANCE**0.5
        return (2 * y[:, None] - 1) * MEAN + noise, y

    x, y = drawn(2000)
    data = Dataset("two", x.float(), y, DataSpec((2,), -4, 4, classes=2))
    classifier = NoisyClassifier(MLPClassifier((2,), 2, width=32, depth=1), sde)
    settings = TrainSettings(steps=300, batch=256, learning_rate=3e-3, warmup=20, cooldown=200)
    training = Training(classifier, data, CrossEntropy(Objective(t_min=1e-3)), settings)
    for _ in training.steps(make_optimizer(classifier.net)):
        pass
    x, y = drawn(4000)
    for t in (0.05, 0.3, 0.6):
        noise = torch.randn(x.shape, generator=draw, dtype=torch.float64)
        noisy = sde.perturb(x, t, noise)
        bayes = model.given(torch.tensor([1])).log_prob(noisy, t) > model.given(
            torch.tensor([0])
        ).log_prob(noisy, t)
        best = (bayes == (y == 1)).double().mean()
        with torch.no_grad():
            found = (classifier.logits(noisy, t).argmax(1) == y).double().mean()
        # Both name classes of the same data. They differ near the boundary only, by less than 1 %.
        assert best - 0.01 < found < best + 0.01
