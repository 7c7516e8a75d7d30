"""Tables to rows for recommenders: numbers, ids of categories, lists of ids, and a target, as a schema says.

Two passes over the files, each in a stream: the first counts what vocabularies and standardisation need, in all rows whatever
is sampled; the second makes the rows. What was counted stands beside the data, DATA.columns.json, and can be
given again (`--columns`), as a model must be that was trained with it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hesspect.data.columns import Encoder, MultiHot, make_encoder, numbers_of
from hesspect.data.records import arrow_batches, kind_of
from hesspect.data.schema import Column, Schema, make_schema, read_schema
from hesspect.data.sources import Array, Batch, DataError, Lazy
from hesspect.data.writer import DataFile, atomic, write_data

LOSSES = {"binary": "bce_with_logits", "class": "cross_entropy", "number": "mse"}
_ROWS = 8192


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise DataError("tables need pyarrow: pip install pyarrow") from None
    return pyarrow


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _csv(arrow: Any, path: Path, schema: Schema, names: list[str]) -> Iterator[Any]:
    types = {c.name: arrow.float64() if c.kind in ("numerical", "weight", "number") else arrow.string() for c in schema.all}
    delimiter = schema.delimiter or ("\t" if kind_of(path) == "tsv" else ",")
    reader = arrow.csv.open_csv(path, arrow.csv.ReadOptions(block_size=4 << 20), arrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                                arrow.csv.ConvertOptions(include_columns=names, column_types=types, null_values=list(schema.missing_values),
                                                         strings_can_be_null=True, quoted_strings_can_be_null=True))
    with reader:
        yield from reader


def blocks(paths: Sequence[Path], schema: Schema) -> Iterator[dict[str, Any]]:
    """The schema's columns of all files, some thousand rows at a time.

    :raises DataError: a file that is missing, broken or lacks a column
    """
    arrow = _arrow()
    names = list(dict.fromkeys(c.name for c in schema.all))
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: {'is a directory' if path.is_dir() else 'no such file'}")
        kind = kind_of(path)
        try:
            if kind in ("parquet", "pq", "brotli"):
                with arrow.parquet.ParquetFile(path) as file:
                    _require(path, names, file.schema_arrow.names)
                    for batch in file.iter_batches(batch_size=_ROWS, columns=names):
                        yield {name: batch.column(batch.schema.get_field_index(name)) for name in names}
            elif kind in ("arrow", "feather"):
                with arrow_batches(path) as (known, batches):
                    _require(path, names, known)
                    for batch in batches:
                        for begin in range(0, batch.num_rows, _ROWS):
                            part = batch.slice(begin, _ROWS)
                            yield {name: part.column(part.schema.get_field_index(name)) for name in names}
            elif kind in ("csv", "tsv"):
                for batch in _csv(arrow, path, schema, names):
                    for begin in range(0, batch.num_rows, _ROWS):
                        part = batch.slice(begin, _ROWS)
                        yield {name: part.column(part.schema.get_field_index(name)) for name in names}
            else:
                raise DataError(f"{path}: not known by its name; there are parquet, arrow, csv and tsv (also .gz)")
        except (arrow.ArrowInvalid, arrow.ArrowKeyError, OSError) as error:
            raise DataError(f"{path}: can't be read: {_one_line(error)}") from None


def _require(path: Path, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise DataError(f"{path}: no column {name!r}; it has {', '.join(known)}")


class _Table:
    """The encoders of a schema's columns."""

    def __init__(self, schema: Schema, fitted: Mapping[str, Any] | None, rows: int = 0) -> None:
        self.schema = schema
        self.encoders: list[tuple[Column, Encoder]] = [(c, make_encoder(c, c is schema.target, None if fitted is None else fitted[_key(c, schema)])) for c in schema.all]
        self.rows, self.dropped = rows, 0  # rows: counted in the first pass

    def kept(self, block: dict[str, Any], row: int) -> Array:
        """Row numbers of a block that are not dropped; `row`: the number of its first row.

        :raises DataError: a missing value where none may be, or an infinite one
        """
        length = len(next(iter(block.values())))
        keep = np.ones(length, bool)
        for column, encoder in self.encoders:
            if column.kind in ("numerical", "weight", "number"):
                infinite = np.flatnonzero(np.isinf(numbers_of(column, block[column.name])))
                if len(infinite):
                    raise DataError(f"column {column.name!r} holds an infinite value in row {row + int(infinite[0])}")
            if column.missing not in ("refuse", "drop"):
                continue
            absent = encoder.absent(block[column.name])
            if column.missing == "drop":
                keep &= ~absent
            elif absent.any():
                raise DataError(f"column {column.name!r} has no value in row {row + int(np.flatnonzero(absent)[0])}: say what `missing` is")
        return np.flatnonzero(keep)

    def count(self, paths: Sequence[Path]) -> None:
        """The first pass, over the rows that are kept."""
        import pyarrow

        row = 0
        for block in blocks(paths, self.schema):
            keep = self.kept(block, row)
            row += len(next(iter(block.values())))
            taken = pyarrow.array(keep)
            for column, encoder in self.encoders:
                encoder.count_in(block[column.name].take(taken))
            self.rows += len(keep)

    def batches(self, paths: Sequence[Path]) -> Iterator[Lazy]:
        """The second pass."""
        row = 0
        for block in blocks(paths, self.schema):
            keep = self.kept(block, row)
            length = len(next(iter(block.values())))
            row += length
            self.dropped += length - len(keep)
            if len(keep):
                yield self._lazy(block, keep)

    def _lazy(self, block: dict[str, Any], keep: Array) -> Lazy:
        return Lazy(len(keep), lambda rows: self._encode(block, keep[rows]))

    def _encode(self, block: dict[str, Any], rows: Array) -> Batch:
        import pyarrow

        taken = pyarrow.array(rows)
        made: dict[str, list[Array]] = {}
        for column, encoder in self.encoders:
            for name, values in encoder.encode(block[column.name].take(taken)).items():
                made.setdefault(name, []).append(values)
        stacked = {c.input for c in self.schema.all if c.stacked and c.kind in ("numerical", "categorical")}
        return {name: np.stack(parts, axis=1) if name in stacked else parts[0] for name, parts in made.items()}

    def fit(self) -> None:
        for _, encoder in self.encoders:
            encoder.fit()

    def as_json(self) -> dict[str, Any]:
        return {"schema": self.schema.as_json(), "rows": self.rows, "fitted": {_key(c, self.schema): {"input": c.input, **e.as_json()} for c, e in self.encoders}}

    def notes(self) -> list[str]:
        found = [f"{self.dropped:,} rows with a missing value were left out"] if self.dropped else []
        found += [f"column {c.name!r}: lists of more than {c.length} values were cut, in {e.cut:,} rows" for c, e in self.encoders if isinstance(e, MultiHot) and e.cut]
        return found


def _key(column: Column, schema: Schema) -> str:
    return "target" if column is schema.target else f"column {column.name}"


def _read_columns(path: Path) -> tuple[Schema, dict[str, Any], int]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        schema, fitted, rows = make_schema(found["schema"], str(path)), found["fitted"], int(found["rows"])
        missing = next((_key(c, schema) for c in schema.all if _key(c, schema) not in fitted), None)
        if missing:
            raise KeyError(missing)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a file of columns that `hesspect data table` wrote ({_one_line(error)})") from None
    return schema, fitted, rows


def write_table(path: str | os.PathLike[str], files: Sequence[str | os.PathLike[str]], schema: str | os.PathLike[str] | Mapping[str, Any] | None = None, *,
                columns: str | os.PathLike[str] | None = None, rows: int | None = None, seed: int = 0, first: bool = False,
                compression: str | None = None) -> DataFile:
    """Rows of Parquet or CSV files as a schema has them.

    :param schema: a file (JSON or ini) or a dictionary; docs/data.md has its keys
    :param columns: a DATA.columns.json in its stead: vocabularies and constants of another call, which are not counted anew
    :param rows: how many; a random sample by `seed`, or with `first` those that come first
    :raises DataError: what can't be read, or a value that the schema has no place for
    """
    path, paths = Path(path), [Path(f) for f in files]
    if (schema is None) == (columns is None):
        raise DataError("either a schema or a file of columns is wanted")
    if columns is not None:
        table = _Table(*_read_columns(Path(columns)))
    else:
        table = _Table(make_schema(dict(schema)) if isinstance(schema, Mapping) else read_schema(Path(str(schema))), None)
        table.count(paths)
        if not table.rows:
            raise DataError(f"{', '.join(map(str, paths))}: no rows")
    table.fit()
    beside = path.with_suffix(".columns.json")
    target = table.schema.target
    hints = {"loss": LOSSES[target.kind]} if target else {}
    hints.update(("loss_weight", c.input) for c in table.schema.columns if c.kind == "weight")
    text = json.dumps(table.as_json(), indent=1, ensure_ascii=False)
    written = write_data(path, table.batches(paths), targets="target" if target else False, rows=rows, seed=None if first or rows is None else seed, source=[str(p) for p in paths],
                         compression=compression, notes=table.notes, warn=False,
                         attributes={"columns": beside.name, "schema": json.dumps(table.schema.as_json()), **hints})
    with atomic(beside) as part:
        part.write_text(text + "\n", encoding="utf-8")
    return written


def add_parser(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser("table", help="tables, for recommenders", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="parquet, arrow, csv or tsv (also .gz)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--schema", type=Path, metavar="SCHEMA", help="JSON or ini: what the columns are")
    what.add_argument("--columns", type=Path, metavar="DATA.columns.json", help="vocabularies and constants of an earlier call, as the model was trained with")
    parser.set_defaults(run=lambda args: write_table(args.output, args.files, args.schema, columns=args.columns, rows=args.rows, seed=args.seed,
                                                     first=args.first, compression=args.compression))
