"""Training runs whose data are not held in memory: resumption, deaths of workers, memory."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from scoresde._workers import ReadError
from scoresde.checkpoint import read_checkpoint
from scoresde.data import Dataset, DataSpec, Stream
from scoresde.names.config import Config
from scoresde.tasks.train.files import Intervals
from scoresde.tasks.train.run import Run
from scoresde.train import Training

pytestmark = pytest.mark.usefixtures("no_pictures")

SPEC = DataSpec((2,), -1, 1, name="points")


def make(folder, data, steps=6) -> Run:
    made = Config.from_dict(
        {
            "data": {"name": "points"},
            "sde": {"kind": "vp"},
            "net": {"kind": "mlp", "width": 8, "depth": 1},
            "objective": {"t_min": 1e-3},
            "train": {"steps": steps, "batch": 4, "warmup": 0, "learning_rate": 1e-2},
        }
    )
    metadata = {"config": made.to_dict(), "data": SPEC.to_dict()}
    training = Training(made.build_model(SPEC), data, made.objective, made.train)
    return Run(folder, training, metadata, Intervals(log_every=5))


class Batches:
    """Three batches of five points."""

    def __init__(self):
        self.given = 0

    def __iter__(self):
        while self.given < 3:
            self.given += 1
            yield torch.linspace(-1, 1, 30).reshape(3, 5, 2)[self.given - 1]
        self.given = 0


class Stateful(Batches):
    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.given = state["given"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Batches, "started from its beginning, and 12 items are skipped"), (Stateful, "saved state")],
)
def test_a_stream_resumes_bit_for_bit_and_says_how(kind, said, tmp_path):
    for _ in make(tmp_path / "whole", Stream(kind(), SPEC)).steps():
        pass
    for progress in make(tmp_path / "parts", Stream(kind(), SPEC)).steps():
        if progress.step.step == 3:
            break
    run = make(tmp_path / "parts", Stream(kind(), SPEC))
    with pytest.warns(UserWarning, match=said):
        assert run.resume() == 3
    for _ in run.steps():
        pass
    found, expected = (
        read_checkpoint(tmp_path / folder / "checkpoint.safetensors").tensors
        for folder in ("parts", "whole")
    )
    assert all(torch.equal(found[name], value) for name, value in expected.items())


class Fatal:
    """A dataset whose reader dies, or that fails, at its item 13 once it is armed."""

    def __init__(self, die):
        self.die, self.armed = die, False

    def __len__(self):
        return 24

    def __getitem__(self, i):
        if self.armed and i == 13:
            self.die()
        return torch.full((2,), i / 24)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def raising():
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("die", "workers", "message"),
    [
        (raising, 0, "data cannot be read: the disk is gone"),
        (raising, 1, "data cannot be read: the disk is gone"),
        pytest.param(lambda: os._exit(3), 2, "reads data has died", marks=pytest.mark.slow),
        pytest.param(killed, 2, "reads data has died", marks=pytest.mark.slow),
    ],
)
def test_data_that_cannot_be_read_end_the_run_and_no_finished_step_is_lost(
    die, workers, message, tmp_path, monkeypatch
):
    monkeypatch.setattr("scoresde.train.checks.scale_warning", lambda *_: None)  # reads all items
    items = Fatal(die)
    run = make(tmp_path, Dataset.of(items, SPEC, workers=workers))
    assert run.data.fingerprint
    items.armed = True
    began = time.monotonic()
    with pytest.raises(ReadError, match=message):
        for _ in run.steps():
            pass
    assert time.monotonic() - began < 60
    assert run.done > 0
    saved = read_checkpoint(tmp_path / "checkpoint.safetensors").metadata["steps_done"]
    assert saved == run.done


PROGRAM = """
    import resource, sys
    from scoresde_cli.main import run
    code = run(sys.argv[1:])
    print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def command(path, folder):
    """A short training on the data of a file, in a process of its own."""
    config = folder / "config.toml"
    config.write_text(
        f'[data]\nname = "{path}"\nworkers = 1\n[sde]\nkind = "vp"\n'
        '[net]\nkind = "mlp"\nwidth = 8\ndepth = 1\n'
        "[train]\nsteps = 100000\nbatch = 64\nlearning_rate = 1e-3\nwarmup = 0\n"
    )
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    return [*program, "train", "--config", str(config), "--out", str(folder / path.stem)]


def sparse(path, rows):
    """A `.npy` file of rows of 768 bytes, nearly all zero, which takes no disk."""
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, 768)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + rows * 768)
    return path


@pytest.mark.slow
def test_a_file_of_600_mb_takes_no_more_memory_than_a_small_one(tmp_path):
    peaks = []
    for rows in (1000, 800_000):
        path = sparse(tmp_path / f"{rows}.npy", rows)
        asked = [*command(path, tmp_path), "--set", "train.steps=20"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=300, check=True)
        code, peak = map(int, done.stdout.split()[-2:])
        assert code == 0, done.stderr
        peaks.append(peak)
    assert "614.4 MB are not held in memory" in done.stderr
    assert peaks[1] - peaks[0] < 250_000  # kB; most of it for the statistics of the data


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


@pytest.mark.slow
def test_ctrl_c_saves_and_leaves_no_process(tmp_path):
    path = sparse(tmp_path / "large.npy", 800_000)
    # A session of its own, as a terminal makes it: Ctrl-C reaches the workers, too.
    process = subprocess.Popen(command(path, tmp_path), start_new_session=True)
    log = tmp_path / "large" / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.2)
    workers = children(process.pid)
    assert workers
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
    assert read_checkpoint(tmp_path / "large" / "checkpoint.safetensors").metadata["steps_done"]
    time.sleep(1)
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]
