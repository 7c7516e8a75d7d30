"""The export of a model without weights, whose checkpoint stays on the disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn as nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hesspect.exporting import losses, program
from hesspect.exporting.call import Inputs, Rows, input_names
from hesspect.exporting.checkpoint_names import CheckpointNames, names_to_save
from hesspect.exporting.folder import Stored
from hesspect.exporting.model_export import Exported, parameters_of, tell
from hesspect.exporting.outputs import Choice, Chooser
from hesspect.exporting.skeleton import build, extend
from hesspect.exporting.switches import suitable
from hesspect.text import listed


class Change(Protocol):
    """What is put into a model after its checkpoint's names are known, as an adapter."""

    def put(self, model: nn.Module) -> None: ...

    def take_names_off(self, made: torch.export.ExportedProgram) -> None: ...

    def put_names_on(self, made: torch.export.ExportedProgram, renamed: dict[str, str]) -> None: ...


def export_skeleton(make: Callable[[], nn.Module], call: Inputs, path: Path, stored: dict[str, Stored] | None, *, output: Choice,
                    likely: str, source: str, change: Change | None = None) -> Exported:
    """Exports what a constructor makes, without ever holding its weights.

    :param stored: the checkpoint's tensors; None: there is none at hand
    :param likely: the loss to name first
    :param source: what to call the checkpoint
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = build(make, mode)
    count = parameters_of(model)
    names = CheckpointNames(model, stored if stored is not None else names_to_save(model), mode)
    if change is not None:
        extend(model, change.put, mode)
        count = parameters_of(model)
    rows = Rows(call, 0)
    with suitable(model) as switched:
        notes = [*switched, *names.notes()]
        settled: list[tuple[Chooser, torch.Tensor]] = []

        def choose(returned: Any) -> Any:  # within the trace alone: some ops run on fake tensors only there
            if not settled:
                chooser = Chooser(output, returned)
                settled.append((chooser, chooser.first(returned)))
            return settled[0][0](returned)

        with mode:
            fake = call.map(mode.from_tensor)
            with program.returning(model, choose, names.converted):
                made = program.traced(model, fake, rows)
        chooser, chosen = settled[0]
    if change is not None:
        change.take_names_off(made)
    names.give_to(made)
    if change is not None:
        change.put_names_on(made, names.renamed)
    program.save(made, path)
    fitting = losses.fitting(model, chosen)
    ordered = sorted(fitting, key=lambda line: likely not in line.partition(":")[0])
    warnings = _complaints(names, stored is not None, source)
    exported = Exported(path, input_names(made, call), chooser.paths[0] if chooser.paths else "", ("N", *chosen.shape[1:]), tuple(ordered), tuple(notes),
                        tuple(warnings), count, model.forward)
    tell(exported)
    return exported


def _complaints(names: CheckpointNames, is_there: bool, source: str) -> list[str]:
    if not is_there or not names.missing:
        return []
    return [f"{source} lacks {len(names.missing)} of the model's weights ({listed(names.missing)}): it is no checkpoint of this task; give them in a "
            "further --weights file"]
