"""Damaged and malicious checkpoints of score_sde_pytorch, guided-diffusion and EDM.

The networks are the smallest of each library. Of long lists of similar files, each format gets
another part, so that all formats together get all of them.
"""

import json
import math
import os
import pickle
from pathlib import Path

import torch
from formula_weights import weights
from hostile_bytes import attacks, damaged, places, tensors_edited, torch_attacks, torch_bytes
from hostile_others import others
from test_edm import shapes_of as edm_shapes
from test_guided_diffusion import shapes_of as guided_shapes
from test_score_sde import expected_shapes as score_sde_shapes

SMALL = {"score_sde": {"model.ch_mult": [1], "model.attn_resolutions": []}}
SMALL |= {"guided_diffusion": {"channel_mult": [1], "attention_resolutions": []}}
SMALL |= {"edm": {"channel_mult": [1], "attn_resolutions": [], "label_dim": 0}}
WRONG = ("x", -1, 10**9, 10**30, [], {}, True, math.nan, math.inf, [10**9] * 3)


def single_files(path, command, whole, upto, part):
    """Files of a format whose model is the file `whole`; every second attack, from `part` on."""
    yield from places(path)
    some = slice(part, None, 2)
    made = [*others()[some], *attacks(whole, command, some)]
    if whole.startswith(b"PK"):
        made += torch_attacks(whole)
    for label, data in made:
        path.write_bytes(data)
        yield label, path
    for seed in range(40):
        path.write_bytes(damaged(whole, seed, upto))
        yield f"damaged {seed}", path


def fixture(name, case):
    path = Path(__file__).parents[1] / "fixtures" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["cases"][case]


def score_sde_files(folder, command):
    settings = fixture("score_sde", "ncsn++ discrete ve")["settings"] | SMALL["score_sde"]
    shapes = score_sde_shapes(settings)
    ends = math.log(settings["model.sigma_max"]), math.log(settings["model.sigma_min"])
    model = weights(shapes, seed=3) | {
        "sigmas": torch.linspace(*ends, settings["model.num_scales"], dtype=torch.float64).exp()
    }
    averages = [model[key] for key in shapes if key != "sigmas"]
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
    yield from single_files(path, command, torch_bytes(state), 20_000, part=0)
    path.write_bytes(torch_bytes(state, _use_new_zipfile_serialization=False))
    yield "older format", path
    whole = path.read_bytes()
    for seed in range(10):
        path.write_bytes(damaged(whole, seed, 20_000))
        yield f"older format, damaged {seed}", path
    path.write_bytes(torch_bytes(state))
    yield from bad_settings(path, tables)


def wrong_values(table):
    """(key, wrong value), two for each key, all of them in turn."""
    for number, (key, value) in enumerate(table.items()):
        fitting = [wrong for wrong in WRONG if type(wrong) is not type(value)]
        yield from ((key, fitting[(2 * number + i) % len(fitting)]) for i in range(2))


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
    for key, wrong in wrong_values(flat):
        beside.write_text(json.dumps(flat | {key: wrong}), encoding="utf-8")
        yield f"settings {key} = {wrong}", path
    beside.unlink()
    yield "no settings", path
    beside.mkdir()
    yield "settings are a folder", path
    beside.rmdir()
    os.mkfifo(beside)
    yield "settings are a pipe", path


def guided_files(folder, command):
    settings = fixture("guided_diffusion", "convolutions, heads")["settings"]
    settings |= SMALL["guided_diffusion"]
    tensors, path = weights(guided_shapes(settings), seed=3), folder / "model.pt"
    path.with_suffix(".json").write_text(json.dumps(settings), encoding="utf-8")
    for label, changed in tensors_edited(tensors):
        torch.save(changed, path)
        yield f"tensor {label}", path
    path.unlink()
    yield from single_files(path, command, torch_bytes(tensors), 6_000, part=1)
    path.write_bytes(torch_bytes(tensors))
    yield from bad_settings(path, settings)


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
        f"c{__name__}\n_rebuilt\n".encode(),
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n",
    )


def edm_files(folder, command):
    case = fixture("edm", "edm, ddpm++, classes")
    case["arguments"] |= SMALL["edm"]
    tensors, path = weights(edm_shapes(case), seed=3), folder / "network.pkl"
    source = f"import os; os.system({command!r})"
    for label, changed in tensors_edited(tensors):
        path.write_bytes(edm_bytes(case, changed, source))
        yield f"tensor {label}", path
    for key, wrong in [*wrong_values(case["arguments"]), ("label_dim", None)]:
        path.write_bytes(edm_bytes(case, tensors, source, arguments={key: wrong}))
        yield f"argument {key} = {wrong}", path
    for changes in (
        {"kind": "EDM2Precond"}, {"kind": "EDMLoss"}, {"kind": "iDDPMPrecond"}, {"kind": ""},
        {"model": "Dit"}, {"model": 3}, {"given": None}, {"given": {"sigma_data": math.nan}},
        {"given": {"sigma_data": -1}}, {"given": {"sigma_max": -1}}, {"given": {"sigma_max": "x"}},
    ):  # fmt: skip
        path.write_bytes(edm_bytes(case, tensors, source, **changes))
        yield f"class {changes}", path
    whole = edm_bytes(case, tensors, source)
    path.unlink()
    yield from single_files(path, command, whole, 20_000, part=0)
    path.write_bytes(whole)
    yield "whole", path
