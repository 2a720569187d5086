"""Commands under several processes: the same bytes, and one line when something is wrong."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from scoresde.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("worker.py")


def sample(n=14, checkpoint="digits-vp", *options):
    """The command that draws n samples in batches of 4."""
    return ["sample", "--checkpoint", checkpoint, "--nfe=3", f"--n={n}", "--batch=4", *options]


SAMPLE = sample()
LIKELIHOOD = [
    *("likelihood", "--checkpoint", "digits-vp", "--n", "5", "--batch", "2", "--measured", "2"),
    *("--steps", "2", "--nodes", "4", "--trace", "hutchinson:probes=2"),
]


class Worker:
    """One process of worker.py."""

    def __init__(self):
        settings = {
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | settings,
        )

    def ask(self, case):
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def prepared():
    made = [Worker() for _ in range(3)]
    yield made
    for worker in made:
        worker.end()


def killed(workers, victim, command, out, reached):
    """The answer of one of two ranks, of which the other is killed when `reached()` holds.

    Without torchrun, rank 0 notices the silence of rank 1, and rank 1 the end of rank 0. A new
    worker takes the place of the killed one.
    """
    quick = {"patches": {"scoresde.distributed.watch.SILENCE": 3.0}, "wait": 0.5}
    start(workers[:2], command, out, {0: quick, 1: quick})
    until = time.monotonic() + 60
    while not reached() and time.monotonic() < until:
        time.sleep(0.05)
    workers[victim].kill()
    workers[victim], began = Worker(), time.monotonic()
    done = workers[1 - victim].answer()
    assert time.monotonic() - began < 60
    assert done["status"] == 1
    assert f"error: rank {victim}" in done["err"]  # "is gone" or "no sign of life"
    return done


@pytest.fixture
def workers(prepared):
    """Three processes; those that an earlier test has killed are replaced."""
    for place, worker in enumerate(prepared):
        if worker.process.poll() is not None:
            worker.process.stdout.close()
            prepared[place] = Worker()
    return prepared


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(workers, command, out, changed=None):
    """Start a command on some workers, rank by rank; `changed` holds cases of single ranks."""
    size, port = len(workers), free_port()
    for rank, worker in enumerate(workers):
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, **numbers}
        case = {"command": [*command, "--out", str(out)]} | (changed or {}).get(rank, {})
        worker.ask({**case, "environment": {name: str(value) for name, value in place.items()}})


@pytest.fixture
def run(workers):
    """run(2, SAMPLE, out, {1: {…}}): the answers of the ranks."""

    def call(size, command, out, changed=None):
        start(workers[:size], command, out, changed)
        return [worker.answer() for worker in workers[:size]]

    return call


def contents(folder):
    """The bytes of all results; the summary without its seconds."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}
    summary = json.loads((folder / "summary.json").read_text())
    return found, {key: value for key, value in summary.items() if key != "seconds"}


@pytest.mark.parametrize("command", [SAMPLE, LIKELIHOOD], ids=["sample", "likelihood"])
def test_any_number_of_processes_writes_the_same_bytes(run, tmp_path, command):
    for size in (1, 2, 3):
        answers = run(size, command, tmp_path / str(size))
        assert [done["status"] for done in answers] == [0] * size, answers
        assert answers[0]["out"]
        assert {done["out"] + done["err"] for done in answers[1:]} <= {""}
        assert contents(tmp_path / str(size)) == contents(tmp_path / "1")
    again = run(2, command, tmp_path / "1")
    assert [done["status"] for done in again] == [0, 0]


def test_more_processes_than_batches(run, tmp_path):
    first, *others = run(3, sample(8), tmp_path / "out")
    assert [done["status"] for done in (first, *others)] == [0, 0, 0]
    assert "1 of 3 processes have nothing to do, since there are 2 batches" in first["err"]
    assert {done["err"] for done in others} == {""}


def test_a_share_by_several_processes(run, tmp_path):
    for i in (1, 2):
        answers = run(2, [*SAMPLE, "--shard", f"{i}/2"], tmp_path / f"part{i}")
        assert [done["status"] for done in answers] == [0, 0], answers
    parts = [str(tmp_path / f"part{i}") for i in (1, 2)]
    (done,) = run(1, ["merge", *parts], tmp_path / "merged")
    assert done["status"] == 0, done
    run(1, SAMPLE, tmp_path / "whole")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command": [*SAMPLE, "--seed", "5"]}, "seed is 0 on rank 0 and 5 on rank 1"),
        ({"patches": {"scoresde.output.manifest.__version__": "9.9"}}, "and '9.9' on rank 1"),
        ({"command": sample(14, "digits-ve")}, "the content of the checkpoint is "),
    ],
    ids=["options", "version", "checkpoint"],
)
def test_processes_that_differ_do_not_begin(run, tmp_path, change, words):
    out = tmp_path / "out"
    if "command" in change:
        change = {"command": [*change["command"], "--out", str(out)]}
    for done in run(2, SAMPLE, out, {1: change}):
        assert done["status"] in (1, 2)
        assert done["err"].count("\n") == 1
        assert words in done["err"]
    assert not out.exists()


def test_an_error_ends_all_with_its_message_and_loses_nothing(run, tmp_path):
    """Rank 0 waits in its first batch when rank 1 fails in its second."""
    out, began = tmp_path / "out", time.monotonic()
    cases = {0: {"wait": 3}, 1: {"fail_at": 1}}
    answers = run(2, SAMPLE, out, cases)
    assert time.monotonic() - began < 60
    assert [done["status"] for done in answers] == [1, 1], answers
    assert answers[0]["err"].endswith("error: rank 1: eps is not finite at t=0.25\n")
    assert answers[1]["err"] == "error: eps is not finite at t=0.25\n"
    kept = {path.name for path in (out / "parts").iterdir()}
    assert "00000004.npz" in kept
    (done,) = run(1, SAMPLE, out, {0: {"fail_at": 4 - len(kept)}})  # one more batch would fail
    assert done["status"] == 0, done


def test_results_of_other_settings_are_refused_by_all(run, tmp_path):
    run(1, [*SAMPLE, "--seed", "3"], tmp_path / "out")
    for done in run(2, SAMPLE, tmp_path / "out"):
        assert done["status"] in (1, 2)
        assert "holds results with seed = 3, not 0" in done["err"]
        assert done["err"].count("\n") == 1


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_noticed_and_nothing_finished_is_lost(workers, tmp_path, victim):
    def parts():
        return len(list(tmp_path.glob("out/parts/*.npz"))) >= 3

    killed(workers, victim, sample(80), tmp_path / "out", parts)
    assert parts()
    assert not list(tmp_path.glob("out/*.npz"))


def test_a_killed_process_ends_the_comparison_and_its_cells_are_kept(workers, run, tmp_path):
    """Each cell is timed very often, so that it takes seconds."""
    out, runs = tmp_path / "out", "scoresde.comparison.measure.RUNS"
    slow = {"patches": {"scoresde.distributed.watch.SILENCE": 3.0, runs: 20}}
    command = ["bench", "--checkpoint=digits-vp", "--samplers=ddim,ancestral", "--nfe=3,4", "--n=4"]
    command += ["--reference-tolerance=none", "--metrics=mmd2"]
    start(workers[:2], command, out, {0: slow, 1: slow})
    until = time.monotonic() + 150
    while len(kept := list(out.glob("parts/cells/*.npz"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    workers[1].kill()
    began = time.monotonic()
    done = workers[0].answer()
    assert time.monotonic() - began < 60
    assert done["status"] == 1
    assert "error: rank 1: no sign of life" in done["err"]
    assert len(kept) >= 2
    assert not (out / "results.csv").exists()
    (done,) = run(1, [*command, "--plan", "--json"], out)
    states = [cell["state"] for cell in json.loads(done["out"])["cases"][0]["cells"]]
    assert states.count("done") == len(list(out.glob("parts/cells/*.npz")))


def train(steps, *options, batch=16):
    """The command that trains a small network, with dropout, on given batches."""
    changes = {"steps": steps, "batch": batch, "warmup": 0, "cooldown": 0, "validation": 0.1}
    sets = [f"--set=train.{name}={value}" for name, value in changes.items()]
    return ["train", "--config=digits_vp", "--set=net.dropout=0.2", *sets, *options]


def averaged(folder):
    """The averaged weights of a run, and the loss on held-out data."""
    raw = read_checkpoint(folder / "checkpoint.safetensors")
    values = [v.flatten() for k, v in sorted(raw.tensors.items()) if k.startswith("model.")]
    return torch.cat(values), raw.metadata["best"]["loss"]


def test_any_number_of_processes_trains_the_same_network(run, tmp_path):
    for size in (1, 2, 3):
        out = tmp_path / str(size)
        answers = run(size, train(10), out)
        assert [done["status"] for done in answers] == [0] * size, answers
        assert {done["out"] + done["err"] for done in answers[1:]} <= {""}
    answers = run(3, train(20), tmp_path / "2")  # resumed by another number of processes
    assert [done["status"] for done in answers] == [0, 0, 0], answers
    assert "resuming after step 10 of 20" in answers[0]["err"]
    for size in (1, 3):
        run(1, train(20), tmp_path / str(size))
    weights, loss = averaged(tmp_path / "1")
    for size in (2, 3):
        others, other_loss = averaged(tmp_path / str(size))
        assert torch.allclose(others, weights, rtol=1e-5, atol=1e-5)
        assert other_loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    ("command", "changed", "words"),
    [
        (train(10), train(10, "--set=train.seed=5"), "train.seed is 0 on rank 0 and 5 on rank 1"),
        (train(10, batch=1), None, "train.batch must be at least the number of"),
    ],
    ids=["config", "batch"],
)
def test_what_cannot_be_trained_together_does_not_begin(run, tmp_path, command, changed, words):
    out = tmp_path / "out"
    change = {1: {"command": [*changed, "--out", str(out)]}} if changed else None
    for done in run(2, command, out, change):
        assert done["status"] in (1, 2)
        assert words in done["err"], done
        assert done["err"].count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_training_and_any_number_resumes(run, workers, tmp_path, victim):
    saved = tmp_path / "out" / "checkpoint.safetensors"
    done = killed(workers, victim, train(10**5, "--save-every=5"), saved.parent, saved.exists)
    assert done["err"].count("error: ") == 1
    steps = read_checkpoint(saved).metadata["steps_done"]
    assert steps >= 5
    answers = run(2 * victim + 1, train(steps + 2), saved.parent)  # 1 or 3 processes
    assert [one["status"] for one in answers] == [0] * len(answers), answers
    assert f"resuming after step {steps} of {steps + 2}" in answers[0]["err"]


def test_torchrun(tmp_path):
    """torchrun ends the others when a process was killed, and they say which one it was."""
    out, script = tmp_path / "out", Path(sys.executable).with_name("scoresde")
    torchrun = [sys.executable, *("-m", "torch.distributed.run", "--standalone", "--no-python")]
    command = [*torchrun, "--nproc-per-node=2", "--", str(script), *sample(4000), f"--out={out}"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines = f"/proc/{started.pid}/task/{started.pid}/children"
    until = time.monotonic() + 90
    while len(list(out.glob("parts/*.npz"))) < 3 and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(int(Path(lines).read_text().split()[-1]), signal.SIGKILL)
    _, err = started.communicate(timeout=60)
    assert started.returncode != 0
    assert (
        "error: rank 1 is gone without a message: it was killed" in err or "rank 0 is gone" in err
    )
    assert len(list(out.glob("parts/*.npz"))) >= 3
