"""`scoresde train`."""

import json
import signal
import subprocess
import sys
import time

import pytest
import scoresde_cli.main

import scoresde as library
from scoresde.checkpoint import read_checkpoint
from scoresde.nets import UNet
from scoresde.run import CHECKPOINT, Run

CONFIG = """
[data]
name = "digits"
[sde]
kind = "vp"
[net]
kind = "unet"
channels = 8
multipliers = [1]
blocks = 1
attention = []
[train]
steps = {steps}
batch = 8
warmup = 1
"""


@pytest.fixture
def start(scoresde, tmp_path):
    """start(steps=3): train so long in one folder; the folder and what was printed."""

    def call(*options, steps=3):
        config = tmp_path / "config.toml"
        config.write_text(CONFIG.format(steps=steps))
        return tmp_path / "run", scoresde(
            "train", "--config", config, "--out", tmp_path / "run", *options
        )

    return call


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


def test_the_same_command_again_does_nothing_more(start):
    folder, _ = start()
    before = (folder / CHECKPOINT).read_bytes()
    _, done = start()
    assert done.status == 0
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


def test_sigterm_saves_with_status_143(start, interrupt, tmp_path):
    before = signal.signal(signal.SIGTERM, scoresde_cli.main._terminate)
    try:
        interrupt(signal.SIGTERM, step=2)
        with pytest.raises(SystemExit) as stop:
            start()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stop.value.code == 143
    assert steps_done(tmp_path / "run") == 2


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_is_told_to_stop(tmp_path, number, status):
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(steps=100_000))
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
    assert "batch of 8, each of shape (1, 8, 8); try train.batch = 4" in done.err
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
