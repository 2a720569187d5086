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
def features(monkeypatch):
    """The script, which imports another one of its folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("features")
    for name in ("features", "script"):
        sys.modules.pop(name, None)


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
