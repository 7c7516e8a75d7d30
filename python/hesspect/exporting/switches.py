"""What of a model's settings cannot be differentiated twice, or not exported: switched for the export, and put back.

Each switch says what it did in a line for the user. Where nothing had to be changed, nothing is said.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn as nn
import torch.utils.checkpoint

from hesspect.errors import InputError
from hesspect.text import count

_ATTENTION = ("eager", "sdpa")  #: implementations of Hugging Face's that are plain ops
_EXPERTS = ("grouped_mm", "batched_mm")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model within what torch.compile, DataParallel and their like put around it.

    :raises InputError: it is TorchScript's
    """
    while True:
        if isinstance(model, torch.jit.ScriptModule):
            raise InputError("a TorchScript module cannot be exported: give the module that it was made from, with its state dict")
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


class _Undo(contextlib.ExitStack):
    """Sets values, and sets them back at the end, last first."""

    def set(self, owner: Any, name: str, value: Any) -> None:
        had = name in vars(owner) or hasattr(type(owner), name)
        old = getattr(owner, name)
        self.callback((lambda: setattr(owner, name, old)) if had else (lambda: delattr(owner, name)))
        setattr(owner, name, value)


@contextlib.contextmanager
def suitable(model: nn.Module) -> Iterator[list[str]]:
    """The model as it can be exported and differentiated twice, within the block.

    :return: what was switched, a line each
    """
    notes: list[str] = []
    with _Undo() as undo:
        for switch in (_buffers, _evaluation, _attention, _experts, _checkpointing, _cache, _fast_paths):
            switch(model, undo, notes)
        yield notes


def _buffers(model: nn.Module, undo: _Undo, notes: list[str]) -> None:
    """Counters and running values that `forward` writes are as they were afterwards."""
    del notes

    def restore(owner: nn.Module, name: str, buffer: torch.Tensor, version: int, values: torch.Tensor) -> None:
        if buffer._version != version:
            with torch.no_grad():
                buffer.copy_(values)
        owner._buffers[name] = buffer

    for module in model.modules():
        for name, buffer in module._buffers.items():
            if type(buffer) is torch.Tensor and not buffer.is_meta:
                undo.callback(restore, module, name, buffer, buffer._version, buffer.clone())


def _evaluation(model: nn.Module, undo: _Undo, notes: list[str]) -> None:
    training = [module for module in model.modules() if module.training]
    for module in training:
        undo.callback(setattr, module, "training", True)
        module.training = False
    drops = [m for m in training if "dropout" in type(m).__name__.lower() and getattr(m, "p", 1) != 0]
    norms = [m for m in training if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    told = [count(len(found), noun) for found, noun in ((drops, "dropout module"), (norms, "batch norm")) if found]
    if told:
        notes.append(f"{' and '.join(told)} in training mode: exported in evaluation mode, as rows that stand alone and a loss that "
                     "is the same at every run need it")
    elif training:
        notes.append("the model is in training mode: exported in evaluation mode")


def _configs(model: nn.Module, able: Callable[[nn.Module], bool] = lambda module: True) -> list[Any]:
    """Hugging Face's configurations of the model and of its parts, each once.

    :param able: whether a module's configuration counts
    """
    found: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "to_dict") and able(module):
            found.setdefault(id(config), config)
    return list(found.values())


def _change(configs: list[Any], undo: _Undo, name: str, wrong: Callable[[Any], bool], right: Any) -> list[str]:
    """:return: the values that were there before, each once"""
    before: list[str] = []
    for config in configs:
        value = getattr(config, name, None)
        if isinstance(value, (str, bool)) and wrong(value):
            before.append(str(value))
            undo.set(config, name, right)
    return list(dict.fromkeys(before))


def _attention(model: nn.Module, undo: _Undo, notes: list[str]) -> None:
    right = "sdpa" if getattr(model, "_supports_sdpa", True) else "eager"
    # The public name is a property that also changes the parts' configurations, which would not be put back one by one.
    before = _change(_configs(model), undo, "_attn_implementation_internal", lambda value: value not in _ATTENTION, right)
    if before:
        notes.append(f"attention {', '.join(before)} has no second derivative: exported as {right}")


def _has_experts(module: nn.Module) -> bool:
    able = getattr(module, "_can_set_experts_implementation", None)
    return able is not None and bool(able())


def _experts(model: nn.Module, undo: _Undo, notes: list[str]) -> None:
    # PyTorch's grouped product has no kernel for float64.
    able = _EXPERTS[1:] if any(p.dtype == torch.float64 for p in model.parameters()) else _EXPERTS
    before = _change(_configs(model, _has_experts), undo, "_experts_implementation_internal", lambda value: value not in able, able[0])
    if before:
        notes.append(f"experts {', '.join(before)} have shapes that depend on the data, no second derivative or no kernel: exported as {able[0]}")


def _plainly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """torch.utils.checkpoint.checkpoint without the checkpoint."""
    own = ("use_reentrant", "preserve_rng_state", "context_fn", "determinism_check", "debug", "early_stop")
    return function(*args, **{k: v for k, v in kwargs.items() if k not in own})


def _checkpointing(model: nn.Module, undo: _Undo, notes: list[str]) -> None:
    switched = False
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False) is True:
            undo.set(module, "gradient_checkpointing", False)
            switched = True
    usual = torch.utils.checkpoint.checkpoint
    undo.set(torch.utils.checkpoint, "checkpoint", _plainly)
    for name in {type(module).__module__ for module in model.modules()}:
        source = sys.modules.get(name)
        for key, value in list(vars(source).items()) if source is not None else ():
            if value is usual:
                undo.set(source, key, _plainly)
                switched = switched or not name.startswith(("torch.", "transformers."))
    if switched:
        notes.append("gradient checkpointing: exported without it (hesspect rebuilds values by itself)")


def _cache(model: nn.Module, undo: _Undo, notes: list[str]) -> None:
    if _change(_configs(model), undo, "use_cache", lambda value: value is True, False):
        notes.append("use_cache: exported without a cache of keys and values")


def _mask_as_given(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    """Instead of nn.Transformer's look whether a mask is the causal one: its values are not there in an export. It is a hint for speed alone."""
    del mask, size
    return is_causal is True


def _fast_paths(model: nn.Module, undo: _Undo, notes: list[str]) -> None:
    """nn.TransformerEncoder's fused inference path, its look at the mask's values, and autocast."""
    del notes
    if hasattr(nn.modules.transformer, "_detect_is_causal_mask"):
        undo.set(nn.modules.transformer, "_detect_is_causal_mask", _mask_as_given)
    usual = torch.backends.mha.get_fastpath_enabled()
    undo.callback(torch.backends.mha.set_fastpath_enabled, usual)
    torch.backends.mha.set_fastpath_enabled(False)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and getattr(module, "use_nested_tensor", False):
            undo.set(module, "use_nested_tensor", False)
            undo.set(module, "enable_nested_tensor", False)
    for device in ("cpu", "cuda"):
        undo.enter_context(torch.autocast(device, enabled=False))
    undo.enter_context(torch.enable_grad())
