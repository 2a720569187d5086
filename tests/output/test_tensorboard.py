"""Event files, read back by TensorBoard's own reader."""

import importlib.util
import json
from contextlib import closing

import pytest
from PIL import Image

from scoresde.output import tensorboard
from scoresde.output.tensorboard import EVENTS, EventFile, numbers_of
from scoresde.tasks.train.events import add_run

READER = importlib.util.find_spec("tensorboard") is not None
needs_reader = pytest.mark.skipif(not READER, reason="tensorboard is not installed")
# protobuf and TensorBoard warn about themselves
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(google|tensorboard)")


def row(step, **more):
    values = {"loss": 1 / step, "grad_norm": 2.0, "learning_rate": 1e-3, "skipped": 0}
    return {"step": step, **values, "error_by_t": [0.5, None], "seconds": 10.0 * step, **more}


def read(folder):
    """Points of each curve, as (step, wall time, value), and steps of each picture."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = found.Tags()
    curves = {
        t: [(e.step, e.wall_time, e.value) for e in found.Scalars(t)] for t in tags["scalars"]
    }
    return curves, {t: [e.step for e in found.Images(t)] for t in tags["images"]}


def test_the_numbers_of_a_line_are_those_that_are_known():
    found = {"loss": 0.7, "training_loss": None, "error_by_t": [None, 0.2]}
    found |= {"nll": 3.5, "unit": "bits/dim"}
    assert numbers_of(row(4, loss=None, validation=found)) == {
        "error_by_t/t=0.250": 0.5,
        "training/gradient_norm": 2.0,
        "training/learning_rate": 1e-3,
        "training/skipped_steps": 0,
        "loss/held_out": 0.7,
        "held_out_error_by_t/t=0.750": 0.2,
        "likelihood/held_out, bits/dim": 3.5,
    }


def test_without_the_package_one_line_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--tensorboard: .* pip install '.\[tensorboard\]'"):
        EventFile(tmp_path / f"{EVENTS}1")
    assert not any(tmp_path.iterdir())


@needs_reader
def test_lines_and_grids_are_at_their_steps_and_times(tmp_path):
    for step in (3, 5, 9):
        Image.new("RGB", (7, step)).save(tmp_path / f"samples-{step:07d}.png")
    with EventFile(tmp_path / f"{EVENTS}1") as events:
        add_run(events, tmp_path, [row(2), row(4)], began=1000.0)
        add_run(events, tmp_path, [row(6)], began=1000.0, after=4)
        events.picture(6, 1060.0, "pictures/sampling", tmp_path / "samples-0000003.png")
    curves, pictures = read(tmp_path)
    points = [(2, 1020.0, 0.5), (4, 1040.0, 0.25), (6, 1060.0, pytest.approx(1 / 6))]
    assert curves["loss/training"] == points
    assert pictures == {"pictures/samples": [3, 5], "pictures/sampling": [6]}


@needs_reader
def test_a_later_file_replaces_the_points_of_an_earlier_one(tmp_path):
    """As when a run was stopped after step 6 and resumed from its checkpoint of step 4."""
    for number, steps in enumerate([(2, 4, 6), (2, 4, 5)]):
        with EventFile(tmp_path / f"{EVENTS}{number}") as events:
            add_run(events, tmp_path, [row(step) for step in steps], began=1000.0 * number)
    found = [(step, wall) for step, wall, _ in read(tmp_path)[0]["loss/training"]]
    assert found == [(2, 1020.0), (4, 1040.0), (5, 1050.0)]


CONFIG = """
[data]
name = "mixture3"
[sde]
kind = "vp"
[net]
kind = "mlp"
width = 8
depth = 1
[train]
steps = 9
batch = 8
warmup = 1
"""


@pytest.mark.slow
@needs_reader
def test_a_resumed_run_has_each_step_once_and_can_be_watched(tmp_path, monkeypatch):
    from scoresde.tasks.train.events import steps_with_events
    from scoresde.tasks.train.files import Intervals
    from scoresde.tasks.train.prepare import prepare_run

    monkeypatch.setattr("scoresde.tasks.train.run.draw_losses", lambda *_: None)
    (tmp_path / "c.toml").write_text(CONFIG)
    folder, every = tmp_path / "run", Intervals(log_every=1, save_every=4)

    def steps():
        return [step for step, *_ in read(folder)[0]["loss/training"]]

    run = prepare_run(tmp_path / "c.toml", folder, intervals=every)
    loop = steps_with_events(run)
    for progress in loop:
        if progress.step.step == 3:
            assert steps() == [1, 2, 3]  # while it trains
        if progress.step.step == 6:
            break
    loop.close()  # saves at step 6
    run = prepare_run(tmp_path / "c.toml", folder, intervals=every)
    assert run.done == 6
    assert [p.step.step for p in steps_with_events(run)] == [7, 8, 9]
    assert steps() == list(range(1, 10))
    assert len([*folder.glob(f"{EVENTS}*")]) == 1
    lines = (folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == steps()
    again = prepare_run(tmp_path / "c.toml", folder, overwrite=True, intervals=every)
    with closing(again.steps()) as loop:
        next(loop)
    assert not [*folder.glob(f"{EVENTS}*")]  # a new run removes the events of the old one
