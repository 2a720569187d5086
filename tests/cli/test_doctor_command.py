"""`scoresde doctor`: the verdict, the files, the corrected checkpoint, and bad inputs."""

import json
from dataclasses import replace

import pytest

from scoresde import load
from scoresde.checkpoint import read_checkpoint, save_checkpoint
from scoresde.shipped import locate
from scoresde.verification.diagnosis.correction import corrected
from scoresde.verification.diagnosis.reading import reading_of


@pytest.fixture
def wrong(tmp_path):
    """digits-vp whose metadata claim that its network predicts v."""
    raw = read_checkpoint(locate("checkpoints", "digits-vp"))
    raw.metadata["config"]["preconditioning"]["target"] = "v"
    path = tmp_path / "wrong.safetensors"
    save_checkpoint(path, raw.tensors, raw.metadata)
    return path


@pytest.mark.slow
def test_a_wrong_target_is_named_and_corrected(scoresde, wrong, tmp_path):
    out, fixed = tmp_path / "out", tmp_path / "fixed.safetensors"
    before = wrong.read_bytes()
    done = scoresde("doctor", wrong, "--n", 8, "--out", out, "--fix", fixed)
    assert done.status == 1, done
    assert f"{wrong}: the network predicts EDM's F, not v" in done.out
    assert "what to do: set preconditioning.target" in done.out
    assert done.err.startswith("error: the network predicts EDM's F, not v")
    report = json.loads((out / "doctor.json").read_text())
    assert report["healthy"] is False
    assert report["mistakes"] == ["the network predicts EDM's F, not v"]
    assert {path.name for path in out.iterdir()} >= {"doctor.json", "doctor.txt", "doctor.png"}
    assert wrong.read_bytes() == before
    assert load(fixed).model.preconditioning.target == "edm"
    assert load(fixed).metadata["provenance"]["corrected from"] == load(wrong).sha256
    again = scoresde("doctor", wrong, "--n", 8, "--out", out, "--json")
    assert json.loads(again.out)["mistakes"] == report["mistakes"]


# What is wrong in the metadata, as keys of `config.preconditioning` or of `data`.
FIXABLE = {
    "target": ("preconditioning", {"target": "x0"}),
    "label": ("preconditioning", {"label": "sigma"}),
    "range": ("data", {"low": 0.0, "high": 1.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXABLE)
def test_the_doctor_is_content_with_what_it_wrote(scoresde, tmp_path, name):
    raw = read_checkpoint(locate("checkpoints", "digits-vp"))
    part, changed = FIXABLE[name]
    (raw.metadata if part == "data" else raw.metadata["config"])[part].update(changed)
    wrong, fixed = tmp_path / "wrong.safetensors", tmp_path / "fixed.safetensors"
    save_checkpoint(wrong, raw.tensors, raw.metadata)
    done = scoresde("doctor", wrong, "--n", 8, "--fix", fixed)
    assert done.status == 1, done
    again = scoresde("doctor", fixed, "--n", 8)
    assert again.status == 0, again
    assert again.out.startswith(f"{fixed}: no mistake found")


def test_what_metadata_can_say_is_corrected(tmp_path):
    raw = read_checkpoint(locate("checkpoints", "digits-vp"))
    claim = reading_of(load("digits-vp").model).claim
    shifted = replace(claim, meaning=replace(claim.meaning, label_offset=1.0))
    save_checkpoint(tmp_path / "a.safetensors", raw.tensors, corrected(raw, claim, shifted))
    stated = load("digits-vp").model.preconditioning
    fixed = load(tmp_path / "a.safetensors").model.preconditioning
    assert fixed == replace(stated, label_offset=1.0)
    turned = replace(claim, meaning=replace(claim.meaning, reversed=True))
    with pytest.raises(ValueError, match="no metadata of a checkpoint say a reversed label"):
        corrected(raw, claim, turned)


BAD = [
    (["none"], ["checkpoint: none: neither a file nor a shipped checkpoint"]),
    (["digits-vp", "--n", "7"], ["--n: 7 is not an integer at least 8"]),
    (["digits-vp", "--n", "1000"], ["--n: 1000 is more than the 297 of digits (test)"]),
    (["digits-vp", "--data", "moons"], ["--data: moons has shape (2,)"]),
    (["digits-vp", "--fix", "no/such.safetensors"], ["--fix: no is no folder"]),
    (["digits-vp", "--fix", "here.txt"], ["--fix: here.txt exists already; name a new file"]),
]


@pytest.mark.parametrize(("arguments", "parts"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_inputs_are_one_line(scoresde, tmp_path, monkeypatch, no_network, arguments, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("")
    done = scoresde("doctor", *arguments)
    assert done.status == 2, done
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for part in parts:
        assert part in done.err
