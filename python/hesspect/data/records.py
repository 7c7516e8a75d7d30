"""Records of files, one after another: lines of text, JSON lines, CSV, Parquet; each also gzipped where it is text."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hesspect.data.sources import DataError

Record = dict[str, Any]
SPLITS = ("line", "paragraph", "file")
KINDS = "txt, jsonl, csv, tsv (also .gz), parquet and arrow"
_ROWS = 1024


def kind_of(path: Path) -> str:
    """What a file's name says it is, without .gz."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1].removeprefix(".") if suffixes else ""


def _open(path: Path, **how: Any) -> Any:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", **how)
    return open(path, encoding="utf-8", **how)


def _documents(file: Iterable[str], split: str) -> Iterator[str]:
    """Documents of a text file; blank ones are none."""
    if split == "file":
        whole = "".join(file)
        if whole.strip():
            yield whole
        return
    waiting: list[str] = []
    for line in file:
        if split == "line":
            if line.strip():
                yield line.rstrip("\r\n")
        elif line.strip():
            waiting.append(line)
        elif waiting:
            yield "".join(waiting).rstrip("\r\n")
            waiting = []
    if waiting:
        yield "".join(waiting).rstrip("\r\n")


def _json_lines(path: Path) -> Iterator[Record]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                whole = " (a JSON file of one list: write one object a line)" if number == 1 and line.lstrip().startswith("[") else ""
                raise DataError(f"{path}, line {number}: not JSON: {error.msg}{whole}") from None
            if not isinstance(record, dict):
                raise DataError(f"{path}, line {number}: a {type(record).__name__}, not an object")
            yield record


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a Parquet file, or a broken one ({str(error).splitlines()[0]})") from None
    with file:
        names = file.schema_arrow.names
        for column in columns:
            if column not in names:
                raise DataError(f"{path}: no column {column!r}; it has {', '.join(names)}")
        for batch in file.iter_batches(batch_size=_ROWS, columns=list(columns)):
            yield from batch.to_pylist()


@contextmanager
def arrow_batches(path: Path) -> Iterator[tuple[list[str], Iterator[Any]]]:
    """Columns and record batches of an Arrow file, as `save_to_disk` of Hugging Face's data sets writes them (stream) or as Feather (file)."""
    import pyarrow
    import pyarrow.ipc

    with pyarrow.memory_map(str(path)) as source:
        try:
            stream = pyarrow.ipc.open_stream(source)
            yield stream.schema.names, iter(stream)
            return
        except pyarrow.ArrowInvalid:
            source.seek(0)
        file = pyarrow.ipc.open_file(source)
        yield file.schema.names, (file.get_batch(i) for i in range(file.num_record_batches))


def _arrow(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    try:
        import pyarrow
    except ImportError:
        raise DataError(f"{path}: Arrow files need pyarrow: pip install pyarrow") from None
    try:
        with arrow_batches(path) as (names, batches):
            for column in columns:
                if column not in names:
                    raise DataError(f"{path}: no column {column!r}; it has {', '.join(names)}")
            for batch in batches:
                yield from batch.select(list(columns)).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not an Arrow file, or a broken one ({str(error).splitlines()[0]})") from None


def records(paths: Sequence[Path], columns: Sequence[str], split: str = "line") -> Iterator[tuple[str, Record]]:
    """Each record, with where it stands; a text file's documents are under the first of the columns.

    :raises DataError: a file that is missing or not what its name says, a record without one of the columns
    """
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: {'is a directory' if path.is_dir() else 'no such file'}")
        kind = kind_of(path)
        try:
            if kind in ("txt", "text", "md"):
                if len(columns) > 1:
                    raise DataError(f"{path}: a text file has no columns {', '.join(columns)}")
                with _open(path) as file:
                    yield from ((f"{path}, document {i}", {columns[0]: text}) for i, text in enumerate(_documents(file, split), 1))
                continue
            if kind in ("jsonl", "ndjson", "json"):
                found: Iterator[Record] = _json_lines(path)
            elif kind in ("csv", "tsv"):
                found = _separated(path, "\t" if kind == "tsv" else ",")
            elif kind in ("parquet", "pq", "brotli"):
                found = _parquet(path, columns)
            elif kind in ("arrow", "feather"):
                found = _arrow(path, columns)
            else:
                raise DataError(f"{path}: not known by its name; there are {KINDS}")
            for number, record in enumerate(found, 1):
                for column in columns:
                    if column not in record:
                        raise DataError(f"{path}, record {number}: no {column!r}; it has {', '.join(map(str, record))}")
                yield f"{path}, record {number}", record
        except UnicodeDecodeError:
            raise DataError(f"{path}: not UTF-8 text") from None
        except (OSError, EOFError, csv.Error) as error:
            raise DataError(f"{path}: can't be read: {error}") from None


def _separated(path: Path, separator: str) -> Iterator[Record]:
    with _open(path, newline="") as file:
        for record in csv.DictReader(file, delimiter=separator, strict=True):
            if None in record or None in record.values():
                raise DataError(f"{path}: a record has more or fewer fields than there are columns: {str(record)[:80]}")
            yield record
