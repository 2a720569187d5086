import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from scoresde.data import Dataset, DataSpec, load_dataset
from scoresde.ema import EMA
from scoresde.likelihood import Dequantized, log_likelihood
from scoresde.loss import Objective
from scoresde.nets import MLP
from scoresde.score import NetworkScore, Preconditioning
from scoresde.sde import VP
from scoresde.train import Split, Training, make_optimizer
from scoresde.validation import check_bits, validate

from .test_train import Faulty, Recorder, points, seeded, settings, whole


def training(data=None, net=None, test=None, objective=None, **changes) -> Training:
    net = net or seeded(lambda: MLP((2,), 8, 1))
    made = settings(**{"validation": 0.25, **changes})
    model = NetworkScore(net, VP(), Preconditioning())
    return Training(model, data or points(), objective or Objective(t_min=1e-3), made, test)


def finish(made: Training) -> Training:
    for _ in made.steps(make_optimizer(made.model.net)):
        pass
    return made


def test_the_split_is_a_function_of_seed_and_share():
    split = Split.of(100, settings(validation=0.25))
    held, rows = split.held_rows(), torch.from_numpy(split.rows(np.arange(split.trained)))
    assert len(held) == 25
    assert torch.equal(torch.cat([rows, held]).sort().values, torch.arange(100))
    assert torch.equal(Split.of(100, settings(validation=0.25)).held_rows(), held)
    assert not torch.equal(Split.of(100, settings(validation=0.25, seed=1)).held_rows(), held)


def test_held_out_data_are_never_trained_on_and_all_others_are():
    objective = Recorder(t_min=1e-3)
    made = finish(training(objective=objective, steps=9, batch=3))  # 3 epochs of 9 data
    visited = torch.cat([x0 for x0, *_ in objective.batches])[:, 0]
    for epoch in visited.split(9):
        assert torch.equal(epoch.sort().values, points().x[made.examples.rows, 0])
    held = set(made.examples.held_out.x[:, 0].tolist())
    assert len(held) == 3
    assert held.isdisjoint(visited.tolist())
    assert set(made.examples.compared.x[:, 0].tolist()) <= set(visited.tolist())


def test_validation_on_a_test_split_changes_no_weight():
    def weights(**arguments):
        made = finish(training(**arguments))
        return torch.cat([p.detach().flatten() for p in made.model.net.parameters()])

    assert torch.equal(weights(validation="test", test=points(8)), weights(validation=0))


def test_times_and_noise_are_fixed_and_the_same_for_held_out_and_training_data(rng_untouched):
    """A network that gives 0 has the error |ε|²/D, whose mean is 1, whatever the data are."""
    made = training(points(400), validation=0.5)
    found = validate(made)
    assert torch.equal(found.errors, found.training_errors)
    assert found.loss == found.training_loss
    assert found.loss == pytest.approx(1, abs=4 * found.std_error)
    assert found.std_error == pytest.approx(1 / math.sqrt(200), rel=0.2)  # var |ε|²/2 is 1
    assert torch.equal(((found.t - 1e-3) / (1 - 1e-3) * 200).long(), torch.arange(200))
    other = validate(training(points(400), validation=0.5, batch=7))
    assert torch.equal(other.errors, found.errors)


def test_dropout_is_off_and_every_condition_is_given():
    net = seeded(lambda: MLP((2,), 8, 1, dropout=0.5, classes=12, vector=1))
    objective = Recorder(t_min=1e-3)
    made = training(whole(), net, objective=objective, label_dropout=0.9, validation=0)
    made = replace(made, test=whole(), settings=replace(made.settings, validation="test"))
    finish(made)
    objective.batches.clear()
    assert validate(made).loss == validate(made).loss
    for x0, _, _, y in objective.batches:
        rows = ((x0[:, 0] + 1) * 6).round().long()
        assert torch.equal(y["class"], rows)
    assert net.training


def test_few_training_data_are_compared_more_than_once():
    made = training(test=points(50), validation="test")
    assert len(made.examples.compared) == len(made.examples.held_out) == 50
    assert torch.equal(made.examples.compared.x[:12], made.examples.compared.x[12:24])


def test_a_loss_that_is_not_finite_is_nan_and_training_may_go_on():
    assert math.isnan(validate(training(net=seeded(lambda: Faulty(1)))).loss)


def test_bits_are_those_of_log_likelihood():
    spec = DataSpec((2,), -1, 1, levels=8)
    data = Dataset("levels", torch.arange(48).reshape(24, 2) % 8, None, spec)
    made = training(data)
    found = validate(made, bits=3)
    made.model.net.eval()
    bits = log_likelihood(made.model, made.examples.held_out.x[:3], Dequantized(spec), seed=0)
    bits = bits.bits_per_dim(spec)
    assert found.nll == pytest.approx(float(bits.mean()), rel=1e-6)
    assert found.nll_std_error == pytest.approx(float(bits.std()) / math.sqrt(3), rel=1e-5)
    assert found.unit == "bits/dim"
    for n, there in ((1, 6), (7, 6)):
        with pytest.raises(ValueError, match=f"between 2 and the {there} held-out data, got {n}"):
            check_bits(made, n)
    with pytest.raises(ValueError, match="between 2 and the 0 held-out data, got 2"):
        check_bits(training(validation=0), 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": 0.1}, "must hold out at least 2 of the 12 data, got 0.1, which is 1"),
        ({"validation": 0.75}, "at most the 3 data, 9 of which are held out, got 4"),
        ({"validation": "test"}, "a share of the data, got 'test': points has no test split"),
        ({"flip": True}, "flip must be false for points, whose data are no images"),
    ],
)
def test_data_that_do_not_suit_the_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        training(**changes)


def test_a_test_split_of_another_shape_is_refused():
    other = Dataset("points", torch.zeros(4, 3), None, DataSpec((3,), -1, 1))
    with pytest.raises(ValueError, match=r"the test split of points has shape \(3,\)"):
        training(test=other, validation="test")


def test_a_class_that_is_held_out_as_a_whole_is_refused():
    data = points(labels=True)
    held = Split.of(12, settings(validation=0.25)).held_rows()
    labels = torch.ones(12, dtype=torch.int64).index_fill(0, held, 0)
    labels[0] = 2
    net = MLP((2,), 8, 1, classes=3)
    with pytest.raises(ValueError, match="class 0 of points has none outside the held-out data"):
        training(replace(data, labels=labels), net)


@pytest.mark.slow
def test_overfitting_shows():
    """A network learns 200 images by heart: their loss falls, and that of others rises again.

    Measured at 200, 400, 600 and 800 steps: 0.44, 0.417, 0.418, 0.419 on other images, and 0.345,
    0.30, 0.265, 0.245 on the 200. A wider network, after 3,000 steps, has 0.456 and 0.167.
    """

    def digits(split: str, n: int) -> Dataset:
        data = load_dataset("digits", split)
        spec = DataSpec((64,), -1, 1, levels=17)
        return Dataset("digits", data.x[:n].flatten(1), None, spec, split=split)

    net = seeded(lambda: MLP((64,), 256, 2))
    model = NetworkScore(net, VP(), Preconditioning(target="edm", sigma_data=0.8))
    times = {"log_mean": -0.3, "log_std": 0.6, "sigma_data": 0.8}  # noise that hides no image
    objective = Objective("edm", "log_normal", **times)
    made = settings(steps=800, batch=50, learning_rate=4e-3, warmup=20, validation="test")
    made = Training(model, digits("train", 200), objective, made, digits("test", 297))
    ema, found = EMA(net, 0.98), []
    for step in made.steps(make_optimizer(net)):
        ema.update(net)
        if step.step % 200 == 0:
            with ema.applied(net):
                found.append(validate(made))
    held, seen = [v.loss for v in found], [v.training_loss for v in found]
    assert min(held) < held[0]
    assert min(held) < held[-1]
    assert seen == sorted(seen, reverse=True)
    assert held[-1] - seen[-1] > 1.5 * (held[0] - seen[0])
