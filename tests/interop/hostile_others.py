"""Files of other kinds, and models of other kinds, that no reader takes."""

import functools
import io
import pickle
import random

import numpy as np
import safetensors.torch
import torch
from hostile_bytes import torch_bytes
from hostile_pickles import zipped


@functools.cache
def others():
    """List of (label, bytes): files of other kinds."""
    return [*other_kinds(), *other_models()]


def other_kinds():
    """(label, bytes): files that hold no model."""
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
    program = {"m/data.pkl": b"N.", "m/code/__torch__.py": b"import os", "m/constants.pkl": b"N."}
    yield "TorchScript", zipped(program)


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
