"""A checkpoint of PyTorch Lightning to a program with its weights. Lightning itself need not be there to read it.

The file is a pickle of a dictionary with `state_dict`, `hyper_parameters` and what training needs. Nothing in it is executed.
"""

import inspect
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from hesspect.errors import InputError, UsageError
from hesspect.exporting.model_export import Exported, export
from hesspect.exporting.outputs import Choice
from hesspect.text import listed


def read_lightning(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state dict and the hyper-parameters.

    :raises InputError: no such file, or none of Lightning's
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises what its unpickler does
        raise InputError(f"{path}: cannot be read without executing what it holds: {str(error).splitlines()[0]}; save its state_dict "
                         "by itself, torch.save({\"state_dict\": …}, FILE)") from error
    state = saved.get("state_dict") if isinstance(saved, dict) else None
    if not isinstance(state, dict):
        raise InputError(f"{path}: no checkpoint of Lightning: it has no state_dict")
    return dict(state), dict(saved.get("hyper_parameters") or {})


def _made(kind: type[nn.Module], parameters: dict[str, Any], path: str | os.PathLike[str]) -> nn.Module:
    """A module of a class by those of the hyper-parameters that its constructor takes."""
    takes = inspect.signature(kind).parameters
    takes_all = any(p.kind == inspect.Parameter.VAR_KEYWORD for p in takes.values())
    try:
        return kind(**{name: value for name, value in parameters.items() if takes_all or name in takes})
    except TypeError as error:
        raise UsageError(f"{kind.__name__} cannot be made by the hyper-parameters of {path} ({', '.join(parameters) or 'there are none'}): "
                         f"{error}; give a module instead of its class") from error


def _fit(state: dict[str, torch.Tensor], model: nn.Module, path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The state dict by the module's names: whole, or those below one attribute of the LightningModule, as `model`."""
    own = set(model.state_dict())
    prefixes = sorted({""} | {name[:i + 1] for name in state for i, letter in enumerate(name) if letter == "."}, key=len)
    best: tuple[int, str] = (-1, "")
    for prefix in prefixes:
        hits = sum(prefix + name in state for name in own)
        best = max(best, (hits, prefix), key=lambda pair: pair[0])
    prefix = best[1]
    missing = sorted(name for name in own if prefix + name not in state)
    if missing:
        raise InputError(f"{path} does not fit {type(model).__name__}: it lacks {len(missing)} of its weights ({listed(missing)})")
    return {name: state[prefix + name] for name in own}


def export_lightning(checkpoint: str | os.PathLike[str], model: nn.Module | type[nn.Module], example: Any, path: str | os.PathLike[str], *,
                     model_output: Choice = None, batch_dim: int | None = 0) -> Exported:
    """Exports a module with a Lightning checkpoint's weights, which the module then has too.

    :param model: the LightningModule, or the network in it; or its class, which is then made by the checkpoint's hyper-parameters
    :param example: how its `forward` is called, as for `hesspect.export`
    :raises InputError: the checkpoint does not fit
    """
    state, parameters = read_lightning(checkpoint)
    module = _made(model, parameters, checkpoint) if isinstance(model, type) else model
    try:
        module.load_state_dict(_fit(state, module, checkpoint))
    except RuntimeError as error:
        raise InputError(f"{checkpoint} does not fit {type(module).__name__}: {str(error).splitlines()[-1].strip()}") from error
    return export(module, example, path, output=model_output, batch_dim=batch_dim)
