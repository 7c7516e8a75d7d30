"""Evaluating a model in the middle of its training without leaving a trace: modes, buffers, parameters and random numbers are as before."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn as nn


def bare(model: nn.Module) -> nn.Module:
    """The model within DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextlib.contextmanager
def random_numbers_kept(devices: list[torch.device]) -> Iterator[None]:
    """Python's, NumPy's and torch's generators, those of the devices too, go on as if nothing had been drawn."""
    import numpy

    python, array = random.getstate(), numpy.random.get_state()
    cuda = [device.index if device.index is not None else torch.cuda.current_device() for device in devices if device.type == "cuda"]
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(array)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module as in eval(), without gradients, and afterwards in the mode that it was in, each by itself."""
    modes = [(module, module.training) for module in model.modules()]
    devices = list({tensor.device for tensor in [*model.parameters(), *model.buffers()]})
    try:
        for module, _ in modes:
            module.training = False
        with random_numbers_kept(devices), torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


class At:
    """The model with other parameters, to be called as the model is; its own parameters and buffers stay as they are."""

    def __init__(self, model: nn.Module, parameters: dict[str, torch.Tensor]) -> None:
        self._model = model
        self._state = {**parameters, **{name: buffer.clone() for name, buffer in model.named_buffers()}}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(self._model, self._state, args, kwargs)
