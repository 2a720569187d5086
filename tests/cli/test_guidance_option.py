"""`--guidance`: its texts, what it is refused for, and the evaluations that are counted."""

import csv
import json

import numpy as np
import pytest
import torch

from scoresde.comparison.request import BenchRequest
from scoresde.guidance import ClassifierFree, Scale
from scoresde.names.guidance import parse_guidance
from scoresde.plain import ConfigError
from scoresde.samplers import DDIM
from scoresde.samplers import sample as draw
from scoresde.tasks.request import StoredModel


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("2", "2"),
        ("2.50:low=0", "2.5"),
        ("cfg:scale=2:rescale=0.7:high=5", "2:high=5:rescale=0.7"),
        ("apg:scale=3:norm=10", "apg:scale=3:norm=10"),
        ("auto:weak=a.safetensors:scale=2", "auto:scale=2:weak=a.safetensors"),
    ],
)
def test_a_text_makes_guidance_and_guidance_a_text(text, short):
    guidance = parse_guidance(text)
    assert str(guidance) == short
    assert parse_guidance(short) == guidance


def test_the_text_in_python_makes_the_same_guidance():
    assert parse_guidance("2.0").in_python("model") == "scoresde.parse_guidance('2').of(model)"
    text = parse_guidance("auto:weak=a:scale=2").in_python("m")
    weak = "weak=scoresde.load('a').model"
    assert text == f"scoresde.parse_guidance('auto:scale=2:weak=a').of(m, {weak})"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cgf:scale=2", "did you mean cfg"),
        ("cfg", "missing scale"),
        ("-1", "scale must be at least 0"),
        ("2:high=1:low=3", "high must be above low"),
        ("2:rescale=2", "rescale must be"),
        ("apg:scale=2:norm=0", "norm must be"),
        ("auto:scale=2", "missing weak"),
        ("2:lwo=1", "did you mean low"),
    ],
)
def test_wrong_texts_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_guidance(text)


def test_samples_are_those_of_the_guided_model_within_the_budget(
    scoresde, dropped_checkpoint, tmp_path
):
    arguments = ["--checkpoint", dropped_checkpoint, "--n", 4, "--nfe", 9, "--sampler", "ddim"]
    done = scoresde("sample", *arguments, "--guidance", "3:high=2", "--out", tmp_path / "a")
    assert done.status == 0, done.err
    found = np.load(tmp_path / "a" / "samples.npz")
    model = ClassifierFree(StoredModel.read(dropped_checkpoint).build(), Scale(3, high=2))
    y = torch.from_numpy(found["labels"])
    same = draw(model, DDIM(), torch.from_numpy(found["ts"]), n=4, y=y, seed=0)
    assert torch.equal(torch.from_numpy(found["x"]), same.x)
    # 9 evaluations are 4 of the guided model: 3 steps and the final denoising. Guidance is left
    # out in the first steps, which then cost one evaluation.
    assert len(found["ts"]) == 4
    assert int(found["nfe"]) == same.nfe < 8
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["guidance"] == "3:high=2"
    # Guidance is a part of what the folder holds.
    done = scoresde("sample", *arguments, "--guidance", "3", "--out", tmp_path / "a")
    assert done.status == 2


def test_autoguidance_takes_a_weaker_checkpoint(scoresde, dropped_checkpoint, tmp_path):
    text = f"auto:scale=2:weak={dropped_checkpoint}"
    arguments = ["--checkpoint", dropped_checkpoint, "--n", 2, "--nfe", 6]
    assert scoresde("sample", *arguments, "--out", tmp_path / "a").status == 0
    done = scoresde("sample", *arguments, "--guidance", text, "--out", tmp_path / "b")
    assert done.status == 0, done.err
    assert int(np.load(tmp_path / "b" / "samples.npz")["nfe"]) == 6
    # The weak model is the strong one, so that the scale has no effect; only the steps are fewer.
    done = scoresde(
        *("sample", "--checkpoint", dropped_checkpoint, "--n", 2, "--nfe", 3),
        *("--out", tmp_path / "c"),
    )
    same = [np.load(tmp_path / name / "samples.npz")["x"] for name in "bc"]
    np.testing.assert_allclose(*same, rtol=0, atol=1e-5)  # float32 rounding of few steps


@pytest.mark.slow
def test_the_likelihood_of_a_guided_model_is_labelled(scoresde, dropped_checkpoint, tmp_path):
    arguments = ["likelihood", "--checkpoint", dropped_checkpoint, "--n", 2, "--measured", 0]
    coarse = ["--rtol", 0.5, "--atol", 0.5, "--t-min", 0.1]
    label = "log p is that of the guided model, which is not p(x) p(y|x)^w"
    for scale, words in ((2, label), (1, None)):
        out = tmp_path / str(scale)
        method = ["--method", "dopri5"] if words is None else []  # that of guided models
        done = scoresde(*arguments, *coarse, *method, "--guidance", scale, "--out", out)
        assert done.status == 0, done
        summary = json.loads((out / "summary.json").read_text())
        assert summary["label"] == words
        assert (label in done.out) == (label in (out / "budget.txt").read_text()) == (scale == 2)


def test_what_cannot_be_guided_is_refused_before_anything_slow(
    refused, no_network, dropped_checkpoint, labelled_checkpoint, tiny_checkpoint
):
    refused(
        ["sample", "--checkpoint", tiny_checkpoint, "--guidance", 2],
        "--guidance: 2 needs a model that takes a condition",
    )
    refused(
        ["sample", "--checkpoint", labelled_checkpoint, "--guidance", "apg:scale=2"],
        "label_dropout above 0",
    )
    dropped = ["sample", "--checkpoint", dropped_checkpoint, "--guidance"]
    refused([*dropped, "auto:scale=2:weak=cifar10-vp"], "weak=cifar10-vp must")
    refused([*dropped, "auto:scale=2:weak=missing"], "missing")
    refused([*dropped, "guide:scale=2"], "--guidance", "allowed: cfg, apg, auto")
    refused([*dropped, "2", "--nfe", 1], "--nfe: 1, but it must be at least 2")
    likelihood = ["likelihood", "--checkpoint", dropped_checkpoint, "--guidance", "2"]
    refused([*likelihood, "--method", "path"], "--method: path needs the score of a density")
    refused([*likelihood, "--against", dropped_checkpoint], "--guidance: cannot be given with")


def test_each_scale_is_a_case_of_a_comparison():
    request = BenchRequest(
        checkpoint="digits-vp", samplers="ddim", nfe=5, guidance=[1, 2.0, "apg:scale=2:norm=3"]
    )
    names = ["guidance1", "guidance2", "guidanceapg-scale=2-norm=3"]
    assert list(request.cases) == names
    assert [case.guide for case in request.cases.values()] == ["1", "2", "apg:scale=2:norm=3"]
    assert {"precision", "recall"} <= set(request.metrics)
    (only,) = BenchRequest(checkpoint="digits-vp", samplers="ddim", nfe=5, guidance=2).cases
    assert only == ""
    with pytest.raises(ValueError, match="guidance 2 is given twice"):
        BenchRequest(checkpoint="digits-vp", samplers="ddim", nfe=5, guidance=[2, "cfg:scale=2.0"])
    with pytest.raises(ValueError, match="likelihood must be 0 with guidance, got 4"):
        BenchRequest(checkpoint="digits-vp", samplers="ddim", nfe=5, guidance=2, likelihood=4)


@pytest.mark.slow
def test_a_comparison_of_scales(scoresde, dropped_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("scoresde.comparison.measure.RUNS", 1)
    monkeypatch.setattr("scoresde.comparison.quality.REFERENCE_CAP", 200)
    out = tmp_path / "out"
    arguments = ["bench", "--checkpoint", dropped_checkpoint, "--samplers", "ddim", "--nfe", "5,6"]
    arguments += ["--n", 8, "--reference-tolerance", "none", "--out", out]
    done = scoresde(*arguments, "--guidance", "1,3")
    assert done.status == 0, done.err
    with open(out / "results.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    nfe = [(row["guidance"], row["nfe_asked"], row["nfe"]) for row in table]
    once = [("1", "5", "5"), ("1", "6", "6")]
    twice = [("3", "5", "4"), ("3", "6", "6")]
    assert nfe == once * 2 + twice * 2  # ddim, and the recommended settings
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "scale w of guidance" in page
    assert "--guidance 1,3" in page
    assert "--guidance 3 --nfe 6" in page  # how to draw such samples
    assert scoresde("report", "--run", out).status == 0
    assert (out / "index.html").read_text(encoding="utf-8") == page
    done = scoresde(*arguments, "--guidance", "1,4")
    assert done.status == 2
