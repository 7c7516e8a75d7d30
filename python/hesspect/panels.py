"""The parts of a result, each drawn on axes of matplotlib. `plot` puts them on figures.

Scales: eigenvalues span many decades on both sides of zero, and most of them lie close to it. The axis of λ is linear within a
threshold (the kernel's width, or the noise floor) and logarithmic beyond it, so that bulk and outliers are seen at once.
"""

from typing import Any

import numpy as np

from hesspect.result import Result, ResultError, by_path
from hesspect.theme import Theme

_DASHES = (0, (4, 3))
_LAMBDA = "eigenvalue λ  [loss / parameter²]"
_MOST_ROWS = 120  #: of layers in one picture: those of largest |mean|


def number(x: float) -> str:
    """A number in four significant digits, as a person would write it."""
    text = f"{x:#.4g}" if x == 0 or 1e-3 <= abs(x) < 1e5 else f"{x:.3e}"
    return text.rstrip(".").replace("-", "−")


def noise_floor(result: Result) -> float:
    """Below it an eigenvalue can't be told from zero."""
    values = [v for v in (result.lambdas, result.cumulative_lambdas, result.eigenvalues) if v is not None and v.size]
    reach = max(float(np.nanmax(np.abs(v))) for v in values) if values else 1.0
    moved = result.precision_moved
    floor = max(result.zero_width or 0.0, 2 * moved if moved and np.isfinite(moved) else 0.0, 1e-7 * reach)
    return floor if np.isfinite(floor) and floor > 0 else 1.0


def _decades(threshold: float, reach: float, every: int) -> Any:
    """Every so many powers of ten, from the end down to well outside the linear part."""
    first, last = int(np.ceil(np.log10(2 * threshold))), int(np.floor(np.log10(max(reach, threshold))))
    return 10.0 ** np.arange(last, first - 1, -every)


def _symlog(axis: Any, threshold: float, low: float, high: float) -> None:
    """A symmetric log scale whose linear part is as wide as a decade, and whose ticks don't crowd."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axis.axes.set_xscale("symlog", linthresh=threshold, linscale=0.5)
    decades = sum(max(0.0, np.log10(max(reach, threshold) / threshold)) for reach in (high, -low))
    every = int(np.ceil(decades / 7)) or 1
    ticks = [0.0, *_decades(threshold, high, every), *-_decades(threshold, -low, every)]
    axis.set_major_locator(FixedLocator(sorted(ticks)))
    axis.set_minor_locator(NullLocator())
    pad = 1.6
    axis.axes.set_xlim(min(low * pad, -threshold) if low < 0 else -0.3 * threshold, max(high * pad, threshold))


def _zero(axes: Any, theme: Theme) -> None:
    axes.axvline(0, color=theme.soft, linewidth=0.8, linestyle=_DASHES, zorder=0)
    axes.grid(True, which="major", color=theme.soft, alpha=0.18, linewidth=0.7)


def _density_floor(result: Result, density: Any) -> float:
    """Where the log axis ends below: well below what one single eigenvalue shows, or 10 decades."""
    top = density.max()
    floor = top * 1e-10
    if result.n_parameters and result.sigma:
        floor = max(floor, 0.02 / (result.n_parameters * result.sigma * np.sqrt(2 * np.pi)))
    return float(min(floor, top * 1e-2))


def _marks(axes: Any, result: Result, theme: Theme) -> None:
    """Each computed eigenvalue: a short stem at the foot of the picture, a mark with its error as an error bar."""
    theta = result.eigenvalues
    bound = result.eigenvalue_errors if result.eigenvalue_errors is not None else result.residuals
    error = np.zeros_like(theta) if bound is None else np.abs(np.nan_to_num(bound))
    sure = np.ones(theta.shape, bool) if result.converged is None else result.converged
    foot = axes.get_xaxis_transform()  # x in data, y in parts of the axes
    for chosen, colour, name in ((theta >= 0, theme.top, "eigenvalues"), (theta < 0, theme.negative, "negative eigenvalues")):
        if not chosen.any():
            continue
        axes.vlines(theta[chosen], 0, 0.05, transform=foot, color=colour, linewidth=1.2, alpha=0.9)
        for mask, face in ((chosen & sure, colour), (chosen & ~sure, theme.paper)):
            if mask.any():
                label = f"{name} ± error" if face == colour else f"{name}, not converged"
                axes.errorbar(theta[mask], np.full(mask.sum(), 0.055), xerr=error[mask], fmt="o", transform=foot, markersize=5,
                              color=colour, markerfacecolor=face, elinewidth=1, capsize=2, label=label, zorder=4)


def density(axes: Any, result: Result, theme: Theme) -> None:
    """The smoothed density on two log axes, λ's linear within two widths of the kernel, and the computed eigenvalues."""
    has_density = result.density is not None and result.density.size > 1
    has_eigenvalues = result.eigenvalues is not None and result.eigenvalues.size > 0
    if not has_density and not has_eigenvalues:
        raise ResultError(f"{result.path}: nothing to draw: it holds neither a density nor eigenvalues")
    if has_density:
        lam, rho = result.lambdas, result.density
        if not np.isfinite(rho).all() or not (rho > 0).any():
            raise ResultError(f"{result.path}: a broken result: the density is not a set of finite numbers above zero")
        floor = _density_floor(result, rho)
        _symlog(axes.xaxis, 2 * result.sigma if result.sigma else noise_floor(result), lam[0], lam[-1])
        axes.set_yscale("log")
        axes.fill_between(lam, floor, np.maximum(rho, floor), color=theme.line, alpha=0.16, linewidth=0)
        if result.density_errors is not None and np.nanmax(result.density_errors) > 0:
            low, high = np.maximum(rho - result.density_errors, floor), np.maximum(rho + result.density_errors, floor)
            axes.fill_between(lam, low, high, color=theme.line, alpha=0.35, linewidth=0, label="± standard error over probes")
        axes.plot(lam, np.where(rho >= floor, rho, np.nan), color=theme.line, linewidth=1.6, label="spectral density")
        axes.set_ylim(floor, rho.max() * 4)
        axes.set_ylabel("density")
    else:
        theta = result.eigenvalues
        _symlog(axes.xaxis, noise_floor(result), min(theta.min(), 0.0), max(theta.max(), 0.0))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    if has_eigenvalues:
        _marks(axes, result, theme)
    _zero(axes, theme)
    axes.set_xlabel(_LAMBDA)
    axes.legend(loc="upper right", frameon=False, fontsize=9.5)


def cumulative(axes: Any, result: Result, theme: Theme) -> None:
    """How many eigenvalues lie beyond λ, away from zero: above it on the right, up to it on the left; with the band of F."""
    lam, share, n = result.cumulative_lambdas, result.cumulative, result.n_parameters
    if share is None or lam is None or not lam.size:
        raise ResultError(f"{result.path}: nothing to draw: it holds no cumulative density")
    scale = n or 1
    foot = 0.5 if n else max(1e-9, 0.1 * np.min(np.diff(np.unique(np.append(share, 1.0))), initial=1.0))
    threshold = noise_floor(result)
    _symlog(axes.xaxis, threshold, min(lam[0], 0.0), max(lam[-1], 0.0))
    axes.set_yscale("log")
    band = result.cumulative_lower is not None and result.cumulative_upper is not None
    for right in (False, True):
        inside = lam >= 0 if right else lam < 0
        if not inside.any():
            continue
        at = np.append(np.append(0.0, lam[inside]) if right else lam[inside], lam[-1] if right else 0.0)

        def ends(f: Any, right: bool = right, inside: Any = inside) -> Any:
            beyond = np.maximum(foot, scale * ((1 - f) if right else f))
            steps = np.append(beyond[inside], beyond[inside][-1])
            if not right:
                return steps
            # up to the first point right of zero it is what F has there from the left
            before = np.append(0.0, f)[np.flatnonzero(inside)[0]]
            return np.append(np.maximum(foot, scale * (1 - before)), steps)

        if band:
            text = f"{100 * result.density_confidence:g} % band" if result.density_confidence else "band"
            axes.fill_between(at, ends(result.cumulative_lower), ends(result.cumulative_upper), step="post", color=theme.line, alpha=0.25,
                              linewidth=0, label=None if right and (lam < 0).any() else text + (f" ({result.band})" if result.band else ""))
        axes.step(at, ends(share), where="post", color=theme.line, linewidth=1.7,
                  label=None if right and (lam < 0).any() else "eigenvalues beyond λ")
    _zero(axes, theme)
    axes.set_ylim(foot, 2 * scale)
    axes.set_xlabel(_LAMBDA)
    axes.set_ylabel("eigenvalues beyond λ" if n else "share of eigenvalues beyond λ")
    axes.legend(loc="upper right", frameon=False, fontsize=9)
    if result.w1 is not None and np.isfinite(result.w1):
        axes.set_title(f"above λ right of zero, up to λ left of it; Wasserstein-1 error ≤ {number(result.w1)}", fontsize=9.5,
                       color=theme.soft, loc="left")


def eigenvalues(axes: Any, result: Result, theme: Theme) -> None:
    """|λ| by rank on two log axes, above and below zero apart."""
    theta = result.eigenvalues
    if theta is None or not theta.size:
        raise ResultError(f"{result.path}: nothing to draw: it holds no eigenvalues")
    bound = result.eigenvalue_errors if result.eigenvalue_errors is not None else result.residuals
    error = np.zeros_like(theta) if bound is None else np.abs(np.nan_to_num(bound))
    sure = np.ones(theta.shape, bool) if result.converged is None else result.converged
    for chosen, colour, mark, name in ((theta > 0, theme.top, "o", "above zero"), (theta < 0, theme.negative, "s", "below zero")):
        order = np.flatnonzero(chosen)[np.argsort(-np.abs(theta[chosen]), kind="stable")]
        if not order.size:
            continue
        size, rank = np.abs(theta[order]), np.arange(1, order.size + 1)
        low = np.minimum(error[order], 0.9 * size)
        axes.errorbar(rank, size, yerr=[low, error[order]], fmt=mark, markersize=5.5, color=colour, elinewidth=1, capsize=2, label=name)
        open_ones = ~sure[order]
        if open_ones.any():
            axes.plot(rank[open_ones], size[open_ones], mark, markersize=5.5, color=colour, markerfacecolor=theme.paper,
                      label=f"{name}, not converged", zorder=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rank, largest |λ| first")
    axes.set_ylabel("|λ|  [loss / parameter²]")
    axes.grid(True, which="major", color=theme.soft, alpha=0.18, linewidth=0.7)
    axes.legend(loc="upper right", frameon=False, fontsize=9.5)


def layer_rows(result: Result) -> Any:
    """Which layers are drawn, in the model's order: all, or those of largest |mean|."""
    if result.layer_means is None or not result.layer_names:
        raise ResultError(f"{result.path}: nothing to draw: it holds no layers")
    size = np.abs(np.nan_to_num(result.layer_means))
    return np.sort(np.argsort(-size, kind="stable")[:_MOST_ROWS])


def layers(axes: Any, result: Result, theme: Theme) -> None:
    """The mean of the diagonal of every parameter tensor with its standard error, on a symmetric log axis."""
    rows = layer_rows(result)
    mean = result.layer_means[rows]
    error = np.zeros_like(mean) if result.layer_mean_errors is None else np.abs(np.nan_to_num(result.layer_mean_errors[rows]))
    at = np.arange(rows.size)
    seen = np.abs(mean[np.nonzero(mean)])
    threshold = max(seen.min() / 2, 1e-6 * seen.max()) if seen.size else 1.0
    _symlog(axes.xaxis, threshold, min((mean - error).min(), 0.0), max((mean + error).max(), 0.0))
    axes.barh(at, mean, color=[theme.line if m >= 0 else theme.negative for m in mean], alpha=0.35, height=0.62)
    for chosen, colour in ((mean >= 0, theme.line), (mean < 0, theme.negative)):
        axes.errorbar(mean[chosen], at[chosen], xerr=error[chosen], fmt="o", markersize=4.5, color=colour, elinewidth=1.2, capsize=2.5)
    axes.set_yticks(at, [result.layer_names[i] for i in rows], fontsize=8.5, parse_math=False)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    _zero(axes, theme)
    axes.set_xlabel("mean of the diagonal ± standard error  [loss / parameter²]")


def quadrature(axes: Any, result: Result, theme: Theme) -> None:
    """The nodes of every probe's quadrature with their weights: what the density is made of."""
    ritz, weight = result.ritz, result.weight
    if ritz is None or weight is None or not np.size(ritz):
        raise ResultError(f"{result.path}: nothing to draw: it holds no quadrature")
    ritz, weight = np.atleast_2d(ritz), np.atleast_2d(weight)
    _symlog(axes.xaxis, noise_floor(result), min(np.nanmin(ritz), 0.0), max(np.nanmax(ritz), 0.0))
    axes.set_yscale("log")
    foot = max(1e-16, 0.3 * np.nanmin(weight[weight > 0])) if (weight > 0).any() else 1e-16
    if result.n_parameters:
        axes.axhline(1 / result.n_parameters, color=theme.soft, linewidth=1, linestyle=_DASHES, label="1/n: one eigenvalue in the mean")
        foot = max(foot, 1e-4 / result.n_parameters)
    for probe in range(ritz.shape[0]):
        inside = np.isfinite(ritz[probe]) & (weight[probe] > foot)
        colour = theme.series[probe % len(theme.series)]
        axes.vlines(ritz[probe][inside], foot, weight[probe][inside], color=colour, linewidth=0.7, alpha=0.45)
        axes.plot(ritz[probe][inside], weight[probe][inside], "o", markersize=3.4, color=colour, alpha=0.9,
                  label=f"probe {probe}" if probe < 6 else None)
    _zero(axes, theme)
    axes.set_ylim(foot, 2)
    axes.set_xlabel("node θ (Ritz value)  [loss / parameter²]")
    axes.set_ylabel("weight")
    axes.legend(loc="upper right", frameon=False, fontsize=9)


def _landscape(result: Result) -> tuple[Any, Any, Any, Any]:
    loss = by_path(result, "landscape/loss")
    if loss is None or not np.isfinite(loss).any():
        raise ResultError(f"{result.path}: nothing to draw: it holds no landscape")
    return loss, by_path(result, "landscape/quadratic"), by_path(result, "landscape/alpha"), by_path(result, "landscape/beta")


def is_landscape(result: Result) -> bool:
    """Whether there is a landscape and no spectrum."""
    return by_path(result, "landscape/loss") is not None and result.density is None and result.eigenvalues is None


def landscape_is_surface(result: Result) -> bool:
    return bool(_landscape(result)[0].shape[1] > 1)


def landscape_line(axes: Any, result: Result, theme: Theme) -> None:
    """The loss along one direction, its quadratic model, and how far that holds."""
    loss, quadratic, alpha, _ = _landscape(result)
    names = by_path(result, "landscape/direction") or ("direction",)
    axes.plot(alpha, loss[:, 0], "-o", color=theme.line, markersize=4, linewidth=1.7, label="loss")
    axes.plot(alpha, quadratic[:, 0], color=theme.top, linewidth=1.4, linestyle="--", label="quadratic model")
    below, above = (float(by_path(result, f"landscape/valid_{side}")[0]) for side in ("below", "above"))
    low, high = max(-below, alpha[0]), min(above, alpha[-1])
    if high > low:
        percent = 100 * (by_path(result, "landscape/tolerance") or 0.1)
        axes.axvspan(low, high, color=theme.series[2], alpha=0.13, linewidth=0, label=f"model within {percent:g} % of its change")
    seen = loss[np.isfinite(loss)]
    span = seen.max() - seen.min() or abs(seen.max()) or 1.0
    axes.set_ylim(seen.min() - 0.15 * span, seen.max() + 0.25 * span)
    _zero(axes, theme)
    axes.set_xlabel(f"along {names[0]}  [lengths of the direction]", parse_math=False)
    axes.set_ylabel("mean loss")
    axes.legend(loc="upper center", frameon=False, fontsize=9.5)


def landscape_surface(axes: Any, result: Result, theme: Theme) -> None:
    """Contours of the loss over two directions, the quadratic model's dashed."""
    loss, quadratic, alpha, beta = _landscape(result)
    names = by_path(result, "landscape/direction") or ("first direction", "second direction")
    seen = np.ma.masked_invalid(loss.T)
    low, high = float(seen.min()), float(seen.max())
    if not high > low:
        raise ResultError(f"{result.path}: nothing to draw: the loss is the same everywhere")
    logarithmic = low > 0 and high / low > 30
    levels = np.geomspace(low, high, 22) if logarithmic else np.linspace(low, high, 22)
    from matplotlib.colors import LogNorm, Normalize

    norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
    shades = axes.contourf(alpha, beta, seen, levels=levels, cmap=theme.shades, norm=norm, extend="both")
    axes.contour(alpha, beta, seen, levels=levels[2:-1:3], colors=theme.ink, linewidths=0.9)
    axes.contour(alpha, beta, np.clip(quadratic.T, low, high), levels=levels[2:-1:3], colors=theme.top, linewidths=1.2, linestyles="--")
    axes.plot([], [], color=theme.ink, linewidth=0.9, label="loss")
    axes.plot([], [], color=theme.top, linewidth=1.2, linestyle="--", label="quadratic model, the same levels")
    if alpha[0] <= 0 <= alpha[-1] and beta[0] <= 0 <= beta[-1]:
        axes.plot(0, 0, "x", color=theme.top, markersize=8, markeredgewidth=2, label="the parameters")
    bar = axes.figure.colorbar(shades, ax=axes, fraction=0.05, pad=0.02, label="mean loss", format="%.3g")
    bar.outline.set_visible(False)
    axes.set_xlabel(f"along {names[0]}", parse_math=False)
    axes.set_ylabel(f"along {names[-1]}", parse_math=False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.09), ncols=3, frameon=False, fontsize=9.5)


def block_names(result: Result) -> tuple[str, ...]:
    names = by_path(result, "block_summary/name")
    if not names:
        raise ResultError(f"{result.path}: nothing to draw: it holds no blocks")
    return tuple(names)


def block_bars(axes: Any, result: Result, theme: Theme) -> None:
    """Each diagonal block's largest eigenvalue and mean of its diagonal, on a log axis."""
    names = block_names(result)
    at = np.arange(len(names))
    drawn = False
    for key, mark, colour, text in (("largest", "o", theme.top, "largest eigenvalue"), ("mean", "D", theme.line, "mean of the diagonal")):
        value, error = by_path(result, f"block_summary/{key}"), by_path(result, f"block_summary/{key}_error")
        if value is None or not (value > 0).any():
            continue
        error = np.zeros_like(value) if error is None else np.abs(np.nan_to_num(error))
        inside = value > 0
        low = np.minimum(error, 0.9 * value)
        axes.errorbar(value[inside], at[inside], xerr=[low[inside], error[inside]], fmt=mark, markersize=5.5, color=colour, elinewidth=1.2,
                      capsize=2.5, label=text)
        drawn = True
    if not drawn:
        raise ResultError(f"{result.path}: nothing to draw: its blocks have neither eigenvalues nor traces above zero")
    axes.set_xscale("log")
    axes.set_yticks(at, names, fontsize=8.5, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(True, axis="x", color=theme.soft, alpha=0.18, linewidth=0.7)
    axes.set_xlabel("[loss / parameter²]")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=9)


def block_distances(axes: Any, result: Result, theme: Theme) -> None:
    """The Jensen-Shannon distances between blocks' densities as a heat map."""
    names, matrix = block_names(result), by_path(result, "block_summary/js_distance")
    shades = axes.imshow(np.ma.masked_invalid(matrix), vmin=0, vmax=1, cmap=theme.shades, aspect="auto")
    at = np.arange(len(names))
    axes.set_xticks(at, names, fontsize=8, rotation=90, parse_math=False)
    axes.set_yticks([])
    bar = axes.figure.colorbar(shades, ax=axes, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    mean = by_path(result, "block_summary/js_distance_mean")
    axes.set_title("Jensen-Shannon distance between the densities" + (f", mean {number(mean)}" if mean is not None and np.isfinite(mean) else ""),
                   fontsize=9.5, color=theme.soft, loc="left")


def has_block_distances(result: Result) -> bool:
    matrix = by_path(result, "block_summary/js_distance")
    return matrix is not None and bool(np.isfinite(matrix).any())
