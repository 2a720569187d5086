import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

import scoresde.run
from scoresde import _files
from scoresde.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from scoresde.config import Config, load
from scoresde.data import Dataset, DataSpec
from scoresde.plain import ConfigError
from scoresde.run import Run, export
from scoresde.tasks.training import prepare_run

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
    every = {"log_every": 5, "save_every": 100, "sample_every": 100, **arguments}
    metadata = {"config": made.to_dict(), "data": data.spec.to_dict()}
    model = made.build_model(data.spec)
    return Run(folder, model, data, made.objective, made.train, metadata, **every)


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


def assert_same_run(a, b) -> None:
    first, second = (read_checkpoint(folder / "checkpoint.safetensors") for folder in (a, b))
    assert first.tensors.keys() == second.tensors.keys()
    for name, value in first.tensors.items():
        assert torch.equal(value, second.tensors[name]), name
    counts = ("steps_done", "ema_updates", "pending", "config", "data")
    assert all(first.metadata[k] == second.metadata[k] for k in counts)
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
    monkeypatch.setattr(scoresde.run, "save_training_figure", lambda path, rows: None)


def test_files_of_a_run(whole):
    names = {path.name for path in whole.iterdir()}
    assert names == {"checkpoint.safetensors", "log.jsonl", "loss.png"}
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_its_step(tmp_path, whole, number):
    def leave(number, frame):
        raise SystemExit(128 + number)

    run, calls = make(tmp_path), []

    def hook(module, args):
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(number)

    run.model.net.register_forward_pre_hook(hook)
    before = signal.signal(number, leave)
    try:
        with pytest.raises(SystemExit):
            finish(run)
        assert signal.getsignal(number) is leave
    finally:
        signal.signal(number, before)
    run = make(tmp_path)
    assert run.resume() == 6
    finish(run)
    assert_same_run(tmp_path, whole)


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
    with pytest.raises(CheckpointError, match="was trained on 56 data, there are 60 now"):
        make(whole, data=rings(60)).resume()


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
    modes = []
    run.model.net.register_forward_pre_hook(lambda module, args: modes.append(module.training))
    finish(run)
    pictures = sorted(path.name for path in tmp_path.glob("samples-*.png"))
    assert pictures == ["samples-0000001.png", "samples-0000002.png"]
    with Image.open(tmp_path / pictures[0]) as picture:
        assert picture.size == (8 * (6 * 5 + 2) + 2, 8 * (4 * 5 + 2) + 2)
    # each step in training mode, its 21 evaluations for the picture not
    assert modes == ([True] + [False] * 21) * 2


def test_images_that_are_no_pictures_are_not_drawn(tmp_path):
    made, data = images(4)
    finish(make(tmp_path, made, data, sample_every=1))
    assert list(tmp_path.glob("samples-*.png")) == []


def test_nothing_is_written_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="batch must be at most the 8 images, got 16"):
        make(tmp_path / "new", data=rings(8))
    with pytest.raises(ValueError, match="log_every must be at least 1, got 0"):
        make(tmp_path / "new", log_every=0)
    make(tmp_path / "new").steps()
    assert not (tmp_path / "new").exists()


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
    (folder / "notes.txt").write_text("mine")
    assert prepare_run(path, folder, overwrite=True).done == 0
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


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
    with pytest.raises(ValueError, match="is a file, not a folder"):
        prepare_run(toml(tmp_path), tmp_path / "small.toml")
    assert prepare_run(toml(tmp_path), folder).done == 2


# The child's own imports would take longer than its training, so it forks: once per number that
# it is sent, a process that trains from where the folder is until it gets a signal.
CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import scoresde.run
from test_run import config, make
scoresde.run.save_training_figure = lambda path, rows: None

def leave(number, frame):
    raise SystemExit(128 + number)

for save_every in sys.stdin:
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGTERM, leave)
        run = make(Path({folder!r}), config(steps=1_000_000), save_every=int(save_every))
        run.resume()
        print("process", os.getpid(), flush=True)
        for progress in run.steps():
            print("done", progress.step.step, flush=True)
    print("status", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


class Trainer:
    """Processes that train in a folder, one after the other."""

    def __init__(self, folder) -> None:
        code = CHILD.format(tests=os.path.dirname(__file__), folder=str(folder))
        command = [sys.executable, "-c", code]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def stop(self, number: int, after: int, save_every: int = 1, delay: float = 0.0) -> tuple:
        """Train for some steps, send the signal; last step reported and exit status."""
        print(save_every, file=self.child.stdin, flush=True)
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


@pytest.fixture
def trainer(tmp_path):
    made = Trainer(tmp_path / "run")
    yield made
    made.child.stdin.close()
    made.child.wait(timeout=60)
    made.child.stdout.close()


def temporary(folder) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)]
)
def test_interrupted_process_leaves_a_checkpoint_of_its_last_step(
    tmp_path, trainer, number, status
):
    last, code = trainer.stop(number, after=20, save_every=10**6)
    assert code == status  # of KeyboardInterrupt, Python makes the signal's own death
    assert last <= make(tmp_path / "run", config(steps=1_000_000)).resume() <= last + 1
    assert temporary(tmp_path / "run") == []


@pytest.mark.slow
def test_killed_at_random_loses_at_most_one_interval(tmp_path, trainer):
    folder, rng, done = tmp_path / "run", random.Random(0), 0
    for _ in range(50):
        last, code = trainer.stop(
            signal.SIGKILL, after=rng.randint(1, 6), delay=rng.uniform(0, 0.02)
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
