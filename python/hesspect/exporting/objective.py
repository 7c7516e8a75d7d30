"""A loss that is a Python function: it becomes a part of the program, whose output is then the loss itself (`--loss output`).

    hesspect.spectrum(model, loader, loss=lambda logits, y: ((1 - logits.gather(1, y[:, None])).relu()).mean())

The program runs rows in micro-batches and on ranks, so that the loss must be a mean (or sum) over rows of what hangs on a row alone.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from hesspect.errors import InputError, UsageError
from hesspect.exporting.call import Inputs, Rows, as_inputs
from hesspect.exporting.outputs import Choice, Chooser
from hesspect.exporting.rows import Verdict

Function = Callable[..., Any]
TARGET, _OTHER = "target", "loss_target"  #: the argument of the program that is the target

#: functions that the program has itself, with PyTorch's defaults
NAMED: dict[Any, str] = {F.cross_entropy: "cross_entropy", F.nll_loss: "nll", F.mse_loss: "mse", F.l1_loss: "l1", F.smooth_l1_loss: "smooth_l1",
                         F.huber_loss: "huber", F.binary_cross_entropy: "bce", F.binary_cross_entropy_with_logits: "bce_with_logits"}


def _name_of(function: Function) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


class Objective:
    """The loss behind a model's chosen output.

    :param function: gives from output and target (or from the output alone, where there is no target) a number, one loss a row, or the
        mean with what it is over
    :raises UsageError: it has parameters of its own
    """

    def __init__(self, function: Function, choose: "Whole | Chooser", with_target: bool) -> None:
        self.name = _name_of(function)
        if isinstance(function, nn.Module) and any(p.requires_grad for p in function.parameters()):
            raise UsageError(f"the loss {self.name} has trainable parameters of its own: make it a part of the model, and return the loss from that")
        self._function, self._choose, self._with_target = function, choose, with_target

    def of(self, returned: Any, target: Any) -> tuple[torch.Tensor, ...]:
        """The loss, and behind it what it is the mean over, where the function says so."""
        output = self._choose.first(returned)
        value = self._function(output, target) if self._with_target else self._function(output)
        return tuple(value) if isinstance(value, (tuple, list)) else (value,)

    def __call__(self, returned: Any, target: Any = None) -> Any:
        value = self.of(returned, target)
        return value[0] if len(value) == 1 else value

    def check(self, returned: Any, target: Any, rows: Rows) -> tuple[torch.Tensor, ...]:
        """The loss at the example.

        :raises UsageError: it fails there, or gives no loss
        """
        try:
            values = self.of(returned, target)
        except Exception as error:  # whatever the function does
            said = next((line for line in str(error).splitlines() if line.strip()), "")
            raise UsageError(f"the loss {self.name} fails on the example: {type(error).__name__}: {said}") from error
        if len(values) > 2 or not all(isinstance(value, torch.Tensor) for value in values):
            given = ", ".join(type(value).__name__ for value in values)
            raise UsageError(f"the loss {self.name} gives {given}: it must give a tensor, or the mean and what it is over")
        loss = values[0]
        if not loss.is_floating_point():
            raise UsageError(f"the loss {self.name} gives {loss.dtype}: a loss is a real number")
        if loss.dim() > 1 or loss.dim() == 1 and loss.shape[0] != rows.count:
            raise UsageError(f"the loss {self.name} gives the shape {list(loss.shape)} for {rows.count} rows: it must give one number, the mean of its rows' losses, or "
                             f"one loss a row, [{rows.count}]")
        return values

    def options(self, values: tuple[torch.Tensor, ...], verdict: Verdict) -> dict[str, Any]:
        """What the program must be told of it.

        :raises UsageError: it reads across rows
        """
        if verdict.line and not verdict.is_sum:
            raise UsageError(f"the loss {self.name} reads across rows: {verdict.seen}. The program adds up what each row alone gives: let it return one loss a row; or, where "
                             "its mean is over something else than rows, the mean and what it is over. Rows that belong together, as pairs do, are told by unit_rows=")
        return {"reduction": "sum"} if verdict.is_sum else {"count_output": 1} if len(values) > 1 else {}

    def told(self, loss: torch.Tensor, options: Mapping[str, Any]) -> str:
        """For the list of losses that fit."""
        more = "".join(f" --{name.replace('_', '-')} {value}" for name, value in options.items())
        what = "one loss a row" if loss.dim() else "the sum of its rows'" if "reduction" in options else "its mean over rows" if not options else "its mean"
        return f"output{more}: {self.name}, {what}"


class Whole:
    """All that a model returns, for a loss that takes it apart."""

    paths: tuple[str, ...] = ()

    def first(self, returned: Any) -> Any:
        return returned

    def all(self, returned: Any) -> list[Any]:
        return [returned]

    __call__ = first


def chooser_for(function: Function | None, output: Choice, returned: Any) -> "Whole | Chooser":
    """What the loss gets: the chosen output; where none is chosen and several could be meant, a function gets all."""
    try:
        return Chooser(output, returned)
    except UsageError:
        if function is None or output is not None:
            raise
        return Whole()


def with_target(inputs: Inputs, target: Any, forward: Function) -> tuple[Inputs, str]:
    """The call with the target as a further argument.

    :return: that call, and the argument's name
    """
    taken = {*inspect.signature(forward).parameters, *inputs.kwargs}
    name = TARGET if TARGET not in taken else _OTHER
    if name in taken:
        raise InputError(f"the model has arguments named {TARGET} and {_OTHER}: one of them must be free, for the loss's target")
    return as_inputs(inputs.with_keyword(name, target), forward), name
