"""Models written by diffusers give here what they give there; the files are in benchmarks/models.

`python benchmarks/diffusers_models.py --out benchmarks/models` makes these files with diffusers.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from scoresde_cli.main import run

import scoresde
from scoresde.checkpoint import CheckpointError
from scoresde.comparison import report
from scoresde.comparison.curves import Drawn
from scoresde.interop import diffusers
from scoresde.interop.diffusers_config import arguments_of_config
from scoresde.interop.diffusers_export import write_folder
from scoresde.interop.diffusers_scheduler import scheduled
from scoresde.nets import BlockUNet
from scoresde.score import Preconditioning
from scoresde.sde import VE, Linear, TabulatedVP
from scoresde.tasks.likelihood.task import _warn_of_clipping
from scoresde.tasks.request import StoredModel

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"
NAMES = sorted(path.name for path in MODELS.iterdir() if path.is_dir())
every_model = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def imported():
    return {name: diffusers.read(MODELS / name) for name in NAMES}


def expected(name):
    return safetensors.torch.load_file(MODELS / f"{name}.safetensors")


def relative(got, want):
    """The largest difference of each sample in units of its largest value; the worst of them."""
    error, size = ((v.flatten(1).abs().amax(1)) for v in (got - want, want))
    return float((error / size).max())


@every_model
def test_the_network_gives_what_diffusers_gives(name, imported):
    net, want = imported[name].model.net, expected(name)
    label = want["label"].long() if net.embedding == "table" else want["label"]
    out = net(want["x"], label, want.get("y"))
    assert relative(out, want["output"]) < 1e-5  # rounding of float32: 2e-6


def times(model, label):
    """The time that belongs to each label, from the definition of the label."""
    if isinstance(model.sde, TabulatedVP):
        return (label.double() + 1) / model.sde.levels
    if isinstance(model.sde, Linear):
        return label.double() / model.preconditioning.label_scale
    sigma = label.double() if model.preconditioning.label == "sigma" else (4 * label.double()).exp()
    return model.sde.t_of_sigma(sigma)


@every_model
def test_x0_is_that_of_the_scheduler(name, imported):
    """So SDE, target, label and scaling are right. Diffusers has the table of β in float32."""
    model, want = imported[name].model, expected(name)
    t, x = times(model, want["label"]), want["x"].double()
    if model.preconditioning.target == "edm":
        sigma = model.sde.sigma(t)[:, None, None, None]
        x = x * (sigma**2 + 0.25).sqrt()  # the file holds what the network sees
    model = model.double().given(want.get("y"))
    got = model.x0(x, t)
    model.float()
    assert relative(got, want["x0"]) < 1e-4


def test_what_is_read_of_the_schedulers(imported):
    kinds = {name: (made.model.sde, made.model.preconditioning) for name, made in imported.items()}
    assert kinds["tiny-ncsnpp"][0] == VE(0.01, 378.0)
    assert kinds["tiny-edm"][0] == VE(0.002, 60.0)
    assert kinds["tiny-table"][1].label == "rounded_index"
    assert [kinds[f"tiny-{k}"][1].target for k in ("ddpm", "classes", "residual", "table")] == [
        *("eps", "v", "x0", "eps")
    ]
    full = kinds["tiny-classes"][0]
    assert full.ends_in_noise  # zero terminal SNR
    assert full.levels == 1000
    assert "sde.betas, of which the last one is 1" in "\n".join(imported["tiny-classes"].report)
    flow = kinds["tiny-flow"]
    assert flow[0] == Linear()
    assert flow[1] == Preconditioning("velocity", "time", False, label_scale=1000)
    assert "shift = 3.0: kept; a choice of times" in "\n".join(imported["tiny-flow"].report)


def test_the_data_are_255ths(imported):
    """Diffusers scales level k to 2k/255 − 1, and for NCSN++ to k/255; a cell has its level in its
    centre."""
    levels = torch.tensor([0, 100, 255])
    for name, scaled in (("tiny-ddpm", 2 * levels / 255 - 1), ("tiny-ncsnpp", levels / 255)):
        torch.testing.assert_close(imported[name].data.encode(levels), scaled, atol=1e-6, rtol=0)


@every_model
def test_each_key_is_reported(name, imported):
    made = imported[name]
    for folder, file in (("unet", "config.json"), ("scheduler", "scheduler_config.json")):
        keys = json.loads((MODELS / name / folder / file).read_text())
        said = {line.split(" = ")[0] for line in made.report}
        assert {f"{folder}.{key}" for key in keys if key[0] != "_"} <= said
    names = {entry["name"] for entry in made.provenance["files"]}
    assert names >= {"unet/config.json", "scheduler/scheduler_config.json"}


@pytest.mark.parametrize("name", ["tiny-classes", "tiny-ncsnpp", "tiny-flow"])
def test_what_is_exported_is_read_again(name, tmp_path, imported):
    made = imported[name]
    write_folder(made.model, made.data, tmp_path / "a", made.provenance["scheduler"])
    write_folder(made.model, made.data, tmp_path / "b")
    kept, own = (diffusers.read(tmp_path / place) for place in "ab")
    assert kept.model.net.arguments == made.model.net.arguments
    for name, tensor in made.model.net.state_dict().items():
        assert torch.equal(kept.model.net.state_dict()[name], tensor)
    for again in (kept, own):
        assert again.model.preconditioning == made.model.preconditioning
        ts = torch.linspace(0.01, 0.999, 50)
        torch.testing.assert_close(again.model.sde.lam(ts), made.model.sde.lam(ts))
    with pytest.raises(ValueError, match="is there already"):
        write_folder(made.model, made.data, tmp_path / "a")


def test_what_diffusers_cannot_express_is_refused(tmp_path, imported):
    made = imported["tiny-ddpm"]
    digits = scoresde.load("digits-vp")
    with pytest.raises(ValueError, match="cannot express UNet; only a BlockUNet"):
        write_folder(digits.model, digits.data, tmp_path / "a")
    other = scoresde.NetworkScore(made.model.net, scoresde.VP())
    with pytest.raises(ValueError, match="cannot express target 'eps' with label 'log_sigma'"):
        write_folder(other, made.data, tmp_path / "a")
    other = scoresde.wrap(made.model.net, made.model.sde, "eps", label="index", label_offset=1)
    with pytest.raises(ValueError, match="cannot express label_offset = 1"):
        write_folder(other, made.data, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_names_of_early_versions(tmp_path, imported):
    """Attention's tensors had other names, and the frequencies two names."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name, extra in (("tiny-ddpm", {}), ("tiny-ncsnpp", {"time_proj.W": "time_proj.weight"})):
        shutil.copytree(MODELS / name, tmp_path / name)
        path = tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = safetensors.torch.load_file(path)
        renamed = {}
        for key, tensor in tensors.items():
            for new, before in old.items():
                key = key.replace(f".{new}.", f".{before}.")
            renamed[key] = tensor
        assert renamed.keys() != tensors.keys()
        renamed |= {new: tensors[key].clone() for new, key in extra.items()}
        safetensors.torch.save_file(renamed, path)
        again = diffusers.read(tmp_path / name).model.net.state_dict()
        for key, tensor in imported[name].model.net.state_dict().items():
            assert torch.equal(again[key], tensor)


def test_weights_in_several_files(tmp_path, imported):
    shutil.copytree(MODELS / "tiny-ddpm", tmp_path / "m")
    unet = tmp_path / "m" / "unet"
    tensors = safetensors.torch.load_file(unet / "diffusion_pytorch_model.safetensors")
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    parts = {"one.safetensors": {}, "two.safetensors": {}}
    for i, (key, tensor) in enumerate(tensors.items()):
        parts[list(parts)[i % 2]][key] = tensor
    index = {key: name for name, part in parts.items() for key in part}
    for name, part in parts.items():
        safetensors.torch.save_file(part, unet / name)
    place = unet / "diffusion_pytorch_model.safetensors.index.json"
    place.write_text(json.dumps({"weight_map": index}))
    made = diffusers.read(tmp_path / "m")
    assert len(made.provenance["files"]) == 5
    for key, tensor in imported["tiny-ddpm"].model.net.state_dict().items():
        assert torch.equal(made.model.net.state_dict()[key], tensor)
    place.write_text(json.dumps({"weight_map": index | {"a": "../x.safetensors"}}))
    with pytest.raises(
        CheckpointError, match=r"weight_map names '\.\./x.safetensors', which is no"
    ):
        diffusers.read(tmp_path / "m")


def test_averaged_weights_are_preferred(tmp_path):
    """The training scripts write the scheduler above, and the EMA's settings into the config."""
    shutil.copytree(MODELS / "tiny-ddpm", tmp_path / "m")
    step = tmp_path / "m" / "checkpoint-500"
    for name in ("unet", "unet_ema"):
        shutil.copytree(tmp_path / "m" / "unet", step / name)
    config = json.loads((step / "unet_ema" / "config.json").read_text())
    config |= {"decay": 0.99, "min_decay": 0.0, "power": 0.75, "use_ema_warmup": True}
    config |= {"inv_gamma": 1.0, "optimization_step": 500, "update_after_step": 0}
    (step / "unet_ema" / "config.json").write_text(json.dumps(config))
    made = diffusers.read(step)
    assert made.provenance["averaging"] == "the averaged weights, of decay 0.99"
    assert made.provenance["files"][0]["name"] == "unet_ema/config.json"
    alone = diffusers.read(step / "unet")
    assert alone.model.sde == made.model.sde
    assert alone.provenance["averaging"].startswith("unknown")


@pytest.mark.parametrize(
    ("name", "averaging"),
    [
        ("diffusion_pytorch_model.fp16.safetensors", "unknown"),
        ("diffusion_pytorch_model.non_ema.safetensors", "none: the last weights"),
        ("diffusion_pytorch_model.safetensors.index.ema.json", "the averaged weights"),
    ],
)
def test_a_variant_alone_is_read(name, averaging, tmp_path, imported):
    """As a file, or as an index of files; and under the names that wrappers gave the tensors."""
    shutil.copytree(MODELS / "tiny-ddpm", tmp_path / "m")
    plain = tmp_path / "m" / "unet" / "diffusion_pytorch_model.safetensors"
    wrapped = {
        f"module._orig_mod.{key}": tensor
        for key, tensor in safetensors.torch.load_file(plain).items()
    }
    plain.unlink()
    parts = plain.with_name("part.safetensors" if name.endswith(".json") else name)
    safetensors.torch.save_file(wrapped, parts)
    if parts.name != name:
        index = {"weight_map": dict.fromkeys(wrapped, parts.name)}
        plain.with_name(name).write_text(json.dumps(index))
    made = diffusers.read(tmp_path / "m")
    assert made.provenance["averaging"].startswith(averaging)
    for key, tensor in imported["tiny-ddpm"].model.net.state_dict().items():
        assert torch.equal(made.model.net.state_dict()[key], tensor)


def test_one_of_two_variants_must_go(tmp_path, imported):
    shutil.copytree(MODELS / "tiny-ddpm", tmp_path / "m")
    plain = tmp_path / "m" / "unet" / "diffusion_pytorch_model.safetensors"
    assert diffusers.recognizes(plain)  # the weights stand for their folder
    assert diffusers.read(plain).model.sde == imported["tiny-ddpm"].model.sde
    for name in ("fp16", "non_ema"):
        shutil.copy(plain, plain.with_name(f"diffusion_pytorch_model.{name}.safetensors"))
    plain.unlink()
    with pytest.raises(CheckpointError, match="but the variants fp16, non_ema; keep one of"):
        diffusers.read(tmp_path / "m")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("schedule", ["exp", "laplace", "sigmoid", "squaredcos_cap_v2"])
def test_tables_of_beta_are_those_of_diffusers(schedule):
    import diffusers as library

    kind = "HeunDiscreteScheduler" if schedule == "exp" else "DDPMScheduler"
    want = getattr(library, kind)(beta_schedule=schedule, num_train_timesteps=200)
    sde = scheduled({"_class_name": kind, **want.config}, "index").sde
    # Diffusers has float32; the cosine table ends with 1 - 0.999.
    torch.testing.assert_close(
        torch.tensor(sde.betas), want.betas, rtol=1e-5, atol=2e-7, check_dtype=False
    )


# Configs of published models, from their model cards: google/ddpm-cifar10-32 and
# google/ddpm-church-256, google/ncsnpp-church-256.
_DDPM = {
    **{"_class_name": "UNet2DModel", "act_fn": "silu", "attention_head_dim": None},
    **{"center_input_sample": False, "downsample_padding": 0, "flip_sin_to_cos": False},
    **{"freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1},
    **{"norm_eps": 1e-6, "norm_num_groups": 32, "out_channels": 3},
    **{"time_embedding_type": "positional"},
}
PUBLISHED = {
    "ddpm-cifar10-32": _DDPM
    | {
        "block_out_channels": [128, 256, 256, 256],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "sample_size": 32,
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    },
    "ddpm-church-256": _DDPM
    | {
        "block_out_channels": [128, 128, 256, 256, 512, 512],
        "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
        "sample_size": 256,
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
    },
    "ncsnpp-church-256": _DDPM
    | {
        "block_out_channels": [128, 128, 256, 256, 256, 256, 256],
        "center_input_sample": True,
        "down_block_types": [
            *["SkipDownBlock2D"] * 4,
            "AttnSkipDownBlock2D",
            *["SkipDownBlock2D"] * 2,
        ],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "mid_block_scale_factor": 1.41421356237,
        "norm_num_groups": None,
        "sample_size": 256,
        "time_embedding_type": "fourier",
        "up_block_types": [*["SkipUpBlock2D"] * 2, "AttnSkipUpBlock2D", *["SkipUpBlock2D"] * 4],
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_have_the_tensors_of_diffusers(name):
    """Full size, without memory for the weights."""
    from diffusers import UNet2DModel

    arguments, _ = arguments_of_config(PUBLISHED[name])
    with torch.device("meta"):
        ours = BlockUNet(**arguments).state_dict()
        config = {k: v for k, v in PUBLISHED[name].items() if k[0] != "_"}
        theirs = UNet2DModel(**config).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_bench_takes_data_in_files(tmp_path, monkeypatch):
    """The training data of an imported model are not known; levels have the model's scale."""
    drawn = Drawn(b"<svg ></svg>", b"")
    monkeypatch.setattr(report, "curves", lambda *_: drawn)  # slow
    for measured in (report.Trajectories, report.NoiseLevels):
        monkeypatch.setattr(measured, "figure", drawn)
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(data, x=rng.integers(0, 256, (32, 3, 8, 8), dtype=np.uint8), y=np.arange(32) % 3)
    common = ["bench", "--checkpoint", str(MODELS / "tiny-table"), "--samplers", "ddim"]
    common += ["--nfe", "2", "--n", "4", "--reference-tolerance", "0.01", "--json", "--out"]
    for extra in (["--data", str(data)], []):
        out = tmp_path / f"out{len(extra)}"
        assert run([*common, str(out), *extra]) == 0
        found = json.loads((out / "results.json").read_text())
        assert [cell["status"] for cell in found["cells"]] == ["done", "done"]
        assert ("quality" in found) == bool(extra)


def test_a_likelihood_says_that_it_does_not_clip(recwarn):
    clips, free = (StoredModel.read(str(MODELS / f"tiny-{k}")) for k in ("ddpm", "classes"))
    _warn_of_clipping(free)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="DDPMScheduler clips x0 .* without clipping"):
        _warn_of_clipping(clips)
