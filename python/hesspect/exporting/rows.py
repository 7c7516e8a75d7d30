"""Whether rows stand alone: what the model makes of a row may not depend on the rows beside it.

The program checks this itself, at the start of every run and more strictly (docs/data.md). Here it is seen before the export, and the module
where rows meet is named.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn

from hesspect.exporting.call import Inputs, Rows

_ROWS = 6  #: that are looked at
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}  #: of the largest entry

Call = Callable[[Inputs], tuple[torch.Tensor, ...]]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found of the rows."""

    line: str = ""  #: what is wrong, and what to do; "" where rows stand alone
    seen: str = ""  #: what is wrong alone
    is_sum: bool = False  #: the output is the sum of its rows' values, not their mean


def _differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape:
        return True
    if not (a.is_floating_point() or a.is_complex()):
        return not torch.equal(a, b)
    scale = max(float(a.abs().nan_to_num(0, 0, 0).max()), 1e-30) if a.numel() else 1.0
    same = (a == b) | (a.isnan() & b.isnan())  # infinities too
    return not bool((same | ((a - b).abs() <= _TOLERANCE.get(a.dtype, 1e-3) * scale)).all())


@contextmanager
def _watched(model: nn.Module, seen: list[tuple[str, torch.Tensor]]) -> Iterator[None]:
    """Writes down what each module without parts returns, in the order in which they run."""
    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                seen.append((name, output.detach()))

        return hook

    handles = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if not list(m.children())]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first_mixing(model: nn.Module, call: Call, together: Inputs, copies: Inputs, count: int) -> str:
    """The first module whose output for row 0 changes, " (in …)"."""
    with_others: list[tuple[str, torch.Tensor]] = []
    by_itself: list[tuple[str, torch.Tensor]] = []
    with _watched(model, with_others):
        call(together)
    with _watched(model, by_itself):
        call(copies)
    modules = dict(model.named_modules())
    for (name, many), (_, one) in zip(with_others, by_itself, strict=False):  # a model may take another way
        if many.dim() and one.dim() and many.shape[0] == count and one.shape[0] == count + 1 and _differ(one[0], many[0]):
            kind = type(modules[name]).__name__
            norm = isinstance(modules[name], nn.modules.batchnorm._BatchNorm)
            return f", first in {name or 'the model'} ({kind}{', which takes its statistics from the batch' if norm else ''})"
    return ""


def look(model: nn.Module, call: Call, inputs: Inputs, rows: Rows) -> Verdict:
    """Whether rows stand alone.

    :param call: gives the output that the loss takes, and behind it what a scalar is the mean over, where the model says that
    """
    count = min(rows.count, _ROWS)
    if count < 2:
        return Verdict()
    with torch.no_grad():
        together = rows.take(inputs, list(range(count)))
        # A row among copies of itself, one more than there were rows: some layers refuse a single one.
        copies = [rows.take(inputs, [i] * (count + 1)) for i in range(count)]
        whole, *counted = call(together)
        if whole.dim() == 0:
            return _scalar(whole, [one for one in counted[:1] if one.dim() < 2], [call(one) for one in copies], count)
        dim = _dim_of_rows(whole, call(copies[0])[0], count)
        if dim is None:
            seen = f"the output has the shape {list(whole.shape)} for {count} rows: none of its dimensions is the rows"
            return Verdict(seen, seen)
        for i in range(count):
            alone = call(copies[i])[0]
            if _differ(alone.select(dim, 0), whole.select(dim, i)):
                where = _first_mixing(model, call, together, copies[0], count) if i == 0 else ""
                seen = f"row {i} of the output is another one when other rows go through the model with it{where}"
                return Verdict(f"rows do not stand alone: {seen}; hesspect takes such a model only with --unit-rows, or not at all (docs/data.md)", seen)
    return Verdict()


def _dim_of_rows(whole: torch.Tensor, alone: torch.Tensor, count: int) -> int | None:
    if whole.dim() != alone.dim():
        return None
    changed = [d for d in range(whole.dim()) if whole.shape[d] == count and alone.shape[d] == count + 1]
    return changed[0] if changed else None


def _scalar(whole: torch.Tensor, counted: list[torch.Tensor], parts: list[tuple[torch.Tensor, ...]], count: int) -> Verdict:
    """:param parts: of each row's copies, count + 1 of them; `counted`: what `whole` is the mean over, of all rows together"""
    values = torch.stack([part[0].reshape(()) for part in parts])
    if counted:
        weights = torch.stack([part[1].sum().to(values.dtype) for part in parts]) / (count + 1)
        of_rows = torch.where(weights == 0, 0, values * weights).sum() / weights.sum()  # a mean over nothing is NaN
        if not _differ(weights.sum(), counted[0].sum().to(values.dtype)) and not _differ(of_rows, whole):
            return Verdict()
        seen = (f"over {count} rows it is {float(whole):.6g} of a count of {float(counted[0].sum()):.6g}, where the rows' own values make "
                f"{float(of_rows):.6g} of {float(weights.sum()):.6g}")
        return Verdict(f"the output is no mean over what is counted: {seen}", seen)
    if not _differ(values.mean(), whole):
        return Verdict()
    total = values.sum() / (count + 1)
    if not _differ(total, whole):
        line = "the output is the sum of its rows' values, not their mean: with --loss output give --reduction sum"
        return Verdict(line, line, is_sum=True)
    seen = f"over {count} rows it is {float(whole):.6g}, where the mean of the rows' own values is {float(values.mean()):.6g} and their sum {float(total):.6g}"
    return Verdict("the output is neither mean nor sum of its rows' values: let the model return what its mean is over, too, and choose both, "
                   "output=(\"loss\", \"count\"), for --loss output --count-output 1; or return one loss a row", seen)
