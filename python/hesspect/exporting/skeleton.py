"""A model without its weights: parameters that have a shape and no memory, buffers that are real.

A constructor runs as it is, but large tensors that it makes are on the meta device, initialisation is left out, and each parameter becomes
a fake tensor on the CPU. Buffers that no checkpoint holds (rotary frequencies, position ids, masks) keep the values that the
constructor gives them, as the program needs them.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn as nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

from hesspect.errors import InputError
from hesspect.text import listed

_LARGE = 1 << 22  #: numbers, from which on a tensor is made without memory
_SIZED = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)  #: their size is in their arguments
_INITIALISERS = tuple(name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_"))


def _numbers(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    size = kwargs.get("size", args[0] if args and isinstance(args[0], (tuple, list, torch.Size)) else args)
    if function is torch.full and args:
        size = args[0]
    n = 1
    for one in size if isinstance(size, (tuple, list, torch.Size)) else (size,):
        n *= one if isinstance(one, int) else 1
    return n


class _NoMemory(TorchFunctionMode):
    """Makes large tensors on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _SIZED and kwargs.get("device") is None and _numbers(func, args, kwargs) >= _LARGE:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@contextlib.contextmanager
def _without_initialisation() -> Iterator[None]:
    usual = {name: getattr(nn.init, name) for name in _INITIALISERS}
    for name in usual:
        setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
    try:
        yield
    finally:
        for name, function in usual.items():
            setattr(nn.init, name, function)


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Every parameter that a module is given loses its memory at once, so that the largest tensor is all that is ever there."""
    usual = nn.Module.register_parameter

    def register(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta and not isinstance(param, (FakeTensor, nn.parameter.UninitializedTensorMixin)):
            # Not a new object: another module may hold the same parameter, and they are tied.
            torch.utils.swap_tensors(param, nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad))
        usual(module, name, param)

    nn.Module.register_parameter = register
    try:
        yield
    finally:
        nn.Module.register_parameter = usual


def build(make: Callable[[], nn.Module], mode: FakeTensorMode) -> nn.Module:
    """A model whose parameters are fake tensors of `mode`, in evaluation mode.

    :param make: its constructor
    :raises InputError: a buffer that the program needs was made from parameters
    """
    with _parameters_on_meta(), _without_initialisation(), _NoMemory():
        model = make().eval()
    _fake_parameters(model, mode)
    _settle_buffers(model, mode)
    return model


def extend(model: nn.Module, change: Callable[[nn.Module], None], mode: FakeTensorMode) -> None:
    """Changes a model so that its new parameters have no memory either."""
    with _parameters_on_meta(), _without_initialisation(), _NoMemory():
        change(model)
    model.eval()
    _fake_parameters(model, mode)


def _fake_parameters(model: nn.Module, mode: FakeTensorMode) -> None:
    faked: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, param in module._parameters.items():
            if param is not None:
                module._parameters[name] = param if isinstance(param, FakeTensor) else faked.setdefault(id(param), _fake(param, mode))


def fake_tensor(shape: tuple[int, ...], dtype: torch.dtype, mode: FakeTensorMode) -> torch.Tensor:
    made: torch.Tensor = FakeTensor(mode, torch.empty(shape, dtype=dtype, device="meta"), torch.device("cpu"))
    return made


def _fake(param: nn.Parameter, mode: FakeTensorMode) -> nn.Parameter:
    return nn.Parameter(fake_tensor(tuple(param.shape), param.dtype, mode), requires_grad=param.requires_grad)


def _settle_buffers(model: nn.Module, mode: FakeTensorMode) -> None:
    lost: list[str] = []
    for prefix, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is None or not buffer.is_meta:
                continue
            if name in module._non_persistent_buffers_set:
                lost.append(f"{prefix}.{name}".lstrip("."))
            else:
                module._buffers[name] = fake_tensor(tuple(buffer.shape), buffer.dtype, mode)
    if lost:
        raise InputError(f"buffers that no checkpoint holds are made from weights, or have more than {_LARGE:,} numbers: {listed(lost)}; "
                         "load the model with its weights and use hesspect.export")
