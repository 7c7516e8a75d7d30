"""`hesspect.spectrum` and `hesspect.analyze`."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hesspect.errors import InputError, UsageError
from hesspect.result import Result, read
from hesspect.running import folder as folders
from hesspect.running import options as command_line
from hesspect.running import process

if TYPE_CHECKING:
    import torch
    import torch.nn as nn

    from hesspect.exporting.losses import Loss
    from hesspect.exporting.objective import Function
    from hesspect.exporting.outputs import Choice

log = logging.getLogger("hesspect")
_ROWS_TOLD = ("unit_rows", "assume_sum_over_rows")  #: options by which the user says how rows belong together
_COMMANDS = ("analyze", "density", "eigs", "trace", "landscape", "sharpness", "inputs", "features")


def _check(command: str, ranks: int, options: Mapping[str, Any]) -> None:
    """Before anything is made: usage errors come first."""
    if command not in _COMMANDS:
        raise UsageError(f"no command {command!r} makes a result; there are {', '.join(_COMMANDS)}")
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise UsageError(f"ranks is a number of processes, at least 1, not {ranks!r}")
    command_line.arguments(command, options)


def _run(command: str, inputs: Mapping[str, Any], output: Path, ranks: int, options: Mapping[str, Any], progress: bool) -> Result:
    force = bool(options.get("force"))
    given = [text for name, value in inputs.items() if value is not None for text in (f"--{name}", os.fspath(value))]
    rest = command_line.arguments(command, options)
    code = process.run([command, *given, "--output", str(output), *rest, *([] if force else ["--resume"])], ranks, progress)
    result = read(output)
    if code != 0:
        warnings.warn(f"not as good as was asked for: {_shortfall(result)}", stacklevel=3)
    return result


def _shortfall(result: Result) -> str:
    """What a run that ended with code 3 did not reach."""
    found = []
    if result.converged is not None and not result.converged.all():
        found.append(f"{int((~result.converged).sum())} of {result.converged.size} eigenvalues have not converged")
    if result.trace_converged is False:
        found.append("the trace's interval is wider than rtol_trace")
    if result.density_converged is False:
        found.append("the density's bound is above density_w1")
    return "; ".join(found) or "see the result's fields on convergence, and its warnings"


def analyze(model: str | os.PathLike[str], *, data: str | os.PathLike[str], loss: str, weights: str | os.PathLike[str] | Sequence[Any] | None = None,
            output: str | os.PathLike[str] | None = None, command: str = "analyze", ranks: int = 1,
            folder: str | os.PathLike[str] = folders.FOLDER, progress: bool = True, **options: Any) -> Result:
    """Computes the spectrum of a program's curvature, from files.

    A run that was stopped, by Ctrl-C or `max_hours`, goes on when it is called again in the same way.

    :param model: the `.pt2`; `weights`: a state dict or folder laid over it, or several; `data`: the HDF5 or safetensors file
    :param loss: one of the program's losses, as "cross_entropy"
    :param output: the result; a file in `folder`, by a hash of files and options, if it is not given
    :param command: "analyze", or "eigs", "trace", "density", "landscape", "sharpness", "inputs"
    :param ranks: processes, started by mpirun where there are several
    :param options: those of the command line, with underscores: `top=20`, `micro_batch=64`, `block={"head": "^fc"}`
    :raises UsageError: an option that there isn't, or that can't be; InputError: of files; and the other classes of hesspect.errors
    """
    _check(command, ranks, options)
    several = [weights] if isinstance(weights, (str, os.PathLike)) else list(weights or [])
    if several:
        options = {"weights": several, **options}
    if output is not None:
        place = Path(output)
    else:
        identity = [folders.file_identity(path) for path in (model, data, *several)]
        key = folders.key_of(files=identity, command=command, loss=loss, options=folders.deciding(options))
        place = Path(folder) / key / "result.h5"
    for path in (model, data, *several):
        if not Path(path).exists():
            raise InputError(f"{path}: no such file")
    place.parent.mkdir(parents=True, exist_ok=True)
    return _run(command, {"model": model, "data": data, "loss": loss}, place, ranks, options, progress)


def spectrum(model: "nn.Module", loader: Any, loss: "str | nn.Module | Function" = "cross_entropy", *, ranks: int = 1, command: str = "analyze",
             inputs: Sequence[str | int] | None = None, target: str | int | bool | None = None, output: "Choice" = None,
             batch_dim: int | Mapping[str, int | None] = 0, rows: int | None = None, seed_rows: int | None = None,
             folder: str | os.PathLike[str] = folders.FOLDER, progress: bool = True, **options: Any) -> Result:
    """Computes the spectrum of a model's curvature on the rows of a loader: exports the model, writes the data, runs the program.

    The files are in `folder`, under a name made of their content and of the options. A run that was stopped goes on when the same call is made
    again; for that the loader must give the same rows (no shuffling), and one that is finished is read back at once.

    :param loader: batches: pairs of inputs and target, dictionaries with `labels` or `target`, or one tuple or dictionary of arrays
    :param loss: one of the program's, or a loss module of PyTorch's, whose settings are taken; or a function of output and target that gives the mean
        of its rows' losses, or one loss a row, and becomes a part of the program
    :param inputs: which keys or positions of a batch go into the model; `target`: which one is the target, False: none
    :param output: which of the model's outputs the loss takes, as for `hesspect.export`
    :param rows: use so many rows, the first ones, or drawn at random by `seed_rows`
    :param ranks: processes, started by mpirun where there are several
    :param options: those of the command line, with underscores
    :raises Error: of the class of the program's exit code, with `code` and `line`
    """
    from hesspect.exporting.switches import unwrapped

    named, function = _loss(loss)
    options = {**named.options, **options}
    _check(command, ranks, options)
    with folders.making(Path(folder)) as made:
        digest, needed = _write_inputs(unwrapped(model), loader, named.name, function, made, inputs, target, output, batch_dim, rows, seed_rows,
                                       check_rows=not any(options.get(name) for name in _ROWS_TOLD))
        options = {**needed, **options}
        key = folders.key_of(inputs=digest, command=command, loss=named.name, options=folders.deciding(options))
        place = folders.settled(made, key)
    log.info("files in %s", place)
    return _run(command, {"model": place / "model.pt2", "data": place / "data.h5", "loss": named.name}, place / "result.h5", ranks, options, progress)


def _loss(loss: "str | nn.Module | Function") -> "tuple[Loss, Function | None]":
    """The program's loss, and the function that is to become a part of the model."""
    from hesspect.exporting import losses

    if isinstance(loss, str):
        return losses.Loss(loss), None
    if type(loss) in losses.MODULES:
        return losses.of_module(loss), None
    if not callable(loss):
        raise UsageError(f"loss is a name, a module or a function of output and target, not {loss!r}")
    from hesspect.exporting.objective import NAMED

    named = next((name for known, name in NAMED.items() if loss is known), None)
    return (losses.Loss("output"), loss) if named is None else (losses.Loss(named), None)


def _write_inputs(model: "nn.Module", loader: Any, loss: str, function: "Function | None", made: Path, inputs: Sequence[str | int] | None,
                  target: str | int | bool | None, output: "Choice", batch_dim: int | Mapping[str, int | None], rows: int | None, seed: int | None,
                  check_rows: bool) -> tuple[list[str], dict[str, Any]]:
    """model.pt2 and data.h5.

    :return: what tells them from others, and options that the run needs
    """
    import itertools

    from hesspect.data import write_data
    from hesspect.exporting.call import Inputs
    from hesspect.exporting.model_export import export
    from hesspect.running.batches import BatchReader, batches_of

    reader = BatchReader(model, loss if function is None else "", inputs, target)
    batches = batches_of(loader)
    first = next(batches)
    device = next((p.device for p in model.parameters()), None)
    call, wanted = reader(first)
    call, goal = (one.map(lambda value: value if device is None else value.to(device)) for one in (call, Inputs(wanted)))
    exported = export(model, call, made / "model.pt2", output=output, batch_dim=batch_dim, check_rows=check_rows, loss=function,
                      target=None if function is None else goal.args[0])

    def arrays() -> "Iterator[dict[str, torch.Tensor]]":
        for batch in itertools.chain([first], batches):
            call, wanted = reader(batch)
            found = {name: value.detach().cpu() for name, value in exported.arrays(call, wanted).items()}
            if wanted is not None and function is None:
                found["target"] = wanted.detach().cpu()
            yield found

    has_target = function is None and target is not False and not (loss == "output" and target is None)
    written = write_data(made / "data.h5", arrays(), targets="target" if has_target else False, rows=rows, seed=seed)
    if reader.said:
        log.warning("%s", reader.said)
    return [exported.digest, written.sha256], exported.options
