"""Reads a result file of hesspect into plain arrays.

The file is HDF5 with everything under /entry; docs/ has the whole schema. What a run did not compute is None here: a
`hesspect eigs` result has no density, a `hesspect density` result no eigenvalues.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np


class ResultError(Exception):
    """The file is missing, is not a result of hesspect, or is broken. The message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What one run found out. Values are in loss/parameter², densities in its inverse, unless said otherwise."""

    path: Path
    #: [points], the grid of the density, ascending
    lambdas: np.ndarray | None = None
    #: [points], the spectral density on that grid; it integrates to 1
    density: np.ndarray | None = None
    #: [points], standard error of the density over the probes
    density_errors: np.ndarray | None = None
    #: [points], the cumulative spectral density: the share of the eigenvalues up to cumulative_lambdas, and its band
    cumulative_lambdas: np.ndarray | None = None
    cumulative: np.ndarray | None = None
    cumulative_lower: np.ndarray | None = None
    cumulative_upper: np.ndarray | None = None
    #: what the band is from ("jackknife", "a priori" or "exact"), and what probability band and w1 claim
    band: str = ""
    density_confidence: float | None = None
    #: bound of the Wasserstein-1 distance to the true spectrum, its two parts, and whether it is what was asked for
    w1: float | None = None
    w1_sampling: float | None = None
    w1_quadrature: float | None = None
    density_converged: bool | None = None
    #: [2], where the spectrum lies; how many eigenvalues were taken out as points of their own, mean over probes
    spectrum_range: np.ndarray | None = None
    exact_points: float | None = None
    #: share of the eigenvalues with |lambda| <= zero_width, and of those below that, with standard errors
    zero_width: float | None = None
    weight_at_zero: float | None = None
    weight_at_zero_error: float | None = None
    negative_mass: float | None = None
    negative_mass_error: float | None = None
    #: [4], mean of lambda^k over the eigenvalues, k = 1 .. 4, and standard errors
    moments: np.ndarray | None = None
    moments_error: np.ndarray | None = None
    #: [k], the largest first, then the smallest ones, largest of them first; or those of largest magnitude
    eigenvalues: np.ndarray | None = None
    #: [k], what each is one of: "top", "bottom" or "magnitude" (in results of version 0.1: nothing)
    which: tuple[str, ...] = ()
    #: [k], bound of the norm of A y - theta y of each pair; that norm by a product of its own, NaN: not measured
    residuals: np.ndarray | None = None
    true_residuals: np.ndarray | None = None
    #: [k], bound of each eigenvalue's error
    eigenvalue_errors: np.ndarray | None = None
    #: [k], which of them met the run's tolerance
    converged: np.ndarray | None = None
    #: "lanczos", "block lanczos" or "power"; products that served them; thick restarts
    eigenvalue_method: str = ""
    eigenvalue_steps: int | None = None
    thick_restarts: int | None = None
    #: the estimated trace, its standard error (NaN, 0 or None: unknown), and how many samples it is from
    trace: float | None = None
    trace_stderr: float | None = None
    trace_samples: int | None = None
    #: half width of its confidence interval at that confidence, and whether it is what was asked for
    trace_half_width: float | None = None
    trace_confidence: float | None = None
    trace_converged: bool | None = None
    #: "deflated", "hutchinson", "hutch++" or "xtrace"; the part that the deflated space has, and that space's dimensions
    trace_method: str = ""
    trace_captured: float | None = None
    trace_deflated: int | None = None
    #: products taken for the trace alone
    trace_products: int | None = None
    #: [samples], what each random vector says the trace is: their mean is the trace
    trace_sample: np.ndarray | None = None
    #: [layers], the parameter tensors: name, entries, trace of the diagonal block, mean of the diagonal, standard errors
    layer_names: tuple[str, ...] = ()
    layer_sizes: np.ndarray | None = None
    layer_traces: np.ndarray | None = None
    layer_trace_errors: np.ndarray | None = None
    layer_means: np.ndarray | None = None
    layer_mean_errors: np.ndarray | None = None
    #: Hessian-vector products by what they were taken for, and "total"
    products: dict[str, int] = dataclasses.field(default_factory=dict)
    #: [probes, steps], the tridiagonal matrix of each probe's Lanczos run; the last beta is the norm of what was left
    alpha: np.ndarray | None = None
    beta: np.ndarray | None = None
    #: [probes, steps], nodes and weights of its Gauss quadrature; NaN where a probe took fewer steps
    ritz: np.ndarray | None = None
    weight: np.ndarray | None = None
    #: standard deviation of the density's kernel
    sigma: float | None = None
    #: of the eigenvalues, how many are the largest, the smallest, those of largest magnitude
    n_top: int | None = None
    n_bottom: int | None = None
    n_magnitude: int | None = None
    #: number of parameters, tied ones counted once
    n_parameters: int | None = None
    #: rows of data, the mean loss over them, and the products it took
    n_rows: int | None = None
    loss: float | None = None
    hvp_count: int | None = None
    #: how the run was laid out: groups of ranks, ranks a group, probes that a group ran at a time, starts (1 + resumed)
    groups: int | None = None
    data_ranks: int | None = None
    lock_step: int | None = None
    starts: int | None = None
    #: type of the kept Krylov vectors, where they were ("device" or "host"), their bytes on a rank
    basis_dtype: str = ""
    basis_memory: str = ""
    basis_bytes: int | None = None
    #: micro-batches of rank 0, and how many of them kept their gradient graphs between products
    micro_batches: int | None = None
    unit_rows: int | None = None
    row_check: str | None = None
    kept_graphs: int | None = None
    #: collectives of a Lanczos step, and the bytes a rank sends in it
    messages_per_step: int | None = None
    message_bytes_per_step: int | None = None
    #: measured: largest of all ranks in host and GPU memory; the run's seconds, those in products, those of one gradient
    peak_memory_bytes: int | None = None
    peak_device_bytes: int | None = None
    elapsed_seconds: float | None = None
    hvp_seconds: float | None = None
    gradient_seconds: float | None = None
    product_share: float | None = None
    #: what the plan forecast of them; NaN where it forecast nothing. forecast_hvp_seconds is of one product
    forecast_memory_bytes: int | None = None
    forecast_seconds: float | None = None
    forecast_hvp_seconds: float | None = None
    #: which run ("" in results of version 0.1): the same for all starts of a resumed one
    run_id: str = ""
    #: which matrix ("hessian"), the model's file, the warnings of the run
    curvature: str = ""
    model: str = ""
    warnings: tuple[str, ...] = ()


def _array(entry, name):
    node = entry.get(name)
    return None if node is None else np.asarray(node[()], dtype=None if node.dtype.kind in "iub" else np.float64)


def _scalar(entry, name, kind):
    node = entry.get(name)
    if node is None:
        return None
    value = np.asarray(node[()]).reshape(-1)
    return kind(value[0]) if value.size else None


def _texts(entry, name):
    """The strings of a dataset, scalar or not."""
    node = entry.get(name)
    if node is None or node.dtype.kind not in "OS":
        return ()
    return tuple(t.decode(errors="replace") if isinstance(t, bytes) else str(t) for t in np.asarray(node[()]).reshape(-1))


def _text(entry, name):
    """The first of them, or nothing."""
    return "".join(_texts(entry, name)[:1])


def read(path: str | os.PathLike) -> Result:
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
            if not isinstance(entry, h5py.Group) or not any(k in entry for k in ("density", "eigenvalues", "trace", "quadrature")):
                raise ResultError(f"{path}: HDF5, but not a result of hesspect (it has no /entry with a spectrum)")
            result = _from_entry(path, entry)
    except OSError as error:
        reason = "not readable" if not os.access(path, os.R_OK) else "not an HDF5 file, or a broken one"
        raise ResultError(f"{path}: {reason}") from error
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ResultError(f"{path}: a broken result: {error}") from error
    return result


def _from_entry(path, entry):
    result = Result(
        path=path,
        lambdas=_array(entry, "density/lambda"),
        density=_array(entry, "density/density"),
        density_errors=_array(entry, "density/density_errors"),
        cumulative_lambdas=_array(entry, "cumulative/lambda"),
        cumulative=_array(entry, "cumulative/cumulative"),
        cumulative_lower=_array(entry, "cumulative/cumulative_lower"),
        cumulative_upper=_array(entry, "cumulative/cumulative_upper"),
        band=_text(entry, "cumulative/band"),
        density_confidence=_scalar(entry, "cumulative/confidence", float),
        w1=_scalar(entry, "cumulative/w1", float),
        w1_sampling=_scalar(entry, "cumulative/w1_sampling", float),
        w1_quadrature=_scalar(entry, "cumulative/w1_quadrature", float),
        density_converged=_scalar(entry, "cumulative/converged", bool),
        spectrum_range=_array(entry, "cumulative/range"),
        exact_points=_scalar(entry, "cumulative/exact_points", float),
        zero_width=_scalar(entry, "cumulative/zero_width", float),
        weight_at_zero=_scalar(entry, "cumulative/weight_at_zero", float),
        weight_at_zero_error=_scalar(entry, "cumulative/weight_at_zero_error", float),
        negative_mass=_scalar(entry, "cumulative/negative_mass", float),
        negative_mass_error=_scalar(entry, "cumulative/negative_mass_error", float),
        moments=_array(entry, "cumulative/moments"),
        moments_error=_array(entry, "cumulative/moments_error"),
        eigenvalues=_array(entry, "eigenvalues/eigenvalue"),
        which=_texts(entry, "eigenvalues/which"),
        true_residuals=_array(entry, "eigenvalues/true_residual"),
        eigenvalue_errors=_array(entry, "eigenvalues/error"),
        eigenvalue_method=_text(entry, "eigenvalues/method"),
        eigenvalue_steps=_scalar(entry, "eigenvalues/steps", int),
        thick_restarts=_scalar(entry, "eigenvalues/thick_restarts", int),
        residuals=_array(entry, "eigenvalues/residual"),
        converged=_array(entry, "eigenvalues/converged"),
        trace=_scalar(entry, "trace/value", float),
        trace_stderr=_scalar(entry, "trace/stderr", float),
        trace_samples=_scalar(entry, "trace/samples", int),
        trace_half_width=_scalar(entry, "trace/half_width", float),
        trace_confidence=_scalar(entry, "trace/confidence", float),
        trace_converged=_scalar(entry, "trace/converged", bool),
        trace_method=_text(entry, "trace/method"),
        trace_captured=_scalar(entry, "trace/captured", float),
        trace_deflated=_scalar(entry, "trace/deflated", int),
        trace_products=_scalar(entry, "trace/products", int),
        trace_sample=_array(entry, "trace/sample"),
        layer_names=_texts(entry, "layers/name"),
        layer_sizes=_array(entry, "layers/size"),
        layer_traces=_array(entry, "layers/trace"),
        layer_trace_errors=_array(entry, "layers/trace_error"),
        layer_means=_array(entry, "layers/mean"),
        layer_mean_errors=_array(entry, "layers/mean_error"),
        products={name: int(node[()]) for name, node in entry.get("diagnostics/products", {}).items()},
        alpha=_array(entry, "quadrature/alpha"),
        beta=_array(entry, "quadrature/beta"),
        ritz=_array(entry, "quadrature/ritz"),
        weight=_array(entry, "quadrature/weight"),
        sigma=_scalar(entry, "density/sigma", float),
        n_top=_scalar(entry, "eigenvalues/n_top", int),
        n_bottom=_scalar(entry, "eigenvalues/n_bottom", int),
        n_magnitude=_scalar(entry, "eigenvalues/n_magnitude", int),
        n_parameters=_scalar(entry, "diagnostics/n_parameters", int),
        n_rows=_scalar(entry, "diagnostics/n_rows", int),
        loss=_scalar(entry, "diagnostics/loss", float),
        hvp_count=_scalar(entry, "diagnostics/hvp_count", int),
        groups=_scalar(entry, "diagnostics/groups", int),
        data_ranks=_scalar(entry, "diagnostics/data_ranks", int),
        lock_step=_scalar(entry, "diagnostics/lock_step", int),
        starts=_scalar(entry, "diagnostics/starts", int),
        basis_dtype=_text(entry, "diagnostics/basis_dtype"),
        basis_memory=_text(entry, "diagnostics/basis_memory"),
        basis_bytes=_scalar(entry, "diagnostics/basis_bytes", int),
        micro_batches=_scalar(entry, "diagnostics/micro_batches", int),
        kept_graphs=_scalar(entry, "diagnostics/kept_graphs", int),
        messages_per_step=_scalar(entry, "diagnostics/messages_per_step", int),
        message_bytes_per_step=_scalar(entry, "diagnostics/message_bytes_per_step", int),
        peak_memory_bytes=_scalar(entry, "diagnostics/peak_memory_bytes", int),
        peak_device_bytes=_scalar(entry, "diagnostics/peak_device_bytes", int),
        elapsed_seconds=_scalar(entry, "diagnostics/elapsed_seconds", float),
        hvp_seconds=_scalar(entry, "diagnostics/hvp_seconds", float),
        gradient_seconds=_scalar(entry, "diagnostics/gradient_seconds", float),
        product_share=_scalar(entry, "diagnostics/product_share", float),
        forecast_memory_bytes=_scalar(entry, "diagnostics/forecast_memory_bytes", int),
        forecast_seconds=_scalar(entry, "diagnostics/forecast_seconds", float),
        forecast_hvp_seconds=_scalar(entry, "diagnostics/forecast_hvp_seconds", float),
        run_id=_text(entry, "process/run_id"),
        curvature=_text(entry, "process/curvature"),
        model=_text(entry, "process/model"),
        warnings=_texts(entry, "diagnostics/warnings"),
    )
    _check(result)
    if result.converged is not None:
        result = dataclasses.replace(result, converged=result.converged.astype(bool))
    return result


def _check(result):
    """Arrays that belong together must have the same shape."""
    if (result.lambdas is None) != (result.density is None):
        raise ResultError(f"{result.path}: a broken result: density and lambda must come together")
    for one, others in (
        ("lambdas", ("density", "density_errors")),
        ("cumulative", ("cumulative_lambdas", "cumulative_lower", "cumulative_upper")),
        ("eigenvalues", ("residuals", "true_residuals", "eigenvalue_errors", "converged")),
        ("layer_sizes", ("layer_traces", "layer_trace_errors", "layer_means", "layer_mean_errors")),
    ):
        for other in others:
            a, b = getattr(result, one), getattr(result, other)
            if a is not None and b is not None and a.shape != b.shape:
                raise ResultError(f"{result.path}: a broken result: {one} and {other} have shapes {a.shape} and {b.shape}")
    for name, texts, array in (("which", result.which, result.eigenvalues), ("layer_names", result.layer_names, result.layer_sizes)):
        if texts and (array is None or len(texts) != array.size):
            raise ResultError(f"{result.path}: a broken result: {len(texts)} {name} for {0 if array is None else array.size} values")
