"""Checkpoints of guided- and improved-diffusion: outputs of their networks, files, settings."""

import json
import math
from pathlib import Path

import pytest
import torch
from formula_weights import digest_of, image, weights

import scoresde
from scoresde.checkpoint import CheckpointError
from scoresde.interop import guided_diffusion
from scoresde.interop.guided_diffusion_settings import PUBLISHED, checked_settings, read_settings
from scoresde.interop.unet_tensors import library_tensors
from scoresde.nets import BlockUNet

FIXTURE = Path(__file__).parents[1] / "fixtures" / "guided_diffusion.json"
FOUND = json.loads(FIXTURE.read_text(encoding="utf-8"))
CASES = FOUND["cases"]
LEARNED = "residual, classes, learned"


def written(folder, case, **changes):
    path = folder / "model.pt"
    torch.save(weights(case["shapes"], seed=3) | changes, path)
    path.with_suffix(".json").write_text(json.dumps(case["settings"]), encoding="utf-8")
    return path


CHOSEN = [
    pytest.param(name, marks=pytest.mark.slow) if name.startswith("conv") else name
    for name in CASES
]


@pytest.mark.parametrize("name", CHOSEN)
def test_the_prediction_is_that_of_the_library(tmp_path, name):
    case = CASES[name]
    path, settings = written(tmp_path, case), case["settings"]
    assert guided_diffusion.recognizes(path)
    model = guided_diffusion.read(path).model
    assert model.learned_variance == settings["learn_sigma"]
    model = model.given(torch.tensor([2, 5])) if settings["class_cond"] else model
    for output in case["outputs"]:
        x, t = image((3, 4, 4), 2, 1.0), (output["index"] + 1) / settings["diffusion_steps"]
        alpha = float(model.sde.alpha(torch.tensor(t, dtype=torch.float64)))
        assert alpha**2 == pytest.approx(output["alpha_bar"], rel=1e-9)  # two sums in float64
        found = model.x0(x, t) if settings["predict_xstart"] else model.eps(x, t)
        wanted = torch.tensor(output["prediction"]).reshape(x.shape)
        # float32, and the fixture has 8 digits
        assert (found - wanted).abs().max() <= 3e-5 * wanted.abs().max(), output["index"]


@pytest.mark.slow
def test_a_checkpoint_becomes_ours(tmp_path):
    """It is saved, loaded and sampled from with its learned variance, one class a sample."""
    foreign = scoresde.load(written(tmp_path, CASES[LEARNED]))
    assert foreign.data.classes == 7
    levels = foreign.data.encode(torch.arange(256)).double()
    assert torch.allclose(levels, torch.arange(256.0).double() / 127.5 - 1, atol=1e-6)
    scoresde.save(tmp_path / "ours.safetensors", foreign.model, foreign.data)
    ours = scoresde.load(tmp_path / "ours.safetensors").model
    x, y = image((3, 4, 4), 2, 1.0), torch.tensor([2, 5])
    assert torch.equal(ours.given(y).eps(x, 0.3), foreign.model.given(y).eps(x, 0.3))
    sampler = scoresde.Ancestral(variance="learned")
    assert scoresde.sample(ours, sampler, n=2, nfe=3, y=y).x.isfinite().all()


def shapes_of(settings):
    """Names and shapes in the library, as our network says them."""
    classes = 1000 if settings["class_cond"] else None
    with torch.device("meta"):
        net = BlockUNet(**guided_diffusion._arguments(settings, classes))
    naming = guided_diffusion._naming(settings)
    tensors = library_tensors(net, list(guided_diffusion._places(net)), naming)
    return dict(sorted((name, tensor.shape) for name, tensor in tensors.items()))


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_the_tensors_of_the_library(name):
    assert digest_of(shapes_of(PUBLISHED[name])) == FOUND["published"][name]


MISTAKES = {
    "num_channels must be of type int": {"num_channels": "128"},
    "image_size must hold integers from 1": {"image_size": 10**6},
    "noise_schedule must be one of linear, cosine": {"noise_schedule": "sigmoid"},
    "num_heads_upsample must be -1": {"num_heads_upsample": 2},
    "num_chanels is not a known setting": {"num_chanels": 128},
    "settings must have rescale_timesteps": {"rescale_timesteps": None, "diffusion_steps": 400},
    "settings must have channel_mult for image_size 4": {"channel_mult": []},
    "channel_mult must hold numbers above 0": {"channel_mult": [0]},
    "like must be one of 64x64_diffusion": {"like": "65x65"},
}


def test_mistakes_in_settings_are_named():
    settings = next(iter(CASES.values()))["settings"]
    for message, changes in MISTAKES.items():
        changed = {k: v for k, v in (settings | changes).items() if v is not None}
        with pytest.raises((TypeError, ValueError), match=message):
            checked_settings(changed)
    with pytest.raises(TypeError, match="must be a table"):
        checked_settings([])


def test_settings_come_from_a_name_or_a_file(tmp_path):
    path = written(tmp_path, CASES[LEARNED])
    path.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match=r"does not say its settings: .*64x64_diffusion"):
        guided_diffusion.read(path)
    named = path.rename(tmp_path / "lsun_cat.pt")
    with pytest.raises(CheckpointError, match=r"time_embed\.0\.weight has .*settings lsun_cat"):
        guided_diffusion.read(named)
    path = named.with_suffix(".toml")
    path.write_text('like = "lsun_cat"\ndropout = 0\nuse_fp16 = true\n', encoding="utf-8")
    assert read_settings(path) == PUBLISHED["lsun_horse_nodropout"]


@pytest.mark.slow
def test_files_that_do_not_fit_are_refused(tmp_path):
    case = CASES[LEARNED]
    tensors = weights(case["shapes"], seed=3)
    first = "input_blocks.0.0.weight"
    wrong = {
        "is not a tensor": {"out.0.weight": 3},
        "non-finite": {first: math.nan * tensors[first]},
        "second image of lower resolution": {first: torch.ones(32, 6, 3, 3)},
        "no label_emb.weight": {"label_emb.weight": torch.ones(3)},
        "out.2.weight has shape": {"out.2.weight": torch.ones(3, 32, 3, 3)},
        "unexpected further": {"further": torch.ones(1)},
    }
    for message, changes in wrong.items():
        with pytest.raises(CheckpointError, match=message):
            guided_diffusion.read(written(tmp_path, case, **changes))
    path = tmp_path / "classifier.pt"
    torch.save({k: v for k, v in tensors.items() if not k.startswith("output_blocks")}, path)
    with pytest.raises(CheckpointError, match="holds a classifier"):
        guided_diffusion.read(path)
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    assert not guided_diffusion.recognizes(path)
    assert not guided_diffusion.recognizes(tmp_path)
