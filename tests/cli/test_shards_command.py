"""`--shard i/n` of `sample` and `likelihood`, and `scoresde merge`."""

import json

import pytest

from scoresde.tasks import sampling
from scoresde.tasks.likelihood import scoring, task

LIKELIHOOD = [
    *("likelihood", "--n", 5, "--batch", 2, "--measured", 1, "--steps", 2, "--nodes", 4),
    *("--trace", "hutchinson:probes=2", "--t-min", 0.5),
]
SAMPLE = ["sample", "--n", 5, "--batch", 2, "--sampler", "ddim", "--steps", 2]


def contents(folder):
    """The bytes of all results; the summary without its seconds."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}
    summary = json.loads((folder / "summary.json").read_text())
    return found, {key: value for key, value in summary.items() if key != "seconds"}


@pytest.fixture
def make(scoresde, tiny_checkpoint, tmp_path):
    """make("a", *command): run a command into the folder a; its path and its output."""

    def call(name, command, *options, checkpoint=tiny_checkpoint):
        out = tmp_path / name
        return out, scoresde(*command, "--checkpoint", checkpoint, *options, "--out", out)

    return call


@pytest.fixture
def shares(make):
    """shares(SAMPLE, 3): the folders of all shares."""

    def call(command, n):
        made = [make(f"{i} of {n}", command, "--shard", f"{i}/{n}") for i in range(1, n + 1)]
        assert [done.status for _, done in made] == [0] * n, made
        assert made[0][1].out.startswith(f"share 1/{n}: ")
        return [folder for folder, _ in made]

    return call


@pytest.mark.parametrize("command", [SAMPLE, LIKELIHOOD], ids=["sample", "likelihood"])
def test_merged_shares_are_a_single_run(make, shares, scoresde, tmp_path, monkeypatch, command):
    monkeypatch.setattr("scoresde.tasks.likelihood.method.FITTED", 50)
    for picture in ("save_budget", "extremes"):  # they cost more than the rest
        monkeypatch.setattr(f"scoresde.tasks.likelihood.files.{picture}", lambda *_: None)
    whole, _ = make("whole", command)
    folders = shares(command, 3)
    monkeypatch.setattr(sampling, "sample", None)  # nothing is computed
    monkeypatch.setattr(scoring, "likelihood_budget", None)
    monkeypatch.setattr(task.Scoring, "built", None)
    done = scoresde("merge", *reversed(folders), "--out", tmp_path / "merged")
    assert done.status == 0, done.err
    assert contents(tmp_path / "merged") == contents(whole)
    assert (tmp_path / "merged").joinpath("scoresde.json").is_file()
    # the merged results are those of the command itself
    assert make("merged", command)[1].status == 0


def test_shares_that_do_not_make_a_whole(make, shares, scoresde, tmp_path):
    one, two, three = shares(SAMPLE, 3)
    other, _ = make("other", SAMPLE, "--shard", "2/3", "--seed", 1)
    whole, _ = make("whole", SAMPLE)
    damaged = tmp_path / "damaged"
    three.rename(damaged)
    path = damaged / "00000004.npz"
    path.write_bytes(path.read_bytes()[:-1])
    for folders, words in (
        ([one, two], "no folder holds the share 3/3"),
        ([one, two, two], f"{two} and {two} both hold the share 2/3"),
        ([one, other], f"{other} does not belong to the results of {one}: it holds results with "),
        ([one, whole], f"{whole}: holds no share"),
        ([whole, one], f"{whole}: holds no share"),
        ([one, tmp_path / "merged"], f"{tmp_path / 'merged'} is one of the shares"),
        ([one, two, damaged], f"{path} is missing or damaged"),
    ):
        done = scoresde("merge", *folders, "--out", tmp_path / "merged")
        assert done.status == 2
        assert words in done.err
        assert done.err.count("\n") == 1
        assert not (tmp_path / "merged").exists()


def test_a_share_without_batches(make):
    out, done = make("out", SAMPLE, "--shard", "4/4")
    assert done.status == 2
    assert "--shard: 4/4 has nothing to do, since there are 3 batches in all" in done.err
    assert not out.exists()


def test_a_share_does_not_bring_code(make, scoresde, tmp_path, monkeypatch):
    """A folder from someone else would name a module to be imported."""
    (tmp_path / "mine.py").write_text(
        "from scoresde.samplers import DDIM\n\n\nclass Mine(DDIM):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = ["sample", "--n", 1, "--steps", 2, "--sampler", "mine:Mine"]
    share, done = make("share", own, "--shard", "1/1")
    assert done.status == 0, done.err
    merge = ["merge", share, "--out", tmp_path / "merged"]
    done = scoresde(*merge)
    assert done.status == 2
    assert "names code of its maker, --sampler mine:Mine; give --own-code to run it" in done.err
    assert scoresde(*merge, "--own-code").status == 0


def test_a_stopped_sample_goes_on(make, monkeypatch):
    """Finished batches are not drawn again, and the bytes are those of a run in one go."""
    whole, _ = make("whole", SAMPLE)
    draw, drawn = sampling.sample, []

    def stopped(*args, **settings):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(settings["noise"].indices)
        return draw(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "sample", stopped)
        out, done = make("out", SAMPLE)
    assert done.status == 130
    assert "the same command continues with the rest" in done.err
    drawn.clear()
    monkeypatch.setattr(sampling, "sample", stopped)
    assert make("out", SAMPLE)[1].status == 0
    assert [list(rows) for rows in drawn] == [[4]]
    assert contents(out) == contents(whole)
