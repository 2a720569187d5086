import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from scoresde._philox import normals, uniforms
from scoresde.data import Dataset, DataSpec
from scoresde.exact import ConditionalMixture, GaussianMixture
from scoresde.grid import log_snr
from scoresde.loss import Objective, denoising_error
from scoresde.nets import MLP, Transformer, UNet
from scoresde.noise import BatchNoise
from scoresde.samplers import DDIM, sample
from scoresde.scaling import condition_warning
from scoresde.score import NetworkScore, Preconditioning
from scoresde.sde import VP
from scoresde.train import Training, TrainSettings, learning_rate_at, make_optimizer


class Recorder(Objective):
    """The usual loss, which also keeps the batches it is given."""

    def __call__(self, model, x0, u, eps, history=None):
        if not hasattr(self, "batches"):
            object.__setattr__(self, "batches", [])
        self.batches.append((x0, u, eps, model.y))
        return super().__call__(model, x0, u, eps, history)


class Faulty(nn.Module):
    """A linear network that gives NaN in the forward passes named in `bad`."""

    def __init__(self, *bad: int) -> None:
        super().__init__()
        self.linear, self.bad, self.calls = nn.Linear(2, 2), bad, 0

    def forward(self, x, label, y=None):
        self.calls += 1
        return self.linear(x) * (math.nan if self.calls in self.bad else 1.0)


def points(n: int = 12, labels: bool = False) -> Dataset:
    x = torch.arange(2 * n, dtype=torch.float32).reshape(n, 2) / n - 1
    y = torch.arange(n) % 3 if labels else None
    return Dataset("points", x, y, DataSpec((2,), -1, 1, classes=3 if labels else None))


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"steps": 6, "batch": 4, "warmup": 0, "learning_rate": 1e-2, **changes})


def run(net, data=None, objective=None, **changes):
    objective = objective or Objective(t_min=1e-3)
    training = Training(
        NetworkScore(net, VP(), Preconditioning()), data or points(), objective, settings(**changes)
    )
    return list(training.steps(make_optimizer(net)))


def test_records_of_the_steps():
    net = seeded(lambda: MLP((2,), 8, 1))
    steps = run(net)
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 6]
    for s in steps:
        assert s.loss == pytest.approx(float(s.errors.mean()))  # the weighting is `simple`
        assert s.t.shape == s.errors.shape == (4,)
        assert s.grad_norm > 0
        assert not s.skipped


def test_same_seed_same_weights_and_other_seed_others(rng_untouched):
    def weights(seed):
        net = seeded(lambda: MLP((2,), 8, 1, dropout=0.5))
        run(net, seed=seed)
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_later_steps_do_not_depend_on_where_training_began():
    whole, tail = Recorder(), Recorder()
    run(seeded(lambda: MLP((2,), 8, 1)), objective=whole)
    net = seeded(lambda: MLP((2,), 8, 1))
    model = NetworkScore(net, VP(), Preconditioning())
    list(Training(model, points(), tail, settings()).steps(make_optimizer(net), start=4))
    for ours, theirs in zip(tail.batches, whole.batches[4:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))


class Random(nn.Module):
    """A linear network with random numbers of its own, which it keeps in `seen`."""

    def __init__(self, draw) -> None:
        super().__init__()
        self.linear, self.draw, self.seen = nn.Linear(2, 2), draw, []

    def forward(self, x, label, y=None):
        self.seen.append(self.draw(torch.ones(4, 8, 2)))
        return self.linear(x) + self.seen[-1].mean()


@pytest.mark.parametrize(
    "draw",
    [
        nn.Dropout(),
        nn.Dropout1d(),
        nn.AlphaDropout(),
        nn.FeatureAlphaDropout(),
        lambda x: nn.functional.rrelu(-x, training=True),
        nn.functional.dropout,
        lambda x: x + torch.randn_like(x),
        lambda x: x[:, torch.randperm(8)] * torch.rand(8, 1),
    ],
    ids=["Dropout", "Dropout1d", "Alpha", "FeatureAlpha", "RReLU", "function", "normal", "perm"],
)
def test_own_randomness_of_a_network_is_keyed_by_the_step(draw, rng_untouched):
    def draws(start: int) -> list:
        net = seeded(lambda: Random(draw))
        model, made = NetworkScore(net, VP(), Preconditioning()), settings()
        list(Training(model, points(), Objective(), made).steps(make_optimizer(net), start))
        return net.seen

    whole, tail = draws(0), draws(3)
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], tail, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(whole, whole[1:], strict=False))


def test_an_epoch_visits_every_row_once():
    recorder = Recorder()
    run(seeded(lambda: MLP((2,), 8, 1)), data=points(10), objective=recorder, steps=5, batch=4)
    rows = torch.cat([x0 for x0, *_ in recorder.batches])[:, 0]
    for epoch in rows.split(10):  # the third batch runs across the border of the epochs
        assert torch.equal(epoch.sort().values, points(10).x[:, 0])
    assert not torch.equal(rows[:10], rows[10:])


def test_times_are_stratified_and_noise_is_fresh():
    recorder = Recorder()
    run(seeded(lambda: MLP((2,), 8, 1)), objective=recorder, batch=8)
    for _, u, _, _ in recorder.batches:
        assert torch.equal((u * 8).long(), torch.arange(8))
    noise = torch.cat([eps for _, _, eps, _ in recorder.batches]).flatten()
    assert len(noise.unique()) == len(noise)
    # each stratum has an offset of its own
    offsets = torch.cat([u * 8 - torch.arange(8) for _, u, _, _ in recorder.batches])
    assert len(offsets.unique()) == len(offsets)


def test_random_numbers_belong_to_the_number_of_the_example():
    """Row r of step n is example n B + r: whoever makes a part of a batch makes the same rows."""
    spec, size, batch = DataSpec((3, 1, 2), -1, 1, levels=4), 6, 4
    k = torch.arange(60).reshape(10, 3, 1, 2) % 4
    recorder = Recorder()
    net = seeded(lambda: UNet((3, 1, 2), 4, (1,), 1, ()))
    data = Dataset("levels", k, None, spec)
    run(net, data=data, objective=recorder, batch=batch, seed=5)
    for n, (x0, u, eps, _) in enumerate(recorder.batches):
        for r in range(batch):
            i = n * batch + r
            z = normals(5, i, "training noise", size)
            assert torch.equal(eps[r].flatten(), z.float())
            place = uniforms(5, i, "training uniform", size).reshape(3, 1, 2)
            assert torch.equal(x0[r], spec.dequantize(spec.to_levels(x0[r]).long(), place).float())
            assert float(u[r]) == float(r + uniforms(5, i, "training times", 1)) / batch


def test_offsets_in_the_strata_of_time_are_independent():
    recorder = Recorder()
    run(seeded(lambda: MLP((2,), 8, 1)), objective=recorder, batch=8, steps=64)
    offsets = torch.stack([u * 8 - torch.arange(8) for _, u, _, _ in recorder.batches])
    # 28 correlations over 64 steps, each with standard error 1/8; one offset for all gives 1.
    between = torch.corrcoef(offsets.T) - torch.eye(8)
    assert float(between.abs().max()) < 4 / 8


def test_micro_batches_make_the_step_of_the_whole_batch():
    """Parts of 4, 4 and 3 examples: their mean losses count by their sizes."""
    made = {}
    for accumulate in (1, 3):
        net = seeded(lambda: MLP((2,), 8, 1, classes=3).double())
        data = points(labels=True)
        steps = run(net, data, batch=11, accumulate=accumulate, steps=3)
        made[accumulate] = steps, torch.cat([p.detach().flatten() for p in net.parameters()])
    (whole, weights), (parts, others) = made[1], made[3]
    # The losses are float32.
    torch.testing.assert_close(others, weights, rtol=1e-6, atol=1e-8)
    for a, b in zip(whole, parts, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-6)
        assert torch.equal(a.t, b.t)
        assert a.errors.shape == b.errors.shape


def test_mirrored_examples_are_a_function_of_seed_and_example_with_their_arrays():
    x = torch.arange(48.0).reshape(4, 1, 3, 4) / 24 - 1
    spec = DataSpec((1, 3, 4), -1, 1, array=1)
    data, seen = Dataset("pictures", x, x + 5, spec), {}
    for batch in (4, 2):
        recorder = Recorder(t_min=1e-3)
        net = seeded(lambda: UNet((1, 3, 4), 4, (1,), 1, (), array=1))
        run(net, data, recorder, batch=batch, steps=40 // batch, flip=True)
        x0 = torch.cat([x0 for x0, *_ in recorder.batches])
        assert torch.equal(torch.cat([y for *_, y in recorder.batches]), x0 + 5)
        seen[batch] = x0[:, 0, 0, 0] > x0[:, 0, 0, 1]
        plain = torch.where(seen[batch][:, None, None, None], x0.flip(-1), x0)
        assert all(any(torch.equal(image, other) for other in x) for image in plain)
    assert torch.equal(seen[4], uniforms(0, range(40), "flip", 1)[:, 0] < 0.5)
    assert torch.equal(seen[2], seen[4])


def test_labels_follow_their_points():
    recorder, data = Recorder(), points(12, labels=True)
    run(seeded(lambda: MLP((2,), 8, 1, classes=3)), data=data, objective=recorder)
    for x0, _, _, y in recorder.batches:
        rows = (x0[:, :1] == data.x[:, 0]).float().argmax(1)
        assert torch.equal(y, data.labels[rows])


def whole(n: int = 12) -> Dataset:
    """Points with a class and a vector, which both name their row."""
    y = {"class": torch.arange(n), "vector": torch.arange(1.0, n + 1)[:, None] / n}
    return replace(points(n), labels=y, spec=DataSpec((2,), -1, 1, classes=n, vector=1))


def test_conditions_of_every_kind_follow_their_points_and_are_dropped_together():
    """The dropped examples are a function of (seed, example), also in another batch."""
    seen = {}
    for batch in (4, 6):
        net, objective = MLP((2,), 8, 1, classes=12, vector=1), Recorder(t_min=1e-3)
        run(net, whole(), objective, batch=batch, steps=24 // batch, label_dropout=0.4)
        x, y = (torch.cat([b[0] for b in objective.batches]), [b[3] for b in objective.batches])
        classes = torch.cat([part["class"] for part in y])
        vector = torch.cat([part["vector"] for part in y])[:, 0]
        dropped = classes == 12
        assert torch.equal(dropped, vector.isnan())
        rows = ((x[:, 0] + 1) * 6).round().long()
        assert torch.equal(classes[~dropped], rows[~dropped])
        assert torch.equal(vector[~dropped], (rows[~dropped] + 1) / 12)
        seen[batch] = dropped
    u = uniforms(0, range(24), "label dropout", 1)[:, 0]
    assert torch.equal(seen[4], u < 0.4)
    assert torch.equal(seen[6], seen[4])
    assert 0 < int(seen[4].sum()) < 24


def test_label_dropout_makes_a_model_unconditional_and_no_dropout_does_not():
    model = NetworkScore(MLP((2,), 8, 1, classes=3), VP())
    with pytest.raises(ValueError, match="y must be given"):
        model.labelled(None, 2, "cpu")
    Training(model, points(labels=True), Objective(), settings(label_dropout=0.1))
    assert model.labelled(None, 2, "cpu") is model
    kept = NetworkScore(MLP((2,), 8, 1, classes=3), VP())
    Training(kept, points(labels=True), Objective(), settings())
    assert not kept.unconditional


def test_label_dropout_needs_conditions_and_a_network_that_takes_none_as_well():
    class Foreign(Faulty):
        classes = 3

    for net, data, message in [
        (Foreign(), points(labels=True), "label_dropout must be 0 for Foreign, got 0.1: it has no"),
        (MLP((2,), 8, 1, classes=3), points(), "label_dropout must be 0 for data without condit"),
    ]:
        with pytest.raises(ValueError, match=message):
            Training(
                NetworkScore(net, VP(), Preconditioning()),
                data,
                Objective(),
                settings(label_dropout=0.1),
            )


def test_sets_need_a_network_of_sets_and_always_have_their_sizes():
    data = Dataset.of_sets([torch.full((1 + i % 4, 2), 1.0 + i) for i in range(8)])
    unet, sets = UNet((4, 2), 8, (1,), 1), Transformer((4, 2), 8, 1, 2, sizes=(1, 4))
    for net, dropout, message in [
        (unet, 0.0, r"sets of 1 to 4 points, and UNet does not .* Transformer with sizes=\(1, 4\)"),
        (sets, 0.1, "label_dropout must be 0, got 0.1: sets have no condition here but"),
    ]:
        with pytest.raises(ValueError, match=message):
            Training(NetworkScore(net, VP()), data, Objective(), settings(label_dropout=dropout))


@pytest.mark.parametrize(
    ("y", "said"),
    [
        ([[0.0, 300.0], [1.0, 301.0]], "too large: its entry 1 has mean 300.5 and standard devia"),
        ([[0.0, 1e-3], [1.0, 2e-3]], "too small: its entry 1 has mean 0.0015 and standard devi"),
        ([[0.0, 5.0], [1.0, 5.0]], None),
    ],
)
def test_conditions_of_another_scale_than_one_get_a_warning(y, said):
    data = replace(points(12), labels=torch.tensor(y * 6), spec=DataSpec((2,), -1, 1, vector=2))
    found = condition_warning(data)
    assert found is None if said is None else said in found
    assert condition_warning(points(labels=True)) is None


def test_levels_are_dequantized_anew_at_every_visit():
    spec = DataSpec((2,), -1, 1, levels=4)
    data = Dataset("levels", torch.tensor([[0, 3], [1, 2]]), None, spec)
    recorder = Recorder()
    run(seeded(lambda: MLP((2,), 8, 1)), data=data, objective=recorder, batch=2, steps=50)
    visits = [x0[x0[:, 0].argsort()] for x0, *_ in recorder.batches]
    assert all(torch.equal(spec.to_levels(v).long(), data.x) for v in visits)
    values = torch.stack(visits)[:, 0, 0]
    assert len(values.unique()) == 50
    # U(−1, −½): mean −¾ with standard error ½/√12/√50 = 0.02
    assert float(values.mean()) == pytest.approx(-0.75, abs=4 * 0.0205)


def test_learning_rate_schedule():
    made = settings(steps=10, warmup=4, cooldown=5, learning_rate=1.0)
    rates = [learning_rate_at(made, n) for n in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    net = seeded(lambda: MLP((2,), 8, 1))
    optimizer = make_optimizer(net)
    steps = Training(NetworkScore(net, VP(), Preconditioning()), points(), Objective(), made).steps(
        optimizer
    )
    for rate, step in zip(rates, steps, strict=True):
        assert step.learning_rate == rate
        assert optimizer.param_groups[0]["lr"] == rate


@pytest.mark.parametrize("changes", [{"warmup": 7}, {"cooldown": 7}, {"warmup": 4, "cooldown": 4}])
def test_a_learning_rate_that_is_never_reached_gets_a_warning(changes):
    with pytest.warns(UserWarning, match="learning_rate 0.01 is never reached"):
        run(seeded(lambda: MLP((2,), 8, 1)), **changes)


def test_a_learning_rate_reached_in_one_step_gets_none():
    run(seeded(lambda: MLP((2,), 8, 1)), warmup=3, cooldown=4)


def test_a_class_without_data_is_refused_before_the_first_step():
    data = points(labels=True)
    spec = replace(data.spec, classes=3)
    data = replace(data, labels=torch.zeros(len(data), dtype=torch.int64), spec=spec)
    with pytest.raises(ValueError, match="every class must have data, but class 1 of .* has none"):
        run(MLP((2,), width=8, depth=1, classes=3), data)


def test_data_whose_scale_does_not_suit_the_sde_get_a_warning():
    data = points()
    with pytest.warns(UserWarning, match="the data of .* are too large for the SDE"):
        run(MLP((2,), width=8, depth=1), replace(data, x=data.x + 100))


def test_gradients_are_clipped_to_the_norm():
    net = seeded(lambda: MLP((2,), 8, 1))
    model, norms = NetworkScore(net, VP(), Preconditioning()), []
    training = Training(model, points(), Objective(), settings(clip=1e-3))
    for step in training.steps(make_optimizer(net)):
        norms.append(step.grad_norm)
        clipped = torch.stack([p.grad.norm() for p in net.parameters()]).norm()
        assert float(clipped) == pytest.approx(1e-3, rel=1e-3)
    assert min(norms) > 1e-3


def test_divergence_stops_with_step_and_norms_before_the_weights_change():
    net = seeded(lambda: Faulty(3))
    model, records = NetworkScore(net, VP(), Preconditioning()), []
    steps = Training(model, points(), Objective(), settings()).steps(make_optimizer(net))
    records += [next(steps), next(steps)]
    before = [p.detach().clone() for p in net.parameters()]
    norm = float(torch.cat([p.flatten() for p in before]).norm())
    assert norm > 0.1
    match = rf"diverged at step 3: loss nan, gradient norm nan, parameter norm {str(norm)[:4]}"
    with pytest.raises(RuntimeError, match=match):
        next(steps)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_skipped_steps_are_counted_against_their_limit():
    steps = run(seeded(lambda: Faulty(2, 4)), max_skipped=2)
    assert [s.skipped for s in steps] == [False, True, False, True, False, False]
    assert math.isnan(steps[1].loss)
    with pytest.raises(RuntimeError, match="diverged at step 4"):
        run(seeded(lambda: Faulty(2, 4)), max_skipped=1)


def test_a_skipped_step_leaves_weights_and_optimizer_alone():
    net = seeded(lambda: Faulty(2))
    model, optimizer = NetworkScore(net, VP(), Preconditioning()), make_optimizer(net)
    steps = Training(model, points(), Objective(), settings(max_skipped=1)).steps(optimizer)

    def state():
        moments = [v.clone() for s in optimizer.state.values() for v in s.values()]
        return [p.detach().clone() for p in net.parameters()] + moments

    next(steps)
    before = state()
    assert next(steps).skipped
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))


class Buffered(nn.Module):
    """BatchNorm; buffers that are assigned anew, in no state_dict, or None at first."""

    def __init__(self, bad: int) -> None:
        super().__init__()
        self.linear, self.norm, self.bad = nn.Linear(2, 2), nn.BatchNorm1d(2), bad
        self.register_buffer("total", torch.zeros(2))
        self.register_buffer("largest", torch.zeros(2), persistent=False)
        self.register_buffer("first", None)

    def forward(self, x, label, y=None):
        calls = int(self.norm.num_batches_tracked) + 1
        x = x * math.nan if calls == self.bad else x
        self.bad = None if calls == self.bad else self.bad
        self.total = self.total + x.detach().sum(0)
        self.first = x.detach().sum(0) if self.first is None else self.first
        self.largest.copy_(torch.maximum(self.largest, x.detach().amax(0)))
        return self.linear(self.norm(x))


def test_a_skipped_step_leaves_buffers_alone():
    net = seeded(lambda: Buffered(bad=3))
    model, made = NetworkScore(net, VP(), Preconditioning()), settings(max_skipped=1)
    before = None
    for step in Training(model, points(), Objective(), made).steps(make_optimizer(net)):
        now = {name: buffer.clone() for name, buffer in net.named_buffers()}
        assert len(now) == 6
        assert all(torch.isfinite(buffer).all() for buffer in now.values())
        if before is not None:
            changed = [name for name in now if not torch.equal(now[name], before[name])]
            assert (changed == []) == step.skipped
        before = now
    assert net.bad is None  # it was skipped


def test_a_buffer_that_a_skipped_step_makes_is_none_again():
    net = seeded(lambda: Buffered(bad=1))
    model, made = NetworkScore(net, VP(), Preconditioning()), settings(max_skipped=9)
    steps = Training(model, points(), Objective(), made).steps(make_optimizer(net))
    assert next(steps).skipped
    assert net.first is None


def test_divergence_leaves_the_buffers_of_before_the_bad_step():
    net = seeded(lambda: Buffered(bad=2))
    with pytest.raises(RuntimeError, match="diverged at step 2"):
        run(net)
    assert int(net.norm.num_batches_tracked) == 1
    assert all(torch.isfinite(buffer).all() for buffer in net.buffers())


def test_infinite_gradient_of_a_finite_loss_is_not_applied():
    class Kinked(Objective):
        def __call__(self, model, x0, u, eps, history=None):
            losses, t, errors = super().__call__(model, x0, u, eps)
            return (losses * 0).sqrt() + 1, t, errors  # √ at 0: derivative ∞ · 0

    net = seeded(lambda: Faulty())
    before = [p.detach().clone() for p in net.parameters()]
    model = NetworkScore(net, VP(), Preconditioning())
    training = Training(model, points(), Kinked(times="second_moment", t_min=1e-3), settings())
    with pytest.raises(RuntimeError, match="diverged at step 1: loss 1.0, gradient norm nan"):
        list(training.steps(make_optimizer(net)))
    assert training.history.counts.sum() == 0
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_autocast_concerns_training_only():
    seen = []
    net = seeded(lambda: MLP((2,), 8, 1))
    net.stem.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    model = NetworkScore(net, VP(), Preconditioning())
    optimizer = make_optimizer(net)
    made = settings(autocast="bfloat16")
    steps = list(Training(model, points(), Objective(), made).steps(optimizer))
    assert set(seen) == {torch.bfloat16}
    assert model.autocast is None
    assert steps[-1].errors.dtype == torch.float32
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert model.nfe.forward == 6  # the counter is shared


def test_float16_halves_the_scale_of_the_loss_until_no_gradient_overflows():
    """The first scale is 2^16, and the norm of the gradient is about 10 here."""
    net = seeded(lambda: MLP((2,), 8, 1))
    nn.init.eye_(net.head.weight).data.mul_(10)
    model = NetworkScore(net, VP(), Preconditioning())
    training = Training(model, points(), Objective(), settings(autocast="float16", steps=12))
    skipped = [step.skipped for step in training.steps(make_optimizer(net))]
    assert skipped[0]  # although max_skipped is 0
    assert skipped.count(False) > 3
    assert training.scaler.get_scale() == 2.0 ** (16 - sum(skipped))
    nn.init.constant_(net.head.weight, 1e30)  # the loss itself is not finite
    with pytest.raises(RuntimeError, match="diverged at step 1"):
        list(training.steps(make_optimizer(net)))


def test_gradients_that_overflow_at_scale_one_are_a_divergence():
    class Steep(Objective):
        def __call__(self, model, x0, u, eps, history=None):
            losses, t, errors = super().__call__(model, x0, u, eps)
            return (losses * 0).sqrt() + 1, t, errors  # √ at 0: derivative ∞ · 0

    model = NetworkScore(seeded(Faulty), VP(), Preconditioning())
    made = settings(autocast="float16", steps=40)
    steps = Training(model, points(), Steep(), made).steps(make_optimizer(model.net))
    with pytest.raises(RuntimeError, match="diverged at step 17: loss 1.0"):  # 2^16 … 2^0
        list(steps)


def test_checkpointing_is_for_networks_that_have_it():
    model = NetworkScore(MLP((2,), 8, 1), VP())
    with pytest.raises(ValueError, match="checkpointing must be false for MLP, got true: it has"):
        Training(model, points(), Objective(), settings(checkpointing=True))
    unet = UNet((1, 4, 4), 4, (1,), 1, [])
    data = Dataset("pictures", torch.zeros(4, 1, 4, 4), None, DataSpec((1, 4, 4), -1, 1))
    Training(NetworkScore(unet, VP()), data, Objective(), settings(checkpointing=True))
    assert all(level.checkpointing for level in (*unet.down, unet.middle, *unet.up))


def test_float64_network_trains():
    net = seeded(lambda: MLP((2,), 8, 1).double())
    assert math.isfinite(run(net)[-1].loss)
    assert {p.dtype for p in net.parameters()} == {torch.float64}


def test_other_errors_pass_through():
    class Broken(Objective):
        def __call__(self, model, x0, u, eps, history=None):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="^broken$"):
        run(seeded(lambda: Faulty()), objective=Broken())


def test_bad_input_is_refused_before_the_first_step():
    net = Faulty()
    model = NetworkScore(net, VP(), Preconditioning())
    with pytest.raises(ValueError, match="batch must be at most the 12 data, got 13"):
        Training(model, points(), Objective(), settings(batch=13))
    with pytest.raises(ValueError, match="t_min must be greater than 0 for VP"):
        Training(model, points(), Objective(t_min=0.0), settings())
    assert net.calls == 0


@pytest.mark.parametrize(
    ("classes", "labels", "message"),
    [
        (3, None, "y must be given: the network takes 3 classes"),
        (2, [0, 1, 2] * 4, "y must hold classes 0 to 1, got 2"),
        (2, [0, 1, -1] * 4, "y must hold classes 0 to 1, got -1"),
        (None, [0, 1, 2] * 4, "y must be None: MLP takes no condition"),
    ],
)
def test_class_labels_must_be_those_of_the_network(classes, labels, message):
    net = MLP((2,), width=8, depth=1, classes=classes)
    data = replace(points(), labels=None if labels is None else torch.tensor(labels))
    with pytest.raises(ValueError, match=message):
        Training(NetworkScore(net, VP(), Preconditioning()), data, Objective(), settings())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch": -1}, "batch must be at least 1, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0"),
        ({"learning_rate": math.inf}, "learning_rate must be finite"),
        ({"warmup": -1}, "warmup must be at least 0"),
        ({"cooldown": -1}, "cooldown must be at least 0"),
        ({"clip": 0.0}, "clip must be greater than 0"),
        ({"ema_decay": 1.0}, "ema_decay must be less than 1"),
        ({"ema_decay": -0.1}, "ema_decay must be at least 0"),
        ({"max_skipped": -1}, "max_skipped must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**64}, r"less than 2\*\*64"),
        ({"autocast": "float8"}, "autocast must be bfloat16, float16 or absent"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"accumulate": 5}, "accumulate must be at most the batch of 4, got 5"),
        *(
            (
                {"validation": value},
                "validation must be 'test' or a share of the data in .0, 1., got",
            )
            for value in (1.5, 1.0, -0.1, math.nan, True, "tset")
        ),
    ],
)
def test_settings_out_of_range_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        settings(**changes)


@pytest.mark.parametrize("name", ["steps", "batch", "warmup", "cooldown", "max_skipped", "seed"])
def test_counts_must_be_integers(name):
    with pytest.raises(TypeError, match=f"{name} must be an integer"):
        settings(**{name: 1.5})


@pytest.mark.slow
def test_a_network_learns_the_score_of_a_gaussian():
    mean, cov = [[0.5, -0.3]], [[[0.4, 0.15], [0.15, 0.2]]]
    exact = GaussianMixture(VP(), [1.0], mean, cov)
    data = Dataset("gaussian", exact.sample(10_000, seed=0).float(), None, DataSpec((2,), -4, 4))
    net = seeded(lambda: MLP((2,), 64, 2))
    run(net, data, Objective(t_min=1e-3), steps=1000, batch=128, learning_rate=5e-3, cooldown=800)
    model = NetworkScore(net.eval(), VP(), Preconditioning())
    n = 10_000
    x0, eps = exact.sample(n, seed=1), BatchNoise(7).prior((n, 2))
    with torch.no_grad():
        for t in (0.02, 0.1, 0.3, 0.6, 1.0):
            times = torch.full((n,), t, dtype=torch.float64)
            x_t = VP().perturb(x0, times, eps)
            excess = (model.eps(x_t, times) - exact.eps(x_t, times)).square().sum(1).mean()
            # Of E|ε|² = 2; 0.0001 to 0.006 were measured.
            assert float(excess) < 0.01
            # Nothing beats the exact score (else the test data leaked).
            gap = denoising_error(model, x0, times, eps) - denoising_error(exact, x0, times, eps)
            assert float(gap.mean()) > -4 * float(gap.std()) / math.sqrt(n)


@pytest.mark.slow
def test_a_network_learns_conditional_and_unconditional_moments():
    """A small MLP on pairs of a known mixture, against the exact moments given y and given none."""
    means = [[-0.8, 0.5, -0.7], [0.6, -0.4, 0.8]]
    covs = [[[0.2, 0.0, 0.15], [0.0, 0.1, 0.0], [0.15, 0.0, 0.3]]] * 2
    exact = ConditionalMixture(VP(), [0.6, 0.4], means, covs, vector=1)
    x, y = exact.sample_joint(20_000, seed=0)
    spec = DataSpec((2,), -4, 4, vector=1)
    data = Dataset("pairs", x.float(), y.float(), spec)
    model = NetworkScore(seeded(lambda: MLP((2,), 64, 2, vector=1)), VP())
    made = settings(steps=1000, batch=256, learning_rate=3e-3, cooldown=500, label_dropout=0.3)
    training = Training(model, data, Objective(t_min=1e-3), made)
    for _ in training.steps(make_optimizer(model.net)):
        pass
    for value in (-1.0, 0.2, 1.0, None):
        drawn = sample(model, DDIM(), log_snr(VP(), 30), (4000, 2), seed=1, y=value).x.double()
        given = exact.marginal if value is None else exact.given(torch.tensor([[value]]).double())
        mean, cov = (
            (given.mean(), given.cov()) if value is None else (given.mean()[0], given.cov()[0])
        )
        # 4,000 draws err by 0.015; the rest is for the short training. The variance of x[0] is
        # 0.13 to 0.23 given y and 0.67 without.
        assert (drawn.mean(0) - mean).abs().max() < 0.1
        assert (torch.cov(drawn.T) - cov).abs().max() < 0.15
