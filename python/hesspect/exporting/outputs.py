"""Which of a model's outputs the loss takes: by name, by number, or the one that can be meant."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from hesspect.errors import UsageError
from hesspect.text import did_you_mean

Choice = str | int | Callable[[Any], torch.Tensor] | Sequence[str | int] | None
_USUAL = ("logits", "out", "prediction_logits", "last_hidden_state")  #: in this order


def _parts(value: Any) -> dict[str, Any]:
    """What a value holds, by name or number; a tensor holds nothing."""
    if isinstance(value, Mapping):
        return {str(k): v for k, v in value.items()}
    if hasattr(value, "_fields"):
        return {name: getattr(value, name) for name in value._fields}
    if isinstance(value, (tuple, list)):
        return {str(i): v for i, v in enumerate(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}


def tensors_of(value: Any, at: str = "") -> dict[str, torch.Tensor]:
    """All tensors within an output, by dotted paths."""
    if isinstance(value, torch.Tensor):
        return {at: value}
    found: dict[str, torch.Tensor] = {}
    for name, part in _parts(value).items():
        found |= tensors_of(part, f"{at}.{name}" if at else name)
    return found


def _listed(value: Any) -> str:
    return ", ".join(f"{name or 'the output'} {list(tensor.shape)}" for name, tensor in tensors_of(value).items()) or type(value).__name__


def _follow(value: Any, path: str) -> Any:
    """The part at a dotted path; a number also counts the parts that a mapping or a dataclass has."""
    for word in path.split("."):
        parts = {name: part for name, part in _parts(value).items() if part is not None}
        if word not in parts and word.lstrip("-").isdigit():
            order = list(parts.values())
            if -len(order) <= int(word) < len(order):
                value = order[int(word)]
                continue
        if word not in parts:
            raise UsageError(f"the model has no output {path!r}{did_you_mean(path, list(tensors_of(value)))}; it has {_listed(value)}")
        value = parts[word]
    return value


def _only(value: Any) -> str:
    """The path of the output that is meant where none is named."""
    found = tensors_of(value)
    if len(found) == 1:
        return next(iter(found))
    for name in _USUAL:
        if name in found:
            return name
    raise UsageError(f"the model has several outputs: choose one by output=NAME or output=NUMBER; it has {_listed(value)}" if found
                     else f"the model's output, of type {type(value).__name__}, holds no tensor")


class Chooser:
    """Takes the chosen output, or outputs, out of what the model returns. `paths` are their names, settled by the first example."""

    def __init__(self, choice: Choice, example: Any) -> None:
        self._function: Callable[[Any], torch.Tensor] | None = None
        self.paths: list[str] = []
        if choice is None:
            self.paths = [_only(example)]
        elif isinstance(choice, (str, int)):
            self.paths = [str(choice)]
        elif callable(choice):
            self._function = choice
        else:
            self.paths = [str(one) for one in choice]
        for path, value in zip(self.paths or ["output(...)"], self.all(example), strict=True):
            if not isinstance(value, torch.Tensor):
                raise UsageError(f"output {path!r} is no tensor but {type(value).__name__}; the model has {_listed(example)}")

    def all(self, value: Any) -> list[Any]:
        if self._function is not None:
            return [self._function(value)]
        return [value if path == "" else _follow(value, path) for path in self.paths]

    def first(self, value: Any) -> torch.Tensor:
        """The one that the loss takes."""
        first: torch.Tensor = self.all(value)[0]
        return first

    def __call__(self, value: Any) -> Any:
        chosen = self.all(value)
        return chosen[0] if len(chosen) == 1 else tuple(chosen)
