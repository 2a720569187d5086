"""Options of `scoresde bench` and `scoresde merge`: the file, several values, and mistakes."""

import json
import tomllib

import click
import pytest
from scoresde_cli.bench import KEYS, bench
from scoresde_cli.types import Commas

from scoresde.comparison.expected import plan_table
from scoresde.comparison.request import BenchRequest
from scoresde.metrics import sliced_wasserstein
from scoresde.shipped import comparison_template, locate, shipped


def of_bench():
    return {param.name: param for param in bench.params if param.name in KEYS}


def test_the_template_has_every_key_with_its_default(scoresde):
    assert scoresde("bench", "--new-config").out == comparison_template()
    lines = [line for line in comparison_template().splitlines() if " = " in line]
    given = tomllib.loads("\n".join(line for line in lines if not line.startswith("#")))
    absent = tomllib.loads("\n".join(line[2:] for line in lines if line.startswith("# ")))
    assert sorted({**given, **absent}) == sorted(KEYS)
    for name, param in of_bench().items():
        if name in given and name != "checkpoint":
            several = isinstance(param.type, Commas)
            values = param.type.read(param.default) if several else param.default
            assert given[name] == (list(values) if several else values), name


@pytest.mark.parametrize("name", shipped("comparisons"))
def test_shipped_comparisons_are_sound(name):
    values = tomllib.loads(locate("comparisons", name).read_text(encoding="utf-8"))
    assert values.keys() <= set(KEYS)
    request = BenchRequest(**values)
    for one in request.checkpoint.values():
        assert locate("checkpoints", one).exists()


def test_a_file_gives_options_and_the_command_line_replaces_them(
    scoresde, points_checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setitem(sliced_wasserstein.__kwdefaults__, "projections", 16)
    file = tmp_path / "mine.toml"
    text = f'checkpoint = ["A={points_checkpoint}"]\nsamplers = ["ddim", "heun"]\nnfe = [4, 6]\n'
    file.write_text(text + 't_min = [1e-2, 1e-3]\nreference_tolerance = "none"\nn = 8\n')
    plan = ("bench", "--config", file, "--nfe", 5, "--plan")
    found = scoresde(*plan, "--json")
    assert found.status == 0, found.err
    assert "--out: must be given" in scoresde(*plan[:-1]).err
    cells = json.loads(found.out)["cases"][0]["cells"]
    assert [cell["cell"] for cell in cells] == [
        *("ddim log_snr:t_min=0.01 NFE ≤ 5", "ddim log_snr:t_min=0.001 NFE ≤ 5"),
        *("heun log_snr:t_min=0.01 NFE ≤ 5", "heun log_snr:t_min=0.001 NFE ≤ 5"),
        cells[-1]["cell"],
    ]
    assert list(tmp_path.iterdir()) == [file]
    lines = plan_table(json.loads(found.out)).splitlines()
    assert lines[0] == f"{points_checkpoint}: 8 samples per cell, seed 0"
    assert lines[-1].startswith("plan: 5 of 5 cells to do, 25 evaluations of each sample and")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('sampler = "ddim"', "mine.toml: sampler is unknown; did you mean samplers?"),
        ("n = 3", "mine.toml: n: 3 is not an integer at least 4"),
        ("n = 4.5", "mine.toml: n: '4.5' is not an integer"),
        ("n = [4]", "mine.toml: n must be one value, got a list"),
        ("nfe = []", "mine.toml: nfe must have at least one value"),
        ("nfe = [true]", "mine.toml: nfe must be texts or numbers"),
        ("nfe = [0]", "mine.toml: nfe: 0 is not an integer at least 1"),
        ('labels = ["all"]', "mine.toml: labels: labels 'all' is unknown"),
        ('t_min = [0.5, "x"]', "mine.toml: t_min: x is not a number above 0 and below 1"),
        ("n = ", "mine.toml: is not TOML"),
    ],
)
def test_mistakes_in_the_file(scoresde, tmp_path, text, message):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    done = scoresde("bench", "--config", file, "--checkpoint", "digits-vp", "--out", tmp_path / "o")
    assert done.status == 2
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "3/2"], "--shard: '3/2' is not of the form i/n with i from 1 to n"),
        (["--time-limit", "0m"], "--time-limit: '0m' is not a time above 0, such as 90s"),
        (["--seeds", "0,-1"], "--seeds: -1 is not an integer at least 0"),
        (["--reference-tolerance", "0.1"], "0.1 is not a number above 0 and below 0.1, or none"),
        (["--checkpoint", "a b=digits-vp"], "--checkpoint: 'a b' is not a name"),
        (["--checkpoint", "A=digits-v"], "neither a file nor a shipped checkpoint"),
        (["--features", "foo"], "features must be auto, cnn, efficientnet_lite0, inception:PATH, "),
        (["--features", "inception:no.pth"], "features inception:no.pth: there is no file no.pth"),
        (["--metrics", "mmd"], "--metrics: metric 'mmd' is unknown; did you mean mmd2?"),
        (["--reuse", "none"], "--reuse: Directory 'none' does not exist"),
        (["--config", "digit"], "--config: digit: neither a file nor a shipped comparison"),
    ],
)
def test_mistakes_in_options(scoresde, tmp_path, options, message):
    done = scoresde("bench", "--checkpoint", "digits-vp", *options, "--out", tmp_path / "o")
    assert done.status == 2
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_merge_needs_folders_of_shares(scoresde, tmp_path):
    (tmp_path / "empty").mkdir()
    done = scoresde("merge", tmp_path / "empty", "--out", tmp_path / "out")
    assert done.status == 2
    assert "holds no results of this version of scoresde" in done.err
    absent = scoresde("merge", tmp_path / "absent", "--out", tmp_path / "out")
    assert (absent.status, "absent: no such folder" in absent.err) == (2, True)
    assert scoresde("merge", "--out", tmp_path / "out").status == 2


def test_the_help_shows_every_option_once():
    groups = [name for names in bench.groups.values() for name in names]
    assert len(groups) == len(set(groups))
    with click.Context(bench) as ctx:
        assert set(groups) <= {p.opts[0] for p in bench.get_params(ctx)}
