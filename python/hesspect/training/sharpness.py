"""Critical sharpness: how far along the optimiser's update the loss still falls. Two forward passes tell whether it has changed much.

With Δ the update that the optimiser makes at learning rate η, the critical step is the smallest t at which L(θ + (t/η) Δ) is no longer below L(θ), and the
critical sharpness 2/t. For gradient descent, Δ = −η g, that is the figure of `hesspect sharpness` (`critical_step`); for Adam it is that of the loss as Adam
sees it. Kalra et al. 2601.16979 follow it through trainings. It is no eigenvalue: λ₁ bounds it for gradient descent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn

from hesspect.errors import UsageError
from hesspect.training.quiet import At, bare, evaluating

_WIDTH = 1.02  #: between the ends that a search narrows the critical step to
_MOST_DOUBLINGS = 24

LossOf = Callable[[Callable[..., Any]], torch.Tensor]


def critical_step(rise: Callable[[float], float], first: float) -> float | None:
    """The smallest t > 0 with rise(t) >= 0, to 2 %: by doubling or halving, then bisection.

    :param rise: L at a step of t, minus L at 0
    :return: None where the loss does not fall for any step that was tried, or falls for all
    """
    low, high, t = 0.0, math.inf, first
    for _ in range(_MOST_DOUBLINGS):
        if rise(t) < 0:
            low = t
            t *= 2
        else:  # also where it is NaN
            high = t
            t /= 2
        if low > 0 and high < math.inf:
            break
    else:
        return None
    while high / low > _WIDTH:
        t = math.sqrt(low * high)
        if rise(t) < 0:
            low = t
        else:
            high = t
    return math.sqrt(low * high)


class CriticalSharpness:
    """Decides when an exact run is worth its time: when the critical step has changed by more than `factor` since the last one.

        CriticalSharpness(lambda model: cross_entropy(model(x), y), factor=1.5)

    A check costs two forward passes of the loss that is given: at θ, and at `factor` times or a `factor`-th of the critical step that the last search found,
    in turn. Where the loss there is on the other side than it should be, at two checks in a row that look to one side, it has changed. Then, and at the first
    check, a search finds it anew in some ten passes. It needs two further copies of the parameters on their device for the time of a check.
    """

    def __init__(self, loss: LossOf, *, factor: float = 1.5) -> None:
        """
        :param loss: of one model-like argument, on data that stay the same. It is called with something that can be called as the model is, in eval mode and
            without gradients
        :param factor: by how much the critical step must change, above 1
        """
        if not factor > 1:
            raise UsageError(f"factor is {factor}: it must be above 1")
        self.loss, self.factor = loss, factor
        self.step: float | None = None  #: critical step at the last search, in units of the learning rate
        self.passes = 0  #: forward passes so far
        self._is_first = True
        self._far = True  # which side the next check looks at
        self._seen = {True: 0, False: 0}  # checks in a row that found it changed, by side

    @property
    def sharpness(self) -> float | None:
        """2 over the critical step."""
        return None if self.step is None else 2 / self.step

    def check(self, model: nn.Module, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], rate: float) -> bool:
        """Whether an exact run is worth it.

        :param before: parameters by name before the update; after: with it
        :param rate: the learning rate of the update
        """
        model = bare(model)
        with evaluating(model):
            start = self._loss(model, before)

            def rise(step: float) -> float:
                moved = {name: torch.lerp(tensor, after[name], step / rate) for name, tensor in before.items()}
                return self._loss(model, moved) - start

            if not rate > 0 or not math.isfinite(start):
                return False
            if self.step is not None and not self._has_left(rise):
                return False
            found = critical_step(rise, self.step or rate)
        first, self._is_first = self._is_first, False
        changed = found is not None and (self.step is None or max(found / self.step, self.step / found) > self.factor)
        self._seen = {True: 0, False: 0}
        if changed:
            self.step = found
        return first or changed

    def _has_left(self, rise: Callable[[float], float]) -> bool:
        assert self.step is not None
        side, self._far = self._far, not self._far
        inside = rise(self.step * self.factor) >= 0 if side else rise(self.step / self.factor) < 0
        self._seen[side] = 0 if inside else self._seen[side] + 1
        return self._seen[side] >= 2

    def _loss(self, model: nn.Module, parameters: dict[str, torch.Tensor]) -> float:
        self.passes += 1
        return float(self.loss(At(model, parameters)))
