"""Checkpoints of score_sde_pytorch: outputs of its own networks, its files, its settings."""

import json
import math
from pathlib import Path

import pytest
import torch
from formula_weights import image, weights

from scoresde.interop import score_sde

FIXTURE = Path(__file__).parents[1] / "fixtures" / "score_sde.json"
CASES = json.loads(FIXTURE.read_text(encoding="utf-8"))
SMALLEST = "ncsn++ discrete ve"


def sigmas_of(settings):
    ends = settings["model.sigma_max"], settings["model.sigma_min"]
    steps = settings["model.num_scales"]
    return torch.linspace(*map(math.log, ends), steps, dtype=torch.float64).exp()


def state_of(case, prefix="module."):
    """The checkpoint that the library writes: last weights, moving averages, step."""
    shapes = case["shapes"]
    trained = [key for key in shapes if key not in case["not trained"]]
    averages = weights({key: shapes[key] for key in trained}, seed=2)
    fixed = weights({key: shapes[key] for key in case["not trained"]}, seed=1)
    last = weights(shapes, seed=3) | fixed | {"sigmas": sigmas_of(case["settings"])}
    model = {prefix + key: last[key] for key in shapes}
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": [averages[key] for key in trained]}
    return {"optimizer": {"state": {}, "param_groups": []}, "model": model, "ema": ema, "step": 7}


def write_settings(path, settings):
    tables = {}
    for key, value in settings.items():
        table, _, name = key.partition(".")
        tables.setdefault(table, {})[name] = value
    path.write_text(json.dumps(tables), encoding="utf-8")


def written(folder, case, **changes):
    path = folder / "checkpoint.pth"
    torch.save(state_of(case) | changes, path)
    write_settings(path.with_suffix(".json"), case["settings"])
    return path


def time_of(settings, place):
    """Our time for a time of the library, or for an index of its discrete levels."""
    if settings["training.continuous"]:
        return place
    count = settings["model.num_scales"]
    return place / (count - 1) if settings["training.sde"] == "vesde" else (place + 1) / count


@pytest.mark.parametrize("name", CASES)
def test_eps_is_that_of_the_library(tmp_path, name):
    case = CASES[name]
    path = written(tmp_path, case)
    assert score_sde.recognizes(path)
    imported = score_sde.read(path)
    shape = imported.data.shape
    assert shape == (1, 8, 8)
    for output in case["outputs"]:
        x = image(shape, 2, output["scale"])
        found = imported.model.eps(x, time_of(case["settings"], output["place"]))
        wanted = torch.tensor(output["eps"]).reshape(x.shape)
        # float32, and the fixture has 8 digits
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max(), output["place"]
    assert imported.provenance["averaging"] == "exponential moving average, decay 0.999"
    assert imported.provenance["step"] == 7
