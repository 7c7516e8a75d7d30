"""Which `--loss` fits an output's shape, said and never chosen: the data decide too."""

import dataclasses
from typing import Any

import torch
import torch.nn as nn

from hesspect.errors import UsageError

_LANGUAGE = ("ForCausalLM", "LMHeadModel")
_PER_TOKEN = ("ForMaskedLM", "ForTokenClassification", "ForConditionalGeneration", "ForPreTraining")


def fitting(model: nn.Module, output: torch.Tensor) -> list[str]:
    """Losses by the option's names, the likeliest first, each with the targets it wants."""
    kind, shape = type(model).__name__, list(output.shape)
    if not (output.is_floating_point() or output.is_complex()):
        return []
    if output.dim() == 0:
        return ["output: the program's own mean loss of its rows"]
    elements = f"targets [{', '.join(['N', *map(str, shape[1:])])}]"
    if output.dim() == 1:
        return ["output: one loss a row", "mse or bce_with_logits: targets [N]"]
    if output.dim() == 2:
        return [f"cross_entropy: targets [N], classes 0 to {shape[1] - 1}", f"mse or bce_with_logits: {elements}"]
    if output.dim() == 3:
        tokens = f"targets [N, {shape[1]}], ids 0 to {shape[2] - 1}"
        last = [f"causal_lm: {tokens}, which the loss shifts by one", f"masked_lm: {tokens}, -100 where none counts"]
        vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
        if kind.endswith(_LANGUAGE):
            return last[:1]
        if kind.endswith(_PER_TOKEN):
            return last[1:]
        if vocabulary == shape[2]:
            return last
        return [f"cross_entropy: targets [N, {shape[2]}], classes 0 to {shape[1] - 1} in dimension 1", *last[1:], f"mse: {elements}"]
    spatial = ", ".join(map(str, shape[2:]))
    return [f"cross_entropy: targets [N, {spatial}], classes 0 to {shape[1] - 1} in dimension 1", f"mse or bce_with_logits: {elements}"]


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss as the program's options name it, and tensors that they take from the data file."""

    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


#: PyTorch's, that the program has itself
MODULES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.BCEWithLogitsLoss, nn.SmoothL1Loss, nn.HuberLoss, nn.MSELoss, nn.L1Loss, nn.BCELoss)


def of_module(loss: nn.Module) -> Loss:
    """The options of one of PyTorch's loss modules.

    :raises UsageError: it is none that the program has, or has settings that the program's has not
    """
    name = type(loss).__name__
    options: dict[str, Any] = {}
    if getattr(loss, "reduction", "mean") != "mean":
        if loss.reduction != "sum":
            raise UsageError(f"{name} with reduction {loss.reduction!r}: mean or sum can be taken")
        options["reduction"] = "sum"
    weight = getattr(loss, "weight", None)
    if isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        if weight is not None:
            options["class_weights"] = weight.tolist()
        if loss.ignore_index != -100:
            options["ignore_index"] = loss.ignore_index
        if isinstance(loss, nn.NLLLoss):
            return Loss("nll", options)
        if loss.label_smoothing:
            options["label_smoothing"] = loss.label_smoothing
        return Loss("cross_entropy", options)
    if weight is not None:
        raise UsageError(f"{name} with weights of its terms: write them as an array of the data file, loss_weight=NAME")
    if isinstance(loss, nn.BCEWithLogitsLoss):
        if loss.pos_weight is not None:
            options["pos_weight"] = loss.pos_weight.reshape(-1).tolist()
        return Loss("bce_with_logits", options)
    if isinstance(loss, nn.SmoothL1Loss):
        return Loss("smooth_l1", {**options, "beta": loss.beta})
    if isinstance(loss, nn.HuberLoss):
        return Loss("huber", {**options, "delta": loss.delta})
    for kind, short in ((nn.MSELoss, "mse"), (nn.L1Loss, "l1"), (nn.BCELoss, "bce")):
        if isinstance(loss, kind):
            return Loss(short, options)
    raise UsageError(f"loss {name} is none of the program's: it must become a part of the program, hesspect.export(…, loss=…)")
