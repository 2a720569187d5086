"""Folders of diffusers' AutoencoderKL: read, written, refused; the library is the oracle."""

import json

import pytest
import torch

from scoresde.autoencoder import convolutional_autoencoder, linear_autoencoder
from scoresde.checkpoint import CheckpointError
from scoresde.data import DataSpec
from scoresde.interop.autoencoder_kl import (
    is_autoencoder_folder,
    read_autoencoder,
    write_autoencoder,
)
from scoresde.names.autoencoders import load_autoencoder, save_autoencoder
from scoresde.tasks.importing import export_model, import_model

GREY = DataSpec((1, 8, 8), -1.0, 1.0, 17)


def small(seed=0, **changed):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        options = {"channels": [4, 8], "groups": 4, "latent_channels": 2} | changed
        return convolutional_autoencoder(GREY, **options).requires_grad_(False)


@pytest.fixture
def folder(tmp_path):
    made = small(attention=True)
    made.fit_scale([GREY.encode(torch.randint(0, 17, (8, 1, 8, 8)))])
    write_autoencoder(made, tmp_path / "vae")
    return tmp_path / "vae"


def test_what_is_written_is_read_again(tmp_path):
    x = torch.rand(3, 1, 8, 8) * 2 - 1
    scales = (
        ([0.5, 0.5], [2.0, 2.0]),
        ([0.1, -0.2], [0.5, 3.0]),
    )  # one for all, one for each channel
    for i, (mean, std) in enumerate(scales):
        made = small(i, attention=bool(i), mixed_encoder=bool(i), mixed_decoder=not i)
        made.latent_mean.copy_(torch.tensor(mean))
        made.latent_std.copy_(torch.tensor(std))
        write_autoencoder(made, tmp_path / f"{i}")
        again = load_autoencoder(tmp_path / f"{i}")
        # Rounding of 1/std in float64, then in float32.
        torch.testing.assert_close(again.encode(x), made.encode(x))
        torch.testing.assert_close(again.decode(made.encode(x)), made.decode(made.encode(x)))


def test_a_pipelines_folder_and_files_inside_stand_for_it(folder):
    assert is_autoencoder_folder(folder)
    assert is_autoencoder_folder(folder.parent)  # holds vae/
    assert is_autoencoder_folder(folder / "config.json")
    assert not is_autoencoder_folder(folder.parent / "none")
    made = read_autoencoder(folder.parent, size=16, noise_std=0.3)
    assert made.spec.shape == (1, 16, 16)
    assert made.latent_shape == (2, 8, 8)
    assert float(made.noise_std) == pytest.approx(0.3)


def test_an_imported_one_can_be_saved_as_a_checkpoint(folder, tmp_path):
    made = load_autoencoder(folder)
    save_autoencoder(tmp_path / "a.safetensors", made)
    again = load_autoencoder(tmp_path / "a.safetensors")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(again.encode(x), made.encode(x))


def test_import_and_export_make_a_checkpoint_and_the_same_folder_again(folder, tmp_path):
    found = import_model(folder, tmp_path / "a.safetensors", {})
    assert found["format"] == "diffusers AutoencoderKL"
    assert "latent_channels = 2: read" in found["report"]
    export_model(str(tmp_path / "a.safetensors"), tmp_path / "again")
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(ValueError, match="label is no option of an autoencoder"):
        import_model(folder, tmp_path / "b.safetensors", {"label": "index"})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"_class_name": "VQModel"}, "_class_name must be AutoencoderKL, got 'VQModel'"),
        ({"out_channels": 3}, "out_channels must be in_channels, 1, got 3"),
        ({"act_fn": "relu"}, "act_fn must be silu"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 2}, "down_block_types must be"),
        ({"block_out_channels": 8}, "block_out_channels must be a list"),
        ({"block_out_channels": [8, 8]}, "conv_in"),
        ({"layers_per_block": 10**9}, "layers_per_block is 1000000000 for 2"),
        ({"latents_std": None}, "latents_mean and latents_std must be given together"),
        ({"shift_factor": 0.5}, "shift_factor must be absent"),
        ({"scaling_factor": 0.0}, "scaling_factor must be"),
        ({"sample_size": 7}, "at most 1 levels"),
    ],
)
def test_configs_that_are_refused(folder, changed, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(CheckpointError, match=message):
        read_autoencoder(folder)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="a convolutional one, .* got kind 'linear'"):
        write_autoencoder(linear_autoencoder(DataSpec((3,), -1.0, 1.0), 2), tmp_path / "a")
    with pytest.raises(ValueError, match="is there already"):
        write_autoencoder(small(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("scaled", ["factor", "channels"])
def test_it_computes_what_the_library_computes(tmp_path, scaled):
    """Both ways: its folder here, and our folder there. Float32 rounding of some 20 layers."""
    library = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    options = {"scaling_factor": 0.3, "shift_factor": 0.2}
    if scaled == "channels":
        options = {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 0.5, 3.0]}
    theirs = library.AutoencoderKL(
        **options,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[8, 16],
        norm_num_groups=4,
        sample_size=16,
    ).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_autoencoder(tmp_path / "theirs")
    write_autoencoder(ours, tmp_path / "ours")
    again = library.AutoencoderKL.from_pretrained(tmp_path / "ours").eval()
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        for each in (theirs, again):
            q = each.encode(x).latent_dist
            mean, log_std = ours.raw_posterior(x)
            torch.testing.assert_close(mean, q.mean, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(log_std, 0.5 * q.logvar, atol=1e-5, rtol=1e-5)
            wanted = each.decode(q.mean).sample
            torch.testing.assert_close(ours.decode_raw(mean), wanted, atol=1e-5, rtol=1e-5)
    z = (mean - 0.2) * 0.3
    if scaled == "channels":
        shift, std = (torch.tensor(options[k])[:, None, None] for k in options)
        z = (mean - shift) * 0.18215 / std
    torch.testing.assert_close(ours.encode(x), z, atol=1e-5, rtol=1e-5)
