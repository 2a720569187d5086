"""Write tests/fixtures/guided_diffusion.json: outputs and shapes of networks of guided-diffusion.

    PYTHONPATH=GUIDED_DIFFUSION python tests/interop/make_guided_diffusion.py

needs a copy of github.com/openai/guided-diffusion. The weights come from `formula_weights`, so that
the fixture holds settings, names and shapes of tensors, and outputs only. The networks of
improved-diffusion are a part of these.
"""

import inspect
import json
import sys
from pathlib import Path

import torch
from formula_weights import digest_of, image, weights
from guided_diffusion import script_util

sys.path.insert(0, str(Path(__file__).parents[2]))
from scoresde.interop.guided_diffusion_settings import (  # noqa: E402
    PUBLISHED,
    checked_settings,
    levels_of,
)

TARGET = Path(__file__).parents[1] / "fixtures" / "guided_diffusion.json"
SMALL = {"image_size": 4, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 1]}
SMALL |= {"attention_resolutions": [2], "rescale_timesteps": False}
CASES = {
    "convolutions, heads": {"num_heads": 2},
    "residual, classes, learned": {
        **{"resblock_updown": True, "class_cond": True, "learn_sigma": True},
        **{"num_head_channels": 16, "noise_schedule": "cosine", "diffusion_steps": 64},
        **{"use_new_attention_order": True, "rescale_timesteps": True},
    },
    "added embedding, old order": {
        **{"use_scale_shift_norm": False, "num_head_channels": 16, "predict_xstart": True},
        **{"diffusion_steps": 64, "channel_mult": [0.5, 1], "num_channels": 64},
    },
}
COUNT = 7  # of classes; the library has 1000
script_util.NUM_CLASSES = COUNT


def options(settings):
    """The library's keyword arguments; it takes lists as text."""
    names = inspect.signature(script_util.create_model_and_diffusion).parameters
    values = script_util.model_and_diffusion_defaults() | settings
    for key in ("attention_resolutions", "channel_mult"):
        values[key] = ",".join(map(str, settings[key]))
    return {key: value for key, value in values.items() if key in names}


def made(settings):
    """The network and the diffusion; a level of half the channels is known by its image only."""
    if settings["channel_mult"] and settings["channel_mult"][0] == 0.5:
        kept, script_util.UNetModel = script_util.UNetModel, halved(settings)
        try:
            return script_util.create_model_and_diffusion(
                **options(settings | {"channel_mult": [1, 1]})
            )
        finally:
            script_util.UNetModel = kept
    return script_util.create_model_and_diffusion(**options(settings))


def halved(settings):
    kind = script_util.UNetModel
    return lambda **given: kind(**given | {"channel_mult": tuple(settings["channel_mult"])})


def outputs(changes):
    """Settings, shapes of the tensors, indices, and the network's prediction there."""
    settings = checked_settings(SMALL | changes)
    net, diffusion = made(settings)
    shapes = {key: list(value.shape) for key, value in net.state_dict().items()}
    net.load_state_dict(weights(shapes, seed=3))
    net.eval()
    n, found = settings["diffusion_steps"], []
    given = {"y": torch.tensor([2, 5])} if settings["class_cond"] else {}
    for index in (0, n // 3, n - 1):
        x = image((3, 4, 4), 2, 1.0)
        with torch.no_grad():
            wrapped = diffusion._wrap_model(net)
            value = wrapped(x, torch.tensor([index, index]), **given)[:, :3]
        digits = [float(f"{number:.8g}") for number in value.flatten()]
        alpha_bar = float(diffusion.alphas_cumprod[index])
        found.append({"index": index, "alpha_bar": alpha_bar, "prediction": digits})
    return {"settings": settings, "shapes": shapes, "outputs": found}


def digest(name):
    """Number of tensors and of numbers of a published network, and the SHA-256 of its shapes."""
    settings = dict(PUBLISHED[name])
    settings["channel_mult"] = settings["channel_mult"] or levels_of(settings)
    if settings["channel_mult"][0] == 0.5:
        settings["channel_mult"] = []
    script_util.NUM_CLASSES = 1000
    with torch.device("meta"):
        net = script_util.create_model_and_diffusion(**options(settings))[0]
    print(name, flush=True)
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    return digest_of(dict(sorted(shapes.items())))


def main():
    cases = {name: outputs(case) for name, case in CASES.items()}
    found = {"cases": cases, "published": {name: digest(name) for name in PUBLISHED}}
    text = json.dumps(found, indent=None, separators=(",", ":"))
    TARGET.write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
