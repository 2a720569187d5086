"""Writing a model as a folder that the library diffusers loads."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ..data import DataSpec
from ..nets import BlockUNet
from ..score import NetworkScore
from ..sde import VE, TabulatedVP, cosine_betas, linear_betas
from .diffusers_config import FLAGS

__all__ = ["write_folder"]

_VERSION = "0.42.1"  # of diffusers, whose keys are written
_PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def write_folder(
    model: NetworkScore, data: DataSpec, out: Path, scheduler: Mapping[str, Any] | None = None
) -> list[str]:
    """Write a pipeline's folder: network, weights, scheduler and model_index.json.

    Args:
        model: A model with a `BlockUNet` and discrete labels, or with the preconditioning of EDM or
            NCSN++ under `VE`.
        data: Description of its data.
        out: The folder to make; it appears only when it is complete.
        scheduler: The scheduler's config that the model came with, if it came from diffusers.

    Returns:
        Lines of text: what was written, and what the format cannot say.

    Raises:
        ValueError: If the folder exists, or diffusers cannot express the model.
        OSError: If the folder cannot be written.
    """
    if out.exists():
        raise ValueError(f"{out} is there already; give a folder that does not exist")
    unet = _network_config(model)
    plan = dict(scheduler) if scheduler else _scheduler_config(model)
    pipeline = (
        "ScoreSdeVePipeline" if plan["_class_name"].startswith("ScoreSde") else "DDPMPipeline"
    )
    index = {
        **{"_class_name": pipeline, "_diffusers_version": _VERSION},
        **{"scheduler": ["diffusers", plan["_class_name"]], "unet": ["diffusers", "UNet2DModel"]},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        for name, table in (
            ("model_index.json", index),
            ("unet/config.json", unet),
            ("scheduler/scheduler_config.json", plan),
        ):
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_text(json.dumps(table, indent=2, sort_keys=True) + "\n", "utf-8")
        weights = made / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = {k: v.detach().cpu().contiguous() for k, v in model.net.state_dict().items()}
        safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
        made.chmod(0o777 & ~_umask())
        os.replace(made, out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return _remarks(model, data, out)


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def _remarks(model: NetworkScore, data: DataSpec, out: Path) -> list[str]:
    """What was written, and what is lost."""
    lines = [f"{out}: {sum(p.numel() for p in model.net.parameters()):,} weights"]
    lines.append(
        f"not in this format: levels, data range {data.low:g} to {data.high:g}"
        + ("" if data.class_names is None else ", class names")
        + ("" if data.transform is None else ", the transform of the data: samples have no units")
    )
    return lines


def _network_config(model: NetworkScore) -> dict[str, Any]:
    """The content of unet/config.json."""
    net = model.net
    if not isinstance(net, BlockUNet):
        raise ValueError(
            f"diffusers cannot express {type(net).__name__}; only a BlockUNet can be exported"
        )
    given = net.arguments
    for name in ("heads", "features"):
        if name in given:
            raise ValueError(f"diffusers cannot express {name} of a BlockUNet")
    config = {"_class_name": "UNet2DModel", "_diffusers_version": _VERSION}
    for key, flag in FLAGS.items():
        config[key] = flag.written(given.get(flag.argument))
    channels, height, width = given["shape"]
    middle = given["middle"]
    waves = given["class_input"] == "waves"
    return config | {
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": channels * (2 if given["learned_variance"] else 1),
        "norm_num_groups": given["groups"] or None,
        "mid_block_type": None if middle == "none" else "UNetMidBlock2D",
        "add_attention": middle != "plain",
        "num_train_timesteps": given.get("labels"),
        "num_class_embeds": given.get("classes"),
        "class_embed_type": "identity" if "vector" in given else "timestep" if waves else None,
    }


def _scheduler_config(model: NetworkScore) -> dict[str, Any]:
    """The content of scheduler/scheduler_config.json."""
    sde, meaning = model.sde, model.preconditioning
    kind = (type(sde), meaning.target, meaning.label, meaning.label_scale)
    if meaning.label_offset != 0:
        raise ValueError(f"diffusers cannot express label_offset = {meaning.label_offset:g}")
    # Under a variance-preserving SDE the factor of the input is 1 in any case.
    if isinstance(sde, TabulatedVP) and meaning.target in _PREDICTIONS and model.t_least > 0:
        if meaning.label_scale == 1:
            return _table(sde) | {"prediction_type": _PREDICTIONS[meaning.target]}
    elif kind == (VE, "score", "sigma", 1) and not meaning.scale_input:
        return _versioned("ScoreSdeVeScheduler", sigma_min=sde.sigma_min, sigma_max=sde.sigma_max)
    elif kind == (VE, "edm", "edm", 1) and meaning.scale_input:
        return _versioned(
            "EDMEulerScheduler",
            sigma_min=sde.sigma_min,
            sigma_max=sde.sigma_max,
            sigma_data=meaning.sigma_data,
        )
    raise ValueError(
        f"diffusers cannot express target {meaning.target!r} with label {meaning.label!r} under "
        f"{type(sde).__name__}"
    )


def _table(sde: TabulatedVP) -> dict[str, Any]:
    """The DDPM scheduler of a table of β: by name if it is linear or cosine."""
    betas, n = torch.tensor(sde.betas, dtype=torch.float64), sde.levels
    config = _versioned("DDPMScheduler", num_train_timesteps=n, clip_sample=False)
    first, last = sde.betas[0], sde.betas[-1]
    if torch.allclose(betas, linear_betas(n, first, last), rtol=1e-9, atol=0):
        return config | {"beta_schedule": "linear", "beta_start": first, "beta_end": last}
    if torch.allclose(betas, cosine_betas(n), rtol=1e-9, atol=0):
        return config | {"beta_schedule": "squaredcos_cap_v2"}
    return config | {"trained_betas": list(sde.betas)}


def _versioned(name: str, **values: Any) -> dict[str, Any]:
    return {"_class_name": name, "_diffusers_version": _VERSION, **values}
