"""`scoresde import`, `scoresde export`, and a model of another library as --checkpoint."""

import json
from pathlib import Path

import scoresde as library

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"
FOLDER = MODELS / "tiny-ddpm"


def test_a_folder_is_imported(scoresde, tmp_path):
    out = tmp_path / "m.safetensors"
    done = scoresde("import", FOLDER, out)
    assert done.status == 0
    lines = done.out.splitlines()
    assert "scheduler.prediction_type = 'epsilon': preconditioning.target = eps" in lines
    assert lines[-1] == f"{out}: 11,767 weights, of the format diffusers"
    written, direct = library.load(out), library.load(FOLDER)
    assert written.sha256 == direct.sha256  # results of both are results of one model
    assert written.metadata["provenance"]["files"][0]["name"] == "unet/config.json"
    assert "is there already" in scoresde("import", FOLDER, out).err
    out = tmp_path / "new" / "m.safetensors"
    found = json.loads(
        scoresde("import", FOLDER, out, "--json", "--time-label", "rounded_index").out
    )
    assert found["sha256"] != written.sha256
    assert library.load(out).model.snapped


def test_commands_take_the_folder(scoresde, tmp_path):
    described = json.loads(scoresde("inspect", "--checkpoint", FOLDER, "--json").out)
    assert described["provenance"]["format"] == "diffusers"
    assert described["bytes"] > 30_000
    assert described["config"]["net"]["kind"] == "block_unet"
    few = ("--nfe", 2, "--n", 2, "--sampler", "ddim:clip=1", "--out", tmp_path / "s")
    assert scoresde("sample", "--checkpoint", FOLDER, *few).status == 0
    again = scoresde("sample", "--checkpoint", FOLDER, *few)
    assert again.status == 0


def test_what_is_exported_is_imported_again(scoresde, tmp_path):
    done = scoresde("export", FOLDER, tmp_path / "e")
    assert done.status == 0
    assert "not in this format: levels, data range" in done.out
    a, b = library.load(FOLDER), library.load(tmp_path / "e")
    assert a.config == b.config
    done = scoresde("export", FOLDER, tmp_path / "e")
    assert (done.status, "is there already" in done.err) == (2, True)
    done = scoresde("export", "digits-vp", tmp_path / "f")
    assert (done.status, "cannot express UNet" in done.err) == (2, True)


def test_what_is_no_model_is_refused(scoresde, tmp_path):
    for words in (("import", tmp_path, tmp_path / "o"), ("inspect", "--checkpoint", tmp_path)):
        done = scoresde(*words)
        assert done.status == 2
        assert len(done.err.splitlines()) == 1
        assert "format" in done.err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel", "sample_size": 8}')
    done = scoresde("sample", "--checkpoint", tmp_path, "--out", tmp_path / "s")
    assert done.status == 2
    assert "scheduler/scheduler_config.json is missing" in done.err
    assert not (tmp_path / "s").exists()
