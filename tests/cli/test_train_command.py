"""`scoresde train`."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scoresde_cli.main
from PIL import Image

import scoresde as library
import scoresde.tasks.train.previews
from scoresde._lock import LOCK, lock_folder
from scoresde.checkpoint import read_checkpoint
from scoresde.nets import UNet
from scoresde.shipped import TEMPLATES, config_template
from scoresde.tasks.train.files import BEST, CHECKPOINT, SAVE_MINUTES, Intervals
from scoresde.tasks.train.run import Run

CONFIG = """
[data]
name = "{name}"
[sde]
kind = "vp"
[net]
kind = "unet"
channels = 8
multipliers = [1]
blocks = 1
attention = []
{net}
[train]
steps = {steps}
batch = 8
warmup = 1
"""


@pytest.fixture
def start(scoresde, tmp_path):
    """start(steps=3): train this number of steps in one folder; the folder and the output."""

    def call(*options, steps=3, name="digits", net=""):
        config = tmp_path / "config.toml"
        config.write_text(CONFIG.format(steps=steps, name=name, net=net))
        return tmp_path / "run", scoresde(
            "train", "--config", config, "--out", tmp_path / "run", *options
        )

    return call


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch):
    """No figures of the loss, half a second each, and grids of one batch instead of 64 samples."""
    monkeypatch.setattr(scoresde.tasks.train.previews, "_SAMPLES", 8)
    monkeypatch.setattr(
        scoresde.tasks.train.previews, "save_training_figure", lambda path, rows: None
    )


@pytest.fixture
def handlers():
    """The default handlers of signals, also for child processes, and the earlier ones afterwards.

    Under `nohup` pytest itself ignores SIGHUP.
    """
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def interrupt(monkeypatch):
    """interrupt(number, step): a signal in the midst of a step."""

    def at(number, step):
        after = Run._after

        def signalled(self, record, log):
            if record.step == step:
                signal.raise_signal(number)
            after(self, record, log)

        monkeypatch.setattr(Run, "_after", signalled)

    return at


def steps_done(folder):
    return read_checkpoint(folder / CHECKPOINT).metadata["steps_done"]


def test_it_leaves_a_checkpoint_that_loads(start):
    folder, done = start()
    assert done.status == 0, done.err
    assert done.out == f"{folder / CHECKPOINT}\n"
    assert library.load(folder / CHECKPOINT).metadata["steps_done"] == 3
    assert json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["step"] == 3


def test_a_wrong_change_is_refused_before_anything_is_written(start, scoresde):
    folder, done = start("--set", "train.steps=2", "--set", "train.batch=x")
    assert (done.status, folder.exists()) == (2, False)
    assert "--set train.steps=2, --set train.batch=x: train.batch must be an integer" in done.err
    done = scoresde("train", "--new-config", "images", "--set", "train.batch=4")
    assert done.status == 2
    assert "--new-config: cannot be given with --set" in done.err


def test_it_says_how_often_it_saves(start):
    folder, done = start("--save-every", 2)
    where = (
        f"{folder / CHECKPOINT} is saved every 2 steps, and when it is {SAVE_MINUTES} minutes old"
    )
    assert where in done.err


def test_it_says_on_what_and_how_often_it_validates(start):
    held_out = ("--set", "train.validation=0.02")  # 30 of the 1500
    folder, done = start(*held_out, "--validate-every", 2, "--validate-bits", 2, steps=2)
    assert done.status == 0, done.err
    lines = done.err.splitlines()
    said = "validation on 30 held-out data every 2 steps; best.safetensors keeps the best weights"
    assert said in lines
    assert "samples are drawn every 5000 steps" in lines
    assert re.fullmatch(r"step 1: loss \d\.\d{4}, \d+(\.\d)? images/s", lines[-2])
    numbers = r"held out \d\.\d{4} ± \d\.\d{4}, \d+\.\d{3} ± \d\.\d{3} bits/dim"
    assert re.fullmatch(rf"step 2: loss \d\.\d{{4}}, {numbers}, \d+(\.\d)? images/s", lines[-1])
    assert (folder / BEST).exists()
    _, done = start("--overwrite", steps=1)
    assert "validation" not in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--validate-every", 0), "--validate-every: 0 is not an integer at least 1"),
        (("--validate-every", "x"), "--validate-every: 'x' is not"),
        (("--validate-bits", -1), "--validate-bits: -1 is not an integer at least 0"),
        (("--validate-bits", 1), "--validate-bits: must be between 2 and the 30 held-out data"),
        (("--validate-bits", 31), "--validate-bits: must be between 2 and the 30 held-out data"),
        (("--set", "train.validation=1"), "validation must be 'test' or a share of the data in"),
        (("--set", "train.validation=-0.1"), "validation must be 'test' or a share of the data in"),
        (("--set", "train.validation='val'"), "validation must be 'test' or a share of the data"),
        (("--set", "train.validation=0.0005"), "must hold out at least 2 of the 1500 data"),
        (("--set", "train.validation=0.999"), "batch must be at most the 2 data, 1498 of which"),
    ],
)
def test_a_bad_validation_is_refused_before_anything_is_written(start, options, message):
    set_share = () if "--set" in options else ("--set", "train.validation=0.02")
    folder, done = start(*set_share, *options)
    assert (done.status, folder.exists()) == (2, False)
    assert message in done.err
    assert done.err.count("\n") == 1


def test_it_says_at_the_start_what_the_data_are(start, tmp_path):
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for k in range(4):
            picture = Image.new("L", (8, 8), 10 * k + i)
            picture.save(tmp_path / "pets" / name / f"{k}.png")
    _, done = start(name=tmp_path / "pets", net="classes = 2")
    assert done.status == 0
    assert "classes: 0 cat, 1 dog\n" in done.err
    assert "pets has no test split; `scoresde likelihood` will need --data\n" in done.err
    _, done = start("--overwrite")
    assert "classes:" not in done.err
    assert "test split" not in done.err


def test_names_of_data_do_not_command_the_terminal(start, tmp_path):
    for name in ("\x1b[31mred", "blue\u202e"):
        (tmp_path / "pets\x1b" / name).mkdir(parents=True)
        for k in range(4):
            Image.new("L", (8, 8), 10 * k).save(tmp_path / "pets\x1b" / name / f"{k}.png")
    _, done = start(name=str(tmp_path / "pets") + r"\u001b", net="classes = 2")
    assert done.status == 0, done.err
    assert r"pets\x1b has no test split" in done.err
    assert all(line.isprintable() for line in done.err.splitlines())


def test_an_empty_log_is_no_mark_of_a_run(start, tmp_path):
    """A killed run leaves an empty log, but other programs may write one as well."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.jsonl").touch()
    (folder / "loss.png").write_text("mine")
    for options in ((), ("--overwrite",)):
        _, done = start(*options)
        assert done.status == 2
        assert "holds loss.png, which scoresde train did not write" in done.err
    assert (folder / "loss.png").read_text() == "mine"
    (folder / "loss.png").unlink()
    assert start()[1].status == 0


def test_data_whose_scale_does_not_suit_are_told_once(start, tmp_path):
    x = np.random.default_rng(0).uniform(0, 255, (40, 1, 8, 8)).astype("f4")
    np.save(tmp_path / "large.npy", x)
    with pytest.warns(UserWarning, match="too large for the SDE") as warned:
        _, done = start("--set", "data.transform=none", name=tmp_path / "large.npy")
    assert done.status == 0
    assert len(warned) == 1
    _, done = start("--overwrite", name=tmp_path / "large.npy")  # standardized, which suits
    assert done.status == 0


def test_the_intervals_are_options_that_never_refuse_a_resume(start):
    folder, _ = start("--log-every", 1, "--sample-every", 2, steps=2)
    assert len((folder / "log.jsonl").read_text().splitlines()) == 2
    _, done = start("--log-every", 2, "--sample-every", 1, "--save-every", 1, steps=4)
    assert done.status == 0
    assert len((folder / "log.jsonl").read_text().splitlines()) == 3
    pictures = sorted(path.name for path in folder.glob("samples-*.png"))
    assert pictures == [f"samples-000000{step}.png" for step in (2, 3, 4)]


def test_the_help_names_the_defaults_and_the_longest_age_of_a_checkpoint(scoresde):
    text = " ".join(scoresde("train", "--help").out.split())
    assert f"also saved when the latest is {SAVE_MINUTES} minutes old. [default: 1000" in text
    defaults = Intervals()
    assert f"Steps between log lines. [default: {defaults.log_every}" in text
    assert f"Steps between pictures of samples. [default: {defaults.sample_every}" in text
    assert defaults.save_every == 1000


def test_a_second_run_in_the_folder_is_refused_before_anything_is_read(start, tmp_path):
    with lock_folder(tmp_path / "run"):
        folder, done = start("--data-root", tmp_path)
        assert [path.name for path in folder.iterdir()] == [LOCK]
    assert done.status != 0
    assert "another scoresde process" in done.err
    assert len(done.err.splitlines()) == 1
    assert start()[1].status == 0
    assert not (folder / LOCK).exists()


def test_other_data_at_the_same_path_are_refused_and_the_same_at_another_path_are_not(
    start, tmp_path
):
    x = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    old, new = tmp_path / "old.npy", tmp_path / "new.npy"
    for path in (old, new):
        np.save(path, x)
    assert start(name=old)[1].status == 0
    assert start(name=new, steps=4)[1].status == 0
    np.save(new, 255 - x)
    folder, done = start(name=new, steps=5)
    assert done.status == 2
    assert "the 40 images are not those the run was trained on" in done.err
    assert steps_done(folder) == 4


def test_a_relative_path_is_looked_for_in_the_data_root_first(start, tmp_path, monkeypatch):
    for folder, size in (("here", 8), ("there", 6)):
        (tmp_path / folder).mkdir()
        np.save(
            tmp_path / folder / "x.npy",
            np.arange(40 * size**2, dtype="u1").reshape(40, 1, size, size),
        )
    monkeypatch.chdir(tmp_path / "here")

    def shape():
        return library.load(tmp_path / "run" / CHECKPOINT).data.shape

    assert start(name="x.npy")[1].status == 0
    assert shape() == (1, 8, 8)
    _, done = start("--data-root", tmp_path / "there", "--overwrite", name="x.npy")
    assert "there/x.npy has no test split" in done.err
    assert shape() == (1, 6, 6)
    assert start("--data-root", tmp_path, "--overwrite", name="x.npy")[1].status == 0
    assert shape() == (1, 8, 8)
    absolute = tmp_path / "here" / "x.npy"
    assert start("--data-root", tmp_path / "there", "--overwrite", name=absolute)[1].status == 0
    assert shape() == (1, 8, 8)


@pytest.mark.parametrize("what", TEMPLATES)
def test_new_config_writes_a_template_and_trains_nothing(scoresde, tmp_path, what):
    done = scoresde("train", "--new-config", what)
    assert (done.status, done.out) == (0, config_template(what))
    path = tmp_path / "mine.toml"
    done = scoresde("train", "--new-config", what, "--out", path)
    assert (done.status, done.out) == (0, f"{path}\n")
    assert path.read_text(encoding="utf-8") == config_template(what)
    path.write_text("mine")
    done = scoresde("train", "--new-config", what, "--out", path)
    assert done.status == 2
    assert "mine.toml is there already, and is a file" in done.err
    assert path.read_text() == "mine"
    done = scoresde("train", "--config", path, "--out", tmp_path / "run", "--new-config", what)
    assert done.status == 2
    assert "cannot be given with --config" in done.err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.toml"]


@pytest.mark.parametrize("options", [(), ("--config", "digits_vp"), ("--out", "out")])
def test_config_and_folder_must_be_given(scoresde, options):
    done = scoresde("train", *options)
    assert done.status == 2
    assert "--config and --out must be given, or --new-config" in done.err


def test_the_same_command_again_does_nothing_more(start):
    folder, _ = start()
    before = (folder / CHECKPOINT).read_bytes()
    _, done = start()
    assert done.status == 0
    assert "all 3 steps are done; to train longer, raise train.steps" in done.err
    assert (folder / CHECKPOINT).read_bytes() == before


def test_more_steps_continue(start):
    folder, _ = start()
    _, done = start(steps=5)
    assert done.status == 0
    assert "resuming after step 3 of 5" in done.err
    assert steps_done(folder) == 5


def test_ctrl_c_saves_and_the_same_command_resumes(start, interrupt, monkeypatch):
    with monkeypatch.context():
        interrupt(signal.SIGINT, step=2)
        folder, done = start()
    assert done.status == 130
    assert "stopped after step 2, saved; the same command resumes" in done.err
    assert steps_done(folder) == 2
    assert not list(folder.glob(".*.tmp"))
    monkeypatch.undo()
    _, done = start()
    assert (done.status, steps_done(folder)) == (0, 3)


def test_fewer_steps_than_are_done_are_refused(start):
    start()
    _, done = start(steps=2)
    assert done.status == 2
    assert "has done 3 steps, more than the train.steps = 2 asked for" in done.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_stopping_signals_save(start, interrupt, tmp_path, number, status, capsys, handlers):
    scoresde_cli.main._raise_on_signals()
    interrupt(number, step=2)
    with pytest.raises(SystemExit) as stop:
        start()
    assert stop.value.code == status
    assert "stopped after step 2, saved; the same command resumes" in capsys.readouterr().err
    assert steps_done(tmp_path / "run") == 2


def test_nohup_keeps_a_run_alive(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    scoresde_cli.main._raise_on_signals()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is scoresde_cli.main._terminate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_process_that_is_told_to_stop(handlers, tmp_path, number, status):
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(steps=100_000, name="digits", net=""))
    code = "from scoresde_cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", "--config", config, "--out", tmp_path / "run"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "run" / "log.jsonl"
        while not log.exists() or not log.read_text():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "the same command resumes" in err
    assert "Traceback" not in err
    assert f"stopped after step {steps_done(tmp_path / 'run')}" in err
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_running_out_of_memory_says_what_to_try(start, monkeypatch):
    folder, _ = start()
    before = (folder / CHECKPOINT).read_bytes()

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(UNet, "forward", fail)
    _, done = start(steps=5)
    assert done.status == 1
    assert done.err.endswith(
        "try train.checkpointing = true, or another folder and train.accumulate = 2 or "
        "train.batch = 4\n"
    )
    assert (folder / CHECKPOINT).read_bytes() == before


def test_overwrite_starts_afresh(start, tmp_path):
    folder, _ = start()
    (tmp_path / "config.toml").write_text("")
    _, done = start("--overwrite", steps=2)
    assert done.status == 0
    assert steps_done(folder) == 2


def test_a_folder_with_results_of_another_command_is_refused(start, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "scoresde.json").write_text("{}")
    folder, done = start()
    assert done.status == 2
    assert "holds results of another command" in done.err
    assert [path.name for path in folder.iterdir()] == ["scoresde.json"]
