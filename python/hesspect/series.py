"""Reads a series file of hesspect: what the checkpoints of a training have, in their order, as plain arrays.

    series = hesspect.open_series("series.h5")
    series.step, series.eigenvalues[:, 0], series.trace

`hesspect series` writes the file anew after each checkpoint, so that it can be read while it grows; what is read is of then. N checkpoints are
the first axis of every array; NaN is what a checkpoint does not have. docs/series.md has its layout, docs/monitoring.md its pictures.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hesspect.result import Result, ResultError, read

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class SeriesField:
    """One array of the file, and what it is where the file does not say."""

    path: str
    type: str  #: float64, int64, bool or text
    axes: tuple[str, ...]
    units: str
    long_name: str


_CURVATURE = "loss/parameter^2"
#: by the attributes of Series
FIELDS = {
    "step": SeriesField("checkpoints/step", "int64", ("checkpoint",), "", "Training step of the checkpoint"),
    "name": SeriesField("checkpoints/name", "text", ("checkpoint",), "", "Its file or folder"),
    "time": SeriesField("checkpoints/time", "float64", ("checkpoint",), "s", "When it was written, since 1970"),
    "sha256": SeriesField("checkpoints/sha256", "text", ("checkpoint",), "", "Hash of its content"),
    "result": SeriesField("checkpoints/result", "text", ("checkpoint",), "", "Its result file, from the series file's folder"),
    "products": SeriesField("checkpoints/products", "int64", ("checkpoint",), "", "Products of the matrix with a vector"),
    "seconds": SeriesField("checkpoints/seconds", "float64", ("checkpoint",), "s", "What it took"),
    "fresh": SeriesField("checkpoints/fresh", "bool", ("checkpoint",), "", "It began from nothing that the one before had found"),
    "loss": SeriesField("checkpoints/loss", "float64", ("checkpoint",), "", "Loss on the data of the series"),
    "n_top": SeriesField("eigenvalues/top", "int64", (), "", "How many columns from the left are largest eigenvalues; the others are the smallest"),
    "eigenvalues": SeriesField("eigenvalues/value", "float64", ("checkpoint", "rank"), _CURVATURE, "Eigenvalues, largest first; those of the smallest end from the right"),
    "eigenvalue_lower": SeriesField("eigenvalues/lower", "float64", ("checkpoint", "rank"), _CURVATURE, "Lower ends of their intervals"),
    "eigenvalue_upper": SeriesField("eigenvalues/upper", "float64", ("checkpoint", "rank"), _CURVATURE, "Upper ends of their intervals"),
    "trace": SeriesField("trace/value", "float64", ("checkpoint",), _CURVATURE, "Trace"),
    "trace_stderr": SeriesField("trace/standard_error", "float64", ("checkpoint",), _CURVATURE, "Its standard error"),
    "trace_half_width": SeriesField("trace/half_width", "float64", ("checkpoint",), _CURVATURE, "Half width of its confidence interval"),
    "trace_change": SeriesField("trace/change", "float64", ("checkpoint",), _CURVATURE, "Its change since the checkpoint before, by the random vectors that both have"),
    "trace_change_stderr": SeriesField("trace/change_standard_error", "float64", ("checkpoint",), _CURVATURE, "Standard error of the change"),
    "trace_change_half_width": SeriesField("trace/change_half_width", "float64", ("checkpoint",), _CURVATURE, "Half width of the change's confidence interval"),
    "trace_change_probes": SeriesField("trace/change_probes", "int64", ("checkpoint",), "", "Random vectors that the change is from; 0: the difference of two traces"),
    "layer_names": SeriesField("layers/name", "text", ("layer",), "", "Parameter tensors"),
    "layer_traces": SeriesField("layers/trace", "float64", ("checkpoint", "layer"), _CURVATURE, "Traces of parameter tensors"),
    "layer_trace_errors": SeriesField("layers/standard_error", "float64", ("checkpoint", "layer"), _CURVATURE, "Their standard errors"),
    "lambdas": SeriesField("density/lambda", "float64", ("checkpoint", "point"), _CURVATURE, "Where the density is known"),
    "density": SeriesField("density/density", "float64", ("checkpoint", "point"), "parameter^2/loss", "Spectral density, of integral 1"),
    "overlap": SeriesField("overlap/subspace", "float64", ("checkpoint",), "", "Mean squared cosine between the top eigenvectors' space and that of the checkpoint before"),
    "learning_rate": SeriesField("stability/learning_rate", "float64", ("checkpoint",), "parameter^2/loss", "Learning rate"),
    "half_lambda_eta": SeriesField("stability/half_lambda_eta", "float64", ("checkpoint",), "", "λ₁ η / 2: gradient descent is stable below 1"),
}

if TYPE_CHECKING:
    class _Fields:
        """What a type checker sees."""

        path: Path
        step: Array
        units: dict[str, str]
        long_names: dict[str, str]

        def __init__(self, path: Path, units: dict[str, str], long_names: dict[str, str], **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
else:
    _Fields = dataclasses.make_dataclass("_Fields", [
        ("path", Path), ("units", dict[str, str]), ("long_names", dict[str, str]),
        *((name, tuple[str, ...] if field.type == "text" else (np.ndarray if field.axes else int) | None, dataclasses.field(default=() if field.type == "text" else None))
          for name, field in FIELDS.items())], frozen=True)


class Series(_Fields):
    def __len__(self) -> int:
        """How many checkpoints."""
        return int(self.step.size)

    @property
    def top(self) -> int:
        """How many columns of the eigenvalues are largest ones; the others are the smallest, the smallest last."""
        width = 0 if self.eigenvalues is None else int(self.eigenvalues.shape[1])
        return width if self.n_top is None else min(int(self.n_top), width)

    def read(self, index: int) -> Result:
        """The whole result of one checkpoint.

        :raises ResultError: it has none, or its file is gone
        """
        file = self.result[index] if self.result else ""
        if not file:
            raise ResultError(f"{self.path}: checkpoint {index} has no result file")
        return read(self.path.parent / file)

    def plot(self, what: str | None = None, *, title: str | None = None, theme: str = "light") -> Any:
        """A matplotlib figure: an overview, or one part: "density", "eigenvalues", "trace", "overlap", "layers" or "stability"."""
        from hesspect import series_views

        return series_views.plot(self, what, title, theme)

    def to_xarray(self) -> Any:
        """An xarray Dataset over `checkpoint`, whose coordinate is the step; with axes, units and long names."""
        from hesspect import series_views

        return series_views.to_xarray(self)

    def to_pandas(self) -> dict[str, Any]:
        """A DataFrame for each of the series' tables, by their names."""
        from hesspect import series_views

        return series_views.to_pandas(self)

    def __repr__(self) -> str:
        found = [f"{len(self)} checkpoints"]
        if len(self):
            found.append(f"steps {self.step[0]} to {self.step[-1]}")
        if self.eigenvalues is not None and self.eigenvalues.size:
            largest = self.eigenvalues[:, 0]
            known = largest[np.isfinite(largest)]
            found += [f"λ₁ from {known[0]:.6g} to {known[-1]:.6g}"] if known.size else []
        return f"Series({', '.join([str(self.path), *found])})"

    def _repr_html_(self) -> str:
        from hesspect import series_views

        return series_views.to_html(self)


Series.__doc__ = "\n".join([
    "What the checkpoints of one training have.\n",
    *(f"{name}: {'[' + ', '.join(field.axes) + '], ' if field.axes else ''}{field.long_name}{f', in {field.units}' if field.units else ''}" for name, field in FIELDS.items()),
    "units, long_names: of each array, as the file has them"])


def is_series(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a series of hesspect; False too where it can't be read."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return "entry/checkpoints/step" in file
    except (OSError, KeyError, ValueError):
        return False


def _attribute(node: Any, name: str, otherwise: str) -> str:
    value = node.attrs.get(name, otherwise)
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


_READ: dict[str, Callable[[Any], Any]] = {
    "float64": lambda values: np.asarray(values, np.float64),
    "int64": lambda values: np.asarray(values, np.int64),
    "bool": lambda values: np.asarray(values).astype(bool),
    "text": lambda values: tuple(map(_text, np.asarray(values).reshape(-1))),
}


def open_series(path: str | os.PathLike[str]) -> Series:
    """Reads a series file, of a series that has ended or is under way.

    :param path: the file that `hesspect series --output` writes
    :raises ResultError: no such file, not a series, or arrays that do not fit together
    """
    import h5py

    path = Path(path)
    if not path.exists():
        raise ResultError(f"{path}: no such file")
    found: dict[str, Any] = {}
    units, long_names = {}, {}
    try:
        with h5py.File(path, "r", locking=False) as file:
            if "entry/checkpoints/step" not in file:
                raise ResultError(f"{path}: HDF5, but not a series of hesspect (it has no /entry/checkpoints)")
            for name, field in FIELDS.items():
                node = file.get(f"entry/{field.path}")
                if node is None:
                    continue
                values = _READ[field.type](node[()])
                found[name] = values if field.axes else int(values)
                units[name] = _attribute(node, "units", field.units)
                long_names[name] = _attribute(node, "long_name", field.long_name)
    except OSError as error:
        reason = "not readable" if not os.access(path, os.R_OK) else "is a directory" if path.is_dir() else "not an HDF5 file, or a broken one"
        raise ResultError(f"{path}: {reason}") from error
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ResultError(f"{path}: a broken series: {error}") from error
    _check(path, found)
    return Series(path, units=units, long_names=long_names, **found)


def _check(path: Path, found: dict[str, Any]) -> None:
    """Every array has its axes, and those of one name within a group one length."""
    first: dict[tuple[str, str], tuple[str, int]] = {}
    for name, values in found.items():
        field = FIELDS[name]
        shape = (len(values),) if field.type == "text" else np.shape(values)
        if len(shape) != len(field.axes):
            raise ResultError(f"{path}: a broken series: {name} has {len(shape)} axes, expected {len(field.axes)}: {', '.join(field.axes)}")
        for axis, length in zip(field.axes, shape, strict=True):
            group = "" if axis == "checkpoint" else field.path.partition("/")[0]
            other, expected = first.setdefault((group, axis), (name, length))
            if length != expected:
                raise ResultError(f"{path}: a broken series: {other} and {name} have {expected} and {length} entries along {axis}")
