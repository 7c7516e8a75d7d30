"""What rows can come from, as one thing: an iterator of batches, each a dict of arrays by name.

Loaders, Hugging Face datasets, pandas and Arrow are known by what they can do, so none of them need be installed. A source
that can be asked for any of its rows says how many it has, and gives them by number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import numpy as np

from hesspect.errors import InputError

#: names of a batch's target, the first that is there, where the caller names none
TARGET_NAMES = ("target", "targets", "labels", "label", "y")
TARGET = "target"
_PIECE = 1024  # rows at a time of what comes whole, at most, and as many bytes of what says its size
_PIECE_BYTES = 32 << 20

Array = np.ndarray[Any, Any]
Batch = dict[str, Array]


class DataError(InputError, ValueError):
    """The data can't be written, or read. The message is one line for the user."""


class Source(Protocol):
    """Rows to be had."""

    def batches(self) -> Iterator[Any]:
        """All rows, in order."""


class Rows(Protocol):
    """Rows that can be had by number."""

    def __len__(self) -> int: ...

    def take(self, numbers: Array) -> Any:
        """The batch of these rows, `numbers` ascending."""


@dataclasses.dataclass
class Lazy:
    """A batch whose rows are made when they are asked for: those that a sample leaves out never are."""

    rows: int
    make: Callable[[Array], Any]  # of ascending row numbers of the batch

    def whole(self) -> Any:
        return self.make(np.arange(self.rows))


# ---------------------------------------------------------------- what comes as batches


@dataclasses.dataclass
class Stream:
    """An iterable of batches, read once."""

    of: Iterable[Any]

    def batches(self) -> Iterator[Any]:
        return iter(self.of)


@dataclasses.dataclass
class Whole:
    """One batch that has everything: a mapping or tuple of arrays, an array, a frame."""

    rows: int
    cut: Callable[[Any], Any]  # of a slice, or of ascending row numbers
    piece: int = _PIECE

    def __len__(self) -> int:
        return self.rows

    def batches(self) -> Iterator[Any]:
        return (self.cut(slice(begin, min(begin + self.piece, self.rows))) for begin in range(0, self.rows, self.piece))

    def take(self, numbers: Array) -> Any:
        return self.cut(numbers)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")


def _rows(value: Any, name: str) -> int:
    try:
        shape = value.shape if hasattr(value, "shape") else (len(value),)
    except TypeError:
        shape = ()
    if len(shape) == 0:
        raise DataError(f"array {name!r} is a single {type(value).__name__}: its first dimension should be rows")
    return int(shape[0])


def _part(value: Any, rows: Any) -> Any:
    if _is_array(value) or isinstance(rows, slice):
        return value[rows]
    return [value[i] for i in rows]


def _piece(arrays: Iterable[Any]) -> int:
    """Rows at a time, of arrays with rows first."""
    row_bytes = sum(int(np.prod(a.shape[1:], dtype=np.int64)) * int(getattr(a.dtype, "itemsize", 8)) for a in arrays if _is_array(a))
    return max(1, min(_PIECE, _PIECE_BYTES // max(row_bytes, 1)))


def _whole_mapping(arrays: Mapping[str, Any]) -> Whole:
    if not arrays:
        raise DataError("a dictionary without arrays has no rows")
    rows = {str(name): _rows(value, str(name)) for name, value in arrays.items()}
    (first, expected), *others = rows.items()
    for name, count in others:
        if count != expected:
            raise DataError(f"array {name!r} has {count:,} rows, but {first!r} has {expected:,}; all arrays need as many")
    return Whole(expected, lambda part: {name: _part(value, part) for name, value in arrays.items()}, _piece(arrays.values()))


def _whole_tuple(arrays: tuple[Any, ...]) -> Whole:
    rows = [_rows(value, f"number {i}") for i, value in enumerate(arrays)]
    if len(set(rows)) != 1:
        raise DataError(f"arrays of one tuple need as many rows, but these have {', '.join(f'{r:,}' for r in rows)}")
    return Whole(rows[0], lambda part: tuple(_part(value, part) for value in arrays), _piece(arrays))


def _frame(frame: Any) -> Whole:
    """A pandas DataFrame, each column an array."""
    return Whole(len(frame), lambda part: {str(name): frame[name].iloc[part] for name in frame.columns})


def _arrow_table(table: Any) -> Whole:
    names = table.schema.names

    def cut(part: Any) -> dict[str, Any]:
        rows = table.slice(part.start, part.stop - part.start) if isinstance(part, slice) else table.take(part)
        return {name: rows.column(i) for i, name in enumerate(names)}

    return Whole(table.num_rows, cut)


def _arrow_batches(batches: Iterable[Any]) -> Stream:
    def columns() -> Iterator[dict[str, Any]]:
        for batch in batches:
            if batch.num_rows:
                yield dict(zip(batch.schema.names, batch.columns, strict=True))

    return Stream(columns())


def _hugging_face(dataset: Any) -> Source:
    dataset = dataset.with_format("numpy")
    if hasattr(dataset, "__len__") and hasattr(dataset, "select"):
        return Whole(len(dataset), lambda part: dataset[part if isinstance(part, slice) else [int(i) for i in part]], 128)
    return Stream(dataset.iter(batch_size=128))


def _is_torch_dataset(value: Any) -> bool:
    return any(c.__module__.startswith("torch.utils.data") and c.__name__ == "Dataset" for c in type(value).__mro__)


def open_source(batches: Any) -> Source:
    """`batches` as a source; what it may be is in the docstring of `write_data`."""
    known = type(batches)
    if isinstance(batches, (Stream, Whole)):
        return batches
    if isinstance(batches, (str, bytes)):
        raise DataError(f"the rows are a {known.__name__}, not batches: `python -m hesspect data` reads files")
    if isinstance(batches, Mapping):
        if batches and all(hasattr(v, "column_names") and hasattr(v, "with_format") for v in batches.values()):
            raise DataError(f"a dictionary of splits ({', '.join(map(str, batches))}): choose one of them")
        return _whole_mapping({str(k): v for k, v in batches.items()})
    if hasattr(batches, "column_names") and hasattr(batches, "with_format"):
        return _hugging_face(batches)
    if hasattr(batches, "iloc") and hasattr(batches, "columns"):
        return _frame(batches)
    if known.__module__.startswith("pyarrow"):
        if hasattr(batches, "num_rows") and hasattr(batches, "take"):
            return _arrow_table(batches)
        if hasattr(batches, "iter_batches"):
            return _arrow_batches(batches.iter_batches(batch_size=_PIECE))
        return _arrow_batches(batches.to_batches() if hasattr(batches, "to_batches") else batches)
    if hasattr(batches, "__arrow_c_stream__"):
        import pyarrow

        return _arrow_batches(pyarrow.RecordBatchReader.from_stream(batches))
    if _is_torch_dataset(batches):
        raise DataError(f"{known.__name__} gives one row at a time: give torch.utils.data.DataLoader(dataset, batch_size=...)")
    if _is_array(batches):
        return _whole_tuple((batches,))
    if isinstance(batches, tuple) and batches and all(_is_array(a) for a in batches):
        return _whole_tuple(batches)
    if isinstance(batches, Iterable):
        return Stream(batches)
    raise DataError(f"{known.__name__} is no batches: it can't be iterated over")


def notes_on(batches: Any) -> list[str]:
    """What a loader does that changes which rows are written, or their order."""
    notes = []
    sampler = getattr(batches, "sampler", None)
    if type(sampler).__name__ == "RandomSampler" and getattr(sampler, "generator", None) is None and getattr(batches, "generator", None) is None:
        notes.append("the loader shuffles with a generator that has no seed of its own: another call may write other rows, in another order")
    if getattr(batches, "drop_last", False) is True:
        notes.append("the loader leaves out a last batch that is not full (drop_last)")
    return notes


# ---------------------------------------------------------------- the arrays of a batch, by name


def _fields(batch: Any) -> Any:
    """A named tuple or a dataclass as a mapping."""
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return dict(zip(batch._fields, batch, strict=True))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, (type, Mapping)):
        return {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return batch


@dataclasses.dataclass
class Naming:
    """Which arrays of a batch are written, and under which names."""

    inputs: Sequence[str] | Mapping[str, Any] | None = None
    targets: str | int | bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.inputs, str):
            self.inputs = [self.inputs]
        if self.targets is True:
            self.targets = None

    def __call__(self, batch: Any) -> dict[str, Any]:
        batch = _fields(batch)
        if isinstance(batch, Mapping):
            return self._of_mapping(batch)
        if _is_array(batch):
            return self._of_list([batch])
        if isinstance(batch, (tuple, list)):
            return self._of_list(list(batch))
        raise DataError(f"is a {type(batch).__name__}; a batch is an array, a tuple, list or dictionary of arrays")

    def _wanted(self) -> dict[str, Any] | None:
        if self.inputs is None:
            return None
        return dict(self.inputs) if isinstance(self.inputs, Mapping) else {name: name for name in self.inputs}

    def _of_mapping(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        target = self._target_key(batch)
        wanted = self._wanted()
        if wanted is None:
            wanted = {str(k): k for k in batch if k != target}
        for name, key in wanted.items():
            if key not in batch:
                _no_array(key, batch, f"for input {name!r}" if key != name else "")
        arrays = {name: batch[key] for name, key in wanted.items()}
        if target is not None:
            if TARGET in arrays:
                raise DataError(f"both an input and the target are named {TARGET!r}")
            arrays[TARGET] = batch[target]
        return arrays

    def _target_key(self, batch: Mapping[str, Any]) -> Any:
        if self.targets is False:
            return None
        if self.targets is not None:
            if self.targets not in batch:
                _no_array(self.targets, batch, "for the target")
            return self.targets
        taken = set((self._wanted() or {}).values())
        return next((k for k in TARGET_NAMES if k in batch and k not in taken), None)

    def _of_list(self, batch: list[Any]) -> dict[str, Any]:
        if len(batch) == 2 and isinstance(_fields(batch[0]), Mapping) and (self.targets is None or self.targets is False):
            inputs = Naming(self.inputs, False)(batch[0])
            return inputs if self.targets is False else {**inputs, TARGET: batch[1]}
        if isinstance(self.targets, str) and self.targets != TARGET:
            raise DataError(f"is a list of arrays, which has none by the name {self.targets!r}; a target's position is an integer")
        arrays, names = list(batch), list(self._wanted() or ())
        target = None
        if isinstance(self.targets, int) and self.targets is not False:
            if not -len(arrays) <= self.targets < len(arrays):
                raise DataError(f"has {len(arrays)} arrays, and none at position {self.targets} for the target")
            target = arrays.pop(self.targets)
        elif self.targets is not False and len(arrays) > 1:
            nested = isinstance(arrays[0], (tuple, list)) and len(arrays) == 2
            if nested or not names or len(names) != len(arrays):
                target = arrays.pop()
        if len(arrays) == 1 and isinstance(arrays[0], (tuple, list)) and any(_is_array(a) for a in arrays[0]):
            arrays = list(arrays[0])
        if not names:
            if len(arrays) != 1:
                raise DataError(f"has {len(arrays)} inputs without names: name them, inputs=[...]")
            names = ["x"]
        if len(names) != len(arrays):
            raise DataError(f"has {len(arrays)} inputs{'' if target is None else ' beside the target'}, but {len(names)} names: {', '.join(names)}")
        found = dict(zip(names, arrays, strict=True))
        if target is not None:
            if isinstance(target, Mapping):
                raise DataError(f"has a dictionary as its target ({', '.join(map(str, target))}): a loss takes one array")
            found[TARGET] = target
        return found


def _no_array(key: Any, batch: Mapping[str, Any], what: str) -> NoReturn:
    raise DataError(f"has no array {key!r}{' ' + what if what else ''}; it has {', '.join(map(str, batch))}")


# ---------------------------------------------------------------- one array, as NumPy's


def _ragged(value: Any) -> str | None:
    """Two lengths that differ, where rows are sequences."""
    lengths: dict[int, None] = {}
    for row in value:
        if hasattr(row, "__len__") and not isinstance(row, (str, bytes)):
            lengths[len(row)] = None
            if len(lengths) > 1:
                return " and ".join(map(str, lengths))
    return None


def _from_arrow(value: Any) -> Any:
    import pyarrow
    import pyarrow.compute

    if isinstance(value, pyarrow.ChunkedArray):
        value = value.combine_chunks()
        if isinstance(value, pyarrow.ChunkedArray):
            value = pyarrow.concat_arrays(value.chunks)
    kind = value.type
    if value.null_count:
        where = int(np.flatnonzero(np.asarray(value.is_null()))[0])
        raise DataError(f"has a missing value in row {where}")
    if pyarrow.types.is_dictionary(kind):
        raise DataError("holds categories: give their codes, or use `python -m hesspect data table`")
    if pyarrow.types.is_fixed_size_list(kind):
        width, inner = kind.list_size, _from_arrow(value.flatten())
        return np.asarray(inner).reshape(len(value), width, *np.asarray(inner).shape[1:])
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        lengths = np.unique(np.asarray(pyarrow.compute.list_value_length(value)))
        if len(lengths) > 1:
            raise DataError(f"has rows of unequal lengths ({lengths[0]} and {lengths[-1]}): pad them")
        inner = np.asarray(_from_arrow(value.flatten()))
        return inner.reshape(len(value), int(lengths[0]) if len(lengths) else 0, *inner.shape[1:])
    if pyarrow.types.is_timestamp(kind) or pyarrow.types.is_date(kind) or pyarrow.types.is_duration(kind):
        raise DataError("holds times: turn them into numbers first")
    if pyarrow.types.is_boolean(kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind):
        return value.to_numpy(zero_copy_only=False)
    raise DataError(f"holds {kind}, no numbers")


def as_numbers(value: Any) -> Array:
    """`value` as an array of numbers that HDF5 has.

    :raises DataError: what it holds instead, without the array's name
    """
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu()
        if value.is_sparse or getattr(value, "is_nested", False):
            raise DataError("is a sparse or nested tensor: make it dense (to_dense, to_padded_tensor)")
        if str(value.dtype) == "torch.bfloat16" or str(value.dtype).startswith("torch.float8"):
            value = value.float()
        value = value.resolve_conj().resolve_neg().numpy()
    elif type(value).__module__.startswith("pyarrow"):
        value = _from_arrow(value)
    elif hasattr(value, "iloc"):  # a pandas Series
        if str(value.dtype) == "category":
            raise DataError("holds categories: give their codes, or use `python -m hesspect data table`")
        missing = np.asarray(value.isna())
        if missing.any():
            raise DataError(f"has a missing value in row {int(np.flatnonzero(missing)[0])}")
        value = value.to_numpy()
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise DataError("has masked values")
        value = value.data
    if isinstance(value, (list, tuple)) and any(hasattr(row, "detach") for row in value):
        value = [as_numbers(row) for row in value]
    if isinstance(value, Mapping) or isinstance(value, (str, bytes)):
        raise DataError(f"is a {type(value).__name__}, no array")
    try:
        array = np.asarray(value)
    except ValueError:
        lengths = _ragged(value)
        raise DataError(f"has rows of unequal {f'lengths ({lengths})' if lengths else 'shapes'}: pad them") from None
    if array.dtype == object and array.ndim >= 1 and array.size and all(isinstance(row, np.ndarray) for row in array):
        lengths = _ragged(array)
        if lengths or len({row.shape for row in array}) > 1:
            raise DataError(f"has rows of unequal {f'lengths ({lengths})' if lengths else 'shapes'}: pad them")
        array = np.stack(list(array))
    if array.dtype == object:
        first = next((v for v in array.reshape(-1) if v is not None), None)
        if first is None or any(v is None for v in array.reshape(-1)):
            raise DataError("has missing values (None)")
        lengths = _ragged(array)
        if lengths:
            raise DataError(f"has rows of unequal lengths ({lengths}): pad them")
        raise DataError(f"holds Python objects ({type(first).__name__}), no numbers")
    if array.dtype.kind in "SU":
        raise DataError("holds text, no numbers: `python -m hesspect data text` tokenises it")
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
        raise DataError(f"holds {array.dtype}, which hesspect does not read")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
