"""`scoresde inspect`."""

from __future__ import annotations

import json
from typing import Any

import click

from scoresde._text import printable

from . import options
from .command import Command
from .output import say

__all__ = ["inspect"]


@click.command(cls=Command)
@options.checkpoint(required=False)
@click.option("--list", "listing", is_flag=True, help="List the shipped checkpoints.")
@options.as_json
def inspect(
    checkpoint: str | None, net: str | None, sde: str | None, listing: bool, as_json: bool
) -> None:
    """Describe a checkpoint; its config is printed as TOML.

    No code in the file is run: a checkpoint is data. With --net or --sde it is checked that the
    checkpoint fits these classes.

    Example: scoresde inspect --checkpoint digits-vp
    """
    if listing == (checkpoint is not None):
        raise click.UsageError("give --checkpoint, or --list alone")
    from scoresde.tasks.inspection import describe_checkpoint, list_shipped

    found = list_shipped() if listing else describe_checkpoint(checkpoint, net, sde)
    if as_json:
        click.echo(json.dumps(found))
    elif listing:
        for row in found:
            say(f"{row['name']:<24}{row['bytes'] / 1e6:6.2f} MB")
    else:
        say(_in_words(found))


def _in_words(found: dict[str, Any]) -> str:
    from scoresde.tasks.inspection import to_toml

    hours = (found["seconds"] or 0) / 3600
    licence = found["data_licence"]
    averaged = "" if found["steps_done"] is None else " (averaged over training)"
    resumable = "can be resumed" if found["resumable"] else "weights only, cannot be resumed"
    rows = {
        "file": f"{found['path']} ({found['bytes'] / 1e6:.2f} MB)",
        "sha256": found["sha256"],
        "network": f"{found['weights']:,} weights{averaged}",
        **({"cost": _cost(found["flops"])} if found["flops"] else {}),
        "data": _data_in_words(found["data"]),
        **({"decoded": _decoded_in_words(found["decoded"])} if found["decoded"] else {}),
        **({"latents": _latents_in_words(found["latents"])} if found["latents"] else {}),
        **({"units": f"to the model's scale by {found['units']}"} if found["units"] else {}),
        **({"classes": found["class_map"]} if found["class_map"] else {}),
        **({"licence": f"of the data: {licence}"} if licence else {}),
        **({"levels": found["noise_levels"]} if found["noise_levels"] else {}),
        "training": "unknown"
        if found["steps_done"] is None
        else f"{found['steps_done']} steps, {hours:.2f} h, {resumable}",
        **({"licence": "not stated"} if "format" in found["provenance"] else {}),
        **{k: str(v) for k, v in found["provenance"].items() if not isinstance(v, list | dict)},
    }
    lines = [f"{printable(key):<10}{printable(value)}" for key, value in rows.items()]
    for entry in found["provenance"].get("files", ()):
        lines.append(f"{'source':<10}{printable(entry['name'])}, SHA-256 {entry['sha256']}")
    return "\n".join([*lines, "", to_toml(found["config"])])


def _cost(flops: int) -> str:
    return f"{flops:,} FLOPs per evaluation of one datum (a multiply-add is two)"


def _latents_in_words(latents: dict[str, Any]) -> str:
    """The shape of an autoencoder's latents, and the noise of its decoder."""
    shape = "×".join(str(size) for size in latents["shape"])
    return f"{shape}; p(x | z) has the standard deviation {latents['noise_std']:.4g}"


def _decoded_in_words(decoded: dict[str, Any]) -> str:
    """The data that latents are decoded to, and by what."""
    about = decoded["autoencoder"]
    by = f"{about['kind']} autoencoder of {about['weights']:,} weights, {about['sha256'][:12]}"
    return f"to {_data_in_words(decoded['data'])}; {by}"


def _data_in_words(data: dict[str, Any] | None) -> str:
    """Name, shape, levels and scale."""
    if data is None:
        return "not described; the commands need a model saved with data=DataSpec(…)"
    levels = "continuous" if data["levels"] is None else f"{data['levels']} levels"
    shape = "×".join(str(size) for size in data["shape"])
    return f"{data['name']}, {shape}, {levels}, scale {data['low']:g} to {data['high']:g}"
