"""Write tests/fixtures/edm.json: outputs and shapes of networks of EDM.

    PYTHONPATH=EDM python tests/interop/make_edm.py

needs a copy of github.com/NVlabs/edm. The weights come from `formula_weights`, so that the fixture
holds arguments, names and shapes of tensors, and outputs only; nothing of the library's code.
"""

import json
from pathlib import Path

import torch
from formula_weights import digest_of, image, weights
from training import networks

TARGET = Path(__file__).parents[1] / "fixtures" / "edm.json"
SONG = {"model_type": "SongUNet", "img_resolution": 4, "img_channels": 2, "model_channels": 8}
SONG |= {"channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [2], "augment_dim": 9}
FIR = {"resample_filter": [1, 3, 3, 1]}
NCSN = FIR | {"embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual"}
ADM = {"model_type": "DhariwalUNet", "img_resolution": 4, "img_channels": 1, "label_dim": 3}
ADM |= {"model_channels": 128, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [2]}
CASES = {
    "edm, ddpm++, classes": ("EDMPrecond", SONG | {"label_dim": 3, "sigma_data": 0.4}),
    "edm, ncsn++": ("EDMPrecond", SONG | NCSN),
    "vp, skips": (
        "VPPrecond",
        SONG | FIR | {"encoder_type": "skip", "decoder_type": "skip", "beta_d": 15.0},
    ),
    "ve, ncsn++": ("VEPrecond", SONG | NCSN),
    "ve, skip output, classes": (
        "VEPrecond",
        SONG | NCSN | {"decoder_type": "skip", "label_dim": 3},
    ),
    # The waves of the label 999 t would be as sensitive as 1e-4 to the rounding of t.
    "vp, ncsn++": ("VPPrecond", SONG | NCSN | {"M": 4}),
    "ve, ddpm++": ("VEPrecond", SONG),
    "ve, adm": ("VEPrecond", ADM),
    "iddpm, ddpm++, skips": (
        "iDDPMPrecond",
        SONG | {"encoder_type": "skip", "decoder_type": "skip", "M": 50},
    ),
    "edm, adm": ("EDMPrecond", ADM),
    "iddpm, adm": ("iDDPMPrecond", ADM | {"M": 50}),
}
PAPER = {"model_type": "SongUNet", "img_channels": 3, "augment_dim": 9}
PUBLISHED = {  # the paper's, table 7; config A and config F
    "cifar10 ddpm++": PAPER | {"img_resolution": 32, "channel_mult": [2, 2, 2]},
    "cifar10 ddpm++, classes": PAPER
    | {"img_resolution": 32, "channel_mult": [2, 2, 2], "label_dim": 10},
    "cifar10 ncsn++": PAPER | NCSN | {"img_resolution": 32, "channel_mult": [2, 2, 2]},
    "ffhq ddpm++": PAPER | {"img_resolution": 64, "channel_mult": [1, 2, 2, 2]},
    "ffhq ncsn++": PAPER | NCSN | {"img_resolution": 64, "channel_mult": [1, 2, 2, 2]},
    "imagenet adm": {
        **{"model_type": "DhariwalUNet", "img_resolution": 64, "img_channels": 3},
        "label_dim": 1000,
    },
}


def shapes_of(net):
    return {
        key: list(value.shape)
        for key, value in net.state_dict().items()
        if not key.endswith("resample_filter")
    }


def outputs(kind, given):
    """Class, arguments, shapes of the tensors, σ, and the denoised images there."""
    net = getattr(networks, kind)(**given)
    shapes = shapes_of(net.model)
    net.model.load_state_dict(weights(shapes, seed=3), strict=False)
    net.eval()
    classes = torch.eye(3)[[2, 0]] if given.get("label_dim") else None
    sigmas = [0.03, 0.9, 40.0]
    if kind == "iDDPMPrecond":
        sigmas = [float(net.u[index]) for index in (49, 20, 1)]
    found = []
    for sigma in sigmas:
        x = image((given["img_channels"], 4, 4), 2, max(1.0, sigma))
        with torch.no_grad():
            value = net(x, torch.tensor([sigma, sigma]), classes)
        digits = [float(f"{number:.8g}") for number in value.flatten()]
        found.append({"sigma": sigma, "x0": digits})
    arguments = dict(net.model.init_kwargs)
    named = {"kind": kind, "given": given, "model": given["model_type"], "arguments": arguments}
    return named | {"shapes": shapes, "outputs": found}


def published(given):
    """Class, arguments, and the digest of the shapes, of a network of the paper's size."""
    with torch.device("meta"):
        net = networks.EDMPrecond(**given).model
    print(given, flush=True)
    shapes = dict(sorted(shapes_of(net).items()))
    arguments = dict(net.init_kwargs)
    digest = digest_of(shapes)
    return {"model": given["model_type"], "arguments": arguments, "digest": digest}


def main():
    cases = {name: outputs(*case) for name, case in CASES.items()}
    full = {name: published(given) for name, given in PUBLISHED.items()}
    text = json.dumps({"cases": cases, "published": full}, indent=None, separators=(",", ":"))
    TARGET.write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
