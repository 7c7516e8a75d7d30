"""How a model is called: positional, keyword and nested inputs, and the dimension of them that is the rows.

An example says it, as the model itself would be called:

    x                       model(x)
    (x, y)                  model(x, y)
    {"ids": x, "mask": m}   model(ids=x, mask=m)
    Inputs(x, mask=m)       model(x, mask=m)
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree

from hesspect.errors import InputError, UsageError

_MOST_ROWS = 65536  #: of a micro-batch: the bound of the exported dimension
_FEWEST = 3  #: rows that a trace needs: torch.export takes a dimension of 0 or 1 for a constant


class Inputs:
    """The arguments of one call of a model."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs
        self.names = tuple(map(str, range(len(args))))  #: of the positional ones, for people

    def __repr__(self) -> str:
        return f"Inputs({', '.join([*map(repr, self.args), *(f'{k}={v!r}' for k, v in self.kwargs.items())])})"

    def map(self, change: Any) -> "Inputs":
        """The same call with `change(leaf)` in place of every tensor."""
        args, kwargs = pytree.tree_map(lambda leaf: change(leaf) if isinstance(leaf, torch.Tensor) else leaf, (self.args, self.kwargs))
        return Inputs(*args, **kwargs)._named(self.names)

    def with_keyword(self, name: str, value: Any) -> "Inputs":
        """The same call with a keyword argument more."""
        return Inputs(*self.args, **self.kwargs, **{name: value})._named(self.names)

    def without(self, name: str | None) -> "Inputs":
        """The same call without that keyword argument."""
        return Inputs(*self.args, **{k: v for k, v in self.kwargs.items() if k != name})._named(self.names)

    def _named(self, names: tuple[str, ...]) -> "Inputs":
        self.names = (*names, *self.names[len(names):])[:len(self.args)]
        return self

    def leaves(self) -> list[tuple[str, Any]]:
        """Every value by a name for people: "x", "mask", "batch['ids']"."""
        found = pytree.tree_flatten_with_path((self.args, self.kwargs))[0]
        return [(self._words(path), value) for path, value in found]

    def _words(self, path: Any) -> str:
        first = self.names[path[1].idx] if path[0].idx == 0 else str(path[1].key)
        return first + "".join(str(key) for key in path[2:])


def _positional(forward: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the parameters that take positional arguments."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(name for name, p in inspect.signature(forward).parameters.items() if p.kind in kinds)


def as_inputs(example: Any, forward: Callable[..., Any]) -> Inputs:
    """:raises UsageError: there is no tensor in it"""
    if isinstance(example, Inputs):
        inputs = example
    elif isinstance(example, Mapping):
        inputs = Inputs(**dict(example))
    elif isinstance(example, (tuple, list)) and not hasattr(example, "_fields"):
        inputs = Inputs(*example)
    else:
        inputs = Inputs(example)
    inputs = Inputs(*inputs.args, **inputs.kwargs)._named(_positional(forward))
    _register_dataclasses(inputs)
    if not any(isinstance(value, torch.Tensor) for _, value in inputs.leaves()):
        raise UsageError("the example holds no tensor: give the model's inputs as it is called with them")
    return inputs


def _register_dataclasses(inputs: Inputs) -> None:
    """torch.export looks into dataclasses only where it knows their type."""
    waiting: list[Any] = [*inputs.args, *inputs.kwargs.values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (tuple, list)):
            waiting += value
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            if type(value) not in pytree.SUPPORTED_NODES:
                torch.export.register_dataclass(type(value), serialized_type_name=f"{type(value).__module__}.{type(value).__qualname__}")
            waiting += [getattr(value, field.name) for field in dataclasses.fields(value)]


class Rows:
    """Which dimension of which input is the rows.

    :param batch_dim: of all tensors; or of each by its name, where None is an input without rows. None alone: the number of rows is
        fixed as in the example
    """

    def __init__(self, inputs: Inputs, batch_dim: int | Mapping[str, int | None] | None) -> None:
        tensors = [(name, value) for name, value in inputs.leaves() if isinstance(value, torch.Tensor)]
        self.fixed = batch_dim is None
        if isinstance(batch_dim, Mapping):
            unknown = [name for name in batch_dim if name not in dict(tensors)]
            if unknown:
                raise UsageError(f"batch_dim names {unknown[0]!r}, which is no input; there are {', '.join(n for n, _ in tensors)}")
        self._of: dict[str, int | None] = {}
        for name, value in tensors:
            dim = batch_dim.get(name, 0) if isinstance(batch_dim, Mapping) else 0 if batch_dim is None else batch_dim
            if dim is not None and not -value.dim() <= dim < value.dim():
                raise UsageError(f"input {name!r} has {value.dim()} dimensions, and the rows are to be dimension {dim}: "
                                 "give batch_dim={name: dimension}, with None for an input without rows")
            self._of[name] = None if dim is None else dim % max(value.dim(), 1)
        sizes = {name: value.shape[d] for name, value in tensors if (d := self._of[name]) is not None}
        if not sizes:
            raise UsageError("no input has rows")
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise UsageError(f"inputs of the example differ in their number of rows ({listed}): give batch_dim={{name: dimension}}, "
                             "with None for an input without rows")
        self.count = next(iter(sizes.values()))
        if self.count == 0:
            raise UsageError("the example has no rows")

    def dims(self) -> list[int | None]:
        """Of the tensors in order."""
        return list(self._of.values())

    def take(self, inputs: Inputs, rows: list[int]) -> Inputs:
        """These rows of all inputs that have rows."""
        dims = iter(self._of.values())

        def chosen(value: torch.Tensor) -> torch.Tensor:
            dim = next(dims)
            return value if dim is None else value.index_select(dim, torch.tensor(rows, device=value.device))

        return inputs.map(chosen)

    def are_enough(self) -> bool:
        """For a trace with a free number of them."""
        return self.fixed or self.count >= _FEWEST

    def repeated(self, inputs: Inputs) -> Inputs:
        """The call with as many rows as a trace needs: the example's, again."""
        return self.take(inputs, [i % self.count for i in range(_FEWEST)])

    def dynamic_shapes(self, inputs: Inputs, free: Any) -> tuple[Any, Any] | None:
        """As torch.export takes them, by the arguments' structure."""
        if self.fixed:
            return None
        dims = iter(self._of.values())

        def shape(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                dim = next(dims)
                return {} if dim is None else {dim: free}
            if isinstance(value, Mapping):
                return {key: shape(part) for key, part in value.items()}
            if isinstance(value, (tuple, list)):
                return type(value)(*map(shape, value)) if hasattr(value, "_fields") else type(value)(map(shape, value))
            if dataclasses.is_dataclass(value) and not isinstance(value, type):  # which torch.export takes for a list of what is there
                parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
                return [shape(part) for part in parts if part is not None]
            return None

        return shape(inputs.args), shape(inputs.kwargs)


def free_rows() -> Any:
    return torch.export.Dim("batch", min=1, max=_MOST_ROWS)


def input_names(program: torch.export.ExportedProgram, inputs: Inputs) -> dict[str, str]:
    """Of each tensor of the call, in order: the program's name of it, which is the array's in a data file.

    :return: by the names of `Inputs.leaves`
    """
    kind = torch.export.graph_signature.InputKind.USER_INPUT
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind == kind]
    spec = program.call_spec.in_spec
    order = list(spec.children()[1].context) if spec is not None else []
    ordered = Inputs(*inputs.args, **{k: inputs.kwargs[k] for k in order if k in inputs.kwargs})._named(inputs.names)
    leaves = ordered.leaves()
    if len(leaves) != len(names):
        raise InputError(f"the program takes {len(names)} inputs where the example has {len(leaves)}")
    return {path: name for (path, value), name in zip(leaves, names, strict=True) if isinstance(value, torch.Tensor)}
