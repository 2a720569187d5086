"""`scoresde report --diff`, and the choice between it and --run."""

import json

import pytest

COARSE = ("--n", 2, "--sampler", "ddim")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--run: give either --run or --diff"),
        (("--run", ".", "--diff", ".", "."), "--run: give either --run or --diff"),
        (("--run", ".", "--json"), "--json: goes with --diff"),
        (("--diff", "none", "."), "--diff: Directory 'none' does not exist"),
        (("--diff", ".", "."), "holds no results"),
    ],
)
def test_mistakes(scoresde, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = scoresde("report", *arguments)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert message in done.err


@pytest.mark.slow
def test_two_folders_of_samples(scoresde, tiny_checkpoint, tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for out, nfe in ((a, 3), (b, 4)):
        scoresde("sample", "--checkpoint", tiny_checkpoint, *COARSE, "--nfe", nfe, "--out", out)
    done = scoresde("report", "--diff", a, b)
    assert done.status == 0, done.err
    assert "nfe" in done.out
    found = json.loads(scoresde("report", "--diff", a, b, "--json").out)
    assert {"key": "nfe", "a": "3", "b": "4", "matters": "yes"} in found["causes"]
    assert "The folders are equal" in scoresde("report", "--diff", a, a).out
