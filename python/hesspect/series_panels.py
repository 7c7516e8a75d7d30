"""The parts of a series, each drawn on axes of matplotlib over the training's steps. `series_views` puts them on figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from hesspect.panels import number
from hesspect.result import ResultError
from hesspect.series import Array, Series
from hesspect.theme import Theme

_DASHES = (0, (4, 3))
_MOST_LAYERS = 60  #: rows of the layers' picture: those of largest |trace|
_GRID = 700  #: points of λ that densities of different checkpoints are brought onto
_DECADES = 6.0  #: that colours of a density span at most
_MOST_MARKS = 60  #: checkpoints up to which each point has a mark


def nothing(series: Series, what: str) -> ResultError:
    return ResultError(f"{series.path}: nothing to draw: it holds no {what}")


def _any(values: Array | None) -> bool:
    return values is not None and bool(np.isfinite(values).any())


def steps(series: Series) -> tuple[Array, str]:
    """Where the checkpoints stand, ascending, and what that is: the steps, or their places where steps are not told apart."""
    if len(series) and np.all(np.diff(series.step) > 0) and series.step[0] >= 0:
        return series.step.astype(np.float64), "training step"
    return np.arange(len(series), dtype=np.float64), "checkpoint"


def _edges(at: Array) -> Array:
    """Between neighbours, and as far beyond the ends."""
    if at.size == 1:
        return np.array([at[0] - 0.5, at[0] + 0.5])
    middle = (at[1:] + at[:-1]) / 2
    return np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])


def _over_steps(axes: Any, series: Series, theme: Theme, label: bool = True) -> Array:
    from matplotlib.ticker import MaxNLocator

    at, name = steps(series)
    edges = _edges(at)
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.ticklabel_format(axis="x", style="plain")
    axes.grid(True, which="major", color=theme.soft, alpha=0.18, linewidth=0.7)
    axes.set_axisbelow(True)
    if label:
        axes.set_xlabel(name)
    return at


def _mark(series: Series) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3.6} if len(series) <= _MOST_MARKS else {}


def _shades(theme: Theme) -> Any:
    """From the paper's colour to the ink's, through the curves' colour: where there is nothing, there is paper; a checkpoint that has none is grey."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = [(0.0, theme.paper), (0.18, "#cfe3f1" if theme.name == "light" else "#14324a"), (0.6, theme.line),
             (1.0, "#0b1f33" if theme.name == "light" else "#f4fbff")]
    return LinearSegmentedColormap.from_list(f"hesspect_{theme.name}", stops).with_extremes(bad=theme.card)


def _threshold(series: Series) -> float:
    """Within it the axis of λ is linear: where the bulk is, of the median checkpoint."""
    bulk = []
    for lam, rho in zip(series.lambdas, series.density, strict=True):
        known = np.isfinite(lam) & np.isfinite(rho)
        if known.sum() < 2:
            continue
        lam, rho = lam[known], np.maximum(rho[known], 0)
        mass = np.concatenate([[0.0], np.cumsum((rho[1:] + rho[:-1]) / 2 * np.diff(lam))])
        if mass[-1] > 0:
            low, high = np.interp([0.05, 0.95], mass / mass[-1], lam)
            bulk.append(max(abs(low), abs(high)))
    reach = float(np.nanmax(np.abs(series.lambdas)))
    return float(np.clip(np.median(bulk) if bulk else reach, 1e-6 * reach, reach)) or 1.0


def density(axes: Any, series: Series, theme: Theme, label: bool = True) -> None:
    """The density over steps as a heat map: λ upwards, linear within the bulk and logarithmic beyond, the colour logarithmic."""
    if series.density is None or series.lambdas is None or not _any(series.density):
        raise nothing(series, "density")
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FixedLocator, NullLocator

    threshold = _threshold(series)

    def bend(x: Any) -> Any:
        return np.arcsinh(np.asarray(x) / threshold)

    low, high = float(np.nanmin(series.lambdas)), float(np.nanmax(series.lambdas))
    if not high > low:
        raise nothing(series, "density over a range")
    bent = np.linspace(bend(low), bend(high), _GRID + 1)
    grid = np.sinh((bent[1:] + bent[:-1]) / 2) * threshold
    picture = np.full((_GRID, len(series)), np.nan)
    for column, (lam, rho) in enumerate(zip(series.lambdas, series.density, strict=True)):
        known = np.isfinite(lam) & np.isfinite(rho)
        if known.sum() > 1:
            order = np.argsort(lam[known], kind="stable")
            picture[:, column] = np.interp(grid, lam[known][order], rho[known][order], left=0.0, right=0.0)
    top = float(np.nanmax(picture))
    if not top > 0:
        raise nothing(series, "density above zero")
    floor = max(top * 10.0**-_DECADES, float(np.nanmin(picture[picture > 0], initial=top)))
    shades = _shades(theme)
    at = _over_steps(axes, series, theme, label)
    axes.set_axisbelow(False)
    axes.grid(False)
    drawn = axes.pcolormesh(_edges(at), np.sinh(bent) * threshold, np.ma.masked_invalid(np.where(np.isnan(picture), np.nan, np.maximum(picture, floor))),
                            norm=LogNorm(floor, top), cmap=shades, shading="flat", rasterized=True, linewidth=0)
    axes.set_yscale("function", functions=(bend, lambda y: np.sinh(y) * threshold))
    axes.yaxis.set_major_locator(FixedLocator(_ticks(threshold, low, high)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(_power)
    axes.set_ylim(low, np.sinh(bend(high) + 0.03 * (bend(high) - bend(low))) * threshold)
    if low < 0 < high:
        axes.axhline(0, color=theme.soft, linewidth=0.7, linestyle=_DASHES)
    if _any(series.eigenvalues) and series.top > 0:
        axes.plot(at, series.eigenvalues[:, 0], color=theme.top, linewidth=1.3, label="λ₁", **_mark(series))
        axes.legend(loc="upper left", frameon=False, fontsize=9)
    bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.035, pad=0.012, label="density")
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()
    axes.set_ylabel("eigenvalue λ  [loss / parameter²]")


def _ticks(threshold: float, low: float, high: float) -> list[float]:
    """Zero, and powers of ten that stand apart from it, five a side at most."""
    found = [0.0] if low <= 0 <= high else []
    for reach, sign in ((high, 1.0), (-low, -1.0)):
        if reach <= 0:
            continue
        first, last = int(np.ceil(np.log10(0.3 * threshold))), int(np.floor(np.log10(reach)))
        every = max(1, int(np.ceil((last - first + 1) / 5)))
        found += [sign * 10.0**e for e in range(last, first - 1, -every)]
    return sorted(found) if len(found) > 1 else [low, *found, high]


def _power(x: float, _position: Any = None) -> str:
    if x == 0:
        return "0"
    exponent = np.log10(abs(x))
    if -2.01 < exponent < 3.01:
        return f"{x:g}".replace("-", "−")
    if abs(exponent - round(exponent)) < 1e-9:
        return f"${'-' if x < 0 else ''}10^{{{round(exponent)}}}$"
    return number(x)


def _scale(axes: Any, values: Array) -> None:
    """Logarithmic where all is above zero and spans more than a decade; symmetric where some is below zero as well."""
    known = values[np.isfinite(values)]
    if not known.size:
        return
    size = np.abs(known[known != 0])
    if not size.size or size.max() / size.min() < 12:
        return
    if known.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_power)
    elif known.max() / size.min() > 12 or -known.min() / size.min() > 12:
        axes.set_yscale("symlog", linthresh=max(float(np.median(size)) / 3, 1e-4 * float(size.max())), linscale=0.6)


def eigenvalues(axes: Any, series: Series, theme: Theme, label: bool = True) -> None:
    """The track of each eigenvalue by rank with the band of its interval, and 2/η where learning rates are known."""
    theta = series.eigenvalues
    if theta is None or not _any(theta):
        raise nothing(series, "eigenvalues")
    from matplotlib.colors import LinearSegmentedColormap

    at = _over_steps(axes, series, theme, label)
    ranks = [i for i in range(series.top) if np.isfinite(theta[:, i]).any()]
    smallest = [i for i in range(series.top, theta.shape[1]) if np.isfinite(theta[:, i]).any()]
    fade = LinearSegmentedColormap.from_list("ranks", [theme.top, theme.negative, theme.line])
    banded = False
    for place, i in enumerate([*ranks, *smallest]):
        is_top = i < series.top
        colour = fade(place / max(1, len(ranks) - 1)) if is_top else theme.soft
        if series.eigenvalue_lower is not None and series.eigenvalue_upper is not None:
            axes.fill_between(at, series.eigenvalue_lower[:, i], series.eigenvalue_upper[:, i], color=colour, alpha=0.22, linewidth=0,
                              label=None if banded else "intervals")
            banded = True
        if is_top:
            name = f"λ{_subscript(i + 1)}" if place in (0, len(ranks) - 1) else None
        else:
            name = "smallest" if i == smallest[-1] else None
        axes.plot(at, theta[:, i], color=colour, linewidth=1.9 if place == 0 else 1.1, label=name, zorder=3 if place == 0 else 2,
                  **(_mark(series) if place == 0 else {}))
    if _any(series.learning_rate):
        with np.errstate(divide="ignore"):
            edge = np.where(series.learning_rate > 0, 2 / series.learning_rate, np.nan)
        axes.plot(at, edge, color=theme.ink, linewidth=1.2, linestyle=_DASHES, label="2/η")
    _scale(axes, theta)
    axes.set_ylabel("eigenvalue  [loss / parameter²]")
    axes.legend(loc="best", frameon=False, fontsize=9, ncols=2)


def _subscript(n: int) -> str:
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(n))


def trace(axes: Any, series: Series, theme: Theme, label: bool = True) -> None:
    """The trace with two standard errors either side."""
    if series.trace is None or not _any(series.trace):
        raise nothing(series, "trace")
    at = _over_steps(axes, series, theme, label)
    if series.trace_stderr is not None and _any(series.trace_stderr):
        axes.fill_between(at, series.trace - 2 * series.trace_stderr, series.trace + 2 * series.trace_stderr, color=theme.line, alpha=0.25, linewidth=0,
                          label="± 2 standard errors")
    axes.plot(at, series.trace, color=theme.line, linewidth=1.8, label="trace", **_mark(series))
    _scale(axes, series.trace)
    axes.set_ylabel("trace  [loss / parameter²]")
    axes.legend(loc="best", frameon=False, fontsize=9)


def overlap(axes: Any, series: Series, theme: Theme, label: bool = True) -> None:
    """How far the space of the top eigenvectors is that of the checkpoint before."""
    if series.overlap is None or not _any(series.overlap):
        raise nothing(series, "overlap of subspaces")
    at = _over_steps(axes, series, theme, label)
    axes.plot(at, series.overlap, color=theme.series[2], linewidth=1.7, **_mark(series))
    axes.set_ylim(-0.02, 1.04)
    axes.set_ylabel("overlap with the one before")


def stability(axes: Any, series: Series, theme: Theme, label: bool = True) -> None:
    """λ₁ η / 2, which for a stable step of gradient descent is below 1."""
    if series.half_lambda_eta is None or not _any(series.half_lambda_eta):
        raise nothing(series, "learning rate")
    at = _over_steps(axes, series, theme, label)
    axes.axhline(1, color=theme.ink, linewidth=1.1, linestyle=_DASHES)
    axes.plot(at, series.half_lambda_eta, color=theme.top, linewidth=1.7, **_mark(series))
    axes.set_ylim(0, 1.08 * max(1.0, float(np.nanmax(series.half_lambda_eta))))
    axes.set_ylabel("λ₁ η / 2")


def layer_rows(series: Series) -> Array:
    """Which tensors are drawn, in the model's order: all, or those of largest |trace| anywhere."""
    if series.layer_traces is None or not series.layer_names or not _any(series.layer_traces):
        raise nothing(series, "layers")
    size = np.max(np.abs(np.nan_to_num(series.layer_traces)), axis=0)
    return np.sort(np.argsort(-size, kind="stable")[:_MOST_LAYERS])


def layers(axes: Any, series: Series, theme: Theme, label: bool = True) -> None:
    """Each tensor's trace over steps as a heat map, the colour logarithmic; below zero it is crossed out."""
    rows = layer_rows(series)
    from matplotlib.colors import LogNorm

    values = series.layer_traces[:, rows].T
    if not (values > 0).any():
        raise nothing(series, "layer with a trace above zero")
    top = float(np.nanmax(values))
    floor = max(0.6 * float(np.nanmin(values[values > 0])), top * 1e-5)  # the least is not the paper's colour
    shades = _shades(theme)
    at = _over_steps(axes, series, theme, label)
    axes.grid(False)
    edges = _edges(at)
    drawn = axes.pcolormesh(edges, np.arange(rows.size + 1) - 0.5, np.ma.masked_invalid(np.where(np.isnan(values), np.nan, np.maximum(values, floor))),
                            norm=LogNorm(floor, top), cmap=shades, shading="flat", rasterized=True)
    below = np.argwhere(values < 0)
    if below.size:
        axes.plot(at[below[:, 1]], below[:, 0], "x", color=theme.negative, markersize=4, markeredgewidth=1.2, label="below zero")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    axes.set_yticks(np.arange(rows.size), [series.layer_names[i] for i in rows], fontsize=8.5, parse_math=False)
    axes.set_ylim(rows.size - 0.5, -0.5)
    bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.015, label="trace  [loss / parameter²]")
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()
