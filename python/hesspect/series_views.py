"""A series as pictures, tables and numbers: what `Series.plot`, `.to_xarray`, `.to_pandas`, a notebook's cell, and the commands plot, tables and track show."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from hesspect import series_panels as panels
from hesspect.errors import UsageError
from hesspect.panels import number
from hesspect.result import ResultError
from hesspect.series import FIELDS, Series
from hesspect.tables import Column, Table
from hesspect.text import did_you_mean
from hesspect.theme import LIGHT, THEMES, Theme

#: Each part on axes of its own.
PARTS: dict[str, Callable[..., None]] = {"density": panels.density, "eigenvalues": panels.eigenvalues, "trace": panels.trace, "overlap": panels.overlap,
                                         "layers": panels.layers, "stability": panels.stability}
_NAMES = {"density": "spectrum over training", "eigenvalues": "eigenvalues over training", "trace": "trace over training",
          "overlap": "top subspace over training", "layers": "traces by layer over training", "stability": "stability over training"}


def _pyplot() -> Any:
    from hesspect.plot import _pyplot as found

    return found()


def has(series: Series, what: str) -> bool:
    """Whether there is something of a part to draw."""
    values = {"density": series.density, "eigenvalues": series.eigenvalues, "trace": series.trace, "overlap": series.overlap,
              "layers": series.layer_traces if series.layer_names else None, "stability": series.half_lambda_eta}[what]
    return values is not None and bool(np.isfinite(values).any())


def _title(figure: Any, series: Series, title: str | None, what: str) -> None:
    figure.suptitle(title if title is not None else f"{what[:1].upper()}{what[1:]}: {series.path.stem}", x=0.01, ha="left", fontsize=13, fontweight="bold",
                    parse_math=False)


def draw_part(series: Series, what: str, title: str | None = None, theme: Theme = LIGHT) -> Any:
    """A matplotlib figure of one part.

    :param what: one of PARTS
    :raises ResultError: the series has no such part
    """
    plt = _pyplot()
    height = min(max(3.2, 0.24 * panels.layer_rows(series).size + 1.6), 60.0) if what == "layers" else 5.2
    with plt.rc_context(theme.style()):
        figure, axes = plt.subplots(figsize=(9.8, height), constrained_layout=True)
        PARTS[what](axes, series, theme)
        _title(figure, series, title, _NAMES[what])
    return figure


def draw(series: Series, title: str | None = None, theme: Theme = LIGHT) -> Any:
    """A matplotlib figure of what the series has: the density over steps above, eigenvalues and trace, overlap and stability below.

    :raises ResultError: there is none of it
    """
    there = [what for what in PARTS if what != "layers" and has(series, what)]
    if not there:
        raise ResultError(f"{series.path}: nothing to draw: no checkpoint has a density, an eigenvalue or a trace")
    rows = [["density"], ["eigenvalues", "trace"], ["overlap", "stability"]]
    rows = [kept for row in rows if (kept := [what for what in row if what in there])]
    mosaic = [row if len(row) == 2 else row * 2 for row in rows]
    heights = [{"density": 1.25, "eigenvalues": 1.0, "trace": 1.0}.get(row[0], 0.62) for row in rows]
    plt = _pyplot()
    with plt.rc_context(theme.style()):
        figure, axes = plt.subplot_mosaic(mosaic, figsize=(12.4, 1.0 + 3.75 * sum(heights)), height_ratios=heights, constrained_layout=True)
        figure.get_layout_engine().set(wspace=0.04, hspace=0.05)
        for what in there:
            PARTS[what](axes[what], series, theme, what in mosaic[-1])
        _title(figure, series, title, "Spectrum over training")
    return figure


def plot(series: Series, what: str | None, title: str | None, theme: str) -> Any:
    """A matplotlib figure.

    :raises UsageError: no such part, or no such theme
    """
    if theme not in THEMES:
        raise UsageError(f"no theme {theme!r}; there are {', '.join(THEMES)}")
    if what is not None and what not in PARTS:
        raise UsageError(f"no part {what!r}{did_you_mean(what, PARTS)}; there are {', '.join(PARTS)}")
    import matplotlib.pyplot as plt

    figure = draw(series, title, THEMES[theme]) if what is None else draw_part(series, what, title, THEMES[theme])
    plt.close(figure)  # what is returned is shown by a notebook; one that is open would be a second time
    return figure


def to_html(series: Series) -> str:
    """Numbers and an overview, for a notebook."""
    rows = [("file", str(series.path)), ("checkpoints", str(len(series))), ("steps", f"{series.step[0]:,} … {series.step[-1]:,}" if len(series) else "")]
    for name, values in (("λ₁", None if series.eigenvalues is None or not series.eigenvalues.size else series.eigenvalues[:, 0]), ("trace", series.trace)):
        known = values[np.isfinite(values)] if values is not None else np.array([])
        rows.append((name, f"{number(known[0])} … {number(known[-1])}" if known.size else ""))
    if series.products is not None and series.products.size:
        rows.append(("products", f"{int(series.products.sum()):,}"))
    table = "".join(f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
                    for name, value in rows if value)
    try:
        figure = plot(series, None, None, "light")
    except Exception:  # a series with nothing to draw still has its numbers
        return f"<table>{table}</table>"
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80)
    return f"<table>{table}</table><img alt='the spectrum over training' src='data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}'/>"


def to_xarray(series: Series) -> Any:
    """An xarray Dataset over `checkpoint` with the step as its coordinate.

    :raises UsageError: xarray is not installed
    """
    try:
        import xarray
    except ImportError as error:
        raise UsageError("to_xarray needs the package xarray: pip install xarray") from error
    variables: dict[str, Any] = {}
    for name, field in FIELDS.items():
        value = getattr(series, name)
        if value is None or (isinstance(value, tuple) and not value) or name in ("step", "layer_names") or not field.axes:
            continue
        variables[name] = xarray.Variable(field.axes, np.asarray(value), {"long_name": series.long_names[name], "units": series.units[name] or "1"})
    coordinates: dict[str, Any] = {"step": ("checkpoint", series.step, {"long_name": series.long_names["step"], "units": "1"})}
    if series.layer_names:
        coordinates["layer"] = np.asarray(series.layer_names)
    return xarray.Dataset(variables, coordinates, {"path": str(series.path), "n_top": series.top})


def to_pandas(series: Series) -> dict[str, Any]:
    """A DataFrame for each of the series' tables; a column's units are in the frame's `attrs`.

    :raises UsageError: pandas is not installed
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError("to_pandas needs the package pandas: pip install pandas") from error
    frames = {}
    for name, table in tables(series).items():
        frame = pandas.DataFrame({column.name: column.values for column in table.columns})
        frame.attrs["units"] = {column.name: column.units for column in table.columns}
        frame.attrs["long_name"] = {column.name: column.long_name for column in table.columns}
        frames[name] = frame
    return frames


# ---------------------------------------------------------------- tables

_KINDS: dict[str, Callable[[Any], Any]] = {"float64": float, "int64": int, "bool": bool, "text": str}


def _column(series: Series, name: str, values: Any, shown: str | None = None) -> Column:
    field = FIELDS[name]
    return Column(shown or field.path.rpartition("/")[2], [_KINDS[field.type](v) for v in np.asarray(values).reshape(-1)], series.units[name], series.long_names[name], field.path)


def _rank(series: Series, column: int) -> int:
    """From 1 for the largest, from -1 for the smallest."""
    return column + 1 if column < series.top else column - int(series.eigenvalues.shape[1])


def _has_values(series: Series, name: str) -> bool:
    value = getattr(series, name)
    return value is not None and not (isinstance(value, tuple) and not value)


def tables(series: Series) -> dict[str, Table]:
    """`checkpoints` has a row for each checkpoint; `eigenvalues`, `layers` and `density` one for each of its eigenvalues, tensors and points. What is NaN
    throughout a row of these was padding and is left out."""
    n = len(series)
    own = [_column(series, name, getattr(series, name)) for name in ("step", "name", "time", "sha256", "result", "products", "seconds", "fresh") if _has_values(series, name)]
    for name, shown in (("loss", "loss"), ("trace", "trace"), ("trace_stderr", "trace_standard_error"), ("trace_change", "trace_change"),
                        ("trace_change_stderr", "trace_change_standard_error"), ("overlap", "overlap"), ("learning_rate", "learning_rate"),
                        ("half_lambda_eta", "half_lambda_eta")):
        if _has_values(series, name):
            own.append(_column(series, name, getattr(series, name), shown))
    found = {"checkpoints": Table("checkpoints", own)}
    for table, axis, names in (("eigenvalues", "rank", ("eigenvalues", "eigenvalue_lower", "eigenvalue_upper")),
                               ("layers", "layer", ("layer_traces", "layer_trace_errors")), ("density", "point", ("lambdas", "density"))):
        there = [name for name in names if _has_values(series, name)]
        if not there:
            continue
        known = np.any([np.isfinite(getattr(series, name)) for name in there], axis=0)
        where, place = np.nonzero(known)
        columns = [Column("checkpoint", where.tolist(), "", "Place in the series, from 0", ""), _column(series, "step", series.step[where]),
                   Column("name", [series.layer_names[i] for i in place], "", series.long_names["layer_names"], "layers/name") if axis == "layer" and series.layer_names
                   else Column("rank", [_rank(series, i) for i in place.tolist()], "", "1 is the largest, -1 the smallest", "") if axis == "rank"
                   else Column(axis, place.tolist(), "", f"Place along {axis}", "")]
        found[table] = Table(table, columns + [_column(series, name, getattr(series, name)[known]) for name in there])
    assert all(len(column.values) == n for column in own)
    return found


# ---------------------------------------------------------------- scalars over steps


@dataclasses.dataclass(frozen=True)
class Point:
    """One checkpoint of a series, for trackers."""

    series: Series
    index: int

    @property
    def step(self) -> int:
        return int(self.series.step[self.index])

    def metrics(self) -> dict[str, float]:
        """Its numbers by the names that a result's have, where these have them."""
        s, i = self.series, self.index
        found: dict[str, float] = {}
        if s.eigenvalues is not None:
            for name, values in (("", s.eigenvalues), ("/lower", s.eigenvalue_lower), ("/upper", s.eigenvalue_upper)):
                found |= {f"eigenvalue/{_rank(s, column)}{name}": float(value) for column, value in enumerate(values[i])} if values is not None else {}
        for name, values in (("diagnostics/loss", s.loss), ("trace/value", s.trace), ("trace/standard_error", s.trace_stderr), ("trace/change", s.trace_change),
                             ("overlap/subspace", s.overlap),
                             ("stability/learning_rate", s.learning_rate), ("stability/half_lambda_eta", s.half_lambda_eta), ("diagnostics/products/total", s.products),
                             ("seconds", s.seconds)):
            if values is not None:
                found[name] = float(values[i])
        if s.layer_traces is not None:
            found |= {f"layer/{name}/trace": float(value) for name, value in zip(s.layer_names, s.layer_traces[i], strict=True)}
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def settings(self) -> dict[str, str]:
        return {"series": str(self.series.path), "checkpoints": str(len(self.series)), "first": "".join(self.series.name[:1])}

    def pictures(self) -> dict[str, Any]:
        """The whole series', with its last checkpoint alone."""
        last = self.step == int(self.series.step.max())
        return {what: draw_part(self.series, what) for what in PARTS if has(self.series, what)} if last else {}


def points(series: Series) -> list[Point]:
    """By ascending step, each step once: of a checkpoint that was measured again the last.

    :raises ResultError: there is none, or a step is not known
    """
    if not len(series):
        raise ResultError(f"{series.path}: the series has no checkpoint yet")
    if series.step.min() < 0:
        raise ResultError(f"{series.path}: the step of {'/'.join(series.name[int(series.step.argmin())].split('/')[-1:])} is not known: a tracker has nowhere to put it")
    by_step = {int(step): Point(series, index) for index, step in enumerate(series.step)}
    return [by_step[step] for step in sorted(by_step)]
