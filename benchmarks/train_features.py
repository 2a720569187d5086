"""Train the classifier whose penultimate layer is the feature space of a data set.

    python benchmarks/train_features.py --data digits
    python benchmarks/train_features.py --data fashion-mnist

It writes out/features_<data>.safetensors with seed, test accuracy and command. It prints the
distances of held-out and of corrupted test images to the training images. The images are rounded
levels without augmentation, as samples are when they are compared.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import click
import torch
from script import print_header
from torch import Tensor, nn

from scoresde.data import Dataset, load_dataset
from scoresde.metrics import CNNFeatures, GaussianStats, SmallCNN, frechet_distance, mmd2

EPOCHS = {"digits": 20, "fashion-mnist": 8}
BATCH = 64
LEARNING_RATE = 2e-3


def encoded(data: Dataset) -> Tensor:
    """Rounded images on the model's scale."""
    return data.spec.encode(data.x)


def train(x: Tensor, labels: Tensor, epochs: int, seed: int) -> SmallCNN:
    """Adam with a linear warm-up and cosine decay; the seed fixes weights and order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SmallCNN(x.shape[-1])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    steps = epochs * math.ceil(len(x) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda k: min(1.0, (k + 1) / 100) * 0.5 * (1 + math.cos(math.pi * min(k / steps, 1.0))),
    )
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(net(x[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        click.echo(f"epoch {epoch + 1}/{epochs}  train loss {total / len(x):.4f}", err=True)
    return net


def standardized(name: str, net: SmallCNN, x: Tensor, metadata: dict[str, str]) -> CNNFeatures:
    """Feature space with the mean and standard deviation of the training images folded in."""
    width = net.hidden.out_features
    plain = CNNFeatures(name, net, torch.zeros(width), torch.ones(width))
    features = plain(x)
    return CNNFeatures(name, net, features.mean(0).float(), features.std(0).float(), metadata)


def corruptions(test: Dataset) -> dict[str, Tensor]:
    """Test images, and changed versions that a useful feature space must distinguish from them."""
    x, spec = encoded(test), test.spec
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape, generator=generator)
    out = {"test images": x}
    for std in (0.1, 0.3):
        out[f"with noise of std {std}"] = spec.encode(spec.to_levels(x + std * noise))
    out["blurred 3x3"] = spec.encode(spec.to_levels(nn.functional.avg_pool2d(x, 3, 1, 1)))
    out["without class 0"] = x[test.labels != 0]
    return out


@click.command(help=__doc__.partition("\n")[0])
@click.option("--data", type=click.Choice(sorted(EPOCHS)), required=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=None, help="File to write.")
def main(data: str, seed: int, out: Path | None) -> None:
    """Train, report and write one feature space."""
    path = out or Path("out") / f"features_{data.replace('-', '_')}.safetensors"
    command = print_header(seed=seed)["command"]
    training, test = load_dataset(data, "train"), load_dataset(data, "test")
    x, start = encoded(training), time.perf_counter()
    net = train(x, training.labels, EPOCHS[data], seed)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        accuracy = float((net(encoded(test)).argmax(1) == test.labels).double().mean())
    metadata = {"seed": str(seed), "test_accuracy": f"{accuracy:.4f}", "command": command}
    name = f"{data.replace('-', '_')}_cnn"
    space = standardized(name, net, x, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    space.save(path)
    size = path.stat().st_size / 1000
    click.echo(f"{space.label}: test accuracy {accuracy:.4f}, {seconds:.0f} s, {size:.0f} kB")
    report(space, x, test)


def report(space: CNNFeatures, x: Tensor, test: Dataset) -> None:
    """Distances of the test images and of their corruptions to the training images."""
    features = space(x)
    thinned = features[:: max(1, len(features) // 5000)]  # bounds the quadratic cost of MMD
    stats = GaussianStats.of(features, space.label)
    click.echo(f"{'sample':<24}{'n':>7}  {'mmd2_cubic':<22}fd")
    for name, images in corruptions(test).items():
        sample = space(images)
        kernel = mmd2(sample, thinned)
        frechet = frechet_distance(sample, stats, space=space.label)
        click.echo(f"{name:<24}{len(sample):>7}  {kernel!s:<22}{frechet}")


if __name__ == "__main__":
    main()
