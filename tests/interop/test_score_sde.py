"""Checkpoints of score_sde_pytorch: outputs of its own networks, its files, its settings."""

import json
import math
from pathlib import Path

import pytest
import torch
from formula_weights import digest_of, image, weights

import scoresde
from scoresde.checkpoint import CheckpointError
from scoresde.interop import score_sde
from scoresde.interop.score_sde_settings import PUBLISHED, checked_settings, read_settings
from scoresde.interop.score_sde_tensors import in_library, names_of
from scoresde.nets import NCSNpp

FIXTURE = Path(__file__).parents[1] / "fixtures" / "score_sde.json"
FOUND = json.loads(FIXTURE.read_text(encoding="utf-8"))
CASES = FOUND["cases"]
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


QUICK = ["ncsn++ discrete ve", "ncsn++ continuous subvp", "ncsn++ skips, cat"]
CHOSEN = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", CHOSEN)
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


def test_the_smallest_checkpoint_becomes_ours(tmp_path):
    """It is saved, loaded, sampled from, and has a likelihood; --checkpoint takes it as it is."""
    path = written(tmp_path, CASES[SMALLEST])
    foreign = scoresde.load(path)
    assert torch.allclose(
        foreign.data.encode(torch.arange(256)).double() * 255,
        torch.arange(256.0).double(),
        atol=1e-4,
    )
    scoresde.save(tmp_path / "ours.safetensors", foreign.model, foreign.data)
    ours = scoresde.load(tmp_path / "ours.safetensors").model
    x = image((1, 8, 8), 2, 1.0)
    assert torch.equal(ours.eps(x, 0.3), foreign.model.eps(x, 0.3))
    out = scoresde.sample(ours, n=2, nfe=4)
    assert out.x.isfinite().all()


@pytest.mark.slow
def test_the_averages_or_the_last_weights(tmp_path):
    case = CASES[SMALLEST]
    path, x = written(tmp_path, case), image((1, 8, 8), 2, 1.0)
    averaged, last = (score_sde.read(path, weights=which).model for which in ("ema", "model"))
    assert (averaged.eps(x, 0.3) - last.eps(x, 0.3)).abs().max() > 0.01
    bare = {name.removeprefix("module."): v for name, v in state_of(case)["model"].items()}
    torch.save(bare, path)
    with pytest.raises(CheckpointError, match="no moving averages"):
        score_sde.read(path)
    same = score_sde.read(path, weights="model").model
    assert torch.equal(same.eps(x, 0.3), last.eps(x, 0.3))


def test_settings_come_from_a_name_a_file_or_the_folders(tmp_path):
    case = CASES[SMALLEST]
    path = written(tmp_path, case)
    beside = path.with_suffix(".json")
    changed = {key: case["settings"][key] for key in case["settings"]} | {"data.dataset": "OWN"}
    lines = ['like = "ve/cifar10_ncsnpp"', "[data]", 'dataset = "OWN"', "image_size = 8"]
    lines += ["num_channels = 1", "[model]", "nf = 8", "ch_mult = [1, 2]", "num_res_blocks = 1"]
    lines += ["attn_resolutions = [4]", "num_scales = 50", "ema_rate = 0.999"]
    beside.with_suffix(".toml").write_text("\n".join(lines), encoding="utf-8")
    assert score_sde.read(path).data.name == "own"  # .toml goes before .json
    assert read_settings(beside.with_suffix(".toml")) == changed
    for other in (beside, beside.with_suffix(".toml")):
        other.unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint\.toml .* fit none of the published"):
        score_sde.read(path)
    folder = tmp_path / "ve" / "cifar10_ncsnpp"
    folder.mkdir(parents=True)
    path.rename(folder / "checkpoint.pth")
    message = r"model\.num_scales is 1000 .* and 50 in the file \(settings ve/cifar10_ncsnpp\)"
    with pytest.raises(CheckpointError, match=message):
        score_sde.read(folder / "checkpoint.pth")


MISTAKES = {
    "model.fir must be of type bool, got 1": {"model.fir": 1},
    "training.sde must be one of vpsde, subvpsde, vesde": {"training.sde": "edm"},
    "model.nff is not a known setting": {"model.nff": 3},
    "model.name must be one of ddpm, ncsnpp": {"model.name": "ncsnv2_64"},
    r"model.fir_kernel must be \[1, 3, 3, 1\]": {"model.fir_kernel": [1, 1]},
    "data.image_size must hold integers from 1": {"data.image_size": 10**6},
    "settings must have data.centered": {"data.centered": None},
    "like must be one of": {"like": "vp/cifar100"},
}


def test_mistakes_in_settings_are_named():
    settings = CASES[SMALLEST]["settings"]
    for message, changes in MISTAKES.items():
        changed = {k: v for k, v in (settings | changes).items() if v is not None}
        with pytest.raises((TypeError, ValueError), match=message):
            checked_settings(changed)
    for wrong in ([], {"model": 3}, {"model": {"nf": {}}}):
        with pytest.raises((TypeError, ValueError)):
            checked_settings(wrong)


@pytest.mark.parametrize("name", ["vp/ddpm/cifar10", "ve/cifar10_ncsnpp_continuous"])
def test_keys_that_the_library_leaves_out_are_not_asked_for(name):
    """Its settings of `ddpm` do not say the form of the layers, and those of VE no β."""
    left_out = ("model.fir", "model.skip_rescale", "model.resblock_type", "model.progressive")
    left_out = left_out if "ddpm" in name else ("model.beta_min", "model.beta_max")
    given = {k: v for k, v in PUBLISHED[name].items() if not k.startswith(left_out)}
    assert checked_settings(given | {"model.sigma_begin": 90}) == PUBLISHED[name]


MISFITS = {
    "the tensors do not fit": {"model.attn_resolutions": []},
    "all_modules.0.weight has shape": {"model.nf": 16},
    "and 228 more": {"model.num_res_blocks": 2},
    "do not fit the network": {"model.resblock_type": "ddpm", "model.fir": False},
    "embedding_type must be fourier": {"training.continuous": True},
    "shape must have sides that 2 divides": {"data.image_size": 7},
    "model.scale_by_sigma must be false for vpsde": {"training.sde": "vpsde"},
    "do not fit|overflow|bytes": {"model.ch_mult": [4096, 4096], "model.nf": 4096},
}


def test_settings_that_do_not_fit_the_tensors_are_refused():
    case = CASES[SMALLEST]
    tensors = state_of(case, prefix="")["model"]
    for message, changes in MISFITS.items():
        with pytest.raises((ValueError, RuntimeError), match=message):
            score_sde.network(case["settings"] | changes, tensors)


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_files_that_do_not_fit_are_refused(tmp_path, count):
    case = CASES[SMALLEST]
    state = state_of(case)
    names, averages = list(state["model"]), state["ema"]["shadow_params"]
    broken = [math.nan * averages[0], *averages[1:]]
    wrong = {
        "moving averages of": {"ema": {"shadow_params": averages[1:]}},
        "non-finite": {"ema": {"shadow_params": broken}},
        "has shape": {"ema": {"shadow_params": averages[::-1]}},
        "are not a list of tensors": {"ema": {"shadow_params": [1]}},
        "not named as": {"model": {"conv.weight": averages[0]}},
        "is not a tensor": {"model": state["model"] | {names[3]: "text"}},
        "missing all_modules": {"model": {n: state["model"][n] for n in names[:9]}},
        "noise levels in the file are not": {
            "model": state["model"] | {"module.sigmas": torch.ones(1)}
        },
    }
    for message, changes in list(wrong.items())[:count]:
        with pytest.raises(CheckpointError, match=message):
            score_sde.read(written(tmp_path, case, **changes))


def test_other_files_are_not_taken_for_this_format(tmp_path):
    path = tmp_path / "other.pth"
    assert not score_sde.recognizes(path)
    assert not score_sde.recognizes(tmp_path)
    for content in (b"", b"PK all_modules", b"all_modules.0. sigmas"):
        path.write_bytes(content)
        assert not score_sde.recognizes(path)
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    assert not score_sde.recognizes(path)
    torch.save({"model": {"module.begin_conv.weight": torch.ones(1), "module.sigmas": 0}}, path)
    assert score_sde.recognizes(path)
    with pytest.raises(CheckpointError, match="NCSN or NCSNv2, which is not supported"):
        score_sde.read(path)


def expected_shapes(settings):
    """Names and shapes in the library, as our network says them."""
    arguments = score_sde._arguments(settings)
    with torch.device("meta"):
        net = NCSNpp(**arguments)
    own = net.state_dict()
    found = {"sigmas": (settings["model.num_scales"],)}
    for theirs, ours in names_of(net):
        found[theirs] = in_library(own[ours], theirs).shape
    return found


SOME = ["vp/ddpm/cifar10"]
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED if name not in SOME]


@pytest.mark.parametrize("name", [*SOME, *OTHERS])
def test_published_networks_have_the_tensors_of_the_library(name):
    """All names, shapes and their order, from its own networks at full size."""
    assert digest_of(expected_shapes(PUBLISHED[name])) == FOUND["published"][name]
