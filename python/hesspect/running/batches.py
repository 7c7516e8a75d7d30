"""What of a loader's batch goes into the model, and what is the target."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn

from hesspect.errors import UsageError
from hesspect.exporting.call import Inputs

TARGETS = ("target", "targets", "labels", "label", "y")  #: keys of a batch that is a dictionary, in this order
_IGNORED = -100
Split = Callable[[Any], tuple[Inputs, torch.Tensor | None]]


def _tensor(value: Any) -> Any:
    """Arrays as tensors, within lists and dictionaries too; what is none stays."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Mapping):
        return {key: _tensor(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(map(_tensor, value))
    return torch.as_tensor(value) if hasattr(value, "__array__") else value


class BatchReader:
    """Splits batches of any of the usual forms.

    (x, y)              model(x), target y; (x, mask, y): model(x, mask)
    ({"ids": …}, y)     model(ids=…), target y
    {"ids": …, "labels": …}   model(ids=…), target labels: of the keys those that the model's `forward` takes

    :param inputs: the keys, or positions, that go into the model, where not all do
    :param target: the key or position of the target; False: there is none, as for loss "output"
    """

    def __init__(self, model: nn.Module, loss: str, inputs: Sequence[str | int] | None, target: str | int | bool | None) -> None:
        self._takes = inspect.signature(model.forward).parameters
        self._loss, self._inputs = loss, inputs
        self._target: str | int | bool | None = False if loss == "output" and target is None else target
        self.said = ""  #: what was decided that a user should know

    def __call__(self, batch: Any) -> tuple[Inputs, torch.Tensor | None]:
        batch = _tensor(batch)
        if isinstance(batch, Mapping):
            inputs, target = self._of_mapping(batch)
        elif isinstance(batch, (tuple, list)):
            inputs, target = self._of_tuple(tuple(batch))
        else:
            inputs, target = Inputs(batch), None
        if target is None and self._target is not False:
            target = self._from_ids(inputs)
        return inputs, target

    def _accepted(self, names: Iterable[str]) -> list[str]:
        if any(p.kind == inspect.Parameter.VAR_KEYWORD for p in self._takes.values()) and self._inputs is None:
            return list(names)
        return [name for name in names if name in self._takes]

    def _of_mapping(self, batch: Mapping[str, Any]) -> tuple[Inputs, torch.Tensor | None]:
        key = None
        if self._target is None:
            key = next((name for name in TARGETS if name in batch), None)
        elif self._target is not False:
            key = str(self._target)
            if key not in batch:
                raise UsageError(f"a batch has no target {key!r}; it has {', '.join(batch)}")
        names = [str(name) for name in self._inputs] if self._inputs is not None else self._accepted(name for name in batch if name != key)
        missing = [name for name in names if name not in batch]
        if missing or not names:
            raise UsageError(f"a batch has no input {missing[0]!r}; it has {', '.join(batch)}" if missing
                             else f"of a batch's keys ({', '.join(batch)}) the model's forward takes none ({', '.join(self._takes)})")
        return Inputs(**{name: batch[name] for name in names}), None if key is None else batch[key]

    def _of_tuple(self, batch: tuple[Any, ...]) -> tuple[Inputs, torch.Tensor | None]:
        place: int | None = None
        if self._target is None:
            place = len(batch) - 1 if len(batch) > 1 else None
        elif self._target is not False:
            place = int(self._target) % len(batch)
        chosen = [int(i) for i in self._inputs] if self._inputs is not None else [i for i in range(len(batch)) if i != place]
        values = [batch[i] for i in chosen]
        target = None if place is None else batch[place]
        if len(values) == 1 and isinstance(values[0], Mapping):
            return Inputs(**values[0]), target
        return Inputs(*values), target

    def _from_ids(self, inputs: Inputs) -> torch.Tensor:
        """A causal language model learns its own input, but for what is padding."""
        ids = inputs.kwargs.get("input_ids", inputs.args[0] if len(inputs.args) == 1 and not inputs.kwargs else None)
        if self._loss != "causal_lm" or not isinstance(ids, torch.Tensor):
            raise UsageError(f"a batch has no target (none of {', '.join(TARGETS)}, and no pair): name it by target=, or target=False where the loss has none")
        self.said = "the targets are the input ids themselves, as a batch has no others"
        mask = inputs.kwargs.get("attention_mask")
        if mask is None:
            return ids
        self.said += f", {_IGNORED} where attention_mask is 0"
        return ids.masked_fill(mask == 0, _IGNORED)


def batches_of(loader: Any) -> Iterator[Any]:
    """Batches, where a tuple or a dictionary of arrays is one.

    :raises UsageError: there are none
    """
    whole = isinstance(loader, (tuple, Mapping, torch.Tensor)) or hasattr(loader, "__array__")
    try:
        found = iter([loader]) if whole else iter(loader)
    except TypeError as error:
        raise UsageError(f"the loader, of type {type(loader).__name__}, gives no batches: give a DataLoader, a list of batches, or a tuple of arrays") from error
    first = next(found, None)
    if first is None:
        raise UsageError("the loader gives no batch")
    return itertools.chain([first], found)
