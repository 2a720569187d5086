"""The feature space that a comparison takes by itself sees saturated noise; PCA does not."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from scoresde.comparison.quality import Quality, on_levels
from scoresde.data import Dataset
from scoresde.metrics import PCAFeatures, mmd2

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
N = 256


@pytest.fixture
def script(monkeypatch):
    """script(name): a script, which imports others of its folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in {"features", "failures", "failure_cases", "script"} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def features(script):
    return script("features")


@pytest.mark.slow
def test_too_few_steps_of_ddim_rank_before_saturated_noise(features):
    """DDIM's and Heun's samples after 5 evaluations, and data of which a quarter is noise."""
    spec = features.COLOUR
    train, test = (
        Dataset("mine", spec.to_levels(features.patches(n, seed)), None, spec)
        for seed, n in ((0, 500), (2, N))
    )
    quality = Quality.build(train, test, N, ["mmd2", "frechet"])
    assert quality.features.name == "layout_texture"
    real = spec.encode(test.x)
    drawn = {name: features.few_steps(name, N) for name in ("ddim", "heun")}
    assert ((drawn["heun"].abs() > 1).double().mean()) > 0.9  # noise that the levels clip
    drawn["quarter"] = features.image_failures(real)["a quarter saturated noise"]
    found = {name: quality.measure(x) for name, x in drawn.items()}
    for metric in quality.metrics:
        ddim = found["ddim"][metric]
        for name in ("heun", "quarter"):
            noise = found[name][metric]
            assert noise.value - ddim.value > 2 * (noise.std_error**2 + ddim.std_error**2) ** 0.5
    pca = PCAFeatures.fit(spec.encode(train.x), 32)
    seen = {n: mmd2(pca(on_levels(x, spec)), pca(spec.encode(train.x))) for n, x in drawn.items()}
    assert seen["quarter"].value < seen["ddim"].value  # the wrong order


@pytest.mark.slow
def test_the_table_shows_what_two_moments_hide(features, tmp_path):
    """A Gaussian with the moments of a ring: PCA cannot see it, products and waves can."""
    out, chart = tmp_path / "z.json", tmp_path / "z.png"
    arguments = ["--data", "ring in 2-D", "--json", str(out), "--figure", str(chart)]
    run = CliRunner().invoke(features.main, arguments, catch_exceptions=False)
    assert run.exit_code == 0
    table = json.loads(out.read_text())["z"]["ring in 2-D"]
    hidden = "Gaussian of the same moments"
    assert max(table["pca32"][hidden]) < 3 < 30 < min(table["descriptors"][hidden])
    assert f"{hidden:28s}" in run.output
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["drawings", "12-bit spots", "mixture in 16-D"])
def test_the_default_ranking_puts_gross_failures_last(script, name):
    found = script("failures").measured(name)
    assert found.wrong == []
    assert sum(found.flagged) <= 2  # of 12 at 5 %, several metrics of one sample together


@pytest.mark.slow
def test_the_battery_finds_what_a_blind_ranking_gets_wrong(script, monkeypatch):
    """Without descriptors, noise in Fashion-MNIST or digits goes unseen."""
    failures = script("failures")
    whole, metrics = failures.Quality.build, ("mmd2", "frechet", "copying")

    def blind(train, test, n, features):
        return whole(train, test, n, metrics, features)

    monkeypatch.setattr(failures.Quality, "build", blind)
    cells = failures.measured("digits", "cnn")
    noisy = cells.cells["middle"]["noise of 0.2 std"]
    assert max(cells.z(noisy, metric) for metric in metrics[:2]) < 3
    assert any("noise of 0.2 std" in line for line in cells.wrong)
