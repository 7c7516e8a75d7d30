"""Problems that the benchmark makes itself: two GPTs and a ResNet-20, trained for a few dozen steps on data drawn here.

Enough training that the loss falls and outliers stand apart from the bulk; no more is wanted of them. What was made stays in
build/versus/problems, so that all tools and all runs have the same bits.
"""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of a GPT."""

    width: int
    heads: int
    tokens: int
    vocabulary: int
    layers: int
    tied: bool  # the head has the embedding's weight
    fused: bool  # attention is one op; else written out


class Attention(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.heads, self.fused = sizes.heads, sizes.fused
        self.qkv, self.proj = nn.Linear(sizes.width, 3 * sizes.width), nn.Linear(sizes.width, sizes.width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (z.view(b, t, self.heads, d // self.heads).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-2, -1)) / (d // self.heads) ** 0.5
            y = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), float("-inf")).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        d = sizes.width
        self.ln1, self.attn, self.ln2 = nn.LayerNorm(d), Attention(sizes), nn.LayerNorm(d)
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.fc2(F.gelu(self.fc1(self.ln2(x))))


class GPT(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.tok, self.pos = nn.Embedding(sizes.vocabulary, sizes.width), nn.Embedding(sizes.tokens, sizes.width)
        self.blocks, self.lnf = nn.Sequential(*[Block(sizes) for _ in range(sizes.layers)]), nn.LayerNorm(sizes.width)
        self.head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)
        if sizes.tied:
            nn.init.normal_(self.tok.weight, std=0.02)
            self.head.weight = self.tok.weight

    def forward(self, ids):
        return self.head(self.lnf(self.blocks(self.tok(ids) + self.pos.weight)))


class TokenCrossEntropy(nn.Module):
    """The mean over all tokens, classes last."""

    reduction = "mean"

    def forward(self, output, target):
        return F.cross_entropy(output.flatten(0, 1), target.flatten())


class BasicBlock(nn.Module):
    def __init__(self, inner, outer, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        self.short = nn.Sequential() if stride == 1 else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.short(x))


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
        self.blocks, self.head = nn.Sequential(*[BasicBlock(*w) for w in widths]), nn.Linear(64, 10)

    def forward(self, image):
        return self.head(self.blocks(F.relu(self.bn(self.conv(image)))).mean((2, 3)))


def _text(rows, tokens, vocabulary, random):
    """[rows, tokens + 1]: half of the tokens follow from the one before, the others are drawn, rare ones rarely."""
    drawn = np.minimum(vocabulary * random.random((rows, tokens + 1)) ** 3, vocabulary - 1).astype(np.int64)
    for t in range(1, tokens + 1):
        follows = random.random(rows) < 0.5
        drawn[follows, t] = (drawn[follows, t - 1] * 7 + 3) % vocabulary
    return torch.as_tensor(drawn)


def _images(rows, random):
    """[rows, 3, 32, 32] and their classes: a smooth pattern for each class, and noise."""
    patterns = np.kron(random.standard_normal((10, 3, 8, 8)), np.ones((4, 4)))
    classes = random.integers(0, 10, rows)
    return torch.as_tensor(patterns[classes] + 1.5 * random.standard_normal((rows, 3, 32, 32)), dtype=torch.float32), torch.as_tensor(classes)


@dataclasses.dataclass(frozen=True)
class Made:
    rows: int
    batch: int
    steps: int  # of training
    loss: tuple  # hesspect's options
    criterion: nn.Module
    sizes: Sizes | None = None  # None: ResNet-20


CAUSAL = ("causal_lm", "--shift", "0")
MADE = {
    "gpt1m": Made(64, 16, 40, CAUSAL, TokenCrossEntropy(), Sizes(128, 4, 64, 1000, 4, tied=False, fused=False)),
    "gpt10m": Made(8, 4, 20, CAUSAL, TokenCrossEntropy(), Sizes(192, 6, 128, 32000, 6, tied=True, fused=True)),
    "resnet20": Made(128, 64, 40, ("cross_entropy",), nn.CrossEntropyLoss()),
}


def make(made):
    """The trained model in eval mode, its inputs {name: tensor} and targets."""
    random = np.random.default_rng(14)
    torch.manual_seed(14)
    if made.sizes:
        model = GPT(made.sizes)
        text = _text(made.rows, made.sizes.tokens, made.sizes.vocabulary, random)
        inputs, target = {"ids": text[:, :-1].contiguous()}, text[:, 1:].contiguous()
    else:
        model = ResNet20()
        images, target = _images(made.rows, random)
        inputs = {"image": images}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    for step in range(made.steps):
        rows = torch.as_tensor(random.permutation(made.rows)[: made.batch])
        loss = made.criterion(model(*(x[rows] for x in inputs.values())), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), inputs, target
