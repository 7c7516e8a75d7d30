"""What a table's columns are: a schema in JSON or ini, checked key by key.

    [target]                          {"target": {"column": "clicked"},
    column = clicked                   "columns": {"age": {"kind": "numerical", "missing": "mean"},
    [age]                                          "country": {"kind": "categorical", "missing": "unknown"}}}
    kind = numerical
    missing = mean
    [country]
    kind = categorical
    missing = unknown
"""

from __future__ import annotations

import configparser
import dataclasses
import difflib
import json
import re
from pathlib import Path
from typing import Any

from hesspect.data.sources import DataError

KINDS = ("numerical", "categorical", "multi-hot", "weight")
ENCODINGS = ("vocabulary", "hash", "code")
HASHES = ("blake2b", "crc32", "modulo")
TARGETS = ("binary", "class", "number")


@dataclasses.dataclass
class Column:
    """A column of the table, or the target."""

    name: str
    kind: str = "numerical"
    input: str = ""  #: of the data file; columns of one kind that name the same are stacked, [rows, columns]
    stacked: bool = False
    missing: str = "refuse"  #: refuse, drop (the row), mean or a number (numerical), unknown (categorical, multi-hot)
    # numerical
    transform: str = "none"  #: none, log1p
    standardise: bool = False
    # categorical and multi-hot
    encoding: str = "vocabulary"
    min_count: int = 1
    max_size: int = 0
    buckets: int = 0
    hash: str = "blake2b"
    size: int = 0  #: of codes: ids are 0 ... size - 1
    # multi-hot
    separator: str = "|"
    length: int = 0
    dense: bool = False
    # the target
    positive: str = ""

    @property
    def reserved(self) -> tuple[str, ...]:
        """Ids before those of values."""
        if self.encoding == "code" or self.kind in TARGETS:
            return ()
        return ("<padding>", "<unknown>") if self.kind == "multi-hot" and not self.dense else ("<unknown>",)


@dataclasses.dataclass
class Schema:
    """All columns that are written, and how the files are read."""

    columns: list[Column]
    target: Column | None
    missing_values: tuple[str, ...] = ("",)
    delimiter: str = ""

    @property
    def all(self) -> list[Column]:
        return [*self.columns, *([self.target] if self.target else [])]

    def as_json(self) -> dict[str, Any]:
        """As it can be read again."""
        def plain(column: Column) -> dict[str, Any]:
            default = Column(column.name)
            return {"kind": column.kind, **{f.name: getattr(column, f.name) for f in dataclasses.fields(Column)
                                            if f.name not in ("name", "kind", "stacked") and getattr(column, f.name) != getattr(default, f.name)}}

        found: dict[str, Any] = {"table": {"missing_values": list(self.missing_values), "delimiter": self.delimiter}}
        if self.target:
            found["target"] = {**{k: v for k, v in plain(self.target).items() if k != "input"}, "column": self.target.name}
        found["columns"] = {c.name: {k: v for k, v in plain(c).items() if c.stacked or k != "input" or v != identifier(c.name)} for c in self.columns}
        return found


def identifier(name: str) -> str:
    """A name that a model's input can have."""
    plain = re.sub(r"\W", "_", name)
    return f"_{plain}" if plain[:1].isdigit() else plain


def _near(word: str, words: list[str]) -> str:
    near = difflib.get_close_matches(word, words, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(words)}"


def _value(where: str, key: str, value: Any, default: Any) -> Any:
    """A value of a key, of the type of its default: ini has texts alone."""
    try:
        if isinstance(default, bool):
            known = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
            return value if isinstance(value, bool) else known[str(value).lower()]
        if isinstance(default, int):
            if isinstance(value, (bool, float)):
                raise ValueError
            number = int(value)
            if number < 0:
                raise ValueError
            return number
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise ValueError
        return str(value)
    except (ValueError, KeyError, TypeError):
        what = "yes or no" if isinstance(default, bool) else "a whole number" if isinstance(default, int) else "a text"
        raise DataError(f"{where}: {key} is {value!r}, not {what}") from None


def _column(where: str, name: str, given: dict[str, Any], target: bool) -> Column:
    column = Column(name, kind="binary" if target else "numerical")
    known = [f.name for f in dataclasses.fields(Column) if f.name not in ("name", "stacked", *(("input",) if target else ()))]
    if not target and "kind" not in given:
        raise DataError(f"{where}: says no kind ({', '.join(KINDS)})")
    for key, value in given.items():
        if key not in known:
            raise DataError(f"{where}: no key {key!r}{_near(key, known)}")
        setattr(column, key, _value(where, key, value, getattr(column, key)))
    _one_of(where, "kind", column.kind, TARGETS if target else KINDS)
    _one_of(where, "encoding", column.encoding, ENCODINGS)
    _one_of(where, "hash", column.hash, HASHES)
    _one_of(where, "transform", column.transform, ("none", "log1p"))
    column.stacked = bool(column.input)
    column.input = column.input or ("target" if target else identifier(name))
    _fits(where, column, set(given))
    return column


def _one_of(where: str, key: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise DataError(f"{where}: {key} is {value!r}{_near(value, list(words))}")


#: keys that only these kinds have
_OWN = {"transform": ("numerical",), "standardise": ("numerical",), "encoding": ("categorical", "multi-hot"), "min_count": ("categorical", "multi-hot", "class"),
        "max_size": ("categorical", "multi-hot"), "buckets": ("categorical", "multi-hot"), "hash": ("categorical", "multi-hot"),
        "size": ("categorical", "multi-hot", "class"), "separator": ("multi-hot",), "length": ("multi-hot",), "dense": ("multi-hot",), "positive": ("binary",)}


def _fits(where: str, column: Column, given: set[str]) -> None:
    for key in given:
        if key in _OWN and column.kind not in _OWN[key]:
            raise DataError(f"{where}: {key} belongs to {', '.join(_OWN[key])}, not to {column.kind}")
    coded = column.kind in ("categorical", "multi-hot")
    for key, encoding in (("buckets", "hash"), ("size", "code")) if coded else ():
        if (column.encoding == encoding) != (getattr(column, key) > 0):
            raise DataError(f"{where}: encoding {encoding} needs {key}" if column.encoding == encoding else f"{where}: {key} belongs to encoding {encoding}")
    if coded and column.encoding != "vocabulary" and given & {"min_count", "max_size"}:
        raise DataError(f"{where}: min_count and max_size belong to encoding vocabulary")
    if column.kind == "multi-hot" and column.dense == bool(column.length):
        raise DataError(f"{where}: a multi-hot column is dense, or its ids have a length: one of both")
    words = {"numerical": ["refuse", "drop", "mean"], "weight": ["refuse", "drop"]}.get(column.kind, ["refuse", "drop", *(["unknown"] if column.reserved else [])])
    if column.missing in words:
        return
    try:
        if column.kind != "numerical":
            raise ValueError
        float(column.missing)
    except ValueError:
        raise DataError(f"{where}: missing is {column.missing!r}; there are {', '.join(words)}{' and a number' if column.kind == 'numerical' else ''}") from None


def _ini(path: Path) -> dict[str, Any]:
    parser = configparser.ConfigParser(interpolation=None, default_section="\0", inline_comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    except configparser.Error as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from None
    found: dict[str, Any] = {"columns": {}}
    for section in parser.sections():
        keys = dict(parser.items(section))
        if section in ("table", "target"):
            found[section] = keys
        else:
            found["columns"][section.removeprefix("column ")] = keys
    return found


def read_schema(path: Path) -> Schema:
    """The schema of a file: JSON where it begins with a brace, else ini.

    :raises DataError: no such file, or a key or value that is unknown
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read: {error}") from None
    if not text.lstrip().startswith("{"):
        return make_schema(_ini(path), str(path))
    try:
        return make_schema(json.loads(text), str(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def make_schema(given: dict[str, Any], where: str = "the schema") -> Schema:
    """The schema of a dictionary, as JSON has it."""
    for key in given:
        if key not in ("table", "target", "columns"):
            raise DataError(f"{where}: no part {key!r}{_near(key, ['table', 'target', 'columns'])}")
    table = dict(given.get("table", {}))
    missing, delimiter = table.pop("missing_values", [""]), table.pop("delimiter", "")
    if table:
        raise DataError(f"{where}, table: no key {next(iter(table))!r}{_near(next(iter(table)), ['missing_values', 'delimiter'])}")
    if isinstance(missing, str):
        missing = [word.strip() for word in missing.split(",")]
    columns = [_column(f"{where}, column {name!r}", name, dict(keys), False) for name, keys in given.get("columns", {}).items()]
    if not any(c.kind != "weight" for c in columns):
        raise DataError(f"{where}: no columns")
    target = None
    if "target" in given:
        keys = dict(given["target"])
        name = keys.pop("column", None)
        if not isinstance(name, str):
            raise DataError(f"{where}, target: says no column")
        target = _column(f"{where}, target", name, keys, True)
    schema = Schema(columns, target, tuple(map(str, missing)), {"\\t": "\t", "tab": "\t"}.get(str(delimiter), str(delimiter)))
    _check_inputs(schema, where)
    if sum(c.kind == "weight" for c in columns) > 1:
        raise DataError(f"{where}: more than one column is a weight")
    return schema


def _check_inputs(schema: Schema, where: str) -> None:
    seen: dict[str, Column] = {}
    for column in schema.all:
        other = seen.setdefault(column.input, column)
        if other is column:
            continue
        stackable = column.stacked and other.stacked and column.kind == other.kind and column.kind in ("numerical", "categorical")
        if not stackable:
            raise DataError(f"{where}: columns {other.name!r} and {column.name!r} both make the array {column.input!r}"
                            f"{'' if column.kind == other.kind else ', but are of two kinds'}")
