"""What `hesspect features` found, drawn on axes of matplotlib: curvature over frequency, and the loss's change over curvature."""

from typing import Any

import numpy as np

from hesspect.result import Result, ResultError
from hesspect.theme import Theme

_NAMED = 12  #: features that have their name beside them


def _features(result: Result) -> Any:
    if not result.feature_name or result.feature_largest is None:
        raise ResultError(f"{result.path}: nothing to draw: it holds no features")
    return np.asarray(result.feature_name)


def has_changes(result: Result) -> bool:
    return result.feature_change is not None and result.feature_change.size > 0


def _marks(axes: Any, result: Result, x: Any, y: Any, low: Any, high: Any, theme: Theme) -> bool:
    """Dots with error bars where both are above zero; nested features are open. The first ones are named."""
    nested = np.zeros(x.shape, bool) if result.feature_nested is None else result.feature_nested
    shown = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    if not shown.any():
        return False
    for chosen, colour, mark, name in ((shown & ~nested, theme.top, "o", "features"), (shown & nested, theme.line, "D", "with smaller ones in them")):
        if chosen.any():
            below, above = np.minimum(np.nan_to_num(low[chosen]), 0.9 * y[chosen]), np.nan_to_num(high[chosen])
            axes.errorbar(x[chosen], y[chosen], yerr=[below, above], fmt=mark, markersize=5, color=colour, elinewidth=1, capsize=2,
                          markerfacecolor=theme.paper if mark == "D" else colour, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True, which="major", color=theme.soft, alpha=0.18, linewidth=0.7)
    axes.legend(loc="best", frameon=False, fontsize=9)
    names, own = _features(result), shown & ~nested
    for i in np.flatnonzero(own if own.any() else shown)[:_NAMED] if shown.sum() <= 3 * _NAMED else ():
        axes.annotate(names[i], (x[i], y[i]), xytext=(4, 3), textcoords="offset points", fontsize=7, color=theme.soft, parse_math=False)
    if lost := int((~shown).sum()):
        axes.text(0.01, 0.99, f"{lost} not known, or not above zero: not drawn", transform=axes.transAxes, va="top", fontsize=8, color=theme.soft)
    return True


def largest_over_frequency(axes: Any, result: Result, theme: Theme) -> None:
    """λ₁ of each feature's block over the share of the rows that touch it; where that is not known, by rank."""
    _features(result)
    value, error = result.feature_largest, np.abs(result.feature_largest_error)
    frequency = result.feature_frequency
    known = frequency is not None and (np.isfinite(frequency) & (frequency > 0) & (value > 0)).any()
    x = frequency if known else np.arange(1.0, value.size + 1)
    if not _marks(axes, result, x, value, error, error, theme):
        raise ResultError(f"{result.path}: nothing to draw: no feature has an eigenvalue above zero")
    axes.set_xlabel("share of the data's rows that touch it" if known else "rank")
    axes.set_ylabel("λ₁ of the feature's block  [loss / parameter²]")


def change_over_largest(axes: Any, result: Result, theme: Theme) -> None:
    """The mean change of the loss at the first relative size over λ₁, with what the quadratic model says."""
    change = result.feature_change[:, 0]
    low, high = change - result.feature_change_lower[:, 0], result.feature_change_upper[:, 0] - change
    if _marks(axes, result, result.feature_largest, change, low, high, theme):
        predicted = result.feature_change_predicted[:, 0]
        shown = (predicted > 0) & (result.feature_largest > 0)
        axes.plot(result.feature_largest[shown], predicted[shown], "x", markersize=4, color=theme.soft, label="quadratic model", zorder=1)
        axes.legend(loc="best", frameon=False, fontsize=9)
    axes.set_xlabel("λ₁ of the feature's block  [loss / parameter²]")
    axes.set_ylabel(f"change of the loss at ρ = {result.feature_rho[0]:g}  [loss]")
