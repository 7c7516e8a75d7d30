"""`hesspect.export`: any torch module, as it is called, to an exported program."""

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from hesspect.errors import InputError, UsageError
from hesspect.exporting import losses, program
from hesspect.exporting.call import Inputs, Rows, as_inputs, input_names
from hesspect.exporting.objective import Function, Objective, Whole, chooser_for, with_target
from hesspect.exporting.outputs import Choice
from hesspect.exporting.rows import Verdict, look
from hesspect.exporting.switches import suitable, unwrapped
from hesspect.text import listed

log = logging.getLogger("hesspect")


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export wrote, and what to give the program with it."""

    path: Path
    inputs: dict[str, str]  #: the arrays that a data file needs: the program's name of each input, by where it stands in the call
    output: str  #: which of the model's outputs it is; "" where the model returns a tensor
    shape: tuple[int | str, ...]  #: of that output, its rows as "N"
    losses: tuple[str, ...]  #: that fit it, each with its targets
    notes: tuple[str, ...]  #: what was switched for the export
    warnings: tuple[str, ...]  #: what a run will not like
    parameters: int  #: trainable numbers, tied ones once
    forward: Callable[..., Any] = dataclasses.field(repr=False, compare=False)  #: the model's, whose arguments name the inputs
    digest: str = dataclasses.field(default="", repr=False)  #: SHA-256 of graph and weights; "" where there are none
    target: str = ""  #: the argument that is the target, of a program with a loss of its own
    options: dict[str, Any] = dataclasses.field(default_factory=dict)  #: of the run, that such a loss needs

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.parameters:,} parameters",
                 f"  inputs  {', '.join(name if at == name else f'{name} (of {at})' for at, name in self.inputs.items())}",
                 f"  output  {self.output + ' ' if self.output else ''}[{', '.join(map(str, self.shape))}]"]
        lines += [f"  --loss  {loss}" for loss in self.losses]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def arrays(self, call: Any, target: Any = None) -> dict[str, torch.Tensor]:
        """One batch's tensors by the program's names. The batch has the form of the export's example.

        :param target: of a program with a loss of its own
        """
        inputs = as_inputs(call, self.forward)
        if self.target:
            inputs = inputs.with_keyword(self.target, target)
        tensors = {at: value for at, value in inputs.leaves() if isinstance(value, torch.Tensor)}
        missing = [at for at in self.inputs if at not in tensors]
        if missing:
            raise InputError(f"a batch has no {missing[0]!r}, which the export's example had; it has {', '.join(tensors)}")
        return {name: tensors[at] for at, name in self.inputs.items()}


def _first(returned: Callable[[Inputs], Any], inputs: Inputs) -> Any:
    """What the model returns. :raises InputError: only where gradients are recorded, so that it takes some itself"""
    try:
        return returned(inputs)
    except RuntimeError as error:
        try:
            with torch.enable_grad():
                returned(inputs)
        except RuntimeError:
            raise error from None
        raise InputError("the model cannot be exported: its forward takes derivatives itself (torch.autograd.grad), which torch.export does not trace; "
                         "trace it with make_fx before (docs/models.md)") from error


def export(model: nn.Module, example: Any, path: str | os.PathLike[str], *, output: Choice = None,
           batch_dim: int | Mapping[str, int | None] | None = 0, check_rows: bool = True, loss: Function | None = None, target: Any = None) -> Exported:
    """Exports a model for hesspect, with its own names of parameters. The model is left as it was.

    :param model: any module; what torch.compile or DataParallel put around it is taken off
    :param example: how it is called, with one row or more: a tensor, a tuple of positional arguments, a dictionary of keyword arguments,
        or `Inputs(…)` for both. Arguments may be nested; numbers, strings and None are baked in
    :param output: which output the loss takes: a name ("logits", "decoder.out"), a number, a function of what the model returns; or
        several names, of which later ones are for `--count-output`. None: the only one, or `logits`
    :param batch_dim: the dimension that is the rows, of all inputs or by input; None: as many rows as the example has, always
    :param check_rows: look whether rows stand alone, at six rows of the example
    :param loss: a function of output and target that becomes a part of the program, for `--loss output`: it gives the mean of its rows' losses, or
        one loss a row. It gets all that the model returns where no output is chosen and several could be meant
    :param target: the example's, an input of the program named `target`; None: `loss` takes the output alone
    :raises UsageError: no such output, inputs without rows, or a loss that reads across rows
    :raises InputError: torch.export cannot take the model
    """
    model = unwrapped(model)
    inputs, named = as_inputs(example, model.forward), None
    if target is not None:
        if loss is None:
            raise UsageError("a target is exported only together with the function that is the loss: loss=")
        inputs, named = with_target(inputs, target, model.forward)
    rows = Rows(inputs, batch_dim)
    alike = rows.count < 2
    if not rows.are_enough():
        inputs = rows.repeated(inputs)
        rows = Rows(inputs, batch_dim)
    with suitable(model) as switched:
        notes = list(switched)

        def returned(call: Inputs) -> Any:
            own = call.without(named)
            return model(*own.args, **own.kwargs)

        with torch.no_grad():
            first = _first(returned, inputs)
            choose = chooser_for(loss, output, first)
            objective = None if loss is None else Objective(loss, choose, named is not None)
            values = () if objective is None else objective.check(first, inputs.kwargs.get(named or ""), rows)

        def chosen(call: Inputs) -> tuple[torch.Tensor, ...]:
            return tuple(choose.all(returned(call)))

        def objectives(call: Inputs) -> tuple[torch.Tensor, ...]:
            return objective.of(returned(call), call.kwargs.get(named or "")) if objective is not None else chosen(call)

        check = check_rows and not alike
        verdict = look(model, chosen, inputs, rows) if check and not isinstance(choose, Whole) else Verdict()
        warnings = [verdict.line] if verdict.line else []
        options: dict[str, Any] = {}
        if objective is not None:
            of_loss = look(model, objectives, inputs, rows) if check and not warnings else Verdict()
            options = objective.options(values, of_loss)
        if check_rows and alike:
            notes.append("the example has one row: whether rows stand alone is seen when a run starts, not here")
        with program.returning(model, choose if objective is None else objective, takes=named):
            made = program.traced(model, inputs, rows)
        idle = program.without_idle_writes(made)
        if idle:
            notes.append(f"{listed(idle)} {'is' if len(idle) == 1 else 'are'} written to, and nothing reads what was written: exported without that")
        with torch.no_grad():
            expected = objectives(inputs)[0]
        warnings += _difference(made, expected, inputs)
    path = Path(path)
    program.save(made, path)
    fitting = losses.fitting(model, expected) if objective is None else [objective.told(expected, options)]
    exported = Exported(path, input_names(made, inputs), choose.paths[0] if choose.paths else "", _shape(expected, rows), tuple(fitting), tuple(notes),
                        tuple(warnings), parameters_of(model), model.forward, program.digest(made), named or "", options)
    tell(exported)
    return exported


def tell(exported: Exported) -> None:
    """What was switched, and what a run will not like, for those who don't print the result."""
    for note in exported.notes:
        log.info("%s", note)
    for warning in exported.warnings:
        log.warning("%s", warning)


def parameters_of(model: nn.Module) -> int:
    """Trainable numbers; parameters() has tied ones once."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in model.parameters() if p.requires_grad)


def _shape(chosen: torch.Tensor, rows: Rows) -> tuple[int | str, ...]:
    shape: list[int | str] = list(chosen.shape)
    if chosen.dim() and not rows.fixed and chosen.shape[0] == rows.count:
        shape[0] = "N"
    return tuple(shape)


def _difference(made: torch.export.ExportedProgram, expected: torch.Tensor, inputs: Inputs) -> list[str]:
    """Whether the program gives what the model gives."""
    with torch.no_grad():
        given = made.module()(*inputs.args, **inputs.kwargs)
        given = given[0] if isinstance(given, (tuple, list)) else given
    if given.shape != expected.shape:
        raise InputError(f"the exported program gives the shape {list(given.shape)} where the model gives {list(expected.shape)}")
    if not expected.numel() or not expected.is_floating_point():
        return []
    scale = max(float(expected.abs().max()), 1e-30)
    most = float((given - expected).abs().max())
    tolerance = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 0.1
    return [f"the exported program differs from the model by {most:.3g}, of {scale:.3g}"] if not most <= tolerance * scale else []
