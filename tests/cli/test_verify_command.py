"""`scoresde verify`."""

import json

import pytest

from scoresde.samplers import DPMSolverMultistep
from scoresde.verification import prepare


@pytest.mark.slow
def test_every_kind_of_claim_is_measured(scoresde):
    """Whether all claims hold is tested in `tests/verification/test_verify.py`."""
    samplers = "dpmpp-3m-copied,ancestral,euler-maruyama,dopri5,gotta-go-fast"
    done = scoresde("verify", "--quick", "--sdes", "vp", "--samplers", samplers)
    assert done.status == 0, done.err
    assert "MISSED" not in done.out
    assert max(map(len, done.out.splitlines())) <= 100
    for text in ("dpmpp-3m-copied", "weak", "strong", "≤ 20 tol", "no claim"):
        assert text in done.out


def test_a_broken_sampler_is_named_in_the_last_line(scoresde, monkeypatch):
    """3M with half of its third-order term, as it is copied everywhere."""

    def broken(self, order, nodes):
        return row(type(self)(3, self.prediction, copied=True), order, nodes)

    row = DPMSolverMultistep._row
    monkeypatch.setattr(DPMSolverMultistep, "_row", broken)
    done = scoresde("verify", "--quick", "--sdes", "vp", "--samplers", "dpmpp-3m,ddim")
    assert done.status == 1
    last = done.err.splitlines()[-1]
    assert last.startswith("error: missed: dpmpp-3m (ode, vp/alternating) observed ")
    assert "ddim" not in last
    assert "MISSED" in done.out


def test_json_and_a_folder(scoresde, tmp_path):
    command = ["verify", "--quick", "--samplers", "ddim", "--sdes", "ve,subvp", "--json"]
    done = scoresde(*command, "--out", tmp_path / "out")
    assert done.status == 0
    found = json.loads(done.out)
    assert {row["sde"] for row in found["rows"]} == {"ve", "subvp"}
    assert found == json.loads((tmp_path / "out" / "results.json").read_text())
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["errors.png", "results.csv", "results.json", "scoresde.json"]


@pytest.mark.slow
def test_a_network_is_measured_and_fails_nothing(scoresde, points_checkpoint):
    arguments = ["--checkpoint", points_checkpoint, "--samplers", "ddim,heun"]
    done = scoresde("verify", *arguments, "--json")
    assert done.status == 0
    rows = {row["sampler"]: row for row in json.loads(done.out)["rows"]}
    assert {row["verdict"] for row in rows.values()} == {"no claim"}
    # a small network of smooth functions: the orders show
    assert rows["ddim"]["observed"] == pytest.approx(1, abs=0.2)
    assert rows["heun"]["observed"] == pytest.approx(2, abs=0.3)
    assert rows["heun"]["nfe"] == [20, 40, 80, 160, 320]


def test_labels_are_bound(scoresde, labelled_checkpoint, monkeypatch):
    """A call of this network without labels is an error, so that a few coarse steps suffice."""
    monkeypatch.setattr(prepare, "NETWORK_TOLERANCE", 1e-2)
    monkeypatch.setattr(prepare, "NETWORK_STEPS", (2, 3, 4))
    done = scoresde("verify", "--checkpoint", labelled_checkpoint, "--samplers", "unknown")
    assert done.status == 2
    done = scoresde("verify", "--checkpoint", labelled_checkpoint, "--samplers", "ddim")
    assert done.status == 0, done.err
    assert "on a network" in done.out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--samplers", "dimm"], ["dimm", "did you mean ddim"]),
        (["--samplers", "ddim,"], ["--samplers", "empty entry"]),
        (["--sdes", "subv"], ["did you mean subvp"]),
        (["--sdes", "vp,ve,vp"], ["--sdes: vp is given twice"]),
        (["--samplers", "ddim,ddim"], ["--samplers: ddim is given twice"]),
        (["--checkpoint", "digits-vq"], ["digits-vq", "did you mean"]),
        (["--like", "ddim"], ["--like needs --sampler"]),
        (["--limit", "9"], ["--limit needs --sampler"]),
        (["--sampler", "ddim", "--limit", "0"], ["--limit: 0 is not a finite number above 0"]),
        (["--sampler", "ddim"], ["--out has no effect with --sampler"]),
        (["--sampler", "verified_elsewhere:x"], ["no module 'verified_elsewhere'"]),
    ],
)
def test_mistakes(refused, arguments, parts):
    refused(["verify", *arguments], *parts)


OWN = """
import time

def returns_nothing(denoiser, x, sigmas):
    print("a step")
    denoiser(x, sigmas[0])

def never_ends(denoiser, x, sigmas):
    while True:
        time.sleep(1)
"""


def test_samplers_of_the_working_folder(scoresde, tmp_path, monkeypatch):
    (tmp_path / "verified_here.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    done = scoresde("verify", "--sampler", "verified_here:returns_nothing", "--json")
    assert (done.status, done.err.splitlines()[-1]) == (1, "error: failed: call")
    found = json.loads(done.out)  # what the sampler prints goes to stderr
    assert found["sampler"] == "returns_nothing"
    assert "must return a tensor (49, 2), got NoneType" in found["findings"][0]["measured"]
    done = scoresde("verify", "--sampler", "verified_here:never_ends", "--limit", "0.1")
    assert (done.status, "not ended after 0.1 s" in done.out) == (1, True)
    done = scoresde("verify", "--sampler", "ddim", "--like", "ancestral")
    assert done.status == 2
    assert done.err.startswith("error: like must be a deterministic sampler on a grid")


def test_rounded_labels_have_no_ode(refused, snapped_checkpoint):
    refused(["verify", "--checkpoint", snapped_checkpoint], "labels are rounded")
