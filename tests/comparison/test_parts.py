"""Parts of a comparison: shares, the time limit, kills and merging all lead to one result."""

import csv
import json
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

import scoresde
from scoresde.comparison import expected, limit, reference
from scoresde.comparison.case import NothingDoneError
from scoresde.comparison.index import rebuild
from scoresde.comparison.merging import merge
from scoresde.comparison.prepare import BenchModel, prepare_bench
from scoresde.comparison.records import SPENT
from scoresde.comparison.request import BenchRequest
from scoresde.comparison.shards import share_out
from scoresde.exact import GaussianMixture
from scoresde.noise import SampleNoise
from scoresde.samplers import sample
from scoresde.sde import VE, VP
from scoresde.tasks.live import given_model

QUICK = {
    **{"samplers": ["ddim", "ancestral", "annealed-langevin"], "nfe": [4, 6], "n": 8},
    **{"shape": (2,), "reference_tolerance": 1e-3, "progress": False},
}
SEVERAL = QUICK | {"seeds": [0, 1], "samplers": ["ddim", "ancestral"], "nfe": [4]}


@pytest.fixture(autouse=True)
def no_recommended(no_figures, monkeypatch):
    """The recommended settings are planned elsewhere."""
    monkeypatch.setattr("scoresde.comparison.request.recommended_cells", lambda *_: [])


@pytest.fixture
def models():
    narrow = GaussianMixture(VP(), [0.5, 0.5], [[1.0, 0.0], [-1.0, 0.5]], [0.1, 0.2])
    return {"A": narrow, "B": GaussianMixture(VE(0.01, 5.0), [1.0], [[0.0, 0.0]], [4.0])}


def content(folder):
    """All results in a folder, less seconds, memory, and the digests of files that hold them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".npz":
            arrays = np.load(path)
            about = json.loads(str(arrays["about"])) if "about" in arrays else {}
            kept = {k: v for k, v in about.items() if k not in SPENT}
            whole = [(k, arrays[k].tobytes()) for k in arrays if k not in ("about", "digest")]
            found[name] = json.dumps(kept, sort_keys=True), whole
        elif path.suffix == ".csv":
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            found[name] = [{k: v for k, v in row.items() if k not in SPENT} for row in rows]
        elif path.name == "results.json":
            table = json.loads(path.read_text())
            (table["reference"] or {}).pop("seconds", None)
            cells = [{k: v for k, v in c.items() if k not in SPENT} for c in table.pop("cells")]
            found[name] = json.dumps([table, cells])
        elif path.name == "scoresde.json":
            table = json.loads(path.read_text())
            found[name] = json.dumps([table["settings"], table["cells"], sorted(table["files"])])
        elif path.is_file() and path.suffix != ".html":
            timed = ("machine.json", "results.md", "results.tex")  # hold seconds
            found[name] = path.name if path.name in timed else path.read_bytes()
    return found


def test_merged_shares_equal_one_run(models, tmp_path):
    scoresde.bench(models["A"], **SEVERAL, out=tmp_path / "one")
    parts = [tmp_path / f"part{i}" for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        scoresde.bench(models["A"], **SEVERAL, shard=(i, 2), out=part)
    with pytest.raises(ValueError, match="cells of its plan are in none of the folders: "):
        merge(parts[:1], tmp_path / "no")
    assert not (tmp_path / "no").exists()
    page = merge(parts[::-1], tmp_path / "merged")
    assert page == tmp_path / "merged" / "index.html"
    assert content(tmp_path / "merged") == content(tmp_path / "one")
    with open(tmp_path / "one" / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "0", "1", "1"]
    assert not {"model", "labels"} & {*rows[0]}  # there is one of each only
    with open(tmp_path / "merged" / "seeds.csv", newline="", encoding="utf-8") as file:
        (mean,) = csv.DictReader(file)
    own = [row["paired_rmse"] for row in rows if row["sampler"] == mean["sampler"] == "ddim"]
    assert float(mean["paired_rmse"]) == pytest.approx(sum(map(float, own)) / 2)
    assert [mean["paired_rmse_min"], mean["paired_rmse_max"]] == sorted(own, key=float)
    before = {name: (page.parent / name).read_bytes() for name in ("index.html", "seeds.csv")}
    (page.parent / "seeds.csv").unlink()  # as in a folder of an earlier version
    rebuild(page.parent)
    assert {name: (page.parent / name).read_bytes() for name in before} == before
    text = page.read_text(encoding="utf-8")
    assert text.count("mean of 2 seeds") == 1 + 1  # the answer, and the row of the only sampler
    assert 'href="#cases"' in text
    assert "single seeds: " in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 9}, r"part2 is not a part of the same comparison as .*part1: results with n = 9"),
        pytest.param(
            {"nfe": [4, 7]},
            r"part2 is not a part .*: the plans differ in .* NFE ≤ [67]",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_parts_of_other_comparisons_are_not_merged(models, tmp_path, changes, message):
    for i, other in ((1, {}), (2, changes)):
        given = QUICK | other
        scoresde.bench(models["A"], **given, shard=(i, 2), out=tmp_path / f"part{i}")
    with pytest.raises(ValueError, match=message):
        merge([tmp_path / "part1", tmp_path / "part2"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shares_are_balanced_and_hold_every_cell_once(models, tmp_path):
    asked = {**SEVERAL, "checkpoint": models, "quality": False, "samplers": ["ddim", "heun", "pc"]}
    for name in ("shape", "progress"):
        asked.pop(name)
    request = BenchRequest(**asked | {"nfe": [5, 9, 17], "reference_tolerance": None})
    given = {name: BenchModel(given_model(m, name, shape=(2,))) for name, m in models.items()}
    bench = prepare_bench(request, tmp_path / "out", given)
    shares = [share_out(bench.cases, i, 4) for i in (1, 2, 3, 4)]
    found = [(case, name) for share in shares for case, names in share.items() for name in names]
    cells = {
        (name, cell.name): cell.cost
        for name, case in bench.cases.items()
        for cell in case.sweep.cells
        if cell.ts is not None
    }
    assert sorted(found) == sorted(cells)
    loads = [sum(cells[c, name] for c, names in s.items() for name in names) for s in shares]
    assert max(loads) - min(loads) <= max(cells.values())  # the law of the rule
    with pytest.raises(ValueError, match="shard 99/99 has no cell: the plan has"):
        share_out(bench.cases, 99, 99)


def test_no_share_is_empty_if_the_reference_is_dear(models, tmp_path):
    given = {"m": BenchModel(given_model(next(iter(models.values())), "m", shape=(2,)))}
    request = BenchRequest(checkpoint="m", samplers=["ddim"], nfe=[5, 6], quality=False)
    cases = prepare_bench(request, tmp_path / "out", given).cases
    assert all(share_out(cases, i, 2) for i in (1, 2))


def test_the_time_limit_leaves_cells_for_the_same_command(models, tmp_path, monkeypatch):
    whole = scoresde.bench(models["A"], **QUICK, out=tmp_path / "one")
    assert whole.left == 0
    with pytest.raises(NothingDoneError, match="no cell was finished in this time"):
        scoresde.bench(models["A"], **QUICK, time_limit=1e-9, out=tmp_path / "out")
    asked = iter([True, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(limit.TimeLimit, "allows", lambda self, seconds: next(asked, False))
        part = scoresde.bench(models["A"], **QUICK, time_limit=1e4, out=tmp_path / "out")
    assert [row["status"] for row in part.rows] == ["done", "done", "skipped", "skipped"]
    assert part.left == len(whole.rows) - 4
    assert part.report.is_file()
    again = scoresde.bench(models["A"], **QUICK, out=tmp_path / "out")
    assert again.left == 0
    assert content(tmp_path / "out") == content(tmp_path / "one")


def test_cells_and_the_solution_of_another_folder_are_used(models, tmp_path, monkeypatch):
    scoresde.bench(models["A"], **QUICK, out=tmp_path / "one")
    for place in ("scoresde.comparison.sweep.draw", "scoresde.comparison.reference.draw"):
        monkeypatch.setattr(place, lambda *_, **__: pytest.fail("samples were drawn"))
    scoresde.bench(models["A"], **QUICK, reuse=[tmp_path / "one"], out=tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    with pytest.raises(ValueError, match="reuse: .* holds no results of scoresde"):
        scoresde.bench(models["A"], **QUICK, reuse=[tmp_path], out=tmp_path / "no")


def test_the_reference_is_solved_only_for_deterministic_cells(models, tmp_path, monkeypatch):
    solve = lambda *_, **__: pytest.fail("the reference was solved")  # noqa: E731
    monkeypatch.setattr(reference.Reference, "solve", solve)
    found = scoresde.bench(models["A"], **QUICK | {"samplers": "ancestral"}, out=tmp_path / "out")
    assert [row["paired_rmse"] for row in found.rows] == [None, None]


def test_the_plan_counts_and_writes_nothing(models, tmp_path):
    names = ("samplers", "nfe", "n", "reference_tolerance")
    request = BenchRequest(checkpoint=models["A"], quality=False, **{k: QUICK[k] for k in names})
    given = {
        name: BenchModel(given_model(models["A"], name, shape=(2,)))
        for name in ("GaussianMixture",)
    }
    plan = expected.plan_of(prepare_bench(request, tmp_path / "out", given).cases)
    (case,) = plan["cases"]
    states = [(cell["evaluations"], cell["state"]) for cell in case["cells"]]
    assert states[:4] == [(4, "to do"), (6, "to do")] * 2
    assert [state for _, state in states[4:]] == ["cannot run"] * 2
    assert case["parts"]["reference solution"] > 0
    assert plan["seconds"] == pytest.approx(sum(case["parts"].values()))
    assert "4 of 6 cells to do, 20 evaluations of each sample" in expected.plan_sentence(plan)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1234, "0.12 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (3725, "1 h 2 min")],
)
def test_durations_in_words(seconds, text):
    assert expected.duration(seconds) == text


def test_stochastic_samplers_share_normals_within_a_budget_and_no_path_across(models):
    """The k-th increment depends on seed, sample and k, not on its times."""
    one, other = (SampleNoise(3, range(4)) for _ in range(2))
    x = torch.zeros(4, 2)
    assert torch.equal(one.increment(x, 1.0, 0.5), other.increment(x, 1.0, 0.1))
    ts = torch.tensor([1.0, 0.5, 1e-3], dtype=torch.float64)
    runs = [sample(models["A"], scoresde.DDIM(eta=1.0), ts, (4, 2), seed=3) for _ in range(2)]
    assert torch.equal(runs[0].x, runs[1].x)


@pytest.mark.slow
def test_no_finished_cell_is_lost_to_twenty_kills(models, tmp_path):
    given = QUICK | {"samplers": ["ddim", "ancestral", "heun"], "nfe": [4, 6, 9, 13, 20]}
    given |= {"n": 64, "out": tmp_path / "out"}
    scoresde.bench(models["A"], **given | {"out": tmp_path / "one"})
    rng, kept = random.Random(0), {}
    for _ in range(20):
        child = os.fork()
        if child == 0:
            scoresde.bench(models["A"], **given)
            os._exit(0)
        time.sleep(rng.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        there = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("out/**/cells/*.npz")}
        assert kept.items() <= there.items()
        kept = there
    scoresde.bench(models["A"], **given)
    assert content(tmp_path / "out") == content(tmp_path / "one")
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("out/cells/*.npz")}
    assert kept.items() <= after.items()
