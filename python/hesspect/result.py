"""Reads a result file of hesspect into plain arrays.

The file is HDF5 with everything under /entry; docs/results.md has its fields, and schema.json the same for this module.
What a run did not compute is None here: a `hesspect eigs` result has no density, a `hesspect density` result no
eigenvalues.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np


class ResultError(Exception):
    """The file is missing, is not a result of hesspect, or is broken. The message is one line for the user."""


#: /entry/GROUP/NAME is the attribute NAME, with _ for the / of groups within, but that these groups put something before and behind it
_AFFIXES = {"trace": ("trace_", ""), "layers": ("layer_", "s"), "landscape": ("landscape_", ""), "inputs": ("input_", ""),
            "block_summary": ("block_", ""), "initial_weights": ("initial_", ""), "features": ("feature_", ""),
            "quality": ("quality_", ""), "data_error": ("data_error_", "")}
#: and that these are more than the rule would say, or another group has the name
_NAMES = {
    **{f"block_summary/{name}": name for name in (
        "off_block_share", "off_block_share_error", "off_block_obstacle", "js_sigma",
        *(f"js_distance{mean}{end}" for mean in ("", "_mean") for end in ("", "_error", "_lower", "_upper")))},
    "block_summary/norm_sq": "matrix_norm_sq",
    "block_summary/norm_sq_error": "matrix_norm_sq_error",
    "density/lambda": "lambdas",
    "cumulative/lambda": "cumulative_lambdas",
    "cumulative/confidence": "density_confidence",
    "cumulative/converged": "density_converged",
    "cumulative/probes": "density_probes",
    "cumulative/range": "spectrum_range",
    "eigenvalues/eigenvalue": "eigenvalues",
    "eigenvalues/residual": "residuals",
    "eigenvalues/true_residual": "true_residuals",
    "eigenvalues/error": "eigenvalue_errors",
    "eigenvalues/method": "eigenvalue_method",
    "eigenvalues/steps": "eigenvalue_steps",
    "trace/value": "trace",
    "layers/index": "layer_index",
    "quadrature/orthogonality_loss": "orthogonality_losses",
    "sharpness/loss": "sharpness_loss",
    "sharpness/gradient_norm": "sharpness_gradient_norm",
    "process/model": "models",
    "process/loss": "loss_kind",
}
_PRODUCTS = "diagnostics/products/"
#: one of these has what a command found out
_PARTS = ("density", "eigenvalues", "trace", "quadrature", "landscape", "inputs", "features")
_SCALARS = {"float64": float, "int64": int, "uint64": int, "bool": bool}


def _attribute(path: str) -> str:
    group, _, name = path.partition("/")
    before, behind = _AFFIXES.get(group, ("", ""))
    return _NAMES.get(path, before + name.replace("/", "_") + behind)


_BLOCK = "blocks/<name>/"
_SCHEMA = json.loads(Path(__file__).with_name("schema.json").read_text())
#: the schema's fields by the attribute of Result
_FIELDS = {_attribute(field["path"]): field for field in _SCHEMA if not field["path"].startswith((_PRODUCTS, _BLOCK))}
#: those of a diagonal block, by their path below it
_BLOCK_FIELDS = {field["path"].removeprefix(_BLOCK): field for field in _SCHEMA if field["path"].startswith(_BLOCK)}


def _kind(field: dict[str, Any]) -> tuple[Any, Any]:
    """The type of an attribute, and its value where the file has none."""
    if field["type"] == "text":
        return (tuple[str, ...], ()) if field["shape"] else (str, "")
    return (np.ndarray if field["shape"] else _SCALARS[field["type"]]) | None, None


def _line(name: str, field: dict[str, Any]) -> str:
    shape, units = ", ".join(field["shape"]), field["units"]
    return f"{name}: {f'[{shape}], ' if shape else ''}{field['long_name']}{f', in {units}' if units else ''}"


if TYPE_CHECKING:
    class _Fields:
        """What a type checker sees: the fields of the schema are known when it is read."""

        path: Path
        products: dict[str, int]
        blocks: dict[str, dict[str, Any]]

        def __init__(self, path: Path, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
else:
    _Fields = dataclasses.make_dataclass("_Fields", [
        ("path", Path), *((name, *_kind(field)) for name, field in _FIELDS.items()),
        ("products", dict[str, int], dataclasses.field(default_factory=dict)),
        ("blocks", dict[str, dict], dataclasses.field(default_factory=dict))], frozen=True)


class Result(_Fields):
    @property
    def model(self) -> str:
        """The model's file."""
        return "".join(self.models[:1])

    def plot(self, what: str | None = None, *, title: str | None = None, theme: str = "light") -> Any:
        """A matplotlib figure: an overview, or one part, as "density", "cumulative", "eigenvalues", "layers", "blocks"."""
        from hesspect import views

        return views.plot(self, what, title, theme)

    def report(self, format: str = "text", **options: Any) -> str:
        """What `hesspect report` says of it: as "text", "json" or "html"; options are that command's, with underscores."""
        from hesspect import views

        return views.report(self, format, options)

    def to_xarray(self) -> Any:
        """An xarray Dataset: all arrays with axes, units and long names; single values are its attributes."""
        from hesspect import views

        return views.to_xarray(self)

    def to_pandas(self) -> dict[str, Any]:
        """A DataFrame for each of the result's tables, by their names."""
        from hesspect import views

        return views.to_pandas(self)

    def __repr__(self) -> str:
        found = [f"{self.n_parameters:,} parameters"] if self.n_parameters else []
        found += [f"trace {self.trace:.6g}"] if self.trace is not None else []
        found += [f"{self.eigenvalues.size} eigenvalues from {self.eigenvalues.max():.6g} to {self.eigenvalues.min():.6g}"] \
            if self.eigenvalues is not None and self.eigenvalues.size else []
        return f"Result({', '.join([str(self.path), *found])})"

    def _repr_html_(self) -> str:
        from hesspect import views

        return views.to_html(self)


Result.__doc__ = "\n".join([
    "What one run found out.\n", *(_line(name, field) for name, field in _FIELDS.items()),
    "products: Hessian-vector products by what they were taken for, and \"total\"",
    "blocks: of each diagonal block by its name, a dict by path as \"trace/value\", of what it has"])


def fields() -> dict[str, dict[str, Any]]:
    """The schema's fields by the attributes of Result: path, type, shape (names of axes), units and long_name."""
    return dict(_FIELDS)


def by_path(result: Result, path: str) -> Any:
    """The value of /entry/PATH, or None where neither the result nor the schema has it."""
    name = _attribute(path)
    value = getattr(result, name, None) if name in _FIELDS else None
    return None if isinstance(value, tuple) and not value else value


def _texts(node: Any) -> tuple[str, ...]:
    if node.dtype.kind not in "OS":
        return ()
    return tuple(t.decode(errors="replace") if isinstance(t, bytes) else str(t) for t in np.asarray(node[()]).reshape(-1))


def _value(entry: Any, field: dict[str, Any]) -> Any:
    node = entry.get(field["path"])
    missing = _kind(field)[1]
    if node is None:
        return missing
    if field["type"] == "text":
        texts = _texts(node)
        return texts if field["shape"] else "".join(texts[:1])
    values = np.asarray(node[()])
    if field["shape"]:
        return values.astype(bool if field["type"] == "bool" else values.dtype if values.dtype.kind in "iub" else np.float64)
    return _SCALARS[field["type"]](values.reshape(-1)[0]) if values.size else missing


def _blocks(entry: Any) -> dict[str, dict[str, Any]]:
    """Of each block what it has, in the order of the summary."""
    found = {}
    for name in _texts(entry["block_summary/name"]) if "block_summary" in entry else ():
        block = entry.get(f"blocks/{name}", {})
        found[name] = {path: _value(block, {**field, "path": path}) for path, field in _BLOCK_FIELDS.items() if path in block}
    return found


def read(path: str | os.PathLike[str]) -> Result:
    """Reads a result file.

    :param path: the file that `hesspect ... --output` wrote
    :raises ResultError: no such file, not HDF5, not a result, or arrays that do not fit together
    """
    import h5py

    path = Path(path)
    if path.is_dir():
        raise ResultError(f"{path}: is a directory, not a result file")
    if not path.exists():
        raise ResultError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            entry = file.get("entry")
            if not isinstance(entry, h5py.Group) or not any(k in entry for k in _PARTS):
                raise ResultError(f"{path}: HDF5, but not a result of hesspect (it has no /entry with a spectrum or a landscape)")
            products = {name: int(node[()]) for name, node in entry.get(_PRODUCTS, {}).items()}
            result = Result(path, products=products, blocks=_blocks(entry), **{name: _value(entry, field) for name, field in _FIELDS.items()})
    except OSError as error:
        reason = "not readable" if not os.access(path, os.R_OK) else "not an HDF5 file, or a broken one"
        raise ResultError(f"{path}: {reason}") from error
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ResultError(f"{path}: a broken result: {error}") from error
    _check(result)
    return result


def _check(result: Result) -> None:
    """Arrays of a group with an axis of the same name have the same length along it."""
    if (result.lambdas is None) != (result.density is None):
        raise ResultError(f"{result.path}: a broken result: density and lambda must come together")
    first: dict[tuple[str, str], tuple[str, int]] = {}
    for name, field in _FIELDS.items():
        value = getattr(result, name)
        if isinstance(value, tuple) and not value:  # a list of texts that is not there
            continue
        for axis, length in zip(field["shape"], np.shape(value), strict=False):  # a scalar where there should be an axis is let be
            group = field["path"].rpartition("/")[0]
            other, expected = first.setdefault((group, axis), (name, length))
            if length != expected:
                raise ResultError(f"{result.path}: a broken result: {other} and {name} have {expected} and {length} entries")
