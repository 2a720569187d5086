"""Small models with random weights, written by diffusers, and what diffusers computes with them.

    python benchmarks/diffusers_models.py --out benchmarks/models

Each folder is a pipeline as diffusers saves it, in half precision. Beside it, NAME.safetensors
holds inputs `x`, `label` and perhaps `y`, the network's `output` in float32, and `x0`, what the
scheduler makes of that output.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    ScoreSdeVeScheduler,
    UNet2DModel,
)
from script import print_header
from torch import Tensor

__all__ = ["MODELS", "Model", "expected", "main", "make"]


class Model(NamedTuple):
    """A network's config, its scheduler, and the labels at which it is evaluated."""

    config: dict[str, Any]
    scheduler: Any
    labels: list[float]


_INDICES = [0, 1, 7, 99, 500, 998]
_SMALL = {"sample_size": 8, "block_out_channels": (4, 8), "layers_per_block": 1}
_SMALL |= {"norm_num_groups": 2, "attention_head_dim": 4}
_PLAIN = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
MODELS = {
    "tiny-ddpm": Model(
        _SMALL
        | _PLAIN
        | {"flip_sin_to_cos": False, "freq_shift": 1, "downsample_padding": 0, "norm_eps": 1e-6}
        | {"attention_head_dim": None},
        DDPMScheduler(),
        _INDICES,
    ),
    "tiny-classes": Model(
        _SMALL
        | {"in_channels": 1, "out_channels": 1, "num_class_embeds": 3, "time_embedding_dim": 12}
        | {"down_block_types": ("AttnDownBlock2D", "DownBlock2D"), "downsample_type": "resnet"}
        | {"up_block_types": ("UpBlock2D", "AttnUpBlock2D"), "upsample_type": "resnet"}
        | {"resnet_time_scale_shift": "scale_shift", "sample_size": (8, 4)},
        DDIMScheduler(
            prediction_type="v_prediction",
            beta_schedule="squaredcos_cap_v2",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
        ),
        [*_INDICES, 999],
    ),
    "tiny-residual": Model(
        _SMALL
        | {
            "out_channels": 6,
            "class_embed_type": "identity",
            "act_fn": "gelu",
            "add_attention": False,
        }
        | {"down_block_types": ("ResnetDownsampleBlock2D", "DownBlock2D")}
        | {"up_block_types": ("UpBlock2D", "ResnetUpsampleBlock2D")},
        DDPMScheduler(
            prediction_type="sample",
            beta_schedule="sigmoid",
            variance_type="learned_range",
            clip_sample=False,
        ),
        [0, 7, 99, 998],
    ),
    "tiny-ncsnpp": Model(
        _SMALL
        | {"time_embedding_type": "fourier", "center_input_sample": True, "norm_num_groups": None}
        | {"down_block_types": ("SkipDownBlock2D",) * 2, "mid_block_scale_factor": math.sqrt(2)}
        | {"up_block_types": ("SkipUpBlock2D",) * 2, "attention_head_dim": None},
        ScoreSdeVeScheduler(sigma_max=378.0),
        [0.02, 0.1, 0.4, 3.0, 60.0, 377.0],
    ),
    "tiny-table": Model(
        _SMALL
        | _PLAIN
        | {"time_embedding_type": "learned", "num_train_timesteps": 50, "mid_block_type": None}
        | {"class_embed_type": "timestep", "num_class_embeds": 3},
        DDPMScheduler(num_train_timesteps=50, trained_betas=[0.01 + 0.002 * i for i in range(50)]),
        [0, 1, 7, 20, 40, 49],
    ),
    "tiny-edm": Model(
        _SMALL
        | {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        | {"mid_block_type": None, "block_out_channels": (4, 4)},
        EDMEulerScheduler(sigma_max=60.0),
        [-1.5, -1.0, -0.3, 0.2, 0.9],
    ),
    "tiny-flow": Model(
        _SMALL | _PLAIN | {"in_channels": 1, "out_channels": 1, "block_out_channels": (4, 4)},
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        [1.0, 7.5, 99.0, 500.0, 998.0, 1000.0],
    ),
}


def make(model: Model, half: bool = True) -> UNet2DModel:
    """The network, whose weights are random and, with `half`, numbers of half precision."""
    torch.manual_seed(0)
    net = UNet2DModel(**model.config).eval().requires_grad_(False)
    for parameter in net.parameters():  # some start at zero or one
        parameter += 0.1 * torch.randn_like(parameter)
    return net.half().float() if half else net


def expected(net: UNet2DModel, model: Model) -> dict[str, Tensor]:
    """Inputs, and what diffusers computes."""
    draw = torch.Generator().manual_seed(1)
    height, width = sizes if isinstance(sizes := net.config.sample_size, tuple) else (sizes, sizes)
    label = torch.tensor(model.labels)
    x = torch.randn(len(label), net.config.in_channels, height, width, generator=draw)
    kind, classes = net.config.class_embed_type, net.config.num_class_embeds
    known = {}
    if kind == "identity":
        known["y"] = torch.randn(
            len(label), net.time_embedding.linear_2.out_features, generator=draw
        )
    elif classes:
        known["y"] = torch.arange(len(label)) % classes
    output = net(x, label, known.get("y")).sample
    x0 = torch.cat(
        [_x0(model.scheduler, output[i : i + 1], label[i], x[i : i + 1]) for i in range(len(x))]
    )
    return {"x": x, "label": label, "output": output, "x0": x0, **known}


def _x0(scheduler: Any, output: Tensor, label: Tensor, x: Tensor) -> Tensor:
    """The scheduler's prediction of x_0. EDM's network has seen x/√(σ² + σ_data²)."""
    if isinstance(scheduler, ScoreSdeVeScheduler):
        return x + label**2 * output  # Tweedie's formula
    if isinstance(scheduler, EDMEulerScheduler):
        sigma = (4 * label).exp()
        return scheduler.precondition_outputs(
            x / scheduler._get_conditioning_c_in(sigma), output, sigma
        )
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        straight = type(scheduler).from_config(scheduler.config, shift=1.0)
        straight.set_timesteps(sigmas=[float(label) / scheduler.config.num_train_timesteps])
        return straight.step(output, straight.timesteps[0], x).prev_sample  # one step to σ = 0
    unclipped = type(scheduler).from_config(scheduler.config, clip_sample=False)
    unclipped.set_timesteps(scheduler.config.num_train_timesteps)
    return unclipped.step(output, int(label), x).pred_original_sample


def main() -> None:
    """Write all folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/diffusers"))
    out = parser.parse_args().out
    print_header("diffusers")
    for name, model in MODELS.items():
        net = make(model)
        found = expected(net, model)
        pipeline = DDPMPipeline(net.half(), model.scheduler)
        pipeline.save_pretrained(out / name, safe_serialization=name != "tiny-residual")
        safetensors.torch.save_file(found, out / f"{name}.safetensors")
        print(f"{out / name}: {sum(p.numel() for p in net.parameters()):,} weights")


if __name__ == "__main__":
    main()
