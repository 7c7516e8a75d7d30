"""One column of a table to numbers: what is counted in a first pass, and what is made of it in the second."""

from __future__ import annotations

import collections
import hashlib
import math
import zlib
from typing import Any

import numpy as np

from hesspect.data.schema import Column
from hesspect.data.sources import Array, DataError

BUCKETS_LISTED = 1 << 20


def texts_of(column: Column, values: Any) -> tuple[Array, list[str | None]]:
    """An Arrow array as codes into its distinct values, these as texts; a missing value is None.

    :raises DataError: fractions, lists or other things that are no ids
    """
    import pyarrow

    encoded = values if pyarrow.types.is_dictionary(values.type) else values.dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, [*(_text(column, v) for v in encoded.dictionary.to_pylist()), None]


def _text(column: Column, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if not value.is_integer():
            raise DataError(f"column {column.name!r} holds {value!r}, a fraction, where ids are wanted")
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    raise DataError(f"column {column.name!r} holds a {type(value).__name__} ({str(value)[:40]!r}), where ids are wanted")


def numbers_of(column: Column, values: Any) -> Array:
    """An Arrow array as float64, NaN where it is missing."""
    import pyarrow
    import pyarrow.compute

    kind = values.type
    if not (pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_boolean(kind) or pyarrow.types.is_decimal(kind)):
        if not pyarrow.types.is_null(kind):
            raise DataError(f"column {column.name!r} holds {kind}, where numbers are wanted")
    numbers: Array = pyarrow.compute.cast(values, pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers


def hashed(column: Column, value: str) -> int:
    """The bucket of a value."""
    if column.hash == "crc32":
        number = zlib.crc32(value.encode())
    elif column.hash == "modulo":
        try:
            number = int(value, 10)
        except ValueError:
            try:
                number = int(value, 16)
            except ValueError:
                raise DataError(f"column {column.name!r}: {value!r} is no decimal or hexadecimal number, which hash modulo needs") from None
    else:
        number = int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little")
    return number % column.buckets


class Numerical:
    """Numbers: moments in the first pass (Chan, Golub & LeVeque 1979), then standardised."""

    def __init__(self, column: Column, fitted: dict[str, Any] | None = None) -> None:
        self.column = column
        self.count, self.missing, self.mean, self.square = 0, 0, 0.0, 0.0
        self.low, self.high = math.inf, -math.inf
        self._std = None if fitted is None else float(fitted["std"])
        if fitted is not None:
            self.mean, self.low, self.high = float(fitted["mean"]), float(fitted["min"]), float(fitted["max"])
            self.count, self.missing = int(fitted["count"]), int(fitted["missing"])

    def absent(self, values: Any) -> Array:
        return np.isnan(numbers_of(self.column, values))

    def _transformed(self, values: Any) -> Array:
        numbers = numbers_of(self.column, values)
        if self.column.transform == "log1p":
            if (numbers <= -1).any():
                raise DataError(f"column {self.column.name!r} holds {numbers[numbers <= -1][0]:g}, of which log1p has no value")
            numbers = np.log1p(numbers)
        return numbers

    def count_in(self, values: Any) -> None:
        numbers = self._transformed(values)
        real = numbers[~np.isnan(numbers)]
        self.missing += len(numbers) - len(real)
        if not len(real):
            return
        mean, n = float(real.mean()), len(real)
        away = mean - self.mean
        total = self.count + n
        self.square += float(((real - mean) ** 2).sum()) + away**2 * self.count * n / total
        self.mean += away * n / total
        self.count = total
        self.low, self.high = min(self.low, float(real.min())), max(self.high, float(real.max()))

    @property
    def std(self) -> float:
        return self._std if self._std is not None else math.sqrt(self.square / self.count) if self.count else 0.0

    def fit(self) -> None:
        needed = self.column.standardise or self.column.missing == "mean"
        if needed and not self.count:
            raise DataError(f"column {self.column.name!r} has no values")
        if self.column.standardise and not self.std > 0:
            raise DataError(f"column {self.column.name!r} is {self.mean:g} in all rows: it can't be standardised")

    def encode(self, values: Any) -> dict[str, Array]:
        numbers = self._transformed(values)
        gaps = np.isnan(numbers)
        if gaps.any():
            numbers = numbers.copy()
            instead = self.mean if self.column.missing == "mean" else float(self.column.missing)
            if self.column.missing != "mean" and self.column.transform == "log1p":
                instead = math.log1p(instead)
            numbers[gaps] = instead
        if self.column.standardise:
            numbers = (numbers - self.mean) / self.std
        return {self.column.input: numbers.astype(np.float32)}

    def as_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "min": self.low, "max": self.high, "count": self.count, "missing": self.missing}


class Coded:
    """Ids of values: of a vocabulary (most frequent first), of hash buckets, or as they are."""

    def __init__(self, column: Column, fitted: dict[str, Any] | None = None) -> None:
        self.column = column
        self.counts: collections.Counter[str] = collections.Counter()
        self.bucket_counts: collections.Counter[int] = collections.Counter()
        self.missing = self.cut = 0
        self.values: list[str] = []
        self.value_counts: list[int] = []
        self.rare = 0
        self._fitted = fitted
        if fitted is not None:
            self.missing = int(fitted.get("missing", 0))
            if "values" in fitted:
                self.values = list(fitted["values"])[len(column.reserved):]
                self.value_counts = list(fitted["counts"])[len(column.reserved):]
                self.rare = int(fitted["counts"][len(column.reserved) - 1]) - self.missing if column.reserved else 0
            else:
                self.bucket_counts = collections.Counter({int(k): int(v) for k, v in fitted.get("counts", {}).items()})
        self._ids = {value: i + len(column.reserved) for i, value in enumerate(self.values)}
        self._cache: dict[str, int] = {}

    @property
    def size(self) -> int:
        """How many ids there are: rows of an embedding table."""
        if self.column.encoding == "code":
            return self.column.size
        return len(self.column.reserved) + (self.column.buckets if self.column.encoding == "hash" else len(self.values))

    def absent(self, values: Any) -> Array:
        codes, texts = texts_of(self.column, values)
        return np.array([t is None for t in texts])[codes]

    def count_in(self, values: Any) -> None:
        self._count(*texts_of(self.column, values))

    def _count(self, codes: Array, texts: list[str | None]) -> None:
        for text, count in zip(texts, np.bincount(codes, minlength=len(texts)).tolist(), strict=True):
            if text is None:
                self.missing += count
            elif count and self.column.encoding == "vocabulary":
                self.counts[text] += count
            elif count:
                self.bucket_counts[self._id(text)] += count

    def fit(self) -> None:
        if self.column.encoding != "vocabulary" or self._fitted is not None:
            return
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [item for item in ranked if item[1] >= self.column.min_count]
        if self.column.max_size:
            kept = kept[:max(0, self.column.max_size - len(self.column.reserved))]
        self.rare = sum(self.counts.values()) - sum(count for _, count in kept)
        self.values, self.value_counts = [v for v, _ in kept], [c for _, c in kept]
        self._ids = {value: i + len(self.column.reserved) for i, value in enumerate(self.values)}
        self.counts.clear()

    def _id(self, text: str) -> int:
        column = self.column
        if column.encoding == "hash":
            if text not in self._cache:
                if len(self._cache) > 1 << 20:
                    self._cache.clear()
                self._cache[text] = hashed(column, text) + len(column.reserved)
            return self._cache[text]
        if column.encoding == "code":
            try:
                code = int(text)
            except ValueError:
                raise DataError(f"column {column.name!r}: {text!r} is no code") from None
            if not 0 <= code < column.size:
                raise DataError(f"column {column.name!r}: code {code} is not one of 0 to {column.size - 1}")
            return code
        return self._ids.get(text, len(column.reserved) - 1)

    def ids(self, codes: Array, texts: list[str | None]) -> Array:
        used = np.unique(codes)
        table = np.full(len(texts), len(self.column.reserved) - 1, np.int64)
        for i in used:
            text = texts[i]
            if text is not None:
                table[i] = self._id(text)
        return table[codes]

    def encode(self, values: Any) -> dict[str, Array]:
        return {self.column.input: self.ids(*texts_of(self.column, values))}

    def as_json(self) -> dict[str, Any]:
        column = self.column
        found: dict[str, Any] = {"size": self.size, "missing": self.missing}
        if column.encoding == "vocabulary":
            head = [0] * (len(column.reserved) - 1) + [self.rare + self.missing]
            return {**found, "values": [*column.reserved, *self.values], "counts": [*head[:len(column.reserved)], *self.value_counts]}
        if len(self.bucket_counts) <= BUCKETS_LISTED:
            found["counts"] = {str(k): v for k, v in sorted(self.bucket_counts.items())}
        return {**found, "ids_in_use": len(self.bucket_counts)}


class MultiHot(Coded):
    """Several values a row: a list, or a text with a separator."""

    def _lists(self, values: Any) -> tuple[Array, Array, list[str | None]]:
        """Of each row its number of values (-1: missing), and all values one after another."""
        import pyarrow
        import pyarrow.compute

        if not (pyarrow.types.is_list(values.type) or pyarrow.types.is_large_list(values.type)):
            if not (pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type) or pyarrow.types.is_null(values.type)):
                raise DataError(f"column {self.column.name!r} holds {values.type}, where lists or texts are wanted")
            values = pyarrow.compute.split_pattern(pyarrow.compute.cast(values, pyarrow.string()), self.column.separator)
        lengths = pyarrow.compute.list_value_length(values).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        codes, texts = texts_of(self.column, values.flatten())
        empty = np.array([t is None or t == "" for t in texts])
        if empty[codes].any():  # "a||b", and an empty text, which has no values
            row = np.repeat(np.arange(len(lengths)), np.maximum(lengths, 0))
            lengths = lengths - np.bincount(row[empty[codes]], minlength=len(lengths))
            codes = codes[~empty[codes]]
        return lengths, codes, texts

    def absent(self, values: Any) -> Array:
        return self._lists(values)[0] < 0

    def count_in(self, values: Any) -> None:
        lengths, codes, texts = self._lists(values)
        self._count(codes, texts)
        self.missing += int((lengths < 0).sum())

    def encode(self, values: Any) -> dict[str, Array]:
        lengths, codes, texts = self._lists(values)
        ids = self.ids(codes, texts)
        counts = np.maximum(lengths, 0)
        row = np.repeat(np.arange(len(counts)), counts)
        unknown = len(self.column.reserved) - 1
        gaps = np.flatnonzero(lengths < 0)
        if self.column.dense:
            dense = np.zeros((len(counts), self.size), np.float32)
            dense[row, ids] = 1
            dense[gaps, unknown] = 1
            return {self.column.input: dense}
        width = self.column.length
        position = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
        fits = position < width
        self.cut += int((counts > width).sum())
        padded, mask = np.zeros((len(counts), width), np.int64), np.zeros((len(counts), width), np.float32)
        padded[row[fits], position[fits]], mask[row[fits], position[fits]] = ids[fits], 1
        padded[gaps, 0], mask[gaps, 0] = unknown, 1
        return {self.column.input: padded, f"{self.column.input}_mask": mask}


class Target:
    """What is to be foretold."""

    def __init__(self, column: Column, fitted: dict[str, Any] | None = None) -> None:
        self.column = column
        self._numbers = Numerical(column)
        self._classes = Coded(column, fitted if column.kind == "class" else None)
        self.counts: collections.Counter[str] = collections.Counter({} if fitted is None else fitted.get("counts_by_value", {}))

    def absent(self, values: Any) -> Array:
        return self._numbers.absent(values) if self.column.kind == "number" else self._classes.absent(values)

    def count_in(self, values: Any) -> None:
        if self.column.kind == "class":
            self._classes.count_in(values)
        elif self.column.kind == "binary":
            codes, texts = texts_of(self.column, values)
            self.counts.update({str(t): int(c) for t, c in zip(texts, np.bincount(codes, minlength=len(texts)), strict=True) if t is not None and c})

    def fit(self) -> None:
        if self.column.kind == "class":
            self._order()

    def _order(self) -> None:
        """Classes that are numbers are their own ids; others stand in the order of their names."""
        classes, size = self._classes, self.column.size
        values = classes.values or list(classes.counts)
        if values and all(v.isdigit() for v in values):
            top = max(map(int, values))
            if size and top >= size:
                raise DataError(f"column {self.column.name!r} holds class {top}, but there are {size}")
            order = [str(i) for i in range(max(size, top + 1))]
        else:
            order = sorted(values)
            if size and len(order) > size:
                raise DataError(f"column {self.column.name!r} holds {len(order)} classes, but there are {size}")
        if not classes.values:
            classes.values, classes.value_counts = order, [classes.counts[v] for v in order]
        classes._ids = {value: i for i, value in enumerate(classes.values)}

    def encode(self, values: Any) -> dict[str, Array]:
        column = self.column
        if column.kind == "number":
            return {column.input: numbers_of(column, values).astype(np.float32)}
        codes, texts = texts_of(column, values)
        if column.kind == "class":
            for i in np.unique(codes):
                if texts[i] not in self._classes._ids:
                    raise DataError(f"column {column.name!r} holds class {texts[i]!r}, which the file of columns has not")
            return {column.input: self._classes.ids(codes, texts)}
        table = np.zeros(len(texts), np.float32)
        for i in np.unique(codes):
            text = texts[i] or ""
            if column.positive:
                table[i] = text == column.positive
            elif text.lower() in ("0", "1", "true", "false"):
                table[i] = text.lower() in ("1", "true")
            else:
                raise DataError(f"column {column.name!r} holds {text!r}, not 0 or 1: say which value is positive")
        return {column.input: table[codes]}

    def as_json(self) -> dict[str, Any]:
        if self.column.kind == "class":
            return self._classes.as_json()
        return {"counts_by_value": dict(sorted(self.counts.items()))} if self.column.kind == "binary" else {}


class Weight(Numerical):
    """A weight for each row, as it is."""

    def encode(self, values: Any) -> dict[str, Array]:
        numbers = numbers_of(self.column, values)
        if (numbers < 0).any():
            raise DataError(f"column {self.column.name!r} holds a negative weight")
        return {self.column.input: numbers.astype(np.float32)}


Encoder = Numerical | Coded | Target


def make_encoder(column: Column, target: bool, fitted: dict[str, Any] | None) -> Encoder:
    if target:
        return Target(column, fitted)
    kinds: dict[str, type[Numerical] | type[Coded]] = {"numerical": Numerical, "weight": Weight, "categorical": Coded, "multi-hot": MultiHot}
    return kinds[column.kind](column, fitted)
