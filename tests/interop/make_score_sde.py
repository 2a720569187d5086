"""Write tests/fixtures/score_sde.json: outputs and shapes of networks of score_sde_pytorch.

    PYTHONPATH=SCORE_SDE_PYTORCH python tests/interop/make_score_sde.py

needs a copy of github.com/yang-song/score_sde_pytorch. The weights come from `formula_weights`, so
that the fixture holds settings, names and shapes of tensors, and outputs only.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.utils.cpp_extension

torch.utils.cpp_extension.load = lambda *_, **__: None  # the kernels for CUDA are not needed

import sde_lib  # noqa: E402
from formula_weights import digest_of, image, weights  # noqa: E402
from models import ddpm, layerspp, ncsnpp  # noqa: E402
from models import utils as model_utils  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2]))
from scoresde.interop.score_sde_settings import PUBLISHED  # noqa: E402

# Upwards without its filter the library gives the mode in the place of the scale, which PyTorch
# refuses. Here the call is made as it is meant.
layerspp.F = SimpleNamespace(**vars(layerspp.F))
layerspp.F.interpolate = lambda x, size, mode: torch.nn.functional.interpolate(x, size, mode=mode)

TARGET = Path(__file__).parents[1] / "fixtures" / "score_sde.json"
SMALL = {"data.image_size": 8, "model.nf": 8, "model.ch_mult": [1, 2], "model.num_res_blocks": 1}
SMALL |= {"model.attn_resolutions": [4], "data.num_channels": 1}
DDPM = SMALL | {"model.nf": 32, "model.ch_mult": [1, 1]}
DEEP = {"model.ch_mult": [1, 1, 2], "model.attn_resolutions": [8, 4]}
BLOCKS = {"model.resblock_type": "ddpm", "model.fir": False}
CASES = {
    "ddpm discrete vp": ("vp/ddpm/cifar10", DDPM),
    "ddpm continuous subvp": ("subvp/cifar10_ddpm_continuous", DDPM),
    "ddpm discrete ve": ("ve/cifar10_ddpm", DDPM),
    "ddpm++ continuous vp": (
        "vp/cifar10_ddpmpp_continuous",
        SMALL | {"model.num_res_blocks": 2},
    ),
    "ddpm++ discrete vp": ("vp/cifar10_ddpmpp", SMALL),
    "ncsn++ continuous subvp": ("subvp/cifar10_ncsnpp_continuous", SMALL),
    "ncsn++ continuous ve": ("ve/cifar10_ncsnpp_continuous", SMALL | DEEP),
    "ncsn++ discrete ve": ("ve/cifar10_ncsnpp", SMALL),
    "ncsn++ skips, sum": ("ve/church_ncsnpp_continuous", SMALL | DEEP),
    "ncsn++ skips, cat": (
        "ve/church_ncsnpp_continuous",
        SMALL | DEEP | {"model.progressive_combine": "cat", "model.fir": False},
    ),
    "ncsn++ of ddpm blocks": (
        "vp/cifar10_ncsnpp_continuous",
        SMALL | DEEP | BLOCKS | {"model.skip_rescale": False, "data.centered": False},
    ),
    "ncsn++ residual output": (
        "ve/cifar10_ncsnpp_continuous",
        SMALL | DEEP | BLOCKS | {"model.progressive": "residual"},
    ),
    "ddpm blocks without convolutions": (
        "vp/cifar10_ncsnpp_continuous",
        SMALL | BLOCKS | {"model.resamp_with_conv": False, "model.progressive": "output_skip"},
    ),
    "ddpm blocks with the filter": (
        "vp/cifar10_ncsnpp_continuous",
        SMALL | BLOCKS | {"model.resamp_with_conv": False, "model.fir": True},
    ),
}


def config_of(settings):
    """The library's configuration object."""
    tables = {}
    for key, value in settings.items():
        table, _, name = key.partition(".")
        tables.setdefault(table, {})[name] = value
    tables["model"] |= {"nonlinearity": "swish", "conditional": True, "fir_kernel": [1, 3, 3, 1]}
    tables["model"] |= {"init_scale": 0.0, "fourier_scale": 16, "normalization": "GroupNorm"}
    return SimpleNamespace(**{name: SimpleNamespace(**values) for name, values in tables.items()})


def process_of(settings):
    count = settings["model.num_scales"]
    if settings["training.sde"] == "vesde":
        ends = settings["model.sigma_min"], settings["model.sigma_max"]
        return sde_lib.VESDE(*ends, count)
    kind = {"vpsde": sde_lib.VPSDE, "subvpsde": sde_lib.subVPSDE}[settings["training.sde"]]
    return kind(settings["model.beta_min"], settings["model.beta_max"], count)


def deviation(sde, times, continuous):
    """σ(t) as the library computes it in float32, where small ones have four digits only."""
    if continuous or isinstance(sde, sde_lib.VESDE):
        return sde.marginal_prob(torch.zeros(2, 1, 1, 1), times)[1]
    return sde.sqrt_1m_alphas_cumprod[(times * (sde.N - 1)).long()]


def outputs(name, changes):
    """Settings, shapes of the tensors, times, and the library's ε = −σ score there."""
    settings = PUBLISHED[name] | changes
    if not settings["training.continuous"]:
        settings["model.num_scales"] = 50
    config, sde = config_of(settings), process_of(settings)
    kind = {"ddpm": ddpm.DDPM, "ncsnpp": ncsnpp.NCSNpp}[settings["model.name"]]
    net = kind(config)
    shapes = {key: list(value.shape) for key, value in net.state_dict().items()}
    trained = [key for key, value in net.named_parameters() if value.requires_grad]
    averages = weights({key: shapes[key] for key in trained}, seed=2)
    fixed = [key for key in shapes if key not in averages]
    others = weights({key: shapes[key] for key in fixed}, seed=1)
    net.load_state_dict(averages | others | {"sigmas": net.sigmas.clone()})
    continuous, n = settings["training.continuous"], settings["model.num_scales"]
    places = [0.001, 0.3, 1.0] if continuous else [0, 7, n - 1]
    score = model_utils.get_score_fn(sde, net, train=False, continuous=continuous)
    found = []
    for place in places:
        t = place if continuous else place / (n - 1)
        scale = 1.0 if settings["training.sde"] != "vesde" else 0.5 + 50.0**t / 3
        x = image((1, 8, 8), 2, scale)
        with torch.no_grad():
            times = torch.full((2,), t, dtype=torch.float32)
            value = -score(x, times) * deviation(sde, times, continuous)[:, None, None, None]
        digits = [float(f"{number:.8g}") for number in value.flatten()]
        found.append({"place": place, "scale": scale, "eps": digits})
    return {
        "settings": settings,
        "shapes": shapes,
        "not trained": fixed,
        "outputs": found,
    }


def digest(name):
    """Number of tensors and of numbers of a published network, and the SHA-256 of its shapes."""
    config = config_of(PUBLISHED[name])
    kind = {"ddpm": ddpm.DDPM, "ncsnpp": ncsnpp.NCSNpp}[config.model.name]
    print(name, flush=True)
    return digest_of({key: value.shape for key, value in kind(config).state_dict().items()})


def main():
    cases = {name: outputs(*case) for name, case in CASES.items()}
    found = {"cases": cases, "published": {name: digest(name) for name in PUBLISHED}}
    text = json.dumps(found, indent=None, separators=(",", ":"))
    TARGET.write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
