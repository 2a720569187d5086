"""Damaged, malicious and foreign files of each format of models, written one after the other.

    for label, source in FORMATS["edm"](folder, command):
        ...                                  # source is there until the next one is asked for

Those that would run something in another reader run `command`.
"""

import json
import shutil
from pathlib import Path

import safetensors.torch
import torch
from hostile_bytes import (
    attacks,
    damaged,
    places,
    safetensors_attacks,
    tensors_edited,
    torch_attacks,
    torch_bytes,
)
from hostile_checkpoints import edm_files, guided_files, score_sde_files
from hostile_others import others

from scoresde.checkpoint import save_checkpoint
from scoresde.names.sources import import_source

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"


def own_files(folder, command):
    path, raw = folder / "m.safetensors", import_source(MODELS / "tiny-ddpm")
    metadata = {k: v for k, v in raw.metadata.items() if k not in ("report", "provenance")}
    save_checkpoint(path, raw.tensors, metadata)
    whole = path.read_bytes()
    for label, data in [*others(), *safetensors_attacks(whole)][::2]:
        path.write_bytes(data)
        yield label, path
    for place, wrong, changed in list(edited_tables(metadata))[::6]:
        save_checkpoint(path, raw.tensors, changed)
        yield f"{place} = {wrong}", path
    for label, tensors in {
        "no tensors": {}, "one tensor": dict([next(iter(raw.tensors.items()))]),
        "further": raw.tensors | {"model.further": torch.ones(1)},
        "large": {k: torch.zeros(1) for k in raw.tensors},
        "half": {k: v.half() for k, v in raw.tensors.items()},
        "int": {k: v.long() for k, v in raw.tensors.items()},
    }.items():  # fmt: skip
        save_checkpoint(path, tensors, metadata)
        yield f"tensors {label}", path
    for seed in range(70):
        path.write_bytes(damaged(whole, seed))
        yield f"damaged {seed}", path
    path.unlink()
    yield from places(path)


WRONG = ("os:system", -1, 10**9, 1e300, [], {}, True, None)


def edited_tables(tree):
    """(place, wrong value, tree with it) for each value in nested tables."""
    for key, value in tree.items():
        for wrong in WRONG:
            if wrong != value:
                yield key, str(wrong)[:40], tree | {key: wrong}
        yield key, "missing", {k: v for k, v in tree.items() if k != key}
        if isinstance(value, dict):
            for place, wrong, changed in edited_tables(value):
                yield f"{key}.{place}", wrong, tree | {key: changed}
    yield "further_key", "3", tree | {"further_key": 3}


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
BIN = "unet/diffusion_pytorch_model.bin"
TABLES = ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json")


def safetensors_folders(folder, command):
    """Folders of diffusers whose safetensors file is damaged."""
    path = folder / "m" / WEIGHTS
    shutil.copytree(MODELS / "tiny-ddpm", folder / "m")
    whole = path.read_bytes()
    tensors = safetensors.torch.load(whole)
    made = [*others(), *safetensors_attacks(whole)]
    made += [(f"damaged {seed}", damaged(whole, seed, 10_000)) for seed in range(70)]
    for label, data in made[::2]:
        path.write_bytes(data)
        yield label, folder / "m"
    for label, changed in tensors_edited(tensors):
        try:
            path.write_bytes(safetensors.torch.save(changed))
        except Exception:
            continue
        yield f"tensor {label}", folder / "m"
    bare = folder / "bare.safetensors"
    for label, data in made[1::2]:
        bare.write_bytes(data)
        yield f"alone, {label}", bare
    path.unlink()
    for label, _ in places(path):
        yield label, folder / "m"


def diffusers_folders(folder, command):
    def fresh():
        shutil.rmtree(folder / "m", ignore_errors=True)
        shutil.copytree(MODELS / "tiny-ddpm", folder / "m")
        return folder / "m"

    place = fresh()
    for name in TABLES:
        path = place / name
        content = path.read_bytes()
        for key, wrong, changed in list(edited_tables(json.loads(content)))[::9]:
            path.write_text(json.dumps(changed), encoding="utf-8")
            yield f"{name}: {key} = {wrong}", place
        for label, data in {
            **{"empty": b"", "list": b"[]", "null": b"null", "deep": b"[" * 100_000},
            **{"deep tables": b'{"a":' * 100_000, "UTF-16": content.decode().encode("utf-16")},
            **{"BOM": b"\xef\xbb\xbf" + content, "nul": content + b"\x00", "cut": content[:-9]},
            **{"twice": content.replace(b"{", b'{"sample_size": 4, "beta_end": 3, "unet": 3,', 1)},
            **{"large": content.replace(b"{", b'{"norm_eps": 1e400, "beta_start": 1e400,', 1)},
            **{"long": content.replace(b"{", b'{"a": 1' + b"0" * 5000 + b",", 1)},
            **{"long name": content.replace(b"{", b'{"' + b"a" * 10**6 + b'": 3,', 1)},
            **{"control": content.replace(b"{", b'{"a\\u001b[2J\\n": "\\u202e",', 1)},
            **{"lists": b"[" + b"[]," * 9_000_000 + b"[]]", "page": b"<!DOCTYPE html>"},
        }.items():
            path.write_bytes(data)
            yield f"{name}: {label}", place
        path.unlink()
        yield f"{name}: missing", place
        for label, _ in places(path):
            yield f"{name}: {label}", place
        path.write_bytes(content)
    tensors = safetensors.torch.load((place / WEIGHTS).read_bytes())
    (place / WEIGHTS).unlink()
    yield "no weights", place
    whole = torch_bytes(tensors)
    for label, data in [
        *attacks(whole, command, slice(0, None, 6)),
        *torch_attacks(whole),
        *others()[::5],
    ]:
        (place / BIN).write_bytes(data)
        yield f"bin: {label}", place
    for label, changed in list(tensors_edited(tensors))[::2]:
        torch.save(changed, place / BIN)
        yield f"bin: tensor {label}", place
    (place / BIN).unlink()
    for label, _ in places(place / BIN):
        yield f"bin: {label}", place
    for label, names in {
        "outside": {"a": "../../a.safetensors"}, "absolute": {"a": "/etc/passwd.bin"},
        "missing": {"a": "gone.safetensors"}, "none": {}, "list": [], "number": {"a": 3},
        "text": {"a": "config.json"},
    }.items():  # fmt: skip
        (place / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": names}))
        yield f"index: {label}", place
    shutil.rmtree(place)
    yield from pipelines(place)


def pipelines(place):
    """(label, folder) of models of diffusers of other kinds."""
    text = {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "T"]}
    plain = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    vae = {"vae": ["diffusers", "AutoencoderKL"]}
    for name, parts in {
        "StableDiffusionPipeline": plain | text | vae,
        "StableDiffusionXLPipeline": plain | text | vae | {"text_encoder_2": ["transformers", "C"]},
        "DiTPipeline": {"transformer": ["diffusers", "DiTTransformer2DModel"], **vae},
        "FluxPipeline": {"transformer": ["diffusers", "FluxTransformer2DModel"]} | text | vae,
        "LDMPipeline": {"vqvae": ["diffusers", "VQModel"], **plain},
        "ConsistencyModelPipeline": plain,
        "UnCLIPPipeline": {"prior": ["diffusers", "PriorTransformer"]},
        "CodePipeline": {"unet": ["my_code", "Net"], "scheduler": ["my_code", "S"]},
    }.items():
        place.mkdir(exist_ok=True)
        (place / "model_index.json").write_text(json.dumps({"_class_name": name} | parts))
        yield f"pipeline {name}", place
    (place / "model_index.json").unlink()
    for label, table in {
        **{name: {"_class_name": name} for name in ("AutoencoderKL", "UNet2DConditionModel")},
        **{name: {"_class_name": name} for name in ("DiTTransformer2DModel", "Transformer2DModel")},
        **{name: {"_class_name": name} for name in ("ControlNetModel", "MotionAdapter")},
        "a language model": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        "LoRA": {"peft_type": "LORA", "base_model_name_or_path": "x"}, "nothing": {},
    }.items():  # fmt: skip
        (place / "config.json").write_text(json.dumps(table))
        yield f"network {label}", place
    (place / "config.json").unlink()
    yield "empty folder", place
    (place / "adapter_config.json").write_text("{}")
    yield "LoRA folder", place
    (place / "adapter_config.json").unlink()
    shutil.copy(MODELS / "tiny-ddpm.safetensors", place / "checkpoint.safetensors")
    yield "folder of a checkpoint of ours", place


FORMATS = {
    "diffusers": diffusers_folders,
    "score_sde_pytorch": score_sde_files,
    "guided-diffusion": guided_files,
    "edm": edm_files,
    "safetensors": safetensors_folders,
    "ours": own_files,
}
