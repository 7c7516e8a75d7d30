"""`hesspect.export_peft`: an adapter of PEFT on a Hugging Face folder, by the two configurations alone.

Names are those of an exported PEFT model, which the base's folder and the adapter's file both fit: `--weights BASE --weights ADAPTER`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from hesspect.errors import InputError, UsageError
from hesspect.exporting import folder as folders
from hesspect.exporting import program
from hesspect.exporting.call import Inputs
from hesspect.exporting.huggingface import TASKS, constructor, example, likely_loss, read_config
from hesspect.exporting.lora import add_adapter, read_adapter
from hesspect.exporting.model_export import Exported
from hesspect.exporting.skeleton_export import export_skeleton
from hesspect.text import did_you_mean

_BEFORE = "base_model.model."  #: every name in a PEFT model


class _Adapter:
    """Puts an adapter into a model, and gives the program the names of PEFT."""

    def __init__(self, settings: dict[str, Any], train_base: bool) -> None:
        self._settings = settings
        self._train_base = train_base
        self._changed: list[str] = []

    def put(self, model: nn.Module) -> None:
        self._changed = add_adapter(model, self._settings, self._train_base)

    def take_names_off(self, made: torch.export.ExportedProgram) -> None:
        """The base's weights under the names that they had without the adapter."""
        targets = [spec.target for spec in made.graph_signature.input_specs if spec.target is not None]
        program.rename(made, {name: name.replace(".base_layer.", ".") for name in targets if ".base_layer." in name})

    def put_names_on(self, made: torch.export.ExportedProgram, renamed: dict[str, str]) -> None:
        """:param renamed: from the model's names of the base to its checkpoint's"""
        modules = {renamed.get(f"{name}.weight", f"{name}.weight").removesuffix(".weight") for name in self._changed}

        def called(name: str) -> str:
            module, _, attribute = name.rpartition(".")
            return _BEFORE + (f"{module}.base_layer.{attribute}" if module in modules else name)

        targets = [spec.target for spec in made.graph_signature.input_specs if spec.target is not None]
        program.rename(made, {name: called(name) for name in targets})


def _base_folder(config: dict[str, Any], base: str | os.PathLike[str] | None, adapter: Path) -> Path:
    named = base if base is not None else config.get("base_model_name_or_path") or ""
    if not named or not Path(named).is_dir():
        raise InputError(f"{adapter}: the model below it, {str(named)!r}, is no folder here: give its folder as base")
    return Path(named)


def export_peft(adapter: str | os.PathLike[str], path: str | os.PathLike[str], task: str, *, base: str | os.PathLike[str] | None = None,
                train: str = "adapter", seq: int | None = None, target_seq: int | None = None, inputs: Sequence[str] | None = None) -> Exported:
    """Exports a model with a LoRA adapter, without weights: they come by `--weights BASE --weights ADAPTER`.

    :param adapter: the folder with adapter_config.json
    :param base: the folder of the model below; what the adapter's configuration names, where that is a folder
    :param train: "adapter": the curvature of the adapter's weights, the base is constant; "all": of both
    :raises InputError: a folder is not what it should be, or the adapter is of a kind that is not known
    """
    if task not in TASKS:
        raise UsageError(f"no task {task!r}{did_you_mean(task, TASKS)}; there are {', '.join(TASKS)}")
    if train not in ("adapter", "all"):
        raise UsageError(f"train is adapter or all, not {train!r}")
    folder = Path(adapter)
    settings = read_adapter(folder)
    below = _base_folder(settings, base, folder)
    config = read_config(below)
    make = constructor(TASKS[task], config, below)
    stored = folders.stored_in(folders.weight_files(below))
    call = Inputs(**example(config, inputs or TASKS[task].inputs, seq, target_seq))
    return export_skeleton(make, call, Path(path), stored or None, output="logits", likely=likely_loss(config, TASKS[task]), source=str(below),
                           change=_Adapter(settings, train == "all"))
