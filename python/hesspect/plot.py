"""Draws a result: its density, cumulative density and numbers on one picture, or one picture for each part.

    python -m hesspect.plot RESULT.h5|SERIES.h5 [-o PICTURE.png] [--what PART] [--theme light|dark] [--title TITLE]

PART is density, cumulative (how many eigenvalues lie beyond λ), eigenvalues (by rank), layers, quadrature, blocks, features or landscape; `all` writes
one picture for each part that the result has, named RESULT-PART.png. Without --what the picture is an overview. Of a series, PART is density,
eigenvalues, trace, overlap, layers or stability, each over the training's steps.

The format follows the picture's suffix (png, pdf, svg). Exit codes: 0 done; 2 usage; 4 no such file, not a result, or the
picture can't be written.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hesspect import feature_panels, panels
from hesspect.panels import number
from hesspect.result import Result, ResultError, read
from hesspect.series import Series, is_series, open_series
from hesspect.theme import LIGHT, THEMES, Theme

_LISTED_TOP, _LISTED_BOTTOM = 10, 3


def _listing(result: Result) -> str:
    """The column of numbers beside the plot."""
    lines = []
    if result.n_parameters:
        lines += ["parameters", f"  {result.n_parameters:,}", ""]
    if result.trace is not None:
        error = result.trace_half_width if result.trace_half_width is not None else result.trace_stderr
        known = error is not None and np.isfinite(error) and error > 0
        lines += ["trace", f"  {number(result.trace)}" + (f" ± {number(error)}" if known else ""), ""]
        if result.n_parameters:
            lines += ["mean eigenvalue", f"  {number(result.trace / result.n_parameters)}", ""]
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

        def row(i: int, n: int) -> str:
            return f"{n:>4} {number(theta[i]):>11}{'' if sure[i] else ' ?'}"

        if n_top:
            lines += ["largest |λ|" if result.n_magnitude else "largest"] + [row(i, i + 1) for i in range(min(_LISTED_TOP, n_top))]
            lines += [f"{'⋮':>4}"] if n_top > _LISTED_TOP else []
        if total > n_top:
            lines += ["smallest"] + [row(i, total - i) for i in range(max(n_top, total - _LISTED_BOTTOM), total)][::-1]
        if not sure.all():
            lines += ["", f"? not converged ({(~sure).sum()})"]
    return "\n".join(lines)


def _subtitle(result: Result) -> str:
    """What the run was over, in one grey line."""
    parts = []
    if result.loss is not None and np.isfinite(result.loss):
        parts.append(f"mean loss {number(result.loss)}")
    if result.n_rows:
        parts.append(f"{result.n_rows:,} rows")
    if result.alpha is not None and result.alpha.ndim == 2:
        parts.append(f"{result.alpha.shape[0]} probe{'s' if result.alpha.shape[0] > 1 else ''} × {result.alpha.shape[1]} steps")
    if result.hvp_count:
        parts.append(f"{result.hvp_count:,} products")
    return "  ·  ".join(parts)


def _matrix(result: Result) -> str:
    return {"hessian": "Hessian", "ggn": "Gauss-Newton", "fisher": "Fisher", "empirical_fisher": "Empirical Fisher"}.get(result.curvature, "Curvature")


def _pyplot() -> Any:
    import matplotlib

    if "IPython" not in sys.modules:  # a notebook has a backend of its own
        matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def _head(figure: Any, result: Result, title: str | None, what: str) -> None:
    """The title over the whole figure."""
    figure.suptitle(title if title is not None else f"{_matrix(result)} {what}: {result.path.stem}", x=0.01, ha="left", fontsize=13,
                    fontweight="bold", parse_math=False)


Size = tuple[float, float]
Drawn = Callable[[Result, str | None, Theme], Any]


def _one_panel(panel: Callable[[Any, Result, Theme], None], what: str, size: Size | Callable[[Result], Size] = (9.6, 5.4)) -> Drawn:
    def drawn(result: Result, title: str | None, theme: Theme) -> Any:
        plt = _pyplot()
        with plt.rc_context(theme.style()):
            figure, axes = plt.subplots(figsize=size(result) if callable(size) else size, constrained_layout=True)
            panel(axes, result, theme)
            _head(figure, result, title, what)
        return figure

    return drawn


def _rows_size(result: Result) -> Size:
    return 9.6, min(max(3.0, 0.24 * panels.layer_rows(result).size + 1.6), 60.0)


def _blocks(result: Result, title: str | None, theme: Theme) -> Any:
    names = panels.block_names(result)
    plt = _pyplot()
    wide = panels.has_block_distances(result)
    with plt.rc_context(theme.style()):
        figure, axes = plt.subplots(1, 2 if wide else 1, figsize=(13.5 if wide else 8.5, min(max(3.6, 0.26 * len(names) + 2.2), 60.0)),
                                    constrained_layout=True, squeeze=False)
        panels.block_bars(axes[0][0], result, theme)
        if wide:
            panels.block_distances(axes[0][1], result, theme)
        _head(figure, result, title, "by block")
    return figure


def _features(result: Result, title: str | None, theme: Theme) -> Any:
    wide = feature_panels.has_changes(result)
    plt = _pyplot()
    with plt.rc_context(theme.style()):
        figure, axes = plt.subplots(1, 2 if wide else 1, figsize=(14 if wide else 8, 5.6), constrained_layout=True, squeeze=False)
        feature_panels.largest_over_frequency(axes[0][0], result, theme)
        if wide:
            feature_panels.change_over_largest(axes[0][1], result, theme)
        _head(figure, result, title, "by feature")
    return figure


def _landscape(result: Result, title: str | None, theme: Theme) -> Any:
    surface = panels.landscape_is_surface(result)
    panel = panels.landscape_surface if surface else panels.landscape_line
    figure = _one_panel(panel, "", (8.4, 6.6) if surface else (9.0, 5.2))(result, title or f"Loss around the parameters: {result.path.stem}", theme)
    return figure


#: How each part is drawn: (result, title, theme) -> figure
PARTS = {
    "density": _one_panel(panels.density, "spectrum"),
    "cumulative": _one_panel(panels.cumulative, "spectrum, both tails"),
    "eigenvalues": _one_panel(panels.eigenvalues, "eigenvalues", (8.4, 5.4)),
    "layers": _one_panel(panels.layers, "by layer", _rows_size),
    "quadrature": _one_panel(panels.quadrature, "quadrature"),
    "blocks": _blocks,
    "features": _features,
    "landscape": _landscape,
}
_OF_SERIES = ("trace", "overlap", "stability")  #: parts that a series has and a result has not


def draw_part(result: Result, what: str, title: str | None = None, theme: Theme = LIGHT) -> Any:
    """A matplotlib figure of one part of a result.

    :param what: one of PARTS
    :raises ResultError: the result has no such part
    """
    return PARTS[what](result, title, theme)


def draw_layers(result: Result, title: str | None = None, theme: Theme = LIGHT) -> Any:
    """A matplotlib figure of the mean of the diagonal of every parameter tensor, in the model's order.

    :raises ResultError: the result has no layers
    """
    return draw_part(result, "layers", title, theme)


def draw(result: Result, title: str | None = None, theme: Theme = LIGHT) -> Any:
    """A matplotlib figure of a result.

    :param title: above the plot; None names the matrix and the file
    :raises ResultError: there is neither a density nor an eigenvalue to draw
    """
    plt = _pyplot()
    has_cumulative = result.cumulative is not None and result.cumulative.size > 0 and result.cumulative_lambdas is not None
    widths = [3.4, 2.9, 1] if has_cumulative else [4.2, 1]
    with plt.rc_context(theme.style()):
        figure, (axes, *cumulative, side) = plt.subplots(1, len(widths), figsize=(15.6 if has_cumulative else 10.5, 5.8),
                                                         width_ratios=widths, constrained_layout=True)
        figure.get_layout_engine().set(wspace=0.05)
        panels.density(axes, result, theme)
        if has_cumulative:
            panels.cumulative(cumulative[0], result, theme)
        subtitle = _subtitle(result)
        axes.set_title(title if title is not None else f"{_matrix(result)} spectrum: {result.path.stem}", loc="left", fontsize=13,
                       fontweight="bold", pad=26 if subtitle else 12, parse_math=False)
        axes.text(0, 1.025, subtitle, transform=axes.transAxes, fontsize=9.5, color=theme.soft)
        side.set_axis_off()
        side.text(0, 1, _listing(result), transform=side.transAxes, va="top", ha="left", family="monospace", fontsize=9,
                  linespacing=1.32, bbox={"boxstyle": "round,pad=0.8", "facecolor": theme.card, "edgecolor": theme.card})
    return figure


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Writes the picture under a temporary name first, so that a broken run leaves none half-written."""
    path = Path(path)
    suffix = path.suffix or ".png"
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{suffix}")
    try:
        figure.savefig(temporary, dpi=150, facecolor=figure.get_facecolor())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _named(path: Path, what: str) -> Path:
    """PICTURE-PART.png"""
    return path.with_name(f"{path.stem}-{what}{path.suffix or '.png'}")


def _written_parts(drawn: Iterable[tuple[str, Callable[[], Any]]], path: Path, base: Path) -> list[Path]:
    """One picture for each part that there is."""
    written = []
    for what, draw_it in drawn:
        try:
            figure = draw_it()
        except ResultError as error:
            if "nothing to draw" not in str(error):
                raise
            continue
        save(figure, _named(base, what))
        written.append(_named(base, what))
        _pyplot().close(figure)
    if not written:
        raise ResultError(f"{path}: nothing to draw")
    return written


def _of_result(result: Result, args: argparse.Namespace, output: Path, theme: Theme) -> list[Path]:
    if args.what == "all":
        return _written_parts(((what, partial(draw_part, result, what, args.title, theme)) for what in PARTS), result.path, output)
    if args.what is not None and args.what not in PARTS:
        raise ResultError(f"{result.path}: nothing to draw: {args.what} is a part of series alone; a result has {', '.join(PARTS)}")
    what = args.what or ("landscape" if panels.is_landscape(result) else "features" if result.feature_name else None)
    save(draw(result, args.title, theme) if what is None else draw_part(result, what, args.title, theme), output)
    return [output]


def _of_series(series: Series, args: argparse.Namespace, output: Path, theme: Theme) -> list[Path]:
    from hesspect import series_views

    if args.what == "all":
        return _written_parts(((what, partial(series_views.draw_part, series, what, args.title, theme)) for what in series_views.PARTS), series.path, output)
    if args.what is not None and args.what not in series_views.PARTS:
        raise ResultError(f"{series.path}: nothing to draw: {args.what} is a part of results alone; a series has {', '.join(series_views.PARTS)}")
    save(series_views.draw(series, args.title, theme) if args.what is None else series_views.draw_part(series, args.what, args.title, theme), output)
    return [output]


def parser() -> argparse.ArgumentParser:
    """Of the command's line."""
    made = argparse.ArgumentParser(prog="hesspect plot", description=__doc__.splitlines()[0])
    made.add_argument("result", type=Path, metavar="RESULT.h5|SERIES.h5")
    made.add_argument("-o", "--output", type=Path, metavar="PICTURE",
                        help="default: RESULT.png, or RESULT-PART.png, beside the result")
    made.add_argument("--what", choices=[*PARTS, *_OF_SERIES, "all"],
                      help="one part alone, or each on a picture of its own; default: an overview; trace, overlap and stability are of a series")
    made.add_argument("--theme", choices=THEMES, default="light", help="of colours (default: light)")
    made.add_argument("--title", help="default: the matrix and the file's name")
    made.add_argument("--layers", dest="what", action="store_const", const="layers", help="the same as --what layers")
    return made


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    theme = THEMES[args.theme]
    picture = args.result.with_suffix(".png")
    output = args.output or (picture if args.what in (None, "all") else _named(picture, args.what))
    try:
        series = is_series(args.result)
        written = _of_series(open_series(args.result), args, output, theme) if series else _of_result(read(args.result), args, output, theme)
    except ResultError as error:
        print(f"hesspect.plot: {error}", file=sys.stderr)
        return 4
    except (OSError, ValueError) as error:  # an unwritable folder; a suffix that matplotlib does not know
        print(f"hesspect.plot: {output}: can't write the picture: {error}", file=sys.stderr)
        return 4
    print(*written, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
