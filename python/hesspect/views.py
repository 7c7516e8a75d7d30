"""A result as pictures, texts and tables: what `Result.plot`, `.report`, `.to_xarray`, `.to_pandas` and a notebook's cell show."""

import base64
import html
import io
import subprocess
from typing import Any

import numpy as np

from hesspect.errors import UsageError, by_code
from hesspect.result import Result, fields
from hesspect.text import did_you_mean

_FORMATS = ("text", "json", "html")


def plot(result: Result, what: str | None, title: str | None, theme: str) -> Any:
    """A matplotlib figure.

    :raises UsageError: no such part, or no such theme
    """
    from hesspect import panels
    from hesspect import plot as plots
    from hesspect.theme import THEMES

    if theme not in THEMES:
        raise UsageError(f"no theme {theme!r}; there are {', '.join(THEMES)}")
    if what is not None and what not in plots.PARTS:
        raise UsageError(f"no part {what!r}{did_you_mean(what, plots.PARTS)}; there are {', '.join(plots.PARTS)}")
    import matplotlib.pyplot as plt

    chosen = what or ("landscape" if panels.is_landscape(result) else None)
    figure = plots.draw(result, title, THEMES[theme]) if chosen is None else plots.draw_part(result, chosen, title, THEMES[theme])
    plt.close(figure)  # what is returned is shown by a notebook; one that is open would be a second time
    return figure


def report(result: Result, kind: str, options: dict[str, Any]) -> str:
    """What `hesspect report` says of the result's file.

    :raises UsageError: no such format or option; and what the program says is wrong
    """
    from hesspect.running import binary
    from hesspect.running.options import arguments

    if kind not in _FORMATS:
        raise UsageError(f"no format {kind!r}; there are {', '.join(_FORMATS)}")
    command = [str(binary.find()), "report", str(result.path), "--format", kind, *arguments("report", options)]
    done = subprocess.run(command, capture_output=True, text=True, env=binary.environment())
    if done.returncode != 0:
        errors = [line.removeprefix("hesspect: error: ") for line in done.stderr.splitlines() if line.startswith("hesspect: error: ")]
        raise by_code(done.returncode, errors[0] if errors else "")
    return done.stdout


def to_html(result: Result) -> str:
    """Numbers and an overview, for a notebook."""
    rows = [("file", str(result.path)), ("parameters", f"{result.n_parameters:,}" if result.n_parameters else ""),
            ("rows", f"{result.n_rows:,}" if result.n_rows else ""), ("mean loss", f"{result.loss:.6g}" if result.loss is not None else ""),
            ("trace", _with_error(result.trace, result.trace_half_width))]
    if result.eigenvalues is not None and result.eigenvalues.size:
        sure = "" if result.converged is None or result.converged.all() else f", {int((~result.converged).sum())} not converged"
        rows.append(("eigenvalues", f"{result.eigenvalues.max():.6g} … {result.eigenvalues.min():.6g}{sure}"))
    rows += [("warning", text) for text in result.warnings]
    table = "".join(f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
                    for name, value in rows if value)
    try:
        figure = plot(result, None, None, "light")
    except Exception:  # a result with nothing to draw still has its numbers
        return f"<table>{table}</table>"
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=96)
    return f"<table>{table}</table><img alt='the spectrum' src='data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}'/>"


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" + (f" ± {error:.2g}" if error is not None and np.isfinite(error) else "")


def to_xarray(result: Result) -> Any:
    """An xarray Dataset: every array with its axes, units and long name; single values as attributes.

    :raises UsageError: xarray is not installed
    """
    try:
        import xarray
    except ImportError as error:
        raise UsageError("to_xarray needs the package xarray: pip install xarray") from error
    taken: dict[str, int] = {}
    variables: dict[str, Any] = {}
    single: dict[str, Any] = {}
    for name, field in fields().items():
        value = getattr(result, name)
        if value is None or (isinstance(value, tuple) and not value) or (isinstance(value, str) and not value):
            continue
        if not field["shape"]:
            single[name] = value if not isinstance(value, bool) else int(value)
            continue
        array = np.asarray(value)
        dims: list[str] = []
        for axis, length in zip(field["shape"], array.shape, strict=True):
            # Groups may have axes of one name and of different lengths.
            axis = f"{name}_{axis}" if axis.isdigit() else axis
            own = axis if taken.setdefault(axis, length) == length else f"{field['path'].partition('/')[0]}_{axis}"
            if taken.setdefault(own, length) != length or own in dims:
                own = f"{name}_{axis}_{len(dims)}"
            dims.append(own)
        variables[name] = xarray.Variable(dims, array, {"long_name": field["long_name"], "units": field["units"] or "1"})
    # A variable of the name of its own axis would be taken for a coordinate of all others.
    renamed = {name: f"{name}_values" for name, variable in variables.items() if name in variable.dims and len(variable.dims) > 1}
    return xarray.Dataset({renamed.get(name, name): variable for name, variable in variables.items()}, attrs=single)


def to_pandas(result: Result) -> dict[str, Any]:
    """A DataFrame for each table of `hesspect.tables`; a column's units are in the frame's `attrs`.

    :raises UsageError: pandas is not installed
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError("to_pandas needs the package pandas: pip install pandas") from error
    from hesspect.tables import tables

    frames = {}
    for name, table in tables(result).items():
        frame = pandas.DataFrame({column.name: column.values for column in table.columns})
        frame.attrs["units"] = {column.name: column.units for column in table.columns}
        frame.attrs["long_name"] = {column.name: column.long_name for column in table.columns}
        frames[name] = frame
    return frames
