"""Damaged and malicious folders: one line each that names the place, and nothing runs."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from scoresde.checkpoint import CheckpointError
from scoresde.interop import diffusers

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"
RAN = []


class Runs:
    """Whoever unpickles it runs a function."""

    def __reduce__(self):
        return RAN.append, ("ran",)


def config(**changes):
    def change(folder):
        path = folder / "unet" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def scheduler(**changes):
    def change(folder):
        path = folder / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def text(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def without(name):
    return lambda folder: (folder / name).unlink()


def pipe(name):
    def change(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
UNET, PLAN, INDEX = "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"


def bytes_of_weights(edit):
    def change(folder):
        path = folder / WEIGHTS
        path.write_bytes(edit(path.read_bytes()))

    return change


def pickled(value, torch_file=False):
    def change(folder):
        (folder / WEIGHTS).unlink()
        path = folder / "unet" / "diffusion_pytorch_model.bin"
        if torch_file:
            torch.save(value, path)
        else:
            path.write_bytes(pickle.dumps(value))

    return change


def index_of(names):
    def change(folder):
        (folder / WEIGHTS).unlink()
        place = folder / f"{WEIGHTS}.index.json"
        place.write_text(json.dumps({"weight_map": names}))

    return change


def poisoned(folder):
    """One weight that is not finite."""
    import safetensors.torch

    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    tensors["conv_in.bias"][0] = float("nan")
    safetensors.torch.save_file(tensors, folder / WEIGHTS)


BAD = [
    (without(UNET), "neither unet/config.json nor config.json"),
    (without(PLAN), "scheduler/scheduler_config.json is missing"),
    (without(WEIGHTS), "neither diffusion_pytorch_model.safetensors nor"),
    (text(UNET, b""), "config.json: must be text with settings, and is empty"),
    (text(UNET, b"{"), "config.json: is not valid JSON"),
    (text(UNET, b"\xff\xfe\x00"), "config.json: must be text with settings, and is text in UTF-16"),
    (text(UNET, b"[1]"), "must hold a JSON object, got a list"),
    (text(UNET, b"[" * 100_000), "is nested too deep"),
    (text(PLAN, b"null"), "must hold a JSON object, got null"),
    (text(INDEX, b'{"unet": 1, "vae": 2}'), "has the parts unet, vae; only pipelines"),
    (text(INDEX, b"{}"), "only pipelines of unet and scheduler"),
    (pipe(UNET), "neither unet/config.json nor"),
    (pipe(WEIGHTS), "safetensors: is not a regular file"),
    (config(_class_name="UNet2DConditionModel"), "is 'UNet2DConditionModel'; only UNet2DModel"),
    (config(_class_name=["UNet2DModel"]), "only UNet2DModel can be read"),
    (config(new_key=3), "unknown key 'new_key' = 3"),
    (config(sample_size=None), "sample_size is null"),
    (config(sample_size=9), "sides that 2 divides"),
    (config(sample_size=-8), "sample_size must be at least 1"),
    (config(sample_size="8"), "sample_size must be an integer"),
    (config(sample_size=10**30), "sample_size must be at most"),
    (config(sample_size={"a": 1}), "sample_size must not hold an object"),
    (config(block_out_channels=[]), "at least one"),
    (config(block_out_channels=[4, 10**6]), "conv_in|tensors do not fit|has shape"),
    (config(block_out_channels=[4, 7]), "norm_num_groups must divide each entry of block_out_"),
    (config(block_out_channels=16), "block_out_channels must be a list"),
    (config(block_out_channels=["4", "8"]), "must be an integer"),
    (config(down_block_types=["DownBlock2D"]), "must name as many levels"),
    (config(down_block_types=["CrossAttnDownBlock2D"] * 2), "each entry of down_block_types must"),
    (config(up_block_types=["KUpBlock2D"] * 2), "each entry of up_block_types must be one of"),
    (config(up_block_types=["SkipUpBlock2D", "UpBlock2D"]), "skip levels must be the highest"),
    (config(layers_per_block=10**6), "layers_per_block is 1000000 for 2 block_out_channels: more"),
    (config(layers_per_block=2), "the tensors do not fit .*missing down_blocks"),
    (config(layers_per_block=True), "layers_per_block must be an integer"),
    (config(in_channels=1), r"out_channels must be in_channels = 1 or twice"),
    (config(in_channels=0, out_channels=0), "must be at least 1"),
    (config(norm_num_groups=0), "norm_num_groups must be at least 1"),
    (config(norm_num_groups=3), "norm_num_groups must divide each entry of block_out_"),
    (config(norm_eps="x"), "norm_eps must be a number"),
    (config(act_fn="__import__('os')"), "act_fn must be one of silu"),
    (config(dropout=2), "dropout must be less than 1"),
    (
        config(time_embedding_type="learned"),
        "num_train_timesteps must be given for time_embedding_type = .learned",
    ),
    (config(class_embed_type="projection"), "class_embed_type must be null"),
    (config(num_class_embeds=-1), "num_class_embeds must be at least 1"),
    (config(attention_head_dim=64), "attention_head_dim must be at most each entry of block_out_"),
    (scheduler(_class_name="UnCLIPScheduler"), "is unknown; .*allowed: DDPM"),
    (scheduler(_class_name="LTXEulerAncestralRFScheduler"), "cannot be read: of flow matching"),
    (scheduler(_class_name="FlowMatchLCMScheduler"), "predicts the end of a trajectory"),
    (scheduler(use_flow_sigmas=True), "prediction_type must be 'flow_prediction' with use_flow_s"),
    (
        scheduler(_class_name="FlowMatchEulerDiscreteScheduler", num_train_timesteps=0),
        "num_train_timesteps must be at least 1, got 0",
    ),
    (
        scheduler(_class_name="FlowMatchHeunDiscreteScheduler", invert_sigmas="yes"),
        "invert_sigmas must be true or false, got 'yes'",
    ),
    (scheduler(trained_betas=[0.1] * 999 + [1.5]), "betas must lie in"),
    (scheduler(_class_name="LCMScheduler"), "predicts the end of a trajectory"),
    (scheduler(timestep_type="continuous"), "timestep_type must be 'discrete', got 'continuous'"),
    (scheduler(beta_schedule="cubic"), "beta_schedule must be one of linear"),
    (scheduler(beta_start="NaN"), "beta_start must be a number"),
    (scheduler(beta_end=2), "beta_end must be less than 1"),
    (scheduler(num_train_timesteps=10**9), "num_train_timesteps must be at most"),
    (scheduler(trained_betas=[0.1, 0.2]), "trained_betas must be a list of 1000 numbers"),
    (scheduler(prediction_type="flow_prediction"), "prediction_type must be one of epsilon"),
    (bytes_of_weights(lambda b: b"version https://git-lfs.github.com/spec/v1\n"), "of Git LFS"),
    (bytes_of_weights(lambda b: b""), "safetensors: is empty"),
    (bytes_of_weights(lambda b: b[:-100]), "is a safetensors file, but damaged"),
    (bytes_of_weights(lambda b: b"\xff" * 8 + b[8:]), "18,446,744,073,709,551,615 bytes, more"),
    (
        bytes_of_weights(lambda b: b.replace(b"conv_in.bias", b"conv_in.bios")),
        "missing conv_in.bias",
    ),
    (poisoned, "conv_in.bias: 1 non-finite values"),
    (pickled(Runs()), "must hold tensors by name, got"),
    (pickled({"conv_in.weight": Runs()}, torch_file=True), "'conv_in.weight' is builtins"),
    (pickled({1: 2}), "must hold tensors by name"),
    (pickled({}), "missing|has tensors .0."),
    (index_of({"a": "../../a.safetensors"}), "which is no file beside it"),
    (index_of({"a": "gone.safetensors"}), "cannot be read: No such file"),
    (index_of({}), "weight_map must say"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_a_bad_folder_is_one_line(change, message, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(MODELS / "tiny-ddpm", folder)
    change(folder)
    assert isinstance(diffusers.recognizes(folder), bool)
    with pytest.raises(CheckpointError, match=message) as caught:
        diffusers.read(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200
    assert str(folder) in str(caught.value)
    assert RAN == []
