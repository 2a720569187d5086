"""Damaged, malicious and foreign files of each format of models, written one after the other.

    for label, source in FORMATS["edm"](folder, command):
        ...                                  # source is there until the next one is asked for

Those that would run something in another reader run `command`.
"""

import io
import json
import math
import os
import pickle
import random
import shutil
import socket
import struct
import zipfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from formula_weights import weights
from hostile_pickles import bombs, files_of_torch, harmful, zipped

from scoresde.checkpoint import save_checkpoint
from scoresde.names.sources import import_source

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"


def damaged(whole, seed, upto=None):
    """The bytes cut, with flipped bits, or with a part removed, repeated, zeroed or exchanged.

    Args:
        whole: The bytes.
        seed: Of the random numbers.
        upto: All changes but cuts are before this byte, where no weights are; None for the end.
    """
    draw = random.Random(seed)
    at = int((upto or len(whole)) * draw.random() ** 2)
    span, kind = draw.randrange(1, 40), draw.randrange(7)
    if kind == 0:
        return whole[: draw.randrange(len(whole))]
    if kind == 1:
        return whole[:at] + whole[at + span :]
    if kind == 2:
        return whole[:at] + whole[max(0, at - span) : at] + whole[at:]
    if kind == 3:
        return whole[:at] + bytes(span) + whole[at + span :]
    if kind == 4:
        return whole[:at] + draw.randbytes(span) + whole[at + span :]
    if kind == 5:
        return whole + whole[at : at + span]
    changed = bytearray(whole)
    for _ in range(draw.randrange(1, 9)):
        changed[min(len(whole) - 1, at + draw.randrange(span))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def torch_bytes(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def with_pickle(whole, edit):
    """The bytes of a PyTorch file or a pickle, with its pickle edited."""
    if not whole.startswith(b"PK"):
        return edit(whole)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    return zipped({k: edit(v) if k.endswith("/data.pkl") else v for k, v in files.items()})


def attacks(whole, command):
    """(label, file) of a PyTorch file or a pickle, in which further opcodes come first."""
    for number, body in enumerate(harmful(command)):
        yield f"runs {number}", with_pickle(whole, lambda p, b=body: p[:2] + b + b"0" + p[2:])
    for wanted, body in bombs():
        yield f"bomb: {wanted}", with_pickle(whole, lambda p, b=body: p[:2] + b + b"0" + p[2:])
    for wanted, body in bombs():
        yield f"only a bomb: {wanted}", with_pickle(whole, lambda p, b=body: p[:2] + b + b".")


def torch_attacks(whole):
    """(label, file): changes of the zip file of a checkpoint."""
    for wanted, data in files_of_torch():
        yield f"torch: {wanted}", data
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    names = [name for name in files if "/data/" in name]
    yield "compressed", zipped(files, compression=zipfile.ZIP_DEFLATED)
    for label, key in (("first", names[0]), ("last", names[-1])):
        yield f"no {label} storage", zipped({k: v for k, v in files.items() if k != key})
        yield f"short {label} storage", zipped(files | {key: files[key][:-1]})
        yield f"long {label} storage", zipped(files | {key: files[key] + b"x"})
    yield "no pickle", zipped({k: v for k, v in files.items() if not k.endswith("data.pkl")})
    yield "names with ..", zipped({f"../../{k}": v for k, v in files.items()})
    yield (
        "on a GPU",
        with_pickle(
            whole, lambda p: p.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
        ),
    )


def tensors_edited(tensors):
    """(label, tensors): one tensor that is no ordinary one, or missing, or one too many."""
    first, last = next(k for k, v in tensors.items() if v.ndim > 1), list(tensors)[-1]
    w = tensors[first]
    for label, value in {
        **{"NaN": w * torch.nan, "infinite": w * torch.inf, "half": w.half() * 1e9},
        **{"transposed": w.transpose(0, -1)[..., :1], "complex": w.to(torch.complex64)},
        **{"int": w.long(), "bool": w > 0},
        **{"empty": w[:0], "scalar": w.sum(), "larger": torch.cat([w, w]), "flat": w.flatten()},
        **{"sparse": w.to_sparse(), "meta": w.to("meta"), "float8": w.to(torch.float8_e5m2)},
        **{"quantized": torch.quantize_per_tensor(w.float(), 0.1, 0, torch.qint8)},
        **{"expanded": torch.ones(1).expand(4096, 4096, 9), "text": "weights", "none": None},
        **{"list": w.flatten().tolist(), "array of text": np.array(["a", "b"])},
        **{"array of objects": np.array([{}, ()], dtype=object), "dictionary": {"weight": w}},
    }.items():
        yield label, tensors | {first: value}
    yield "missing", {k: v for k, v in tensors.items() if k != last}
    yield "all missing but one", {first: w}
    yield "further", tensors | {"further.weight": w}
    yield "lines in a name", tensors | {"a\nb\x1b[31m\u202e": w}
    yield "long name", tensors | {"n" * 100_000: w}
    yield "number as name", tensors | {7: w}
    yield "no name", tensors | {"": w}
    yield "prefixed", {f"model.{k}": v for k, v in tensors.items()}
    yield "tied", tensors | {last: w}


def others():
    """(label, bytes): files of other kinds."""
    yield "empty", b""
    yield "one byte", b"\x80"
    yield "Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 143299\n"
    yield "web page", b"<!DOCTYPE html>\n<html><title>Quota exceeded</title></html>"
    yield "web page, spaces", b"\n\n  <html lang='en'><head>"
    yield "XML", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
    yield "text", b"404: Not Found"
    yield "JSON", b'{"error": "Repository not found"}'
    yield "TOML", b'[sde]\nkind = "vp"\n'
    yield "UTF-16", "weights".encode("utf-16")
    yield "gzip", b"\x1f\x8b\x08\x00" + bytes(60)
    yield "xz", b"\xfd7zXZ\x00" + bytes(60)
    yield "zstd", b"\x28\xb5\x2f\xfd" + bytes(60)
    yield "7-Zip", b"7z\xbc\xaf\x27\x1c" + bytes(60)
    yield "tar", bytes(257) + b"ustar\x00" + bytes(300)
    yield "HDF5 (Keras)", b"\x89HDF\r\n\x1a\n" + bytes(90)
    yield "GGUF", b"GGUF\x03\x00\x00\x00" + bytes(90)
    yield "ONNX", b"\x08\x08\x12\x07pytorch\x1a\x052.4.0:\x9a\x01" + bytes(90)
    yield "msgpack of Flax", b"\x81\xa6params\x81\xa7conv_in\x82\xa6kernel\xc7\x11\x01" + bytes(90)
    yield "npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}"
    arrays = io.BytesIO()
    np.savez(arrays, weight=np.ones(3))
    yield "npz", arrays.getvalue()
    yield "PNG", b"\x89PNG\r\n\x1a\n" + bytes(60)
    yield "zip", zipped({"README.txt": b"hello"})
    yield "zip of a folder", zipped({"m/model_index.json": b"{}", "m/unet/config.json": b"{}"})
    yield "Keras 3", zipped({"metadata.json": b"{}", "model.weights.h5": b"x"})
    yield "program", b"#!/bin/sh\nrm -rf /\n"
    yield "ELF", b"\x7fELF\x02\x01\x01" + bytes(60)
    yield "random bytes", random.Random(0).randbytes(500)
    yield "zeros", bytes(5000)
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    yield "TorchScript", buffer.getvalue()
    yield from other_models()


def other_models():
    """(label, bytes): PyTorch and safetensors files of models of other kinds."""
    w = torch.ones(4, 4)
    stable = {
        "model.diffusion_model.input_blocks.0.0.weight": w,
        "first_stage_model.encoder.conv_in.weight": w,
        "cond_stage_model.transformer.text_model.embeddings.position_ids": w,
    }
    lora = {"lora_unet_down_blocks_0_attentions_0.lora_down.weight": w}
    peft = {"unet.down_blocks.0.attentions.0.to_q.lora_A.weight": w}
    dit = {"x_embedder.proj.weight": w, "blocks.0.adaLN_modulation.1.weight": w}
    vae = {"encoder.conv_in.weight": w, "decoder.conv_in.weight": w, "quant_conv.weight": w}
    flux = {"double_blocks.0.img_attn.qkv.weight": w}
    text_model = {"text_model.encoder.layers.0.self_attn.q_proj.weight": w}
    unet = {"conv_in.weight": w, "down_blocks.0.resnets.0.conv1.weight": w}
    latent = unet | {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": w}
    lucid = {"step": 3, "model": {"model.init_conv.weight": w, "betas": w[0]}, "ema": {}}
    made = {"LoRA": lora, "LoRA of peft": peft, "DiT": dit, "VAE": vae, "Flux": flux}
    made |= {
        "CLIP": text_model,
        "UNet2DModel": unet,
        "UNet2DConditionModel": latent,
        "Stable Diffusion": stable,
    }
    for label, tensors in made.items():
        apart = {name: tensor.clone() for name, tensor in tensors.items()}
        yield f"{label}, safetensors", safetensors.torch.save(apart)
        yield f"{label}, torch", torch_bytes(tensors)
    yield "Lightning", torch_bytes({"state_dict": stable, "pytorch-lightning_version": "1.4.2"})
    yield "lucidrains", torch_bytes(lucid)
    yield "optimizer", torch_bytes({"state": {}, "param_groups": []})
    yield "one tensor", torch_bytes(w)
    yield "whole module", torch_bytes(torch.nn.Linear(2, 2))
    yield "ResNet", torch_bytes({"conv1.weight": w, "layer1.0.conv1.weight": w, "fc.weight": w})
    yield "list", torch_bytes([w, w])
    yield "StyleGAN", pickle.dumps({"G_ema": 1, "D": 2})
    yield "pickled numbers", pickle.dumps([1, 2, 3])


def places(path):
    """(label, path) of things that are no files, at this path."""
    os.mkfifo(path)
    yield "pipe", path
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        server.bind(path.name)
        os.chdir(here)
        yield "socket", path
    path.unlink()
    for label, target in {
        **{"device": "/dev/zero", "random device": "/dev/random", "broken link": "gone"},
        **{"link to itself": path.name, "link to a folder": "/", "link to text": "/etc/passwd"},
    }.items():
        path.symlink_to(target)
        yield label, path
        path.unlink()
    path.mkdir()
    yield "folder", path
    path.rmdir()


def single_files(path, command, whole, upto, count, zip_file=False):
    """Files of a format whose model is the file `whole`."""
    yield from places(path)
    made = [*others(), *attacks(whole, command), *(torch_attacks(whole) if zip_file else ())]
    for label, data in made:
        path.write_bytes(data)
        yield label, path
    for seed in range(max(60, count - len(made))):
        path.write_bytes(damaged(whole, seed, upto))
        yield f"damaged {seed}", path


def fixture(name, case):
    path = Path(__file__).parents[1] / "fixtures" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["cases"][case]


def score_sde_files(folder, command, count=200):
    case = fixture("score_sde", "ncsn++ discrete ve")
    settings, shapes = case["settings"], case["shapes"]
    ends = math.log(settings["model.sigma_max"]), math.log(settings["model.sigma_min"])
    model = weights(shapes, seed=3) | {
        "sigmas": torch.linspace(*ends, settings["model.num_scales"], dtype=torch.float64).exp()
    }
    averages = [model[key] for key in shapes if key not in case["not trained"]]
    state = {
        "optimizer": {"state": {}, "param_groups": []},
        "model": {f"module.{key}": model[key] for key in shapes},
        "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": averages},
        "step": 7,
    }
    path, tables = folder / "checkpoint.pth", {}
    for key, value in settings.items():
        tables.setdefault(key.partition(".")[0], {})[key.partition(".")[2]] = value
    path.with_suffix(".json").write_text(json.dumps(tables), encoding="utf-8")
    for label, tensors in tensors_edited(state["model"]):
        torch.save(state | {"model": tensors}, path)
        yield f"tensor {label}", path
    for label, changed in {
        "no model": {"model": None},
        "model is a list": {"model": [1]},
        "no averages": {"ema": None},
        "averages are text": {"ema": {"shadow_params": "a"}},
        "fewer averages": {"ema": {"shadow_params": averages[1:]}},
        "averages in another order": {"ema": {"shadow_params": averages[::-1]}},
        "averages not finite": {"ema": {"shadow_params": [averages[0] * torch.nan, *averages[1:]]}},
    }.items():
        torch.save(state | changed, path)
        yield label, path
    path.unlink()
    yield from single_files(path, command, torch_bytes(state), 40_000, count, True)
    path.write_bytes(torch_bytes(state, _use_new_zipfile_serialization=False))
    yield "older format", path
    whole = path.read_bytes()
    for seed in range(20):
        path.write_bytes(damaged(whole, seed))
        yield f"older format, damaged {seed}", path
    path.write_bytes(torch_bytes(state))
    yield from bad_settings(path, tables)


def bad_settings(path, tables):
    """(label, path) of a whole checkpoint with settings that are wrong."""
    beside = path.with_suffix(".json")
    for label, content in {
        **{"empty": b"", "text": b"hello", "list": b"[]", "number": b"3", "null": b"null"},
        **{"deep": b"[" * 100_000, "deep tables": b'{"a":' * 100_000, "UTF-16": b"\xff\xfe{\x00"},
        **{"large number": b'{"model": {"nf": 1' + b"0" * 5000 + b"}}"},
        **{"many lists": b"[" + b"[]," * 5_000_000 + b"[]]"},
        **{"twice": json.dumps(tables).replace("{", '{"model": 3, ', 1).encode()},
    }.items():
        beside.write_bytes(content)
        yield f"settings {label}", path
    flat = {k: v for k, v in tables.items() if not isinstance(v, dict)}
    flat |= {f"{k}.{n}": v for k, t in tables.items() if isinstance(t, dict) for n, v in t.items()}
    for key, value in flat.items():
        for wrong in ("x", -1, 10**9, 10**30, [], {}, True, math.nan, math.inf, [10**9] * 3):
            if type(wrong) is not type(value):
                beside.write_text(json.dumps(flat | {key: wrong}), encoding="utf-8")
                yield f"settings {key} = {wrong}", path
    beside.unlink()
    yield "no settings", path
    beside.mkdir()
    yield "settings are a folder", path
    beside.rmdir()
    os.mkfifo(beside)
    yield "settings are a pipe", path


def guided_files(folder, command, count=200):
    case = fixture("guided_diffusion", "residual, classes, learned")
    tensors, path = weights(case["shapes"], seed=3), folder / "model.pt"
    path.with_suffix(".json").write_text(json.dumps(case["settings"]), encoding="utf-8")
    for label, changed in tensors_edited(tensors):
        torch.save(changed, path)
        yield f"tensor {label}", path
    path.unlink()
    yield from single_files(path, command, torch_bytes(tensors), 10_000, count, True)
    path.write_bytes(torch_bytes(tensors))
    yield from bad_settings(path, case["settings"])


class Stored:
    """Is pickled as a module of EDM: a call with the class, its source and its state."""

    def __init__(self, name, arguments, state, source):
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": name}
        self.meta["state"] = {"_init_args": (), "_init_kwargs": arguments} | state

    def __reduce__(self):
        return _rebuilt, (self.meta,)


def _rebuilt(meta):
    raise AssertionError("the pickle was run")


def edm_bytes(case, tensors, source, **changes):
    """A pickle of EDM, whose classes have this source."""

    def state_of(prefix):
        names = [name for name in tensors if str(name).startswith(prefix)]
        rest = {str(name).removeprefix(prefix): tensors[name] for name in names}
        parts = dict.fromkeys(name.partition(".")[0] for name in rest if "." in name)
        inner = {part: Stored("Layer", {}, state_of(f"{prefix}{part}."), source) for part in parts}
        return {"_parameters": {k: v for k, v in rest.items() if "." not in k}, "_modules": inner}

    get = {"kind": case["kind"], "given": case["given"], "model": case["model"]} | changes
    net = Stored(get["model"], case["arguments"] | get.get("arguments", {}), state_of(""), source)
    outer = Stored(get["kind"], get["given"], {"_modules": {"model": net}}, source)
    return pickle.dumps({"ema": outer}, 2).replace(
        b"chostile_models\n_rebuilt\n", b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    )


def edm_files(folder, command, count=200):
    case = fixture("edm", "edm, ddpm++, classes")
    tensors, path = weights(case["shapes"], seed=3), folder / "network.pkl"
    source = f"import os; os.system({command!r})"
    for label, changed in tensors_edited(tensors):
        path.write_bytes(edm_bytes(case, changed, source))
        yield f"tensor {label}", path
    for key, value in case["arguments"].items():
        for wrong in ("x", -1, 10**9, 10**30, [], {}, True, math.nan, math.inf, [10**9] * 3, None):
            if type(wrong) is not type(value):
                path.write_bytes(edm_bytes(case, tensors, source, arguments={key: wrong}))
                yield f"argument {key} = {wrong}", path
    for changes in (
        {"kind": "EDM2Precond"}, {"kind": "VEPrecond"}, {"kind": "iDDPMPrecond"}, {"kind": ""},
        {"model": "Dit"}, {"model": 3}, {"given": None}, {"given": {"sigma_data": math.nan}},
        {"given": {"sigma_data": -1}}, {"given": {"sigma_max": -1}}, {"given": {"sigma_max": "x"}},
    ):  # fmt: skip
        path.write_bytes(edm_bytes(case, tensors, source, **changes))
        yield f"class {changes}", path
    whole = edm_bytes(case, tensors, source)
    path.unlink()
    yield from single_files(path, command, whole, 20_000, count)
    path.write_bytes(whole)
    yield "whole", path


def header(entries, data=b"", length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def safetensors_attacks(whole):
    """(label, bytes) of safetensors files that its format forbids, or that need much memory."""
    size = struct.unpack("<Q", whole[:8])[0]
    entries, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    first = next(name for name in entries if name != "__metadata__")
    one = entries[first]
    begin, end = one["data_offsets"]
    text = json.dumps(entries).encode()
    for length in (0, 1, size - 1, size + 1, len(whole), 2**31, 2**53, 2**63, 2**64 - 1):
        yield f"header of {length} bytes", struct.pack("<Q", length) + whole[8:]
    for label, changed in {
        **{"behind": [begin, end + 4], "far": [begin, 2**62], "negative": [-4, 0]},
        **{"reversed": [end, begin], "text": ["0", "4"], "one": [0]},
        **{"large": [2**64, 2**65], "real": [0.5, 1.5], "none": None},
    }.items():
        yield f"offsets {label}", header(entries | {first: one | {"data_offsets": changed}}, data)
    for label, shape in {
        **{"large": [2**40, 2**40], "negative": [-1], "text": ["4"], "other": [1], "empty": []},
        **{"zero": [0, 2**62], "long": [1] * 10_000, "number": 4, "none": None},
    }.items():
        yield f"shape {label}", header(entries | {first: one | {"shape": shape}}, data)
    for kind in ("F33", "I64", "BF16", "F8_E4M3", "C64", "", 3, None, "pickle"):
        yield f"dtype {kind}", header(entries | {first: one | {"dtype": kind}}, data)
    for label, content in {
        **{"list": b"[]", "null": b"null", "empty": b"{}", "number": b"{3", "text": b'{"a": "b"}'},
        **{"deep": b"{" + b'"a":[' * 100_000, "deep tables": b'{"a":' * 100_000},
        **{"not UTF-8": b'{"\xff": 1}', "twice": text[:-1] + b"," + text[1:]},
        **{"spaces": b"{" + b" " * 1_000_000 + b"}", "NaN": b'{"a": NaN}', "nulls": b"{\x00}"},
        **{"large number": b'{"a": 1' + b"0" * 5000 + b"}", "metadata": b'{"__metadata__": 3}'},
        **{"objects": b'{"__metadata__": {"a": [' + b"{}," * 3_000_000 + b"{}]}}"},
    }.items():
        yield f"header {label}", header(content, data)
    many = {f"{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(200_000)}
    yield "many tensors", header(many)
    yield "further bytes", whole + b"x"
    yield "no data", header(entries)
    yield "same data", header(entries | {"further": one}, data)


def own_files(folder, command, count=200):
    path, raw = folder / "m.safetensors", import_source(MODELS / "tiny-ddpm")
    metadata = {k: v for k, v in raw.metadata.items() if k not in ("report", "provenance")}
    save_checkpoint(path, raw.tensors, metadata)
    whole = path.read_bytes()
    for label, data in [*others(), *safetensors_attacks(whole)]:
        path.write_bytes(data)
        yield label, path
    for place, wrong, changed in edited_tables(metadata):
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
    for seed in range(count):
        path.write_bytes(damaged(whole, seed))
        yield f"damaged {seed}", path
    path.unlink()
    yield from places(path)


WRONG = ("x", "os:system", -1, 0, 10**6, 10**9, 2**63, 1e300, [], {}, True, None, [10**9] * 3)


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


def safetensors_folders(folder, command, count=200):
    """Folders of diffusers whose safetensors file is damaged."""
    path = folder / "m" / WEIGHTS
    shutil.copytree(MODELS / "tiny-ddpm", folder / "m")
    whole = path.read_bytes()
    tensors = safetensors.torch.load(whole)
    made = [*others(), *safetensors_attacks(whole)]
    made += [(f"damaged {seed}", damaged(whole, seed, 10_000)) for seed in range(count - len(made))]
    for label, data in made:
        path.write_bytes(data)
        yield label, folder / "m"
    for label, changed in tensors_edited(tensors):
        try:
            path.write_bytes(safetensors.torch.save(changed))
        except Exception:
            continue
        yield f"tensor {label}", folder / "m"
    bare = folder / "bare.safetensors"
    for label, data in made:
        bare.write_bytes(data)
        yield f"alone, {label}", bare
    path.unlink()
    for label, _ in places(path):
        yield label, folder / "m"


def diffusers_folders(folder, command, count=200):
    def fresh():
        shutil.rmtree(folder / "m", ignore_errors=True)
        shutil.copytree(MODELS / "tiny-ddpm", folder / "m")
        return folder / "m"

    place = fresh()
    for name in TABLES:
        path = place / name
        content = path.read_bytes()
        for key, wrong, changed in edited_tables(json.loads(content)):
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
    for label, data in [*attacks(whole, command), *torch_attacks(whole), *others()]:
        (place / BIN).write_bytes(data)
        yield f"bin: {label}", place
    for label, changed in tensors_edited(tensors):
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
