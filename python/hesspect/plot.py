"""Draws a result: density on a log scale, eigenvalues, the cumulative density with its band, and the numbers beside it.

    python -m hesspect.plot RESULT.h5 [-o PICTURE.png] [--title TITLE] [--layers]

With --layers the picture is another one: the mean of the diagonal of every parameter tensor.

The format follows the picture's suffix (png, pdf, svg). Exit codes: 0 done; 2 usage; 4 no such file, not a result, or the
picture can't be written.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from hesspect.result import Result, ResultError, read

INK, GREY, LINE, OUTLIER, NEGATIVE = "#1f2933", "#7b8794", "#2f5d8a", "#c2410c", "#6d28d9"
_LISTED_TOP, _LISTED_BOTTOM = 10, 3
_STYLE = {"font.size": 10.5, "axes.edgecolor": GREY, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
          "text.color": INK, "axes.spines.top": False, "axes.spines.right": False}


def _number(x):
    """A number in four significant digits, as a person would write it."""
    text = f"{x:#.4g}" if x == 0 or 1e-3 <= abs(x) < 1e5 else f"{x:.3e}"
    return text.rstrip(".").replace("-", "−")


def _density_floor(result, density):
    """Where the log axis ends below: well below what one single eigenvalue shows, or 10 decades."""
    top = density.max()
    floor = top * 1e-10
    if result.n_parameters and result.sigma:
        floor = max(floor, 0.02 / (result.n_parameters * result.sigma * np.sqrt(2 * np.pi)))
    return min(floor, top * 1e-2)


def _draw_density(axes, result):
    lam, rho = result.lambdas, result.density
    if not np.isfinite(rho).all() or not (rho > 0).any():
        raise ResultError(f"{result.path}: a broken result: the density is not a set of finite numbers above zero")
    floor = _density_floor(result, rho)
    axes.set_yscale("log")
    axes.fill_between(lam, floor, np.maximum(rho, floor), color=LINE, alpha=0.16, linewidth=0)
    if result.density_errors is not None and np.nanmax(result.density_errors) > 0:
        low, high = np.maximum(rho - result.density_errors, floor), np.maximum(rho + result.density_errors, floor)
        axes.fill_between(lam, low, high, color=LINE, alpha=0.35, linewidth=0, label="± standard error over probes")
    axes.plot(lam, np.where(rho >= floor, rho, np.nan), color=LINE, linewidth=1.6, label="spectral density")
    axes.set_ylim(floor, rho.max() * 4)
    axes.set_ylabel("density", color=INK)


def _draw_cumulative(axes, result):
    """F(lambda) as the step function it is, its band, and the bound on it in the title."""
    lam = result.cumulative_lambdas
    reach = 0.02 * (lam[-1] - lam[0]) or 1.0
    ends = lambda values, first, last: np.concatenate([[first], values, [last]])
    at = ends(lam, lam[0] - reach, lam[-1] + reach)
    if result.cumulative_lower is not None and result.cumulative_upper is not None:
        share = f"{100 * result.density_confidence:g} % band" if result.density_confidence else "band"
        axes.fill_between(at, ends(result.cumulative_lower, 0, 1), ends(result.cumulative_upper, 0, 1), step="post", color=LINE,
                          alpha=0.25, linewidth=0, label=share + (f" ({result.band})" if result.band else ""))
    axes.step(at, ends(result.cumulative, 0, 1), where="post", color=LINE, linewidth=1.6, label="cumulative density")
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set_ylim(-0.03, 1.03)
    axes.margins(x=0.0)
    axes.set_xlabel("eigenvalue λ")
    axes.set_ylabel("share of eigenvalues up to λ", color=INK)
    axes.grid(True, color=GREY, alpha=0.18, linewidth=0.7)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    if result.w1 is not None and np.isfinite(result.w1):
        axes.set_title(f"Wasserstein-1 error ≤ {_number(result.w1)}", fontsize=9.5, color=GREY, loc="left")


def _draw_eigenvalues(axes, result):
    """Each computed eigenvalue: a short stem at the foot of the picture, a mark with its error as an error bar."""
    theta = result.eigenvalues
    bound = result.eigenvalue_errors if result.eigenvalue_errors is not None else result.residuals
    error = np.zeros_like(theta) if bound is None else np.abs(np.nan_to_num(bound))
    sure = np.ones(theta.shape, bool) if result.converged is None else result.converged
    foot = axes.get_xaxis_transform()  # x in data, y in parts of the axes
    for chosen, colour, name in ((theta >= 0, OUTLIER, "eigenvalues"), (theta < 0, NEGATIVE, "negative eigenvalues")):
        if not chosen.any():
            continue
        axes.vlines(theta[chosen], 0, 0.05, transform=foot, color=colour, linewidth=1.2, alpha=0.9)
        for mask, face in ((chosen & sure, colour), (chosen & ~sure, "white")):
            if mask.any():
                label = f"{name} ± error" if face == colour else f"{name}, not converged"
                axes.errorbar(theta[mask], np.full(mask.sum(), 0.055), xerr=error[mask], fmt="o", transform=foot, markersize=5,
                              color=colour, markerfacecolor=face, elinewidth=1, capsize=2, label=label, zorder=4)


def _bulk(result):
    """The interval that holds all but about a thousandth of the spectrum, where it is a small part of the picture."""
    lam, rho = result.lambdas, result.density
    mass = np.cumsum(np.append(0.5 * (rho[1:] + rho[:-1]) * np.diff(lam), 0.0))
    low, high = np.interp([5e-4 * mass[-1], 0.999 * mass[-1]], mass, lam)
    pad = 0.25 * (high - low)
    return (low - pad, high + pad) if high - low < 0.1 * (lam[-1] - lam[0]) else None


def _draw_inset(axes, result, bulk):
    """The bulk once more, enlarged, where the main plot is empty: right of it if there is room, else left."""
    begin, end = axes.get_xlim()
    left = (bulk[1] - begin) / (end - begin) + 0.1
    width = min(0.36, 0.63 - left)
    if width < 0.2:
        left, width = 0.08, min(0.36, (bulk[0] - begin) / (end - begin) - 0.16)
    if width < 0.2:
        return
    inset = axes.inset_axes([left, 0.53, width, 0.4])
    inset.set_xlim(*bulk)
    inside = (result.lambdas >= bulk[0]) & (result.lambdas <= bulk[1])
    floor = max(axes.get_ylim()[0], result.density.max() * 1e-5)
    rho = np.maximum(result.density[inside], floor)
    inset.set_yscale("log")
    inset.fill_between(result.lambdas[inside], floor, rho, color=LINE, alpha=0.16, linewidth=0)
    if result.density_errors is not None:
        error = result.density_errors[inside]
        inset.fill_between(result.lambdas[inside], np.maximum(rho - error, floor), rho + error, color=LINE, alpha=0.35, linewidth=0)
    inset.plot(result.lambdas[inside], rho, color=LINE, linewidth=1.2)
    inset.set_ylim(floor, rho.max() * 4)
    inset.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    if result.eigenvalues is not None:
        for theta in result.eigenvalues[(result.eigenvalues > bulk[0]) & (result.eigenvalues < bulk[1])]:
            inset.axvline(theta, 0, 0.09, color=OUTLIER if theta >= 0 else NEGATIVE, linewidth=1.2)
    inset.tick_params(labelsize=8)
    inset.minorticks_off()
    inset.locator_params(axis="x", nbins=5)
    inset.set_title("the bulk, enlarged", fontsize=9, color=GREY, loc="left", pad=4)


def _listing(result):
    """The column of numbers beside the plot."""
    lines = []
    if result.n_parameters:
        lines += ["parameters", f"  {result.n_parameters:,}", ""]
    if result.trace is not None:
        error = result.trace_half_width if result.trace_half_width is not None else result.trace_stderr
        known = error is not None and np.isfinite(error) and error > 0
        lines += ["trace", f"  {_number(result.trace)}" + (f" ± {_number(error)}" if known else ""), ""]
        if result.n_parameters:
            lines += ["mean eigenvalue", f"  {_number(result.trace / result.n_parameters)}", ""]
    shares = []
    for name, share, error in (("zero", result.weight_at_zero, result.weight_at_zero_error),
                               ("negative", result.negative_mass, result.negative_mass_error)):
        if share is not None:
            known = error is not None and np.isfinite(error)
            shares.append(f"{name:<8} {100 * share:.3g}" + (f" ± {100 * error:.2g}" if known else "") + " %")
    lines += shares + [""] * bool(shares)
    theta = result.eigenvalues
    if theta is not None and theta.size:
        sure = np.ones(theta.shape, bool) if result.converged is None else result.converged
        total = theta.size
        n_top = total if result.n_top is None or result.n_magnitude else min(result.n_top, total)
        row = lambda i, n: f"{n:>4} {_number(theta[i]):>11}{'' if sure[i] else ' ?'}"
        if n_top:
            lines += ["largest |λ|" if result.n_magnitude else "largest"] + [row(i, i + 1) for i in range(min(_LISTED_TOP, n_top))]
            lines += [f"{'⋮':>4}"] if n_top > _LISTED_TOP else []
        if total > n_top:
            lines += ["smallest"] + [row(i, total - i) for i in range(max(n_top, total - _LISTED_BOTTOM), total)][::-1]
        if not sure.all():
            lines += ["", f"? not converged ({(~sure).sum()})"]
    return "\n".join(lines)


def _subtitle(result):
    """What the run was over, in one grey line."""
    parts = []
    if result.loss is not None and np.isfinite(result.loss):
        parts.append(f"mean loss {_number(result.loss)}")
    if result.n_rows:
        parts.append(f"{result.n_rows:,} rows")
    if result.alpha is not None and result.alpha.ndim == 2:
        parts.append(f"{result.alpha.shape[0]} probe{'s' if result.alpha.shape[0] > 1 else ''} × {result.alpha.shape[1]} steps")
    if result.hvp_count:
        parts.append(f"{result.hvp_count:,} products")
    return "  ·  ".join(parts)


def _matrix(result):
    return {"hessian": "Hessian", "ggn": "Gauss-Newton", "fisher": "Fisher", "empirical_fisher": "Empirical Fisher"}.get(result.curvature, "Curvature")


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_layers(result: Result, title: str | None = None):
    """A matplotlib figure of the mean of the diagonal of every parameter tensor, in the model's order.

    :raises ResultError: the result has no layers
    """
    if result.layer_means is None or not result.layer_names:
        raise ResultError(f"{result.path}: nothing to draw: it holds no layers")
    plt = _pyplot()
    mean, count = result.layer_means, result.layer_means.size
    error = None if result.layer_mean_errors is None else np.abs(np.nan_to_num(result.layer_mean_errors))
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9, min(max(3.0, 0.24 * count + 1.4), 60.0)), constrained_layout=True)
        axes.barh(np.arange(count), mean, xerr=error, color=[LINE if m >= 0 else NEGATIVE for m in mean], ecolor=GREY, capsize=2)
        axes.set_yticks(np.arange(count), result.layer_names, fontsize=8.5, parse_math=False)
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_xlabel("mean of the diagonal ± standard error  [loss / parameter²]")
        axes.grid(True, axis="x", color=GREY, alpha=0.18, linewidth=0.7)
        axes.set_title(title if title is not None else f"{_matrix(result)} by layer: {result.path.stem}", loc="left", fontsize=13,
                       fontweight="bold", parse_math=False)
    return figure


def draw(result: Result, title: str | None = None):
    """A matplotlib figure of a result.

    :param title: above the plot; None names the matrix and the file
    :raises ResultError: there is neither a density nor an eigenvalue to draw
    """
    plt = _pyplot()
    has_density = result.density is not None and result.density.size > 1
    has_eigenvalues = result.eigenvalues is not None and result.eigenvalues.size > 0
    if not has_density and not has_eigenvalues:
        raise ResultError(f"{result.path}: nothing to draw: it holds neither a density nor eigenvalues")

    has_cumulative = result.cumulative is not None and result.cumulative.size > 0 and result.cumulative_lambdas is not None
    widths = [4.2, 2.1, 1] if has_cumulative else [4.2, 1]
    with plt.rc_context(_STYLE):
        figure, (axes, *cumulative, side) = plt.subplots(1, len(widths), figsize=(14.7 if has_cumulative else 10.5, 5.8),
                                                         width_ratios=widths, constrained_layout=True)
        if has_cumulative:
            _draw_cumulative(cumulative[0], result)
        figure.get_layout_engine().set(wspace=0.05)
        if has_density:
            _draw_density(axes, result)
        else:
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
        if has_eigenvalues:
            _draw_eigenvalues(axes, result)
        axes.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set_xlabel("eigenvalue λ  [loss / parameter²]")
        axes.grid(True, which="major", color=GREY, alpha=0.18, linewidth=0.7)
        axes.margins(x=0.02)
        bulk = _bulk(result) if has_density else None
        if bulk:
            _draw_inset(axes, result, bulk)
        axes.legend(loc="upper right", frameon=False, fontsize=9.5)
        subtitle = _subtitle(result)
        axes.set_title(title if title is not None else f"{_matrix(result)} spectrum: {result.path.stem}", loc="left", fontsize=13,
                       fontweight="bold", pad=26 if subtitle else 12, parse_math=False)
        axes.text(0, 1.025, subtitle, transform=axes.transAxes, fontsize=9.5, color=GREY)
        side.set_axis_off()
        side.text(0, 1, _listing(result), transform=side.transAxes, va="top", ha="left", family="monospace", fontsize=9,
                  linespacing=1.32, bbox={"boxstyle": "round,pad=0.8", "facecolor": "#f5f7fa", "edgecolor": "#d5dbe1"})
    return figure


def save(figure, path):
    """Writes the picture under a temporary name first, so that a broken run leaves none half-written."""
    path = Path(path)
    suffix = path.suffix or ".png"
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{suffix}")
    try:
        figure.savefig(temporary, dpi=150, facecolor="white")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m hesspect.plot", description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, metavar="RESULT.h5")
    parser.add_argument("-o", "--output", type=Path, metavar="PICTURE",
                        help="default: RESULT.png, or RESULT-layers.png, beside the result")
    parser.add_argument("--title", help="default: the matrix and the file's name")
    parser.add_argument("--layers", action="store_true", help="draw the mean of the diagonal of every parameter tensor")
    args = parser.parse_args(argv)
    default = args.result.with_name(args.result.stem + "-layers.png") if args.layers else args.result.with_suffix(".png")
    output = args.output or default
    try:
        save((draw_layers if args.layers else draw)(read(args.result), args.title), output)
    except ResultError as error:
        print(f"hesspect.plot: {error}", file=sys.stderr)
        return 4
    except (OSError, ValueError) as error:  # an unwritable folder; a suffix that matplotlib does not know
        print(f"hesspect.plot: {output}: can't write the picture: {error}", file=sys.stderr)
        return 4
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
