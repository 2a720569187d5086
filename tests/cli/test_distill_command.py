"""`scoresde distill`, and what the other commands do with a student."""

import csv
import json

import numpy as np
import pytest
import torch

from scoresde import load, sample
from scoresde.checkpoint import read_checkpoint
from scoresde.distillation.student import loss_of
from scoresde.tasks.students.request import DistillRequest, read_teacher
from scoresde.tasks.students.runs import student_runs
from scoresde.tasks.train.files import CHECKPOINT

TWO = ("--method", "progressive:steps=1:start=4", "--steps", 3, "--batch", 8)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """No grids of samples and no figures, half a second each."""
    monkeypatch.setattr("scoresde.tasks.train.run.draw_losses", lambda *_: None)
    monkeypatch.setattr("scoresde.tasks.train.run.can_show", lambda _: False)


def test_students_are_trained_one_after_the_other_and_resumed(
    scoresde, points_checkpoint, tmp_path
):
    out, command = tmp_path / "a", ("distill", "--checkpoint", points_checkpoint, *TWO)
    done = scoresde(*command, "--out", out)
    assert done.status == 0, done.err
    assert "a student of 2 steps" in done.err
    assert "a student of 1 steps" in done.err
    assert done.out.split() == [str(out / CHECKPOINT)]
    again = scoresde(*command, "--out", out)
    assert again.err.count("all 3 steps are done") == 2
    first, last = (read_checkpoint(p / CHECKPOINT) for p in (out / "student-2", out))
    about = last.metadata["config"]["distilled"]
    assert (about["steps"], about["teacher"]) == (1, first.sha256)
    assert (
        first.metadata["config"]["distilled"]["teacher"]
        == read_checkpoint(points_checkpoint).sha256
    )
    assert "objective" not in last.metadata["config"]
    # A run that is stopped in its second student goes on to the same weights.
    request = DistillRequest(str(points_checkpoint), TWO[1], 3, 8)
    for run in student_runs(request, tmp_path / "b"):
        steps = run.steps()
        for _ in range(3 if run.model.distilled.steps == 2 else 2):
            next(steps)
        steps.close()
    assert scoresde(*command, "--out", tmp_path / "b").status == 0
    resumed = read_checkpoint(tmp_path / "b" / CHECKPOINT)
    for name, value in last.tensors.items():
        assert torch.equal(value, resumed.tensors[name]), name
    other = scoresde(*command, "--out", out, "--learning-rate", 1e-2)
    assert other.status == 2
    assert "was made with config train.learning_rate = 0.001" in other.err


def test_a_student_starts_as_its_teacher_and_is_used_by_the_other_commands(
    scoresde, tiny_checkpoint, tmp_path
):
    out = tmp_path / "student"
    options = ("--method", "consistency:first=4:last=8", "--steps", 1, "--batch", 4)
    done = scoresde("distill", "--checkpoint", tiny_checkpoint, *options, "--out", out)
    assert done.status == 0, done.err
    path, student = out / CHECKPOINT, load(out / CHECKPOINT).model
    assert student.distilled.kind == "consistency"
    run = next(student_runs(DistillRequest(str(tiny_checkpoint), "consistency"), tmp_path / "new"))
    teacher = load(tiny_checkpoint).model.net.state_dict()
    for name, value in run.model.net.state_dict().items():
        assert torch.equal(value, teacher[name]), name
    drawing = ("sample", "--checkpoint", path, "--n", 2)
    done = scoresde(*drawing, "--nfe", 2, "--out", tmp_path / "s", "--json")
    assert json.loads(done.out)["nfe"] == 2
    x = sample(student, n=2, nfe=2, seed=0).x
    np.testing.assert_allclose(np.load(tmp_path / "s" / "samples.npz")["x"], x, atol=1e-6)
    refused = {
        ("--sampler", "heun"): "--sampler: heun, but it must be Consistency",
        ("--grid", "karras"): "--grid: karras is of no use",
        ("--guidance", "2"): "guide its teacher",
    }
    for option, message in refused.items():
        done = scoresde(*drawing, *option, "--out", tmp_path / "x")
        assert (done.status, message in done.err) == (2, True), done.err
    for command in ("likelihood", "latent"):
        done = scoresde(command, "--checkpoint", path, "--n", 2, "--out", tmp_path / "x")
        assert done.status == 2
        assert "has no score for" in done.err
    done = scoresde("distill", "--checkpoint", path, "--out", tmp_path / "x")
    assert (done.status, "is a student (consistency) already" in done.err) == (2, True)
    assert not (tmp_path / "x").exists()


def test_a_guided_teacher_is_learned_with_its_conditions(dropped_checkpoint):
    """The teacher of the loss is the guided model under the condition of the data."""
    text = "consistency:first=2:last=2"
    request = DistillRequest(str(dropped_checkpoint), text, 1, 4, guidance="3")
    stored, given = read_teacher(request)
    run = next(student_runs(request, dropped_checkpoint.parent / "guided"))
    student, loss = run.model, run.training.objective
    assert not student.unconditional
    assert student.distilled.guidance == "3"
    assert run.settings.label_dropout == 0
    x0, eps = torch.zeros(3, 1, 8, 8), torch.ones(3, 1, 8, 8)
    u, y = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), torch.tensor([1, 2, 3])
    bound = student.given(y)
    found = loss(bound, x0, u, eps)
    want = loss_of(student.distilled, given.build().given(y))(bound, x0, u, eps)
    assert torch.equal(found[0], want[0])
    weak = loss_of(student.distilled, stored.build().given(y))(bound, x0, u, eps)
    assert not torch.allclose(found[0], weak[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "progressive:steps=3"), "steps must be a power of two, got 3"),
        (("--method", "progresive"), "did you mean progressive"),
        (("--method", "consistency-training", "--guidance", "2"), "has no teacher to guide"),
        (("--batch", 10**7), "--batch: must be at most the"),
        (("--data", "nowhere.npz"), "nowhere.npz"),
    ],
)
def test_bad_input_is_one_line(scoresde, points_checkpoint, tmp_path, options, message):
    out = tmp_path / "x"
    done = scoresde("distill", "--checkpoint", points_checkpoint, *options, "--out", out)
    assert done.status == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not out.exists()


def test_a_teacher_with_rounded_labels_is_refused(scoresde, snapped_checkpoint, tmp_path):
    done = scoresde("distill", "--checkpoint", snapped_checkpoint, "--out", tmp_path / "x")
    assert (done.status, "has rounded labels" in done.err) == (2, True)


@pytest.mark.slow
def test_a_student_is_compared_with_its_teacher(scoresde, points_checkpoint, tmp_path):
    """Within each budget by its own settings; other samplers are left out with a reason."""
    out = tmp_path / "student"
    assert scoresde("distill", "--checkpoint", points_checkpoint, *TWO, "--out", out).status == 0
    models = [f"teacher={points_checkpoint}", f"student={out / 'student-2' / CHECKPOINT}"]
    options = ["--checkpoint", models[0], "--checkpoint", models[1], "--samplers", "ddim"]
    options += ["--metrics", "sliced_w2", "--reference-tolerance", "none", "--n", 32]
    done = scoresde("bench", *options, "--nfe", "1,2,4", "--out", tmp_path / "bench")
    assert done.status == 0, done.err
    with open(tmp_path / "bench" / "results.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "student"]
    own = {row["nfe_asked"]: row["nfe"] for row in rows if row["sampler"] == "recommended"}
    assert own == {"1": "1", "2": "2", "4": "2"}
    others = [row for row in rows if row["sampler"] == "ddim"]
    assert {row["status"] for row in others} == {"skipped"}
    assert all("its own sampler and times" in row["reason"] for row in others)
