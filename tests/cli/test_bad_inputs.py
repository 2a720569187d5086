"""Bad inputs: status 2, one line that names the option, its value and the allowed values.

There is no traceback, nothing is written, and no network is built. Bad configs and training data
are in test_bad_configs.py.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

SAMPLE = [
    (["--steps", "0"], ["--steps: 0", "at least 1"]),
    (["--steps", "-5"], ["--steps: -5", "at least 1"]),
    (["--steps", "1.5"], ["--steps: '1.5'", "an integer at least 1"]),
    (["--steps", "abc"], ["--steps: 'abc'", "an integer at least 1"]),
    (["--steps", "1000000000"], ["--steps: 1000000000", "at most 1000000", "500 bytes per step"]),
    (["--steps", "5", "--nfe", "5"], ["--nfe: 5", "--steps 5", "give one of them"]),
    (["--nfe", "0"], ["--nfe: 0", "at least 1"]),
    (["--nfe", "2", "--sampler", "heun"], ["--nfe: 2", "at least 3, for one step"]),
    (["--batch", "0"], ["--batch: 0", "at least 1"]),
    (["--batch", "-1"], ["--batch: -1", "at least 1"]),
    (["--n", "0"], ["--n: 0", "at least 1"]),
    (["--n", str(10**11)], [f"--n: {10**11} of 64 numbers each need 7.68e+04 GB of memory"]),
    (["--seed", "-1"], ["--seed: -1", "at least 0"]),
    (["--seed", str(2**64)], [f"--seed: {2**64}", f"at most {2**64 - 1}"]),
    (["--seed", "abc"], ["--seed: 'abc'", "an integer at least 0"]),
    (["--sampler", "dimm"], ["--sampler:", "'dimm'", "did you mean ddim?", "dpmpp-2m"]),
    (["--sampler", "ddim:etta=1"], ["--sampler:", "'etta'", "did you mean eta?"]),
    (["--sampler", "ddim:eta"], ["--sampler:", "key=value", "'eta'"]),
    (["--sampler", "ddim:eta=x"], ["--sampler:", "eta must be a number", "'x'"]),
    (["--sampler", "ddim:eta=-0.1"], ["--sampler:", "eta must be at least 0", "-0.1"]),
    (["--sampler", "ddim:eta=1.5"], ["--sampler:", "eta must be at most 1", "1.5"]),
    (["--sampler", "pc:snr=0"], ["--sampler:", "snr must be greater than 0", "got 0"]),
    (["--sampler", "pc:steps=-1"], ["--sampler:", "steps must be at least 1", "-1"]),
    (["--sampler", "pc:predictor=dpmpp-2m"], ["--sampler:", "one-step", "DPMSolverMultistep"]),
    (["--sampler", "edm:churn=-1"], ["--sampler:", "churn must be at least 0", "-1"]),
    (["--sampler", "edm:s_min=2:s_max=1"], ["--sampler:", "s_max must be at least 2"]),
    (["--sampler", "dopri5:rtol=0"], ["--sampler:", "rtol must be greater than 0"]),
    (["--sampler", "dopri5:rtol=1e-12"], ["rtol must be at least 1e-07 in float32", "1e-12"]),
    (["--sampler", "dopri5", "--steps", "9"], ["--steps: 9", "own steps", "dopri5:rtol=1e-4"]),
    (["--sampler", "dopri5", "--nfe", "9"], ["--nfe: 9", "own steps"]),
    (["--grid", "logsnr"], ["--grid:", "'logsnr'", "did you mean log_snr?"]),
    (["--grid", "karras:rho=0"], ["--grid:", "rho must be greater than 0", "got 0"]),
    (["--grid", "karras:rho=x"], ["--grid:", "rho must be a number", "'x'"]),
    (["--grid", "karras:roh=5"], ["--grid:", "'roh'", "did you mean rho?"]),
    (["--grid", "none.json"], ["--grid:", "none.json: no such file"]),
    (["--t-min", "0"], ["--t-min: 0", "above 0 and below 1"]),
    (["--t-min", "1"], ["--t-min: 1", "above 0 and below 1"]),
    (["--t-min", "-1e-3"], ["--t-min: -1e-3", "above 0 and below 1"]),
    (["--t-min", "nan"], ["--t-min: nan", "above 0 and below 1"]),
    (["--t-min", "soon"], ["--t-min: soon", "a number above 0 and below 1"]),
    (["--label", "3"], ["--label: 3", "no classes"]),
    (["--dtype", "float8"], ["--dtype: 'float8'", "float32", "bfloat16"]),
    (["--device", "cuda:7"], ["--device: 'cuda:7'", "CUDA devices; use cpu"]),
    (["--device", "tpu"], ["--device: 'tpu'", "auto, cpu, cuda or cuda:N"]),
    (["--device", "mps"], ["--device: 'mps' has no float64", "auto, cpu, cuda or cuda:N"]),
    (["--checkpoint", "none"], ["none", "neither a file nor a shipped checkpoint"]),
]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("options", "parts"), SAMPLE, ids=[" ".join(o) for o, _ in SAMPLE])
def test_sample(refused, tiny_checkpoint, options, parts):
    refused(["sample", "--checkpoint", tiny_checkpoint, *options], *parts)


GRID_FILES = {
    "syntax": ("[1, 0.5,\n0.1", [], ["--grid:", "not valid JSON", "line 2 column 4"]),
    "order": ("[1, 0.1, 0.5]", [], ["--grid:", "decrease strictly", "ts[1] = 0.1"]),
    "sigmas": ('{"sigmas": [500, 1]}', [], ["sigmas[0] = 500.0", "range of VP, 0 to 152.16"]),
    "steps": ("[1, 0.5, 0.1]", ["--steps", 2], ["--steps: 2", "has its own 2 steps"]),
    "nfe": ("[1, 0.5, 0.1]", ["--nfe", 9], ["--nfe: 9", "has its own 2 steps"]),
    "t_min": ("[1, 0.5, 0.1]", ["--t-min", 0.1], ["--t-min: 0.1", "its own end t = 0.1"]),
    "zero": ("[1, 0.5, 0]", [], ["t_min must be greater than 0 for VP"]),
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", GRID_FILES)
def test_grids_from_files(refused, tiny_checkpoint, tmp_path, kind):
    content, options, parts = GRID_FILES[kind]
    path = tmp_path / "mine.json"
    path.write_text(content)
    refused(["sample", "--checkpoint", tiny_checkpoint, "--grid", path, *options], *parts)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("sampler", ["edm", "dopri5"])
def test_samplers_that_leave_the_ladder_of_rounded_labels(refused, snapped_checkpoint, sampler):
    options = ["--checkpoint", snapped_checkpoint, "--sampler", sampler]
    refused(["sample", *options], f"--sampler: {sampler} cannot run", "between the times")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("protocol", ["pf-ode/uniform", "pf-ode/decoder", "vlb-continuous"])
def test_a_likelihood_of_rounded_labels(refused, snapped_checkpoint, protocol):
    """vlb-ddpm is the only protocol that evaluates the network at the discrete times alone."""
    begin = ["likelihood", "--checkpoint", snapped_checkpoint]
    refused([*begin, "--protocol", protocol], "--checkpoint:", "rounded labels")
    if protocol == "pf-ode/uniform":  # the default
        refused(begin, "--checkpoint:", "rounded labels")


@pytest.mark.usefixtures("no_network")
def test_more_steps_than_rounded_labels(refused, snapped_checkpoint):
    options = ["--checkpoint", snapped_checkpoint, "--steps", "50"]
    refused(["sample", *options], "51 times do not fit", "50 discrete times", "take fewer steps")


@pytest.mark.usefixtures("no_network")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(refused, tiny_checkpoint):
    refused(["sample", "--checkpoint", tiny_checkpoint, "--device", "cuda"], "'cuda'", "use cpu")


@pytest.mark.usefixtures("no_network")
def test_bfloat16_where_the_gpu_has_none(refused, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    options = ["--device", "cuda", "--dtype", "bfloat16"]
    refused(["sample", "--checkpoint", tiny_checkpoint, *options], "--dtype: bfloat16", "cuda")


@pytest.mark.usefixtures("no_network")
def test_a_label_beyond_the_classes(refused, labelled_checkpoint):
    options = ["--checkpoint", labelled_checkpoint, "--label", "10"]
    refused(["sample", *options], "--label: 10", "0 to 9")


LIKELIHOOD = [
    (["--rtol", "0"], ["--rtol: 0", "above 0 and below 1"]),
    (["--rtol", "-1"], ["--rtol: -1", "above 0 and below 1"]),
    (["--rtol", "nan"], ["--rtol: nan", "above 0 and below 1"]),
    (["--atol", "1"], ["--atol: 1", "above 0 and below 1"]),
    (["--rtol", "1e-12"], ["--rtol: 1e-12", "float32", "--dtype float64"]),
    (["--draws", "0"], ["--draws: 0", "at least 1"]),
    (["--draws", str(10**11)], ["--draws: ", "GB of memory", "ask for fewer"]),
    (["--draws", "1.5"], ["--draws: '1.5'", "an integer at least 1"]),
    (["--measured", "-1"], ["--measured: -1", "at least 0"]),
    (["--batch", "0"], ["--batch: 0", "at least 1"]),
    (["--n", "0"], ["--n: 0", "at least 1"]),
    (["--n", "298"], ["--n: 298", "297", "digits (test)"]),
    (["--trace", "exakt"], ["--trace:", "'exakt'", "did you mean exact?"]),
    (["--trace", "hutchinson:prob=2"], ["--trace:", "'prob'", "did you mean probe"]),
    (["--trace", "hutchinson:probes=0"], ["--trace:", "probes must be at least 1", "got 0"]),
    (
        ["--trace", "hutchinson:probes=100000000000"],
        ["--trace: 100000000000 of ", "GB of memory", "ask for fewer"],
    ),
    (["--trace", "hutchinson:probes=x"], ["--trace:", "probes must be an integer", "'x'"]),
    (["--trace", "hutchinson:probe=sign"], ["--trace:", "rademacher", "'sign'"]),
    (["--trace", "probing:colours=0"], ["--trace:", "colours must be at least 1", "got 0"]),
    (["--trace", "hutch++:probes=7"], ["--trace:", "multiple of 3", "got 7"]),
    (
        ["--trace", "hutchinson:probe=orthogonal:probes=65"],
        ["--trace: hutchinson", "at most D = 64"],
    ),
    (["--trace", "xtrace:probes=130"], ["--trace: xtrace", "too many for D = 64"]),
    (["--plot"], ["--plot: draws the terms of vlb-ddpm, and pf-ode/uniform has none"]),
    (["--protocol", "pf-ode"], ["--protocol: 'pf-ode'", "pf-ode/uniform", "vlb-ddpm"]),
    (["--protocol", "pf-ode/continuous"], ["--protocol: pf-ode/continuous", "17 levels"]),
    (["--method", "rk45"], ["--method: 'rk45'", "dopri5", "dop853"]),
    (["--method", "path", "--per-sample"], ["--per-sample: not with path", "dop853"]),
    (["--per-sample"], ["--per-sample: not with path", "dop853"]),
    (["--method", "dopri8", "--per-sample"], ["--per-sample: not with dopri8", "dop853"]),
    (["--method", "dopri5", "--steps", "9"], ["--steps: 9", "only a path and vlb-ddpm"]),
    (["--protocol", "vlb-continuous", "--steps", "9"], ["--steps: 9", "only a path and vlb-ddpm"]),
    (["--method", "dopri5", "--nodes", "9"], ["--nodes: 9", "dopri5 has none"]),
    (["--steps", "0"], ["--steps: 0", "at least 1"]),
    (["--nodes", "0"], ["--nodes: 0", "at least 1"]),
    (["--nodes", "1000000000"], ["--nodes: 1000000000", "at most 100000"]),
    (["--image-error", "0"], ["--image-error: 0", "above 0"]),
    (["--image-error", "nan"], ["--image-error: nan", "above 0"]),
    (["--image-error", "inf"], ["--image-error: inf", "a finite number above 0"]),
    (["--variance", "posterior"], ["--variance: 'posterior'", "beta_tilde"]),
    (["--variance", "learned"], ["--variance: the variance 'learned' needs", "2C output channels"]),
    (["--split", "val"], ["--split: 'val'", "train", "test"]),
    (["--levels", "1"], ["--levels: 1", "at least 2"]),
    (["--levels", "256"], ["digits", "17", "256"]),
    (["--data", "digit"], ["'digit'", "did you mean digits?"]),
    (["--data", "missing/file.npy"], ["missing/file.npy", "nor a path that exists"]),
    (["--data", "mixture3"], ["--data: mixture3", "(2,)", "(1, 8, 8)"]),
    (["--dtype", "bfloat16"], ["--dtype: 'bfloat16'", "float64"]),
    (["--t-min", "0"], ["--t-min: 0", "above 0 and below 1"]),
    (["--t-min", "1"], ["--t-min: 1", "above 0 and below 1"]),
    (["--t-min", "-1e-3"], ["--t-min: -1e-3", "above 0 and below 1"]),
    (["--t-min", "nan"], ["--t-min: nan", "above 0 and below 1"]),
]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("options", "parts"), LIKELIHOOD, ids=[" ".join(o) for o, _ in LIKELIHOOD])
def test_likelihood(refused, tiny_checkpoint, options, parts):
    refused(["likelihood", "--checkpoint", tiny_checkpoint, *options], *parts)


ARRAYS = {
    "floats": (np.eye(8)[None, None], [], ["--levels: must be given", "floats", "17 levels"]),
    "256 levels": (np.zeros((4, 8, 8), np.uint8), [], ["--levels: 256", "for 17 levels"]),
    "integers": (np.zeros((4, 1, 8, 8), np.int64), [], ["levels must be given"]),
    "three channels": (
        np.zeros((4, 3, 8, 8), np.uint8),
        ["--levels", "17"],
        ["--data:", "(3, 8, 8)", "(1, 8, 8)"],
    ),
    "nan": (np.full((4, 1, 8, 8), np.nan), [], ["must be finite", "256 values"]),
    "beyond the levels": (
        np.full((4, 8, 8), 17, np.uint8),
        ["--levels", "17"],
        ["must lie in 0..16", "17..17"],
    ),
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("what", ARRAYS)
def test_likelihood_of_other_data(refused, tiny_checkpoint, tmp_path, what):
    array, options, parts = ARRAYS[what]
    np.save(tmp_path / "data.npy", array)
    arguments = ["--checkpoint", tiny_checkpoint, "--data", tmp_path / "data.npy", "--n", 1]
    refused(["likelihood", *arguments, *options], *parts)


@pytest.mark.usefixtures("no_network")
def test_likelihood_of_continuous_data(refused, points_checkpoint, tmp_path):
    begin = ["likelihood", "--checkpoint", points_checkpoint]
    refused([*begin, "--draws", "2"], "--draws: 2", "not dequantized")
    for name in ("pf-ode/uniform", "pf-ode/truncated-normal", "pf-ode/uniform+decoder"):
        refused([*begin, "--protocol", name], f"--protocol: {name}", "the data are continuous")
    np.save(tmp_path / "levels.npy", np.zeros((4, 2), np.uint8))
    refused([*begin, "--data", tmp_path / "levels.npy"], "--levels: 256", "continuous data")


@pytest.mark.usefixtures("no_network")
def test_a_model_with_a_ladder_has_its_own_chain(refused, snapped_checkpoint):
    options = ["--protocol", "vlb-ddpm", "--steps", 20]
    parts = "--steps: 20", "the model's own chain of 50 steps; leave it out"
    refused(["likelihood", "--checkpoint", snapped_checkpoint, *options], *parts)


@pytest.mark.usefixtures("no_network")
def test_an_exact_trace_that_takes_hours(refused, wide_checkpoint):
    options = ["--trace", "exact", "--n", 1, "--data", "digits"]
    refused(
        ["likelihood", "--checkpoint", wide_checkpoint, *options],
        "--trace: exact costs 5000 derivative passes",
        "up to 4096",
        "--force",
    )


@pytest.mark.usefixtures("no_network")
def test_a_checkpoint_of_a_file_needs_other_data(refused, wide_checkpoint):
    refused(["likelihood", "--checkpoint", wide_checkpoint], "--data: must be given", "wide.npy")
    split = ["--split", "held-out"]
    refused(["likelihood", "--checkpoint", wide_checkpoint, *split], "was trained on all of its")


FILES = {
    "missing": (None, "no such file"),
    "folder": ("folder", "is a folder"),
    "empty": (b"", "is empty"),
    "text": (b"weights of my network\n" * 9, "looks like text"),
    "npz": (b"PK\x03\x04" + bytes(26) + b"x.npy" + bytes(90), "is a .npz file of arrays"),
    "zip": (b"PK\x03\x04" + bytes(100), "is a zip archive that torch.save has not written"),
    "truncated": ("truncated", "damaged or truncated"),
    "flipped": ("flipped", "damaged"),
    "foreign": ("foreign", "is a safetensors file of no known model"),
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("command", ["sample", "likelihood"])
@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_checkpoint(refused, tiny_checkpoint, tmp_path, kind, command):
    content, reason = FILES[kind]
    path, good = tmp_path / "some.safetensors", tiny_checkpoint.read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    elif content is not None:
        flipped = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
        path.write_bytes({"truncated": good[:-100], "flipped": flipped}.get(kind, content))
    refused([command, "--checkpoint", path], path, reason)


@pytest.mark.parametrize("kind", ["empty", "text", "npz", "zip"])
def test_inspecting_what_is_no_checkpoint(scoresde, tmp_path, kind):
    content, reason = FILES[kind]
    path = tmp_path / "some.safetensors"
    path.write_bytes(content)
    done = scoresde("inspect", "--checkpoint", path)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"error: {path}: ")
    assert reason in done.err


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("command", ["sample", "likelihood"])
def test_a_folder_of_something_else(scoresde, tiny_checkpoint, tmp_path, command):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "settings.json").write_text('{"editor.fontSize": 12}')
    for overwrite in ([], ["--overwrite"]):
        done = scoresde(command, "--checkpoint", tiny_checkpoint, "--out", tmp_path, *overwrite)
        assert done.status == 2
        assert f"--out {tmp_path}: holds other files" in done.err
    done = scoresde(
        command, "--checkpoint", tiny_checkpoint, "--out", tmp_path / "notes.txt" / "out"
    )
    assert done.status == 2
    assert "is there already, and is a file" in done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "settings.json"]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("command", ["sample", "likelihood", "train"])
def test_a_folder_that_cannot_be_written(refused, tiny_checkpoint, monkeypatch, tmp_path, command):
    monkeypatch.setattr("scoresde._files.os.access", lambda path, mode: False)  # root may
    source = "--config" if command == "train" else "--checkpoint"
    what = "digits_vp" if command == "train" else tiny_checkpoint
    refused([command, source, what], f"--out {tmp_path / 'out'}: {tmp_path} is not writable")
