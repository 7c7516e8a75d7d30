"""`hesspect.export_hf`: a Hugging Face folder to a program, by its configuration alone.

The weights stay on the disk: `hesspect … --weights FOLDER` reads them, for the program's names are the checkpoint's.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from hesspect.errors import InputError, UsageError
from hesspect.exporting import folder as folders
from hesspect.exporting.call import Inputs
from hesspect.exporting.model_export import Exported
from hesspect.exporting.outputs import Choice
from hesspect.exporting.skeleton_export import export_skeleton
from hesspect.text import did_you_mean

_ROWS = 3


@dataclasses.dataclass(frozen=True)
class Task:
    """What a head is for: the library's class, the inputs, and the loss of the program that it is trained by."""

    loader: str
    inputs: tuple[str, ...]
    loss: str


TASKS = {
    "causal-lm": Task("AutoModelForCausalLM", ("input_ids",), "causal_lm"),
    "masked-lm": Task("AutoModelForMaskedLM", ("input_ids", "attention_mask"), "masked_lm"),
    "sequence-classification": Task("AutoModelForSequenceClassification", ("input_ids", "attention_mask"), "cross_entropy"),
    "token-classification": Task("AutoModelForTokenClassification", ("input_ids", "attention_mask"), "masked_lm"),
    "image-classification": Task("AutoModelForImageClassification", ("pixel_values",), "cross_entropy"),
    "seq2seq": Task("AutoModelForSeq2SeqLM", ("input_ids", "attention_mask", "decoder_input_ids"), "masked_lm"),
}
_PROBLEMS = {"regression": "mse", "multi_label_classification": "bce_with_logits"}  #: a configuration's problem_type


def read_config(folder: Path) -> Any:
    """:raises InputError: no folder, or none with a configuration that the library knows"""
    try:
        import transformers
    except ImportError as error:
        raise UsageError("a Hugging Face folder needs the package transformers: pip install transformers") from error
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; download the model first, and give its folder")
    if not (folder / "config.json").exists():
        raise InputError(f"{folder}: holds no config.json")
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # what the library raises differs by what is wrong
        raise InputError(f"{folder}: config.json is not understood: {str(error).splitlines()[0]}") from error


def constructor(task: Task, config: Any, folder: Path) -> Callable[[], nn.Module]:
    """What makes the model, quietly.

    :raises UsageError: such a model has no head for the task
    """
    import transformers

    loader = getattr(transformers, task.loader)
    if type(config) not in loader._model_mapping:
        raise UsageError(f"{folder}: a model of type {config.model_type!r} has no head for this task ({task.loader})")

    def make() -> nn.Module:
        quiet = transformers.utils.logging
        before = quiet.get_verbosity()
        quiet.set_verbosity_error()
        try:
            model: nn.Module = loader.from_config(config, dtype=torch.float32)
        finally:
            quiet.set_verbosity(before)
        return model

    return make


def _largest(config: Any, name: str, otherwise: int) -> int:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else otherwise


def example(config: Any, names: Sequence[str], seq: int | None, target_seq: int | None) -> dict[str, torch.Tensor]:
    """Inputs of the right shapes.

    :raises UsageError: an input that is none of the known ones
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    longest = _largest(text, "max_position_embeddings", _largest(text, "n_positions", 512))
    if seq is not None and not 1 < seq <= longest:
        raise UsageError(f"a sequence length of {seq} is not between 2 and the model's {longest}")
    length = seq or min(512, longest)
    tokens = torch.zeros(_ROWS, length, dtype=torch.int64)
    made: dict[str, torch.Tensor] = {}
    for name in names:
        if name == "pixel_values":
            size = getattr(config, "image_size", 224)
            height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
            made[name] = torch.zeros(_ROWS, _largest(config, "num_channels", 3), height, width)
        elif name in ("decoder_input_ids", "decoder_attention_mask"):
            made[name] = torch.full((_ROWS, target_seq or length), int(name != "decoder_input_ids"), dtype=torch.int64)
        elif name in ("input_ids", "attention_mask", "token_type_ids", "position_ids"):
            made[name] = tokens + int(name == "attention_mask")
        else:
            raise UsageError(f"no input {name!r} is known{did_you_mean(name, ('input_ids', 'attention_mask', 'token_type_ids', 'pixel_values'))}")
    return made


def export_hf(folder: str | os.PathLike[str], path: str | os.PathLike[str], task: str, *, seq: int | None = None, target_seq: int | None = None,
              inputs: Sequence[str] | None = None, output: Choice = None) -> Exported:
    """Exports the model of a Hugging Face folder, without its weights.

    :param folder: with config.json; where it has weights, the headers of these files tell their names
    :param task: one of TASKS: the head, the inputs and the loss
    :param seq: tokens a row, 512 or as many as the model has positions for; `target_seq`: of the decoder, as many
    :param inputs: others than the task's, as ("input_ids", "attention_mask", "token_type_ids")
    :param output: as `hesspect.export`; the logits
    :raises UsageError: no such task, or the model has no head for it
    :raises InputError: the folder is not what it should be, or the model cannot be exported
    """
    if task not in TASKS:
        raise UsageError(f"no task {task!r}{did_you_mean(task, TASKS)}; there are {', '.join(TASKS)}")
    folder, path = Path(folder), Path(path)
    config = read_config(folder)
    files = folders.weight_files(folder)
    stored = folders.stored_in(files)
    call = Inputs(**example(config, inputs or TASKS[task].inputs, seq, target_seq))
    return export_skeleton(constructor(TASKS[task], config, folder), call, path, stored or None, output=output or "logits",
                           likely=likely_loss(config, TASKS[task]), source=str(folder))


def likely_loss(config: Any, task: Task) -> str:
    """The program's loss that the model is trained by."""
    of_rows = task.loss == "cross_entropy"
    problem = getattr(config, "problem_type", None)
    return _PROBLEMS.get(problem, task.loss) if of_rows and problem else task.loss
