"""What files and folders are that none of the readers takes, in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .._envelope import KEY
from .._file_kinds import HEAD, kind_of
from .._text import printable
from ..checkpoint import CheckpointError
from .pickles import read_pickle
from .plain_json import check_regular
from .records import described

__all__ = ["other_class", "what_it_is"]

_READ = 64 << 20  # bytes of a pickle that is read in order to say what is in it
_SEARCHED = 8 << 20  # bytes at the beginning of a file in which the names of the tensors are
_LATENT = "works on latent codes, and mostly on text; only models of images can be read"

# A part of the names of a file's tensors -> what the file is. The first that occurs decides.
_MODELS = {
    rb"lora_(up|down|A|B|unet)|\.lora\.": "a LoRA: changes of the weights of another model, and "
    "not a model of its own",
    rb"constants\.pkl|/code/__torch__": "a program (TorchScript), not weights; nothing of it was "
    "run",
    rb"first_stage_model\.|cond_stage_model\.|conditioner\.embedders": "a checkpoint of Stable "
    f"Diffusion or another latent diffusion, which {_LATENT}",
    rb"model\.diffusion_model\.": f"a network of latent diffusion, which {_LATENT}",
    rb"controlnet_cond_embedding|input_hint_block": "a ControlNet, which steers another model",
    rb"attn2\.to_k": "a file of weights of a network that takes text, such as UNet2DConditionModel "
    f"of diffusers, which {_LATENT}",
    rb"double_blocks\.|joint_blocks\.|add_q_proj": "a transformer such as those of Flux and "
    f"Stable Diffusion 3, which {_LATENT}",
    rb"adaLN_modulation|adaln_single": f"a diffusion transformer (DiT), which {_LATENT}",
    rb"quant_conv|decoder\.conv_in|decoder\.mid": "an autoencoder (VAE): it turns images into "
    "latent codes, and is no score model",
    rb"down_blocks\.0\.": "a file of weights of a network of diffusers, without its "
    "settings; give its folder, which also holds config.json and scheduler_config.json",
    rb"text_model\.|text_projection|self_attn\.q_proj": "a model of text",
    rb"init_conv\.": "a checkpoint of lucidrains' denoising-diffusion-pytorch, a format that is "
    "not read",
    rb"G_ema|synthesis\.": "a StyleGAN, which is no score model",
    rb"input_blocks\.0\.0": "a network of the form of guided-diffusion in which other tensors are "
    "missing",
    rb"layer1\.0\.conv1": "a ResNet, which classifies images and is no score model",
    rb"param_groups": "the state of an optimizer, without a model that can be read",
}


# A part of the name of a class, or of a part of a pipeline -> what its models do.
_CLASSES = {
    "ControlNet|Adapter": "steers another model",
    "Autoencoder|VQModel": "turns images into latent codes, and is no score model",
    "text_|tokenizer": "takes text and mostly works on latent codes",
    "Transformer|transformer|UNet2DCondition": "works on latent codes and mostly on text",
    "vae|vqvae|movq": "works on the latent codes of an autoencoder",
}


def other_class(name: Any) -> str:
    """What models of another class of diffusers do, as the end of a sentence; empty if unknown.

    Args:
        name: The class's name, or the names of the parts of a pipeline.
    """
    found = [text for part, text in _CLASSES.items() if re.search(part, str(name))]
    return f": this model {found[0]}" if found else ""


def what_it_is(path: Path) -> str | None:
    """What a file or folder is and why it cannot be read, for a sentence "PATH: is ...".

    It looks at names and at the first bytes. A small pickle is read as data.

    Args:
        path: File or folder of none of the formats of `interop.FORMATS`.

    Returns:
        None for a checkpoint of scoresde, damaged or not, and for what is not known.

    Raises:
        CheckpointError: If the path is neither a folder nor a file that can be read.
    """
    if path.is_dir():
        return _folder(path)
    check_regular(path)
    try:
        with open(path, "rb") as file:
            head = file.read(_SEARCHED)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", path) from error
    if (kind := kind_of(head[:HEAD])) is not None:
        return kind
    safetensors, pickled = head[8:9] == b"{", head[:2] == b"PK" or head[:1] == b"\x80"
    if not (safetensors or pickled) or (safetensors and f'"{KEY}"'.encode() in head):
        return None
    names = head[: 8 + int.from_bytes(head[:8], "little")] if safetensors else head
    for pattern, model in _MODELS.items():
        if re.search(pattern, names):
            return model
    if head[:2] == b"PK" and b"/data.pkl" not in head:
        return "a zip archive that torch.save has not written; unpack it first"
    return "a safetensors file of no known model" if safetensors else _pickled(path)


def _pickled(path: Path) -> str:
    """What a PyTorch file or a pickle holds, or what is wrong with it."""
    known = "a PyTorch file or a pickle of no known model"
    if path.stat().st_size > _READ:
        return known
    try:
        tree = read_pickle(path)
    except CheckpointError as error:
        return error.reason.removeprefix("is ")
    if isinstance(tree, dict):
        return f"{known}: a table with {', '.join(map(repr, list(tree)[:3])) or 'nothing'}"[:200]
    return f"{known}: {described(tree)}"


def _folder(path: Path) -> str:
    """What a folder is that has no model of diffusers."""
    if (path / "adapter_config.json").is_file():
        return "a LoRA: changes of the weights of another model, and not a model of its own"
    endings = (".safetensors", ".pth", ".pt", ".pkl", ".ckpt")
    files = sorted(file.name for file in path.iterdir() if file.suffix in endings)
    hint = f"; it holds {printable(', '.join(files[:3]))}: give such a file" if files else ""
    return f"a folder without model_index.json, config.json and unet/config.json{hint}"
