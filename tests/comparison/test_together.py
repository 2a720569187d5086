"""Cells measured by several processes, with threads in place of processes; compiled networks."""

import json
import threading
from functools import partial

import numpy as np
import pytest
import torch

import scoresde
from scoresde.comparison.prepare import BenchModel, Portion, prepare_bench
from scoresde.comparison.quality import Quality
from scoresde.comparison.request import BenchRequest
from scoresde.comparison.sweep import Sweep
from scoresde.data import Dataset, DataSpec
from scoresde.distributed import PeerError, Ranks
from scoresde.exact import GaussianMixture
from scoresde.nets import MLP
from scoresde.score import NetworkScore
from scoresde.sde import VP
from scoresde.tasks.live import given_model

ASKED = {"samplers": ["ddim", "ancestral"], "nfe": [4, 6], "n": 8, "seeds": [0, 1]}


@pytest.fixture(autouse=True)
def no_recommended(no_figures, monkeypatch):
    """The recommended settings are planned elsewhere."""
    monkeypatch.setattr("scoresde.comparison.request.recommended_cells", lambda *_: [])


def compare(ranks, out, **changes):
    """The comparison of an exact model by one of several processes."""
    model = GaussianMixture(VP(), [0.5, 0.5], [[1.0, 0.0], [-1.0, 0.5]], [0.1, 0.2])
    settings = {**ASKED, "reference_tolerance": 1e-2} | changes
    request = BenchRequest(checkpoint=model, **settings)
    given = {
        name: BenchModel(given_model(m, None, shape=(2,))) for name, m in request.checkpoint.items()
    }
    made = prepare_bench(request, out, given, portion=Portion(ranks=ranks))
    made.run(lambda *_: None)


def content(folder):
    """Metrics and samples of all cells, and the number of processes that were at work."""
    found, processes = {}, set()
    for path in sorted(folder.rglob("*.npz")):
        arrays = np.load(path)
        x = {k: arrays[k].tobytes() for k in arrays if k not in ("about", "digest")}
        about = json.loads(str(arrays["about"])) if "about" in arrays else None
        if path.parent.name == "cells":
            processes.add(about["processes"])
            about = about["metrics"]
            found[path.relative_to(folder)] = x, about
        else:
            found[path.relative_to(folder)] = x
    return found, processes


def test_several_processes_share_the_cells_and_make_the_same(together, tmp_path, monkeypatch):
    """The first thread to measure waits until another one has measured, too."""
    others, threads, measure = threading.Event(), [], Sweep.measure

    def waiting(*arguments):
        threads.append(threading.get_ident())
        if len(set(threads)) > 1:
            others.set()
        assert others.wait(30)
        return measure(*arguments)

    compare(Ranks(), tmp_path / "one", seeds=0)
    with monkeypatch.context() as patch:
        patch.setattr(Sweep, "measure", waiting)
        assert together(2, partial(compare, out=tmp_path / "two", seeds=0)) == [None, None]
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert one[0] == two[0]
    assert (one[1], two[1]) == ({1}, {2})
    assert len(threads) == 4
    names = [
        {p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")} for n in ("one", "two")
    ]
    assert names[0] == names[1]
    page = (tmp_path / "two" / "report.html").read_text("utf-8")
    assert "seconds of 4 of 4 cells were measured while 2 processes ran beside each other" in page
    monkeypatch.setattr(Sweep, "measure", None)
    assert together(3, partial(compare, out=tmp_path / "two", seeds=0)) == [None] * 3


def test_a_failure_ends_all_and_keeps_what_is_finished(together, tmp_path, monkeypatch):
    left, measure, lock = [2], Sweep.measure, threading.Lock()

    def failing(*arguments):
        with lock:
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("out of luck")
        return measure(*arguments)

    act = partial(compare, out=tmp_path / "out", seeds=0)
    with monkeypatch.context() as patch:
        patch.setattr(Sweep, "measure", failing)
        errors = together(2, act)
    assert {type(error) for error in errors} <= {RuntimeError, PeerError}
    assert all("out of luck" in str(error) for error in errors)
    assert len(list((tmp_path / "out" / "parts" / "cells").glob("*.npz"))) == 2
    left[0] = 2
    monkeypatch.setattr(Sweep, "measure", failing)
    assert together(2, act) == [None, None]


def test_failed_cells_are_not_tried_again_by_rank_0(together, tmp_path, monkeypatch):
    tried, measure = [], Sweep.measure

    def failing(self, cell, *rest):
        if cell.label == "ddim":
            tried.append(cell.name)
            return self.result(cell, "failed", reason="the step is too small")
        return measure(self, cell, *rest)

    monkeypatch.setattr(Sweep, "measure", failing)
    assert together(2, partial(compare, out=tmp_path / "out", nfe=[4])) == [None, None]
    assert len(tried) == 2
    assert (tmp_path / "out" / "results.csv").read_text().count("the step is too small") == 2


def test_processes_with_other_settings_do_not_begin(together, tmp_path):
    def act(ranks):
        compare(ranks, tmp_path / "out", nfe=[4 + ranks.rank])

    for error in together(2, act):
        assert "nfe is [4] on rank 0 and [5] on rank 1" in str(error)
    assert not (tmp_path / "out").exists()


def test_a_compiled_network_is_a_copy_compiled_once(tmp_path, monkeypatch):
    """With a backend that does nothing, all numbers are those of the network itself."""
    compiled, plain = [], torch.nn.Module.compile

    def counted(net):
        compiled.append(net)
        plain(net, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", counted)
    model = NetworkScore(MLP((2,), width=8, depth=1), VP())
    same = {**ASKED, "n": 12, "batch": 8, "shape": (2,), "reference_tolerance": None}
    one = scoresde.bench(model, **same, out=tmp_path / "one", progress=False)
    two = scoresde.bench(model, **same, out=tmp_path / "two", progress=False, compiled=True)
    assert len(compiled) == 1
    assert model.net._compiled_call_impl is None
    assert [row["flops"] for row in two.rows] == [row["flops"] for row in one.rows]
    assert None not in [row["flops"] for row in one.rows]
    for case in ("seed0", "seed1"):
        cells = [
            {
                f.name.rpartition("--")[0]: np.load(f)["x"]
                for f in (tmp_path / name / case / "cells").iterdir()
            }
            for name in ("one", "two")
        ]
        for name, x in cells[0].items():
            assert np.allclose(x, cells[1][name], atol=1e-5), name
    with pytest.raises(ValueError, match="compiled"):
        scoresde.bench(model, **same, out=tmp_path / "two", progress=False)
    exact = GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [1.0])
    with pytest.raises(ValueError, match="compiled: must be False .*GaussianMixture"):
        scoresde.bench(exact, **same, out=tmp_path / "no", progress=False, compiled=True)


@pytest.mark.parametrize("test", [True, False], ids=["test split", "no test split"])
def test_only_the_rows_that_are_needed_are_read(monkeypatch, test):
    monkeypatch.setattr("scoresde.comparison.quality.REFERENCE_CAP", 30)
    read = []

    class Recording:
        shape, dtype = (1000, 2, 1, 1), torch.float32

        def __len__(self):
            return 1000

        def __getitem__(self, rows):
            read.extend(rows.tolist())
            return torch.randn(len(rows), 2, 1, 1, generator=torch.Generator().manual_seed(1))

    spec = DataSpec((2, 1, 1), -4.0, 4.0, name="many")
    data = Dataset("many", Recording(), None, spec)
    Quality.build(data, data if test else None, 20, ("mmd2", "copying"))
    assert len(read) == 50
    assert test or len(set(read)) == 50
