"""Every table of a result or a series, as CSV or JSON.

    python -m hesspect tables RESULT.h5|SERIES.h5 [--format csv|json] -o DIR

A table has the fields of one group of the result that go along the same axes, one row for each point of them: `eigenvalues`, `density`,
`layers`, `quadrature_probe_step`. `scalars` has all single values. Of blocks each table has all, with the block's name first. `columns` says
what each column is, with units. A series has `checkpoints`, `eigenvalues`, `layers` and `density`, with each checkpoint's step. Numbers are
written so that they are read back as the same; NaN, "not known", is NaN in CSV; in JSON what is not finite is null.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hesspect import result as results
from hesspect.result import Result, ResultError, read
from hesspect.series import Series, is_series, open_series

FORMATS = ("csv", "json")


@dataclasses.dataclass
class Column:
    """One column, and what it is."""

    name: str
    values: list[Any]
    units: str
    long_name: str
    path: str


@dataclasses.dataclass
class Table:
    """Columns of one length."""

    name: str
    columns: list[Column]

    def __len__(self) -> int:
        return len(self.columns[0].values)

    def __getitem__(self, name: str) -> list[Any]:
        return next(c.values for c in self.columns if c.name == name)


Field = dict[str, Any]


def _plain(value: Any, kind: str) -> Any:
    """A value as Python has it."""
    if kind == "text":
        return str(value)
    if kind == "bool":
        return bool(value)
    return int(value) if kind in ("int64", "uint64") else float(value)


def _fields() -> tuple[list[Field], list[Field]]:
    """The schema's fields of a result, and those of a block with its path in it."""
    schema: list[Field] = json.loads(Path(results.__file__).with_name("schema.json").read_text())
    block = "blocks/<name>/"
    own = [f for f in schema if not f["path"].startswith((block, "diagnostics/products/"))]
    return own, [{**f, "path": f["path"].removeprefix(block)} for f in schema if f["path"].startswith(block)]


def _is_axis(axis: str) -> bool:
    return not axis.isdigit()  # a shape of "2" is two values of one thing


def _by_axes(fields: list[Field]) -> dict[tuple[str, tuple[str, ...]], list[Field]]:
    found: dict[tuple[str, tuple[str, ...]], list[Field]] = {}
    for field in fields:
        axes = tuple(field["shape"])
        if axes and all(map(_is_axis, axes)):
            found.setdefault((field["path"].rpartition("/")[0], axes), []).append(field)
    return found


def _column(field: Field, values: Any) -> Column:
    return Column(field["path"].rpartition("/")[2], [_plain(v, field["type"]) for v in np.asarray(values).reshape(-1)], field["units"], field["long_name"], field["path"])


def _arrays(fields: list[Field], value: Callable[[str], Any]) -> Iterator[tuple[str, tuple[str, ...], list[Column]]]:
    """Of each group and axes the columns that are there, the axes' own first."""
    groups = _by_axes(fields)
    for (group, axes), members in groups.items():
        there = [(f, v) for f in members if (v := value(f["path"])) is not None]
        if not there or (len(axes) == 1 and [f["path"] for f, _ in there] == [f"{group}/{axes[0]}"] and any(g == group and axes[0] in a and a != axes for g, a in groups)):
            continue  # nothing, or the coordinate alone, which stands in the other table
        shape = np.shape(there[0][1])
        columns = []
        for i, axis in enumerate(axes if len(axes) > 1 else ()):
            own = next((f for f in groups.get((group, (axis,)), []) if f["path"] == f"{group}/{axis}"), None)
            points = value(f"{group}/{axis}") if own else None
            along = np.arange(shape[i]) if points is None else np.asarray(points)
            field = own or {"path": f"{group}/{axis}", "type": "int64", "units": "", "long_name": f"Position along {axis}"}
            columns.append(_column(field, np.broadcast_to(along.reshape([-1 if j == i else 1 for j in range(len(axes))]), shape)))
        yield group, axes, columns + [_column(f, v) for f, v in there]


def _name(group: str, axes: tuple[str, ...], fields: list[Field]) -> str:
    alone = sum(g == group for g, _ in _by_axes(fields)) == 1
    return group.replace("/", "_") if alone else "_".join([group.replace("/", "_"), *axes])


def _scalars(fields: list[Field], value: Callable[[str], Any]) -> Iterator[tuple[str, Any, str, str]]:
    """Name, value, units and meaning of each single value; of a pair of values each."""
    for field in fields:
        axes, found = field["shape"], value(field["path"])
        if found is None or any(map(_is_axis, axes)) or (field["type"] == "text" and not axes and found == ""):
            continue
        for i, one in enumerate(np.asarray(found).reshape(-1)):
            yield field["path"] + (f"/{i}" if axes else ""), _plain(one, field["type"]), field["units"], field["long_name"]


def _scalar_table(rows: list[tuple[str, Any, str, str]]) -> Table:
    what = {"name": "Field of the result", "value": "Its value", "units": "Its units", "long_name": "What it is"}
    return Table("scalars", [Column(name, [row[i] for row in rows], "", text, "") for i, (name, text) in enumerate(what.items())])


def tables(result: Result | Series) -> dict[str, Table]:
    """All tables of a result, by name; `scalars` last. Or those of a series."""
    if isinstance(result, Series):
        from hesspect import series_views

        return series_views.tables(result)
    own, of_block = _fields()
    found: dict[str, Table] = {}
    for group, axes, columns in _arrays(own, lambda path: results.by_path(result, path)):
        name = _name(group, axes, own)
        found[name] = Table(name, columns)
    scalars = list(_scalars(own, lambda path: results.by_path(result, path)))
    scalars += [(f"diagnostics/products/{name}", count, "", "Products that were taken for it") for name, count in result.products.items()]
    for block, values in result.blocks.items():
        for group, axes, columns in _arrays(of_block, values.get):
            name = "_".join(p for p in ("blocks", _name(group, axes, of_block)) if p)
            first = Column("block", [block] * len(columns[0].values), "", "Block", "")
            if name in found:
                found[name] = _joined(found[name], Table(name, [first, *columns]))
            else:
                found[name] = Table(name, [first, *columns])
        scalars += [(f"blocks/{block}/{path}", value, units, text) for path, value, units, text in _scalars(of_block, values.get)]
    return {**found, "scalars": _scalar_table(scalars)}


def _joined(above: Table, below: Table) -> Table:
    """Rows of both; a column that one lacks is None there."""
    columns = []
    for name in dict.fromkeys(c.name for c in (*above.columns, *below.columns)):
        parts = [next((c for c in t.columns if c.name == name), None) for t in (above, below)]
        model = parts[0] or parts[1]
        assert model is not None
        values = [v for part, t in zip(parts, (above, below), strict=True) for v in (part.values if part else [None] * len(t))]
        columns.append(Column(name, values, model.units, model.long_name, model.path))
    return Table(above.name, columns)


# ---------------------------------------------------------------- files


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return "NaN" if np.isnan(value) else repr(value)
    return "" if value is None else value


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _write_csv(path: Path, header: list[str], rows: Iterator[list[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_csv_value(v) for v in row] for row in rows)


def write_tables(result: Result | Series, folder: Path, kind: str = "csv") -> list[Path]:
    """Writes all tables to a folder, each to a file of its name, and `columns`, which says what their columns are.

    :returns: the files
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = tables(result)
    about = [(t.name, c.name, c.units, c.long_name, c.path) for t in found.values() for c in t.columns]
    written = []
    for table in found.values():
        path = folder / f"{table.name}.{kind}"
        if kind == "csv":
            _write_csv(path, [c.name for c in table.columns], (list(row) for row in zip(*(c.values for c in table.columns), strict=True)))
        else:
            path.write_text(json.dumps({"table": table.name, "result": str(result.path), "columns": {c.name: {"units": c.units, "long_name": c.long_name} for c in table.columns},
                                        "data": {c.name: [_json_value(v) for v in c.values] for c in table.columns}}, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        written.append(path)
    if kind == "csv":
        path = folder / "columns.csv"
        _write_csv(path, ["table", "column", "units", "long_name", "path"], (list(row) for row in about))
        written.append(path)
    return written


def parser() -> argparse.ArgumentParser:
    """Of the command's line."""
    made = argparse.ArgumentParser(prog="hesspect tables", description=(__doc__ or "").splitlines()[0])
    made.add_argument("result", type=Path, metavar="RESULT.h5|SERIES.h5")
    made.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: RESULT-tables, beside the result")
    made.add_argument("--format", choices=FORMATS, default="csv", help="of the tables (default: csv)")
    return made


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    folder: Path = args.output or args.result.with_name(f"{args.result.stem}-tables")
    try:
        written = write_tables(open_series(args.result) if is_series(args.result) else read(args.result), folder, args.format)
    except ResultError as error:
        print(f"hesspect: error: {error}", file=sys.stderr)
        return 4
    except OSError as error:
        print(f"hesspect: error: {folder}: can't be written: {error.strerror or error}", file=sys.stderr)
        return 4
    print(*written, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
