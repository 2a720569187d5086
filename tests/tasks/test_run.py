import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image

import scoresde.tasks.train.previews
import scoresde.tasks.train.resuming
import scoresde.tasks.train.run
from scoresde import _files
from scoresde.checkpoint import CheckpointError, RawCheckpoint, read_checkpoint, save_checkpoint
from scoresde.data import Dataset, DataSpec
from scoresde.distributed import Ranks
from scoresde.names.config import Config
from scoresde.names.config_source import ConfigSource
from scoresde.names.loading import load
from scoresde.plain import ConfigError
from scoresde.score import NetworkScore, Preconditioning
from scoresde.tasks.train.content import export
from scoresde.tasks.train.files import BEST, SAVE_MINUTES, Intervals, check_folder
from scoresde.tasks.train.history import validation_row
from scoresde.tasks.train.prepare import prepare_run
from scoresde.tasks.train.run import Run
from scoresde.tasks.train.snapshots import snapshot_files
from scoresde.train import Training
from scoresde.validation import validate

TIMING = ("seconds", "images_per_second")


def config(**train) -> Config:
    return Config.from_dict(
        {
            "data": {"name": "rings"},
            "sde": {"kind": "vp"},
            "net": {"kind": "mlp", "width": 8, "depth": 1, "dropout": 0.3},
            "objective": {"t_min": 1e-3},
            "train": {"steps": 12, "batch": 16, "warmup": 2, "learning_rate": 1e-2, **train},
        }
    )


def rings(n: int = 56) -> Dataset:
    """3.5 batches: batches run across the ends of epochs."""
    angle = torch.arange(n) * 0.7
    x = torch.stack([angle.cos(), angle.sin()], 1) * (1 + torch.arange(n) % 2)[:, None] / 2
    return Dataset("rings", x, None, DataSpec((2,), -1, 1, name="rings"))


def make(folder, made: Config | None = None, data: Dataset | None = None, **arguments) -> Run:
    made, data = made or config(), data or rings()
    every = Intervals(**{"log_every": 5, "save_every": 100, "sample_every": 100, **arguments})
    metadata = {"config": made.to_dict(), "data": data.spec.to_dict()}
    model = made.build_model(data.spec)
    return Run(folder, Training(model, data, made.objective, made.train), metadata, every)


def finish(run: Run) -> Run:
    for _ in run.steps():
        pass
    return run


def stop_after(run: Run, k: int) -> None:
    for progress in run.steps():
        if progress.step.step == k:
            break


def log(folder) -> list[dict]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(li).items() if k not in TIMING} for li in lines]


def assert_equal_tensors(a, b) -> tuple[RawCheckpoint, RawCheckpoint]:
    """Compare the tensors of two checkpoints, and return both."""
    first, second = read_checkpoint(a), read_checkpoint(b)
    assert first.tensors.keys() == second.tensors.keys()
    for name, value in first.tensors.items():
        assert torch.equal(value, second.tensors[name]), name
    return first, second


def assert_same_run(a, b) -> None:
    first, second = assert_equal_tensors(*(folder / "checkpoint.safetensors" for folder in (a, b)))
    counts = ("steps_done", "ema_updates", "pending", "config", "data")
    assert all(first.metadata[k] == second.metadata[k] for k in counts)
    assert first.metadata.get("best") == second.metadata.get("best")
    assert log(a) == log(b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a run of 12 steps without a break."""
    folder = tmp_path_factory.mktemp("whole")
    finish(make(folder))
    return folder


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Half a second each; `whole`, being of the module, has one."""
    monkeypatch.setattr(
        scoresde.tasks.train.previews, "save_training_figure", lambda path, rows: None
    )


@pytest.fixture(autouse=True)
def few_pictures(request, monkeypatch):
    """Samples are drawn only by the tests about pictures; it takes longer than the steps."""
    if not any(word in request.node.name for word in ("picture", "draw", "preview", "samples")):
        monkeypatch.setattr("scoresde.tasks.train.run.draw_samples", lambda *_: None)


def test_files_of_a_run(whole):
    names = {path.name for path in whole.iterdir()}
    assert names == {"checkpoint.safetensors", "log.jsonl", "loss.png", "samples-0000012.png"}
    rows = log(whole)
    assert [row["step"] for row in rows] == [5, 10, 12]
    assert all(row["loss"] > 0 and len(row["error_by_t"]) == 20 for row in rows)
    with Image.open(whole / "loss.png") as picture:
        assert picture.size == (1100, 440)
    raw = read_checkpoint(whole / "checkpoint.safetensors")
    assert {name.split(".")[0] for name in raw.tensors} == {"model", "train"}
    assert raw.metadata["steps_done"] == raw.metadata["ema_updates"] == 12


# The first step, the middle of an epoch, a log line, the end of an epoch (7 batches are 2).
@pytest.mark.parametrize("k", [1, 4, 5, 7, 11])
def test_resumed_run_is_the_unbroken_one(tmp_path, whole, k):
    stop_after(make(tmp_path), k)
    run = make(tmp_path)
    assert run.resume() == k
    finish(run)
    assert_same_run(tmp_path, whole)


def test_stopping_at_every_step_changes_nothing(tmp_path, whole):
    for k in range(1, 13):
        run = make(tmp_path)
        assert run.resume() == k - 1
        stop_after(run, k)
    assert_same_run(tmp_path, whole)


def test_training_longer_than_first_asked_is_the_long_run(tmp_path, whole):
    finish(make(tmp_path, config(steps=9)))
    run = make(tmp_path)
    run.resume()
    finish(run)
    ours, theirs = (read_checkpoint(f / "checkpoint.safetensors") for f in (tmp_path, whole))
    assert all(torch.equal(v, theirs.tensors[k]) for k, v in ours.tensors.items())


def test_global_generators_are_untouched(tmp_path, rng_untouched):
    finish(make(tmp_path))


def test_a_finished_run_has_no_more_steps(whole):
    run = make(whole)
    run.resume()
    assert list(run.steps()) == []


def test_seconds_accumulate(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    stop_after(make(tmp_path), 6)
    run = make(tmp_path)
    run.resume()
    before = run.seconds
    assert before > 0
    finish(run)
    assert run.seconds > before
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    seconds = [json.loads(line)["seconds"] for line in lines]
    assert seconds == sorted(seconds)


@pytest.fixture
def handler():
    """handler(number, action): set a signal's handler for the length of a test."""
    before = {}

    def install(number, action):
        before.setdefault(number, signal.signal(number, action))

    yield install
    for number, action in before.items():
        signal.signal(number, action)


def leave(number, frame):
    raise SystemExit(128 + number)


def raise_in_call(run: Run, call: int, *numbers: int) -> list[bool]:
    """Raise signals in that forward pass; whether the network trains, of each pass so far."""
    modes = []

    def hook(module, args):
        modes.append(module.training)
        if len(modes) == call:
            for number in numbers:
                signal.raise_signal(number)

    run.model.net.register_forward_pre_hook(hook)
    return modes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_for_the_end_of_its_step(tmp_path, whole, handler, number):
    run = make(tmp_path)
    raise_in_call(run, 6, number)
    handler(number, leave)
    with pytest.raises(SystemExit):
        finish(run)
    assert signal.getsignal(number) is leave
    run = make(tmp_path)
    assert run.resume() == 6
    finish(run)
    assert_same_run(tmp_path, whole)


def test_a_signal_whose_handler_returns_hides_no_other(tmp_path, handler):
    handled = []
    handler(signal.SIGHUP, lambda number, frame: handled.append(number))
    handler(signal.SIGTERM, leave)
    run = make(tmp_path)
    raise_in_call(run, 6, signal.SIGHUP, signal.SIGTERM)
    with pytest.raises(SystemExit):
        finish(run)
    assert handled == [signal.SIGHUP]


def test_keyboard_interrupt_between_steps_saves(tmp_path):
    def interrupted():
        for progress in run.steps():
            if progress.step.step == 3:
                raise KeyboardInterrupt

    run = make(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert make(tmp_path).resume() == 3


def break_network(run: Run, *calls: int) -> None:
    """Let the forward passes of these numbers give NaN."""
    count = []

    def hook(module, args, out):
        count.append(1)
        return out * float("nan") if len(count) in calls else out

    run.model.net.register_forward_hook(hook)


def test_divergence_keeps_the_last_checkpoint_and_logs_the_last_losses(tmp_path):
    run = make(tmp_path, save_every=3)
    break_network(run, 8)
    with pytest.raises(RuntimeError, match="diverged at step 8: loss nan.*parameter norm"):
        finish(run)
    assert read_checkpoint(run.checkpoint).metadata["steps_done"] == 6
    assert [row["step"] for row in log(tmp_path)] == [5, 7]
    again = make(tmp_path, save_every=3)
    assert again.resume() == 6
    finish(again)
    assert [row["step"] for row in log(tmp_path)] == [5, 10, 12]


def test_skipped_steps_are_logged_and_averaged_over_nothing(tmp_path):
    run = make(tmp_path, config(max_skipped=6), log_every=2)
    break_network(run, 1, 2, 4)
    finish(run)
    rows = log(tmp_path)
    assert [row["skipped"] for row in rows] == [2, 1, 0, 0, 0, 0]
    assert rows[0]["loss"] is None
    assert rows[1]["loss"] > 0
    assert run.ema.updates == 9


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    run = make(tmp_path, save_every=2)
    stop_after(run, 2)
    with torch.no_grad():
        next(run.model.net.parameters()).fill_(float("inf"))
    with pytest.raises(ValueError, match="non-finite values, not saved"):
        run.save()
    assert make(tmp_path).resume() == 2


class Normed(torch.nn.Module):
    """A linear network with BatchNorm and a dropout that is no `nn.Dropout`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)

    def forward(self, x, label, y=None):
        x = torch.nn.functional.alpha_dropout(self.norm(x), 0.2, self.training)
        return self.linear(x)


def normed(folder, **train) -> Run:
    """A run of a `Normed` network."""
    made, data = config(**train), rings()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NetworkScore(Normed(), made.sde, Preconditioning())
    metadata = {"config": made.to_dict(), "data": data.spec.to_dict()}
    training = Training(model, data, made.objective, made.train)
    return Run(folder, training, metadata, Intervals(log_every=5))


def test_the_scale_of_float16_resumes_bit_for_bit(tmp_path):
    made = config(autocast="float16", steps=8)
    finish(make(tmp_path / "whole", made))
    stop_after(make(tmp_path / "parts", made), 4)
    first = read_checkpoint(tmp_path / "parts" / "checkpoint.safetensors").metadata["scaler"]
    run = make(tmp_path / "parts", made)
    assert run.resume() == 4
    assert run.training.scaler.state_dict() == first
    assert first["_growth_tracker"] + 16 - math.log2(first["scale"]) >= 1  # it has changed
    finish(run)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    last = [read_checkpoint(tmp_path / d / "checkpoint.safetensors") for d in ("whole", "parts")]
    assert last[0].metadata["scaler"] == last[1].metadata["scaler"] != first


def test_a_warm_up_changes_nothing(tmp_path):
    """Running statistics and the scale of the loss included."""
    whole, run = (
        normed(tmp_path / name, autocast="float16", steps=4) for name in ("whole", "warm")
    )
    finish(whole)
    run.warm_up()
    finish(run)
    assert_same_run(tmp_path / "warm", tmp_path / "whole")
    assert run.model.nfe.forward == whole.model.nfe.forward + 1


def test_running_statistics_and_own_randomness_resume_bit_for_bit(tmp_path):
    finish(normed(tmp_path / "whole"))
    for k in range(3, 13, 3):
        run = normed(tmp_path / "parts")
        assert run.resume() == k - 3
        stop_after(run, k)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_times_that_are_learned_resume_bit_for_bit(tmp_path):
    values = config(steps=8, batch=128).to_dict()
    values["objective"] |= {"times": "second_moment"}
    made, data = Config.from_dict(values), rings(128)
    finish(make(tmp_path / "whole", made, data))
    stop_after(make(tmp_path / "parts", made, data), 6)
    run = make(tmp_path / "parts", made, data)
    assert run.resume() == 6
    assert run.training.history.full
    finish(run)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    tensors = read_checkpoint(run.checkpoint).tensors
    assert float(tensors["train.history.counts"].sum()) == 8 * 128


def test_a_skipped_step_leaves_running_statistics_finite_and_their_averages_too(tmp_path):
    run = normed(tmp_path, max_skipped=1)
    calls = []
    run.model.net.linear.register_forward_pre_hook(lambda module, args: calls.append(1))

    def spoil(module, args):
        return (args[0] * float("nan"),) if len(calls) == 4 else None

    run.model.net.norm.register_forward_pre_hook(spoil)
    skipped = [progress.step.skipped for progress in run.steps()]
    assert skipped == [False] * 4 + [True] + [False] * 7
    assert int(run.model.net.norm.num_batches_tracked) == 11
    assert int(run.ema.averages["norm.num_batches_tracked"]) == 11
    raw = read_checkpoint(run.checkpoint)  # which holds no NaN, or it had not been saved
    assert {"model.norm.running_var", "train.net.norm.running_var"} <= raw.tensors.keys()


def test_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    run = make(tmp_path, save_every=4)
    steps = run.steps()
    for _ in range(5):
        next(steps)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device .*checkpoint.safetensors"):
        for _ in steps:
            pass
    monkeypatch.undo()
    assert make(tmp_path).resume() == 4
    assert temporary(tmp_path) == []


def test_what_killed_processes_left_unfinished_is_removed(tmp_path):
    left = [
        f".{name}.999999999.0123abcd.tmp" for name in ("loss.png", "log.jsonl", "samples-1.png")
    ]
    for name in left:
        (tmp_path / name).touch()
    stop_after(make(tmp_path), 1)
    assert temporary(tmp_path) == []


def test_log_cut_short_by_a_crash_is_mended(tmp_path, whole):
    stop_after(make(tmp_path), 11)
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text() + '{"step": 12, "lo')
    run = make(tmp_path)
    run.resume()
    finish(run)
    assert_same_run(tmp_path, whole)


def test_checkpoint_of_an_older_version_without_pending_means_resumes(tmp_path, whole):
    raw = read_checkpoint(whole / "checkpoint.safetensors")
    metadata = {k: v for k, v in raw.metadata.items() if k != "pending"}
    save_checkpoint(tmp_path / "checkpoint.safetensors", raw.tensors, metadata)
    assert make(tmp_path).resume() == 12


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("sde", "beta_max", 10.0),
        ("net", "width", 16),
        ("net", "depth", 2),
        ("objective", "weighting", "likelihood"),
        ("preconditioning", "target", "v"),
        ("train", "learning_rate", 1e-3),
        ("train", "batch", 8),
        ("train", "seed", 1),
    ],
)
def test_resuming_with_another_config_is_refused_by_key(whole, table, key, value):
    values = config().to_dict()
    values[table] = {**values[table], key: value}
    run = make(whole, Config.from_dict(values))
    weights = [p.clone() for p in run.model.net.parameters()]
    with pytest.raises(CheckpointError, match=rf"config {table}\.{key} = .*, not {value!r}"):
        run.resume()
    assert run.done == 0
    assert all(torch.equal(a, b) for a, b in zip(weights, run.model.net.parameters(), strict=True))


def test_resuming_with_other_data_is_refused(whole):
    data = Dataset("rings", rings().x, None, DataSpec((2,), -2, 2, name="rings"))
    with pytest.raises(CheckpointError, match=r"data high = 1\.0, not 2\.0"):
        make(whole, data=data).resume()


def test_resuming_with_more_data_is_refused(whole):
    with pytest.raises(CheckpointError, match="was trained on 56 data points, there are 60 now"):
        make(whole, data=rings(60)).resume()


def changed_value(data: Dataset) -> Dataset:
    x = data.x.clone()
    x[7, 1] += 1e-6
    return replace(data, x=x)


@pytest.mark.parametrize(
    "change", [changed_value, lambda data: replace(data, x=data.x.flip(0))], ids=["value", "order"]
)
def test_resuming_with_other_content_is_refused(whole, change):
    run = make(whole, data=change(rings()))
    with pytest.raises(
        CheckpointError, match="safetensors: the 56 data points are not those the run was"
    ):
        run.resume()
    assert run.done == 0


def test_resuming_with_other_images_or_labels_is_refused_and_with_equal_ones_is_not(tmp_path):
    made, data = images(1)
    stop_after(make(tmp_path, made, data), 1)
    for other in (replace(data, x=4 - data.x), replace(data, labels=2 - data.labels)):
        with pytest.raises(CheckpointError, match="the 20 images or their labels are not those"):
            make(tmp_path, made, other).resume()
    elsewhere = replace(data, name="elsewhere/rings", x=data.x.clone())
    assert make(tmp_path, made, elsewhere).resume() == 1


def edit_metadata(source, target, change) -> None:
    """Copy a checkpoint with changed metadata."""
    raw = read_checkpoint(source / "checkpoint.safetensors")
    change(raw.metadata)
    target.mkdir(exist_ok=True)
    save_checkpoint(target / "checkpoint.safetensors", raw.tensors, raw.metadata)


def test_a_checkpoint_of_an_earlier_version_resumes_with_one_warning(tmp_path, whole, monkeypatch):
    def older(metadata):
        del metadata["data_fingerprint"], metadata["noise_version"]

    def resumed(match, data=None) -> Run:
        run = make(tmp_path, config(steps=14), data)
        with pytest.warns(UserWarning, match=match) as warned:
            assert run.resume() >= 12
        assert len(warned) == 1
        return run

    edit_metadata(whole, tmp_path, older)
    monkeypatch.setitem(scoresde.tasks.train.resuming.VERSIONS, "noise_version", 7)
    finish(resumed("make sure that the 56 data points are still the same; the run was begun with"))
    # Its data are known from here on; that its first steps had other noise stays true.
    resumed("safetensors: the run was begun with another definition of the noise, so its next st")
    with pytest.raises(CheckpointError, match="are not those the run was trained on"):
        make(tmp_path, config(steps=14), changed_value(rings())).resume()


def test_the_name_of_the_data_matters_only_where_their_content_is_not_recorded(tmp_path, whole):
    values = config().to_dict()
    values["data"] = {**values["data"], "name": "moved/rings"}
    moved = Config.from_dict(values)
    data = replace(rings(), spec=replace(rings().spec, name="moved/rings"))
    assert make(whole, moved, data).resume() == 12
    edit_metadata(whole, tmp_path, lambda metadata: metadata.pop("data_fingerprint"))
    with pytest.raises(CheckpointError, match=r"config data\.name = 'rings', not 'moved/rings'"):
        make(tmp_path, moved, data).resume()


@pytest.mark.parametrize("what", ["noise", "dropout"])
def test_a_checkpoint_of_other_random_numbers_resumes_with_a_warning(tmp_path, whole, what):
    edit_metadata(whole, tmp_path, lambda metadata: metadata.pop(f"{what}_version"))
    with pytest.warns(UserWarning, match=f"begun with another definition of the {what}"):
        assert make(tmp_path).resume() == 12


def test_what_an_earlier_version_did_not_know_of_the_data_cannot_differ(tmp_path, whole):
    edit_metadata(whole, tmp_path, lambda metadata: metadata["data"].pop("classes"))
    assert make(tmp_path).resume() == 12


def test_fewer_steps_than_are_done_are_refused(whole):
    with pytest.raises(CheckpointError, match=r"has done 12 steps, more than the train\.steps = 9"):
        make(whole, config(steps=9)).resume()


def test_other_intervals_resume_to_the_same_weights(tmp_path, whole):
    stop_after(make(tmp_path, log_every=2, save_every=3), 7)
    run = make(tmp_path, log_every=4, save_every=1)
    assert run.resume() == 7
    finish(run)
    ours, theirs = (read_checkpoint(f / "checkpoint.safetensors") for f in (tmp_path, whole))
    assert all(torch.equal(v, theirs.tensors[k]) for k, v in ours.tensors.items())


def test_a_checkpoint_is_saved_when_the_latest_one_is_some_minutes_old(tmp_path, monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    run = make(tmp_path)
    for progress in run.steps():
        now[0] += 60 * SAVE_MINUTES / 4
        if run.checkpoint.exists():
            saved.append(
                (progress.step.step, read_checkpoint(run.checkpoint).metadata["steps_done"])
            )
    assert saved == [(5, 5), (6, 5), (7, 5), (8, 5), (9, 9), (10, 9), (11, 9), (12, 12)]


def test_the_running_loss_and_speed_are_shown_from_the_first_step(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    run, shown, losses = make(tmp_path), [], []
    run.model.net.register_forward_pre_hook(lambda module, args: now.append(now.pop() + 2.0))
    for progress in run.steps():
        shown.append((progress.loss, progress.images_per_second))
        losses.append(progress.step.loss)
    rows = log(tmp_path)
    assert [rate for _, rate in shown] == [8.0] * 12  # 16 images in 2 seconds
    assert [loss for loss, _ in shown[:4]] == [sum(losses[:n]) / n for n in range(1, 5)]
    assert [loss for loss, _ in shown[4:]] == [rows[0]["loss"]] * 5 + [rows[1]["loss"]] * 2 + [
        rows[2]["loss"]
    ]


def test_a_learned_variance_resumes_bit_for_bit(tmp_path):
    made, data = images(1)
    values = made.to_dict()
    values["net"] |= {"learned_variance": True}
    values["objective"] |= {"times": "ladder"}
    values["train"] |= {"steps": 4}
    made = Config.from_dict(values)
    finish(make(tmp_path / "whole", made, data))
    stop_after(make(tmp_path / "parts", made, data), 2)
    run = make(tmp_path / "parts", made, data)
    assert run.resume() == 2
    finish(run)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    assert load(run.checkpoint).model.learned_variance


def with_all_options(folder, steps: int = 6, **arguments) -> Run:
    """A run on images with every option of training, validated every 3 steps."""
    made, data = images(1)
    values = made.to_dict()
    values["net"] |= {"dropout": 0.3}
    values["train"] |= {"steps": steps, "accumulate": 3, "flip": True, "validation": 0.2}
    values["train"] |= {"label_dropout": 0.3, "autocast": "bfloat16", "max_skipped": 1}
    values["train"] |= {"ema_snapshot_every": 2, "warmup": 3, "cooldown": 2}
    values["objective"] |= {"times": "second_moment"}
    every = {"validate_every": 3, "validate_bits": 2, **arguments}
    return make(folder, Config.from_dict(values), data, **every)


def test_validation_and_all_options_resume_bit_for_bit(tmp_path):
    finish(with_all_options(tmp_path / "whole"))
    for k in (2, 3, 5, 6):
        run = with_all_options(tmp_path / "parts")
        run.resume()
        stop_after(run, k)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    first, second = assert_equal_tensors(*(tmp_path / f / BEST for f in ("parts", "whole")))
    assert first.metadata["best"] == second.metadata["best"]
    parts, unbroken = (snapshot_files(tmp_path / f) for f in ("parts", "whole"))
    assert list(parts) == [2, 4, 6]
    for step, path in parts.items():
        assert_equal_tensors(path, unbroken[step])

    # The log has the validations, and the file the weights of the smallest loss.
    rows = [row for row in log(tmp_path / "whole") if "validation" in row]
    assert [row["step"] for row in rows] == [3, 6]
    least = min(rows, key=lambda row: row["validation"]["loss"])
    best = load(tmp_path / "whole" / BEST)
    assert best.metadata["best"]["step"] == best.metadata["steps_done"] == least["step"]
    assert best.metadata["best"]["loss"] == least["validation"]["loss"]
    run = with_all_options(tmp_path / "new")
    run.model.net.load_state_dict(best.model.net.state_dict())
    again = validation_row(validate(run.training, 2))
    assert again == least["validation"]
    assert len(again["error_by_t"]) == len(again["training_error_by_t"]) == 20
    assert again["unit"] == "bits/dim"


@pytest.mark.slow
def test_all_options_resume_bit_for_bit_when_the_times_are_learned(tmp_path):
    """By then every noise level has been seen, and the snapshots of several widths are stored."""
    every = {"steps": 60, "validate_every": 30}
    finish(with_all_options(tmp_path / "whole", **every))
    for k in (1, 44, 60):
        run = with_all_options(tmp_path / "parts", **every)
        run.resume()
        stop_after(run, k)
    assert run.training.history.full
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "parts").iterdir()} == names
    for name in names - {"log.jsonl", "checkpoint.safetensors"}:
        if name.endswith(".safetensors"):
            assert_equal_tensors(tmp_path / "parts" / name, tmp_path / "whole" / name)
        else:
            assert (tmp_path / "parts" / name).read_bytes() == (
                tmp_path / "whole" / name
            ).read_bytes()


def test_only_a_smaller_validation_loss_is_kept(tmp_path, monkeypatch):
    losses = iter([3.0, math.nan, 2.0, 2.5, 2.0, 4.0])
    measured = scoresde.tasks.train.run.validate

    def validated(training, bits):
        return replace(measured(training, bits), loss=next(losses))

    monkeypatch.setattr(scoresde.tasks.train.run, "validate", validated)
    steps = []
    for last in (4, 6):  # the second run resumes, and has not forgotten the best loss
        run = with_all_options(tmp_path, validate_every=1, validate_bits=0)
        run.resume()
        for progress in run.steps():
            steps.append(read_checkpoint(tmp_path / BEST).metadata["best"]["step"])
            if progress.step.step == last:
                break
    assert steps == [1, 1, 3, 3, 3, 3]
    assert log(tmp_path)[1]["validation"]["loss"] is None
    assert read_checkpoint(run.checkpoint).metadata["best"]["loss"] == 2.0


def test_the_best_checkpoint_is_one_of_the_files_of_a_run(tmp_path):
    finish(with_all_options(tmp_path, validate_every=6, validate_bits=0))
    assert (tmp_path / BEST).exists()
    stop_after(make(tmp_path), 1)  # from the start, as with --overwrite
    assert not (tmp_path / BEST).exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / BEST).write_text("mine")
    with pytest.raises(ValueError, match=f"holds {BEST}, which scoresde train did not write"):
        check_folder(tmp_path / "other")


def test_a_run_with_another_test_split_is_refused(tmp_path):
    made = config(validation="test")

    def run(test) -> Run:
        metadata = {"config": made.to_dict(), "data": rings().spec.to_dict()}
        model = made.build_model(test.spec)
        return Run(tmp_path, Training(model, rings(), made.objective, made.train, test), metadata)

    stop_after(run(rings(20)), 1)
    assert run(rings(20)).resume() == 1
    with pytest.raises(CheckpointError, match="its validation losses are of another test split"):
        run(changed_value(rings(20))).resume()


def test_bits_without_held_out_data_are_refused_by_the_option(tmp_path):
    with pytest.raises(ValueError, match="--validate-bits: must be between 2 and the 0 held-out"):
        make(tmp_path, validate_bits=4)


def test_tabulated_sde_resumes(tmp_path):
    values = config().to_dict() | {"sde": {"kind": "tabulated", "betas": [0.3] * 20}}
    stop_after(make(tmp_path, Config.from_dict(values)), 2)
    assert make(tmp_path, Config.from_dict(values)).resume() == 2


def test_export_is_for_loading_not_for_resuming(tmp_path, whole):
    target = tmp_path / "checkpoint.safetensors"
    export(whole / "checkpoint.safetensors", target)
    assert target.stat().st_size < 0.6 * (whole / "checkpoint.safetensors").stat().st_size
    small, large = load(target), load(whole / "checkpoint.safetensors")
    pairs = zip(small.model.parameters(), large.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(CheckpointError, match="checkpoint.safetensors: holds no training state"):
        make(tmp_path).resume()


def test_damaged_progress_is_refused(tmp_path, whole):
    raw = read_checkpoint(whole / "checkpoint.safetensors")
    metadata = {k: v for k, v in raw.metadata.items() if k != "ema_updates"}
    save_checkpoint(tmp_path / "checkpoint.safetensors", raw.tensors, metadata)
    with pytest.raises(CheckpointError, match="damaged: KeyError.'ema_updates'"):
        make(tmp_path).resume()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps_done": -3}, "steps_done must be at least 0, got -3"),
        ({"steps_done": 1.5}, "steps_done must be an integer, got 1.5"),
        ({"seconds": "long"}, "seconds must be a number, got 'long'"),
        ({"pending": [1]}, "damaged: TypeError"),
        ({"pending": {"loss": "low"}}, "loss must be a number, got 'low'"),
        ({"pending": {"errors": [1, 2], "counts": [1, 2]}}, "must be 20 numbers each"),
    ],
)
def test_absurd_progress_is_refused(tmp_path, whole, values, message):
    raw = read_checkpoint(whole / "checkpoint.safetensors")
    save_checkpoint(tmp_path / "checkpoint.safetensors", raw.tensors, raw.metadata | values)
    with pytest.raises(CheckpointError, match=message):
        make(tmp_path).resume()


@pytest.mark.parametrize("change", [lambda value: value[:1], lambda value: None])
def test_a_state_of_adam_that_does_not_fit_is_refused(tmp_path, whole, change):
    raw = read_checkpoint(whole / "checkpoint.safetensors")
    name = next(k for k in raw.tensors if k.endswith(".exp_avg") and len(raw.tensors[k]) > 1)
    tensors = {k: v for k, v in raw.tensors.items() if k != name}
    if (value := change(raw.tensors[name])) is not None:
        tensors[name] = value.clone()
    save_checkpoint(tmp_path / "checkpoint.safetensors", tensors, raw.metadata)
    with pytest.raises(CheckpointError, match="damaged: ValueError.*(has shape|lacks one of Adam)"):
        make(tmp_path).resume()


def test_loaded_model_has_the_averaged_weights(whole):
    run = make(whole)
    run.resume()
    loaded = dict(load(whole / "checkpoint.safetensors").model.net.named_parameters())
    trained = dict(run.model.net.named_parameters())
    assert all(torch.equal(v, run.ema.averages[k]) for k, v in loaded.items())
    assert any(not torch.equal(v, trained[k]) for k, v in loaded.items())


def test_bfloat16_run_keeps_float32_weights(tmp_path):
    run = finish(make(tmp_path, config(autocast="bfloat16")))
    raw = read_checkpoint(run.checkpoint)
    assert {t.dtype for n, t in raw.tensors.items() if "waves" not in n} == {torch.float32}
    assert load(run.checkpoint).model.autocast is None
    assert run.model.autocast is None


def images(channels: int) -> tuple[Config, Dataset]:
    values = config(steps=2).to_dict()
    values["net"] = {"kind": "unet", "channels": 4, "multipliers": [1], "blocks": 1}
    values["net"] |= {"attention": [], "classes": 3}
    spec = DataSpec((channels, 4, 6), -1, 1, 5, classes=3, name="rings")
    x = torch.arange(20 * channels * 24).reshape(20, channels, 4, 6) % 5
    return Config.from_dict(values), Dataset("rings", x, torch.arange(20) % 3, spec)


@pytest.mark.parametrize("channels", [1, 3])
def test_conditional_image_run_draws_its_samples_from_the_averages(tmp_path, channels):
    made, data = images(channels)
    run = make(tmp_path, made, data, sample_every=1)
    modes, sizes = [], set()
    run.model.net.register_forward_pre_hook(lambda module, args: modes.append(module.training))
    run.model.net.register_forward_pre_hook(lambda module, args: sizes.add(len(args[0])))
    finish(run)
    pictures = sorted(path.name for path in tmp_path.glob("samples-*.png"))
    assert pictures == ["samples-0000001.png", "samples-0000002.png"]
    with Image.open(tmp_path / pictures[0]) as picture:
        assert picture.size == (8 * (6 * 5 + 2) + 2, 8 * (4 * 5 + 2) + 2)
    # Each step in training mode; for its picture 4 batches of 16, with 20 evaluations each.
    assert modes == ([True] + [False] * 80) * 2
    assert sizes == {16}


def drawing(folder, **arguments) -> Run:
    """A run of two steps that draws its samples after the first one too."""
    return make(folder, *images(1), **{"sample_every": 1, **arguments})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Folder of such a run without a break."""
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoresde.tasks.train.previews, "_SAMPLES", 8)
        finish(drawing(folder))
    return folder


@pytest.mark.parametrize("betas", [[0.01] * 400, [0.3, 0.9, 0.98]], ids=len)  # 20 evaluations
def test_samples_of_a_network_with_rounded_labels_are_drawn_at_its_own_times(tmp_path, betas):
    made, data = images(1)
    values = made.to_dict() | {
        "sde": {"kind": "tabulated", "betas": betas},
        "preconditioning": {"label": "rounded_index"},
        "objective": {"times": "ladder", "levels": len(betas)},
    }
    finish(make(tmp_path, Config.from_dict(values), data, sample_every=2))
    assert (tmp_path / "samples-0000002.png").exists()


def nan(module, args, out):
    return out if module.training else out * float("nan")


def failing(error):
    def hook(module, args, out):
        if not module.training:
            raise error

    return hook


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (nan, "NonFiniteError: .* non-finite values"),
        (failing(torch.OutOfMemoryError("CUDA out of memory")), r"\(out of memory\)"),
        (failing(RuntimeError("can't allocate memory: no")), r"\(out of memory\)"),
        (failing(MemoryError()), r"\(out of memory\)"),
        (failing(KeyError("own")), "KeyError: 'own'"),
        (failing(OSError(errno.ENOSPC, "No space left")), "OSError: .*No space left"),
    ],
    ids=["nan", "cuda", "cpu", "MemoryError", "bug", "disk"],
)
@pytest.mark.by_default("nan", "cuda")
def test_a_grid_of_samples_that_fails_is_a_warning_and_training_goes_on(
    tmp_path, drawn, hook, reason
):
    run = drawing(tmp_path)
    run.model.net.register_forward_hook(hook)
    with pytest.warns(
        UserWarning, match=f"samples-000000..png was not drawn .*{reason}.*goes on"
    ) as w:
        finish(run)
    assert len(w) == 2
    assert list(tmp_path.glob("samples*")) == []
    assert_same_run(tmp_path, drawn)


def test_a_figure_that_fails_is_a_warning_and_training_goes_on(tmp_path, whole, monkeypatch):
    def fail(path, rows):
        raise ValueError("no fonts\nat all")

    monkeypatch.setattr(scoresde.tasks.train.previews, "save_training_figure", fail)
    with pytest.warns(
        UserWarning, match=r"loss.png was not drawn \(ValueError: no fonts at all\); train"
    ):
        finish(make(tmp_path))
    assert_same_run(tmp_path, whole)


def test_an_ignored_signal_stops_neither_the_run_nor_its_picture(tmp_path, handler):
    handler(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` leaves it
    run = drawing(tmp_path, sample_every=2)
    raise_in_call(run, 2, signal.SIGHUP)
    finish(run)
    assert (tmp_path / "samples-0000002.png").exists()


def test_a_signal_gives_up_the_picture_and_keeps_the_training_weights(tmp_path, drawn, handler):
    handler(signal.SIGTERM, leave)
    run = drawing(tmp_path)
    modes = raise_in_call(run, 5, signal.SIGTERM)  # step 1, then the fourth evaluation
    with pytest.raises(SystemExit):
        finish(run)
    assert modes == [True] + [False] * 4
    assert list(tmp_path.glob("samples*")) == []
    run = drawing(tmp_path, sample_every=100)
    assert run.resume() == 1
    stop_after(run, 2)
    assert_same_run(tmp_path, drawn)


def test_images_of_other_channels_are_drawn_by_the_first(tmp_path):
    made, data = images(4)
    finish(make(tmp_path, made, data, sample_every=1))
    assert len(list(tmp_path.glob("samples-*.png"))) == made.train.steps


def test_nothing_is_written_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="batch must be at most the 8 data, got 16"):
        make(tmp_path / "new", data=rings(8))
    with pytest.raises(ValueError, match="log_every must be at least 1, got 0"):
        make(tmp_path / "new", log_every=0)
    make(tmp_path / "new").steps()
    broken = make(tmp_path / "new")
    break_network(broken, 1)
    with pytest.raises(RuntimeError, match="diverged at step 1"):
        finish(broken)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("can't allocate memory"), MemoryError()]
)
def test_lack_of_memory_says_what_can_be_done(tmp_path, error):
    def fail(module, args, out):
        raise error

    def message(run) -> str:
        run.model.net.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match=r"^out of memory with a batch") as raised:
            finish(run)
        return str(raised.value)

    alone = "16, each of shape (2,); try train.accumulate = 2 or train.batch = 8"
    assert message(make(tmp_path)).endswith(alone)
    helper = make(tmp_path)
    for block in helper.model.net.blocks:
        block.dropout.p = 0.0  # several processes warn of it
    object.__setattr__(helper.training, "ranks", Ranks(1, 2))
    assert message(helper).endswith(alone)
    helper.model.net.checkpointing = False  # as a U-Net has it
    assert "try train.checkpointing = true, train.accumulate = 2 or" in message(helper)
    assert "batch =" not in message(make(tmp_path, config(batch=1)))
    stop_after(make(tmp_path), 1)
    run = make(tmp_path)
    run.resume()  # which it would not do with another batch size
    words = "try another folder and train.accumulate = 2 or train.batch = 8"
    assert message(run).endswith(words)


def test_a_learning_rate_that_is_never_reached_is_told_once(tmp_path):
    with pytest.warns(UserWarning, match="is never reached") as warned:
        finish(make(tmp_path, config(warmup=20)))
    assert len(warned) == 1


TOML = """
[data]
name = "digits"
[sde]
kind = "vp"
[net]
kind = "unet"
channels = 4
multipliers = [1]
blocks = 1
attention = []
{net}
[train]
steps = 2
batch = 8
warmup = 0
{train}
"""


def toml(folder, net: str = "", train: str = ""):
    path = folder / "small.toml"
    path.write_text(TOML.format(net=net, train=train))
    return path


def test_prepared_run_trains_resumes_and_starts_afresh(tmp_path):
    path, folder = toml(tmp_path), tmp_path / "out"
    run = finish(prepare_run(path, folder))
    assert run.data.labels is None  # the network has no classes
    provenance = read_checkpoint(run.checkpoint).metadata["provenance"]
    assert provenance["command"] == f"scoresde train --config {path} --out out"
    assert prepare_run(path, folder).done == 2
    with pytest.raises(CheckpointError, match="config train.batch = 8, not 4"):
        prepare_run(ConfigSource(path, ("train.batch=4",)), folder)
    longer = prepare_run(ConfigSource(path, ("train.steps=3",)), folder)
    assert (longer.done, longer.metadata["config"]["train"]["steps"]) == (2, 3)
    said = f"scoresde train --config {path} --set train.steps=3 --out out"
    assert longer.metadata["provenance"]["command"] == said
    (folder / "samples-0000002.png").touch()
    (folder / "samples-best.png").touch()
    (folder / "notes.txt").write_text("mine")
    run = prepare_run(path, folder, overwrite=True)
    assert run.done == 0
    assert run.checkpoint.exists()  # until the new run has made a step
    next(run.steps())
    assert sorted(p.name for p in folder.iterdir()) == [
        *("checkpoint.safetensors", "log.jsonl", "notes.txt", "samples-best.png")
    ]
    assert read_checkpoint(run.checkpoint).metadata["steps_done"] == 1  # left after one step


def test_a_new_run_that_fails_in_its_first_step_leaves_the_old_one(tmp_path):
    path, folder = toml(tmp_path), tmp_path / "out"
    finish(prepare_run(path, folder))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    run = prepare_run(path, folder, overwrite=True)
    break_network(run, 1)
    with pytest.raises(RuntimeError, match="diverged at step 1"):
        finish(run)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.jsonl", '{"step": 1, "loss": 0.5}\n'),
        ("log.jsonl", "[1, 2]\n"),
        ("log.jsonl", "not JSON\n"),
        ("loss.png", "a picture"),
        ("samples-0001000.png", "a picture"),
        ("checkpoint.safetensors", "weights of another program"),
    ],
)
def test_files_of_others_are_neither_removed_nor_replaced(tmp_path, name, text, overwrite):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(text)
    with pytest.raises(ValueError, match=rf"holds {name}, which|not a scoresde checkpoint"):
        prepare_run(toml(tmp_path), tmp_path / "out", overwrite=overwrite)
    assert [(p.name, p.read_text()) for p in (tmp_path / "out").iterdir()] == [(name, text)]


@pytest.mark.parametrize("line", ["[]", "3", "{}", '{"step": "a"}', '{"step": null}'])
def test_a_damaged_line_ends_the_log(tmp_path, whole, line):
    stop_after(make(tmp_path), 11)
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text() + line + "\n")
    run = make(tmp_path)
    run.resume()
    finish(run)
    assert_same_run(tmp_path, whole)


def test_prepared_conditional_run_has_labels(tmp_path):
    run = prepare_run(toml(tmp_path, "classes = 10"), tmp_path / "out")
    assert run.data.labels is not None


def test_bad_preparations_leave_everything_as_it_is(tmp_path):
    folder = tmp_path / "out"
    finish(prepare_run(toml(tmp_path), folder))
    with pytest.raises(ConfigError, match="net.classes must be the data's 10, got 3"):
        prepare_run(toml(tmp_path, "classes = 3"), folder, overwrite=True)
    path = toml(tmp_path)
    path.write_text(path.read_text().replace("batch = 8", "batch = 8000"))
    with pytest.raises(ValueError, match="at most the 1500 .*, got 8000"):
        prepare_run(path, folder, overwrite=True)
    with pytest.raises(CheckpointError, match=r"train\.seed = 0, not 1"):
        prepare_run(toml(tmp_path, train="seed = 1"), folder)
    with pytest.raises(ValueError, match="is there already, and is a file"):
        prepare_run(toml(tmp_path), tmp_path / "small.toml")
    assert prepare_run(toml(tmp_path), folder).done == 2


# The child's own imports would take longer than its training, so it forks: once per line that it
# is sent, a process that trains from where the folder is until it gets a signal.
CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import scoresde.tasks.train.previews
import scoresde.tasks.train.resuming
import torch._dynamo  # which the first optimizer imports
from test_run import config, leave, make
scoresde.tasks.train.previews.save_training_figure = lambda path, rows: None

for line in sys.stdin:
    save_every, folder = line.rstrip().split(" ", 1)
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGHUP, leave)
        run = make(Path(folder), config(steps=1_000_000), save_every=int(save_every))
        run.resume()
        print("process", os.getpid(), flush=True)
        for progress in run.steps():
            print("done", progress.step.step, flush=True)
    print("status", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


class Trainer:
    """Processes that train, one after the other."""

    def __init__(self) -> None:
        code = CHILD.format(tests=os.path.dirname(__file__))
        command = [sys.executable, "-c", code]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def stop(self, folder, number: int, after: int, save_every=1, delay=0.0) -> tuple:
        """Train for some steps, send the signal; last step reported and exit status."""
        print(save_every, folder, file=self.child.stdin, flush=True)
        process, step = self.line("process"), 0
        for _ in range(after):
            step = self.line("done")
        time.sleep(delay)
        os.kill(process, number)
        while (words := self.child.stdout.readline().split())[0] == "done":
            step = int(words[1])
        return step, int(words[1])

    def line(self, kind: str) -> int:
        words = self.child.stdout.readline().split()
        assert words[0] == kind, words
        return int(words[1])


@pytest.fixture(scope="module")
def trainer():
    made = Trainer()
    yield made
    made.child.stdin.close()
    made.child.wait(timeout=60)
    made.child.stdout.close()


def temporary(folder) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_interrupted_process_leaves_a_checkpoint_of_its_last_step(
    tmp_path, trainer, number, status
):
    last, code = trainer.stop(tmp_path / "run", number, after=20, save_every=10**6)
    assert code == status  # of KeyboardInterrupt, Python makes the signal's own death
    assert last <= make(tmp_path / "run", config(steps=1_000_000)).resume() <= last + 1
    assert temporary(tmp_path / "run") == []


@pytest.mark.slow
def test_killed_at_random_loses_at_most_one_interval(tmp_path, trainer):
    folder, rng, done = tmp_path / "run", random.Random(0), 0
    for _ in range(50):
        last, code = trainer.stop(
            folder, signal.SIGKILL, after=rng.randint(1, 6), delay=rng.uniform(0, 0.02)
        )
        assert code == -signal.SIGKILL
        assert last > done
        run = make(folder, config(steps=1_000_000))
        done = run.resume()
        assert done >= last  # a step is reported after its checkpoint is written
        steps = [row["step"] for row in log(folder)[:-1]]
        assert steps == list(range(5, 5 * len(steps) + 1, 5))
    stop_after(run, run.done + 1)
    assert temporary(folder) == []
