"""`hesspect.export`: any torch module, as it is called, to an exported program."""

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from hesspect.errors import InputError
from hesspect.exporting import losses, program
from hesspect.exporting.call import Inputs, Rows, as_inputs, input_names
from hesspect.exporting.outputs import Choice, Chooser
from hesspect.exporting.rows import unlike_alone
from hesspect.exporting.switches import suitable, unwrapped

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

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.parameters:,} parameters",
                 f"  inputs  {', '.join(name if at == name else f'{name} (of {at})' for at, name in self.inputs.items())}",
                 f"  output  {self.output + ' ' if self.output else ''}[{', '.join(map(str, self.shape))}]"]
        lines += [f"  --loss  {loss}" for loss in self.losses]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def arrays(self, call: Any) -> dict[str, torch.Tensor]:
        """One batch's tensors by the program's names. The batch has the form of the export's example."""
        tensors = {at: value for at, value in as_inputs(call, self.forward).leaves() if isinstance(value, torch.Tensor)}
        missing = [at for at in self.inputs if at not in tensors]
        if missing:
            raise InputError(f"a batch has no {missing[0]!r}, which the export's example had; it has {', '.join(tensors)}")
        return {name: tensors[at] for at, name in self.inputs.items()}


def export(model: nn.Module, example: Any, path: str | os.PathLike[str], *, output: Choice = None,
           batch_dim: int | Mapping[str, int | None] | None = 0, check_rows: bool = True) -> Exported:
    """Exports a model for hesspect, with its own names of parameters. The model is left as it was.

    :param model: any module; what torch.compile or DataParallel put around it is taken off
    :param example: how it is called, with one row or more: a tensor, a tuple of positional arguments, a dictionary of keyword arguments,
        or `Inputs(…)` for both. Arguments may be nested; numbers, strings and None are baked in
    :param output: which output the loss takes: a name ("logits", "decoder.out"), a number, a function of what the model returns; or
        several names, of which later ones are for `--count-output`. None: the only one, or `logits`
    :param batch_dim: the dimension that is the rows, of all inputs or by input; None: as many rows as the example has, always
    :param check_rows: look whether rows stand alone, at six rows of the example
    :raises UsageError: no such output, or inputs without rows
    :raises InputError: torch.export cannot take the model
    """
    model = unwrapped(model)
    inputs = as_inputs(example, model.forward)
    rows = Rows(inputs, batch_dim)
    alike = rows.count < 2
    if not rows.are_enough():
        inputs = rows.repeated(inputs)
        rows = Rows(inputs, batch_dim)
    with suitable(model) as switched:
        notes = list(switched)
        with torch.no_grad():
            returned = model(*inputs.args, **inputs.kwargs)
        choose = Chooser(output, returned)
        chosen = choose.first(returned)

        def first(call: Inputs) -> torch.Tensor:
            return choose.first(model(*call.args, **call.kwargs))

        wrong = unlike_alone(model, first, inputs, rows) if check_rows and not alike else ""
        if check_rows and alike:
            notes.append("the example has one row: whether rows stand alone is seen when a run starts, not here")
        with program.returning(model, choose):
            made = program.traced(model, inputs, rows)
        warnings = [wrong] if wrong else []
        warnings += _difference(made, model, choose, inputs)
    path = Path(path)
    program.save(made, path)
    exported = Exported(path, input_names(made, inputs), choose.paths[0] if choose.paths else "", _shape(chosen, rows),
                        tuple(losses.fitting(model, chosen)), tuple(notes), tuple(warnings), parameters_of(model), model.forward, program.digest(made))
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


def _difference(made: torch.export.ExportedProgram, model: nn.Module, choose: Chooser, inputs: Inputs) -> list[str]:
    """Whether the program gives what the model gives."""
    with torch.no_grad():
        expected = choose.first(model(*inputs.args, **inputs.kwargs))
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
