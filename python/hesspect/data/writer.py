"""Writes rows to the HDF5 file that hesspect reads, in a stream: memory for a few chunks, whatever the number of rows.

    hesspect.write_data("data.h5", loader, inputs=["x"])
    hesspect.write_data("data.h5", {"input_ids": ids, "attention_mask": mask, "labels": labels}, rows=4096, seed=0)

Each array is one dataset whose rows are the first dimension, in chunks of whole rows, with its SHA-256. The file appears
under its name when it is whole and on the disk.

A sample is drawn by a random number for each row, made of seed and row number alone; the rows with the smallest are taken, in
that order. So batches, workers and whether the number of rows was known before play no part, and the first n rows
of a sample are the sample of n rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import heapq
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hesspect.data.sources import Array, Batch, DataError, Lazy, Naming, Stream, as_numbers, notes_on, open_source

if TYPE_CHECKING:
    import h5py

#: the array that says, for each row of a sample, its number in the source
SOURCE_ROW = "source_row"
_CHUNK_BYTES = 1 << 20
_FORMAT = "1"


@dataclasses.dataclass(frozen=True)
class ArrayInfo:
    """An array as it stands in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclasses.dataclass(frozen=True)
class DataFile:
    """What was written."""

    path: Path
    rows: int
    rows_seen: int
    arrays: tuple[ArrayInfo, ...]
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that may feed the model."""
        return tuple(a.name for a in self.arrays if a.name not in ("target", SOURCE_ROW))

    @property
    def has_target(self) -> bool:
        return any(a.name == "target" for a in self.arrays)

    def __str__(self) -> str:
        arrays = ", ".join(f"{a.name} {a.dtype} [{', '.join(map(str, a.shape))}]" for a in self.arrays)
        seen = f" of {self.rows_seen:,}" if self.rows_seen != self.rows else ""
        return f"{self.path}: {self.rows:,}{seen} rows: {arrays}"


# ---------------------------------------------------------------- which rows


def row_keys(seed: int, first: int, count: int, unit_rows: int = 1) -> Array:
    """A random number for each of the rows first, first + 1, ..., made of the seed and its number alone (SplitMix64); rows of one unit have
    the same, so that they are drawn together."""
    if unit_rows > 1:
        units = np.arange(first, first + count) // unit_rows
        keys: Array = row_keys(seed, int(units[0]), int(units[-1] - units[0]) + 1)[units - units[0]]
        return keys
    with np.errstate(over="ignore"):
        start = _mix(np.array([seed % 2**64], np.uint64))
        return _mix(start + np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _mix(z: Array) -> Array:
    # Steele, Lea & Flood, Fast splittable pseudorandom number generators (2014), variant 13 of Stafford's mixers
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def sample_rows(n: int, rows: int, seed: int, unit_rows: int = 1) -> Array:
    """The numbers of `rows` of n rows, in the order that `write_data` writes them; whole units of `unit_rows` each.

    :raises DataError: there are fewer
    """
    if rows > n:
        raise DataError(f"there are {n:,} rows, fewer than the {rows:,} asked for")
    best_keys: Array = np.empty(0, np.uint64)
    best: Array = np.empty(0, np.int64)
    for first in range(0, n, 1 << 20):  # keys of 10^9 rows at once would be 8 GB
        keys = row_keys(seed, first, min(1 << 20, n - first), unit_rows)
        near = np.flatnonzero(keys <= best_keys[-1]) if len(best_keys) == rows else np.arange(len(keys))
        best_keys, best = np.concatenate([best_keys, keys[near]]), np.concatenate([best, first + near])
        order = np.argsort(best_keys, kind="stable")[:rows]
        best_keys, best = best_keys[order], best[order]
    return best


class _Reservoir:
    """The rows with the smallest keys so far, each in a slot that it keeps."""

    def __init__(self, rows: int, seed: int, unit_rows: int) -> None:
        self._rows, self._seed, self._unit_rows = rows, seed, unit_rows
        self._worst: list[tuple[int, int, int]] = []  # -key, -row, slot: the largest key first
        self.seen = 0

    def offer(self, count: int) -> tuple[list[int], list[int]]:
        """Which of the next `count` rows enter, and their slots; of two that share a slot the later one stays."""
        keys = row_keys(self._seed, self.seen, count, self._unit_rows)
        limit = -self._worst[0][0] if len(self._worst) == self._rows else 2**64
        taken: dict[int, int] = {}
        for i in np.flatnonzero(keys <= np.uint64(min(limit, 2**64 - 1))):
            entry = (-int(keys[i]), -(self.seen + int(i)))
            if len(self._worst) < self._rows:
                slot = len(self._worst)
                heapq.heappush(self._worst, (*entry, slot))
            elif entry > self._worst[0][:2]:
                slot = self._worst[0][2]
                heapq.heapreplace(self._worst, (*entry, slot))
            else:
                continue
            taken[slot] = int(i)
        self.seen += count
        return list(taken.values()), list(taken)

    def order(self) -> tuple[Array, Array]:
        """Slots, and the rows in them, by key."""
        by_key = sorted(self._worst, reverse=True)
        return np.array([slot for *_, slot in by_key], np.int64), np.array([-row for _, row, _ in by_key], np.int64)


# ---------------------------------------------------------------- what a batch must be


def _where(name: str, batch: int) -> str:
    return f"array {name!r}, batch {batch}"


class _Checks:
    """Turns what a source gives into arrays of one dtype and row shape each, or says in one line why it can't."""

    def __init__(self, naming: Callable[[Any], Mapping[str, Any]], dtypes: Mapping[str, Any] | None, row_dims: Mapping[str, int] | None) -> None:
        self._naming = naming
        self._wanted = {name: np.dtype(_numpy_name(dtype)) for name, dtype in (dtypes or {}).items()}
        self._row_dims = dict(row_dims or {})
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, Any] = {}
        self._whole_floats: dict[str, bool] = {}
        self.converted: dict[str, str] = {}
        self.number = 0

    def __call__(self, raw: Any) -> Batch:
        """The next batch, rows first."""
        if isinstance(raw, Lazy):
            raw = raw.whole()
        try:
            named = self._naming(raw)
        except DataError as error:
            text = str(error)
            raise DataError(f"batch {self.number} {text}" if text.startswith(("is a ", "has ")) else f"batch {self.number}: {text}") from None
        if not named:
            raise DataError(f"batch {self.number} has no arrays")
        batch = {name: self._array(name, value) for name, value in named.items()}
        self._same_names(batch)
        (first, rows), *others = ((name, len(a)) for name, a in batch.items())
        for name, count in others:
            if count != rows:
                raise DataError(f"{_where(name, self.number)} has {count:,} rows, but {first!r} has {rows:,}")
        if rows == 0:
            raise DataError(f"{_where(first, self.number)} is empty")
        self.number += 1
        return batch

    def _same_names(self, batch: Batch) -> None:
        if self._shapes and set(self._shapes) != set(batch):
            lost, new = sorted(set(self._shapes) - set(batch)), sorted(set(batch) - set(self._shapes))
            what = f"lacks {', '.join(lost)}" if lost else f"has {', '.join(new)}, which earlier ones have not"
            raise DataError(f"batch {self.number} {what}")
        if not self._shapes:
            for name in self._wanted:
                if name not in batch:
                    raise DataError(f"a dtype was given for array {name!r}, but the batches have {', '.join(batch)}")
            for name, array in batch.items():
                self._shapes[name], self._dtypes[name] = array.shape[1:], array.dtype
        for name, array in batch.items():
            if array.shape[1:] != self._shapes[name]:
                raise DataError(f"{_where(name, self.number)} has rows of shape {list(array.shape[1:])}, earlier ones {list(self._shapes[name])}: pad or cut them")
            if array.dtype != self._dtypes[name]:
                batch[name] = self._widened(name, array)

    def _widened(self, name: str, array: Array) -> Array:
        """A later batch of a narrower type of the same kind fits; another kind, or a wider type, does not."""
        if array.dtype.kind == self._dtypes[name].kind and np.can_cast(array.dtype, self._dtypes[name]):
            return array.astype(self._dtypes[name])
        raise DataError(f"{_where(name, self.number)} is {array.dtype}, earlier ones {self._dtypes[name]}: give dtypes={{{name!r}: ...}}")

    def _array(self, name: str, value: Any) -> Array:
        if not name or name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")) or name == SOURCE_ROW:
            raise DataError(f"{name!r} can't be the name of an array")
        try:
            array = as_numbers(value)
        except DataError as error:
            raise DataError(f"{_where(name, self.number)} {error}") from None
        dim = self._row_dims.get(name, 0)
        if array.ndim <= dim:
            what = "is a single number" if array.ndim == 0 else f"has shape {list(array.shape)}, and no dimension {dim}"
            raise DataError(f"{_where(name, self.number)} {what}: {'its first dimension' if dim == 0 else 'that'} should be rows")
        array = np.moveaxis(array, dim, 0)
        if 0 in array.shape:
            raise DataError(f"{_where(name, self.number)} is empty: its shape is {list(array.shape)}")
        return self._checked(name, array)

    def _checked(self, name: str, array: Array) -> Array:
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0])
            what = "NaN" if np.isnan(array[bad]).any() else "an infinite value"
            raise DataError(f"{_where(name, self.number)} holds {what} in row {bad} of the batch")
        if array.dtype == np.uint64:
            if array.max() > np.iinfo(np.int64).max:
                raise DataError(f"{_where(name, self.number)} holds an unsigned value that does not fit int64")
            array = array.astype(np.int64)
        if name in self._wanted:
            return self._to(name, array, self._wanted[name])
        if array.dtype == np.float64:
            self._whole_floats[name] = self._whole_floats.get(name, True) and bool((array == np.round(array)).all())
        return array

    def _to(self, name: str, array: Array, wanted: Any) -> Array:
        if array.dtype == wanted:
            return array
        if wanted.kind in "biu" and array.dtype.kind in "fc":
            if array.dtype.kind == "c" or not (array == np.round(array)).all():
                raise DataError(f"{_where(name, self.number)} is {array.dtype} with fractions, where {wanted} is wanted")
        elif array.dtype.kind == "c" and wanted.kind != "c":
            raise DataError(f"{_where(name, self.number)} is {array.dtype}, where {wanted} is wanted")
        if wanted.kind in "iu":
            bounds = np.iinfo(wanted)
            low, high = array.min(), array.max()
            if low < bounds.min or high > bounds.max:
                raise DataError(f"{_where(name, self.number)} holds {low if low < bounds.min else high}, which does not fit {wanted}")
        with np.errstate(over="ignore"):
            converted = array.astype(wanted)
        if wanted.kind in "fc" and not np.isfinite(converted).all():
            raise DataError(f"{_where(name, self.number)} holds a value that does not fit {wanted}")
        exact = array.dtype.kind in "fc" or bool((converted.astype(array.dtype) == array).all())  # rounding of floats is as usual
        if not exact:
            raise DataError(f"{_where(name, self.number)} holds integers that {wanted} does not have")
        self.converted[name] = f"{name} was {array.dtype} and is written as {wanted}"
        return converted

    def notes(self) -> list[str]:
        return [*self.converted.values(), *(
            f"{name} is float64 and holds nothing but integers: for ids, codes or classes give dtypes={{{name!r}: 'int64'}}"
            for name, whole in self._whole_floats.items() if whole)]


def _numpy_name(dtype: Any) -> Any:
    """torch.int64 is NumPy's int64; bfloat16 is written as float32."""
    text = str(dtype)
    if text.startswith("torch."):
        text = text.removeprefix("torch.")
        return {"bfloat16": "float32"}.get(text, text)
    return dtype


# ---------------------------------------------------------------- the file


def _hasher(dtype: Any, row_shape: tuple[int, ...]) -> Any:
    return hashlib.sha256(f"{np.dtype(dtype).str} {list(row_shape)}\n".encode())


class _Column:
    """One array, grown by whole chunks; rows come and go rows first, wherever they lie in the file."""

    def __init__(self, file: h5py.File, name: str, row_dim: int, compression: str | None, total: int | None) -> None:
        self._file, self._name, self._dim = file, name, row_dim
        self._compression, self._total = compression, total
        self._parts: list[Array] = []
        self._waiting = 0
        self._chunk = 0
        self._written = 0
        self._dataset: h5py.Dataset | None = None
        self._hash: Any = None

    def append(self, rows: Array) -> None:
        if self._hash is None:
            self._hash = _hasher(rows.dtype, rows.shape[1:])
            row_bytes = rows.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64))
            self._chunk = max(1, min(_CHUNK_BYTES // row_bytes, 1 << 16))
        self._hash.update(np.ascontiguousarray(rows).data)
        self._parts.append(rows)
        self._waiting += len(rows)
        if self._waiting >= self._chunk:
            self._flush(self._waiting - self._waiting % self._chunk)

    def _flush(self, count: int) -> None:
        if count == 0:
            return
        rows = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        now, later = rows[:count], rows[count:]
        if self._dataset is None:
            self._dataset = self._create(now, whole=len(later) == 0 and self._waiting < self._chunk)
        if self._dataset.chunks is not None:
            self._dataset.resize(self._written + count, axis=self._dim)
        self._dataset[self._slab(self._written, self._written + count)] = np.moveaxis(now, 0, self._dim)
        self._written += count
        self._parts = [later.copy()] if len(later) else []
        self._waiting = len(later)

    def _create(self, rows: Array, whole: bool) -> h5py.Dataset:
        shape, chunk, limit = list(rows.shape[1:]), list(rows.shape[1:]), list(rows.shape[1:])
        shape.insert(self._dim, len(rows))
        if whole and self._compression is None:  # less than a chunk altogether
            return self._file.create_dataset(self._name, tuple(shape), rows.dtype)
        chunk.insert(self._dim, min(self._chunk, self._total or self._chunk))
        return self._file.create_dataset(self._name, tuple(shape), rows.dtype, chunks=tuple(chunk), compression=self._compression,
                                         maxshape=(*limit[:self._dim], None, *limit[self._dim:]))

    def _slab(self, begin: int, end: int) -> tuple[slice, ...]:
        return (*(slice(None),) * self._dim, slice(begin, end))

    def finish(self) -> ArrayInfo:
        self._flush(self._waiting)
        assert self._dataset is not None
        digest = self._hash.hexdigest()
        self._dataset.attrs["sha256"] = digest
        if self._dim:
            self._dataset.attrs["rows_along"] = self._dim
        return ArrayInfo(self._name, str(self._dataset.dtype), tuple(map(int, self._dataset.shape)), digest)


class _Columns:
    """All arrays of the file."""

    def __init__(self, file: h5py.File, row_dims: Mapping[str, int] | None, compression: str | None, total: int | None) -> None:
        self._file, self._row_dims, self._compression, self._total = file, dict(row_dims or {}), compression, total
        self._columns: dict[str, _Column] = {}

    def append(self, batch: Batch) -> None:
        for name, rows in batch.items():
            if name not in self._columns:
                self._columns[name] = _Column(self._file, name, self._row_dims.get(name, 0), self._compression, self._total)
            self._columns[name].append(rows)

    def finish(self) -> tuple[ArrayInfo, ...]:
        return tuple(column.finish() for column in self._columns.values())


def _digest(arrays: Sequence[ArrayInfo]) -> str:
    """One checksum of all arrays: of their names and checksums, by name."""
    return hashlib.sha256("".join(f"{a.name} {a.sha256}\n" for a in sorted(arrays, key=lambda a: a.name)).encode()).hexdigest()


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which takes its place when the block ends well and is deleted otherwise."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise DataError(f"{path}: can't be written: {error.strerror}") from None
    os.close(handle)
    part = Path(name)
    try:
        yield part
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)
        with open(part, "rb") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
        with contextlib.suppress(OSError):  # not every file system opens folders
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        part.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    import h5py

    from hesspect import __version__

    found = {"hesspect": __version__, "python": sys.version.split()[0], "numpy": np.__version__, "h5py": h5py.__version__}
    for name in ("torch", "transformers", "tokenizers", "datasets", "pandas", "pyarrow", "torchvision"):
        module = sys.modules.get(name)
        if module is not None and hasattr(module, "__version__"):
            found[name] = str(module.__version__)
    return found


def _step(row_bytes: int) -> int:
    """Rows of a block of some MiB."""
    return max(1, (16 * _CHUNK_BYTES) // max(row_bytes, 1))


def _in_order(numbers: Array, take: Callable[[Array], Batch]) -> Batch:
    """The rows `numbers`, asked for in ascending order, as files like to be read."""
    ascending = np.argsort(numbers, kind="stable")
    back = np.argsort(ascending, kind="stable")
    return {name: rows[back] for name, rows in take(numbers[ascending]).items()}


def _row_bytes(batch: Mapping[str, Array]) -> int:
    return sum(a[:1].nbytes for a in batch.values())


def _write_all(columns: _Columns, source: Any, checks: _Checks, rows: int | None) -> int:
    """All rows, or the first `rows`."""
    seen = 0
    for raw in source.batches():
        batch = checks(raw)
        count = len(next(iter(batch.values())))
        if rows is not None and seen + count > rows:
            count = rows - seen
            batch = {name: a[:count] for name, a in batch.items()}
        columns.append(batch)
        seen += count
        if seen == rows:
            break
    if seen == 0:
        raise DataError("there are no rows: the iterable gave no batch")
    if rows is not None and seen < rows:
        raise DataError(f"there are {seen:,} rows, fewer than the {rows:,} asked for")
    return seen


def _write_numbers(columns: _Columns, source: Any, checks: _Checks, rows: int, seed: int, unit_rows: int) -> int:
    """A sample of a source that gives rows by number."""
    order = sample_rows(len(source), rows, seed, unit_rows)
    step = _step(_row_bytes(checks(source.take(order[:1]))))
    for numbers in (order[i:i + step] for i in range(0, rows, step)):
        columns.append({**_in_order(numbers, lambda n: checks(source.take(n))), SOURCE_ROW: numbers})
    return len(source)


def _write_reservoir(columns: _Columns, source: Any, checks: _Checks, rows: int, seed: int, unit_rows: int, folder: Path) -> int:
    """A sample of a source that gives its rows once: they wait in slots of a file, not in memory."""
    reservoir = _Reservoir(rows, seed, unit_rows)
    slots: dict[str, Array] = {}
    with contextlib.ExitStack() as files:
        for raw in source.batches():
            if isinstance(raw, Lazy):
                chosen, at = reservoir.offer(raw.rows)
                if not chosen:
                    continue
                ascending = np.argsort(chosen)
                batch, at = checks(raw.make(np.array(chosen)[ascending])), [at[i] for i in ascending]
                chosen = list(range(len(at)))
            else:
                batch = checks(raw)
                chosen, at = reservoir.offer(len(next(iter(batch.values()))))
            for name, values in batch.items() if chosen else ():
                if name not in slots:
                    slots[name] = np.memmap(files.enter_context(tempfile.TemporaryFile(dir=folder)), values.dtype, "w+", shape=(rows, *values.shape[1:]))
                slots[name][at] = values[chosen]
        if reservoir.seen < rows:
            raise DataError(f"there are {reservoir.seen:,} rows, fewer than the {rows:,} asked for" if reservoir.seen else
                            "there are no rows: the iterable gave no batch")
        order, numbers = reservoir.order()
        step = _step(_row_bytes(slots))
        for begin in range(0, rows, step):
            found = _in_order(order[begin:begin + step], lambda n: {name: values[n] for name, values in slots.items()})
            columns.append({**found, SOURCE_ROW: numbers[begin:begin + step]})
        slots.clear()
    return reservoir.seen


def write_data(path: str | os.PathLike[str], batches: Any, *, inputs: Sequence[str] | Mapping[str, Any] | None = None,
               targets: str | int | bool | None = None, rows: int | None = None, seed: int | None = None,
               unit_rows: int = 1,
               dtypes: Mapping[str, Any] | None = None, batch_dims: Mapping[str, int] | None = None,
               source: str | Sequence[str] = (), attributes: Mapping[str, Any] | None = None,
               compression: str | None = None, notes: Callable[[], Sequence[str]] | None = None, warn: bool = True) -> DataFile:
    """Writes rows to the HDF5 file that `hesspect --data` reads.

    :param batches: an iterable of batches (a torch DataLoader, a list, a generator), each an array, a tuple or list of arrays
        with the target last, (inputs, target), a dictionary, a dataclass or a named tuple of arrays; or everything at once: a
        dictionary or tuple of arrays, an array, a Hugging Face dataset, a pandas DataFrame, an Arrow table, reader or data set
    :param inputs: names of the model's inputs: for tuples in their order; for dictionaries which keys are written, or
        {input: key}. Without it all of a dictionary is written, and the one input of a tuple is `x`
    :param targets: key or position of the target; without it the last of a tuple, or the first of target, targets, labels, label
        and y that a dictionary has and that is no input; False: there is none, as for `--loss output`
    :param rows: how many rows; all, if not given. Without `seed` the first ones
    :param seed: draws them at random instead, in random order, and adds an array `source_row` with their numbers
    :param unit_rows: so many rows belong together, as in `--unit-rows`: a sample has whole units
    :param dtypes: what an array is written as, by its name in the file; a float that is no integer is refused where one is wanted
    :param batch_dims: the dimension of an array, in batches and in the file, that its rows lie along, where it is not the first
    :param source: where the rows are from, for the file's attributes
    :param attributes: more of them: numbers and texts
    :param compression: gzip or lzf; hesspect reads both
    :param notes: called at the end: what the caller has to say of the rows, for the file and the user
    :param warn: whether what should be looked at is a UserWarning too; it always stands in the file and in `DataFile.notes`
    :raises DataError: what can't be written, with the array and the batch (counted from 0)
    """
    import h5py

    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: is a directory")
    sources = [source] if isinstance(source, str) and source else list(source)
    if any(Path(one).is_file() and path.is_file() and path.samefile(one) for one in sources):
        raise DataError(f"{path}: is what the rows are read from")
    if rows is not None and rows < 1:
        raise DataError(f"rows is {rows}: at least 1 is needed")
    if unit_rows < 1 or (rows or 0) % unit_rows:
        raise DataError(f"{rows:,} rows are no whole number of units of {unit_rows:,}" if rows and unit_rows > 0 else f"unit_rows is {unit_rows}: at least 1 is needed")
    if seed is not None and rows is None:
        raise DataError("a seed without a number of rows: give rows too")
    # arrays whose rows lie elsewhere are one batch: they can't be cut without knowing the names
    opened = Stream([batches]) if batch_dims and isinstance(batches, (Mapping, tuple)) else open_source(batches)
    checks = _Checks(Naming(inputs, targets), dtypes, batch_dims)
    by_number = hasattr(opened, "take")
    try:
        with atomic(path) as part:
            with h5py.File(part, "w", rdcc_nbytes=8 * _CHUNK_BYTES) as file:
                columns = _Columns(file, batch_dims, compression, rows)
                if rows is None or seed is None:
                    seen = _write_all(columns, opened, checks, rows)
                elif by_number and not batch_dims:
                    seen = _write_numbers(columns, opened, checks, rows, seed, unit_rows)
                else:
                    seen = _write_reservoir(columns, opened, checks, rows, seed, unit_rows, path.parent)
                if (rows is None or seed is not None) and seen % unit_rows:
                    raise DataError(f"there are {seen:,} rows, no whole number of units of {unit_rows:,}")
                arrays = columns.finish()
                said = [*notes_on(batches), *checks.notes(), *(notes() if notes is not None else ())]
                written = DataFile(path, arrays[0].shape[(batch_dims or {}).get(arrays[0].name, 0)], seen, arrays, _digest(arrays), tuple(said))
                _describe(file, written, seed, sources, {**({"unit_rows": unit_rows} if unit_rows > 1 else {}), **(attributes or {})}, by_number)
    except OSError as error:
        raise DataError(f"{path}: can't be written: {error.strerror or error}") from error
    if warn:
        for note in said:
            warnings.warn(note, stacklevel=2)
    return written


def _short(text: str) -> str:
    """An attribute holds at most 64 KiB."""
    return text if len(text.encode()) < 60_000 else f"{text[:15_000]} ... ({len(text):,} characters)"


def _describe(file: h5py.File, written: DataFile, seed: int | None, sources: Sequence[str], attributes: Mapping[str, Any], known: bool) -> None:
    versions = _versions()
    file.attrs["written_by"] = f"hesspect.write_data {versions['hesspect']}"
    file.attrs["format"] = _FORMAT
    file.attrs["versions"] = json.dumps(versions)
    file.attrs["date"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    file.attrs["sha256"] = written.sha256
    file.attrs["arrays"] = json.dumps([a.name for a in written.arrays])
    file.attrs["rows"] = written.rows
    if seed is not None or known:
        file.attrs["rows_seen"] = written.rows_seen
    file.attrs["rows_chosen"] = "all" if seed is None and written.rows == written.rows_seen else "first" if seed is None else "sampled"
    if seed is not None:
        file.attrs["seed"] = str(seed)
    if sources:
        file.attrs["source"] = _short("\n".join(map(str, sources)))
    if written.notes:
        file.attrs["notes"] = _short("\n".join(written.notes))
    for name, value in attributes.items():
        file.attrs[name] = _short(value) if isinstance(value, str) else value if isinstance(value, (int, float, bool)) else _short(json.dumps(value))


def verify_data(path: str | os.PathLike[str]) -> DataFile:
    """Reads a file that `write_data` wrote, in pieces, and compares its checksums.

    :raises DataError: no such file, no checksums, or other values than were written
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    arrays: list[ArrayInfo] = []
    try:
        with h5py.File(path, "r") as file:
            if "sha256" not in file.attrs:
                raise DataError(f"{path}: has no checksum: hesspect.write_data did not write it")

            def check(name: str, node: Any) -> None:
                if isinstance(node, h5py.Dataset):
                    arrays.append(_verified(path, name, node))

            file.visititems(check)
            digest = str(file.attrs["sha256"])
            if digest != _digest(arrays):
                raise DataError(f"{path}: its arrays are not those that were written")
            names = json.loads(file.attrs["arrays"])
            arrays.sort(key=lambda a: names.index(a.name))
            return DataFile(path, int(file.attrs["rows"]), int(file.attrs.get("rows_seen", file.attrs["rows"])), tuple(arrays), digest,
                            tuple(str(file.attrs["notes"]).splitlines()) if "notes" in file.attrs else ())
    except OSError as error:
        raise DataError(f"{path}: not an HDF5 file, or a broken one") from error


def _verified(path: Path, name: str, dataset: h5py.Dataset) -> ArrayInfo:
    dim = int(dataset.attrs.get("rows_along", 0))
    row_shape = tuple(s for i, s in enumerate(dataset.shape) if i != dim)
    digest, rows = _hasher(dataset.dtype, row_shape), dataset.shape[dim]
    step = _step(dataset.dtype.itemsize * int(np.prod(row_shape, dtype=np.int64)))
    for begin in range(0, rows, step):
        slab = (*(slice(None),) * dim, slice(begin, begin + step))
        part = dataset[slab]
        digest.update(np.ascontiguousarray(np.moveaxis(part, dim, 0)).data)
    if digest.hexdigest() != dataset.attrs.get("sha256"):
        raise DataError(f"{path}: array {name!r} does not have the values that were written")
    return ArrayInfo(name, str(dataset.dtype), tuple(map(int, dataset.shape)), digest.hexdigest())
