"""From a module to an exported program whose weights have the module's own names.

What is exported is the module itself, with a `forward` that returns the chosen output alone, so that no wrapper puts a word before the names:
a state dict of the model fits the program as it is.
"""

import contextlib
import functools
import gc
import hashlib
import inspect
import io
import os
import sys
import sysconfig
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

import hesspect
from hesspect.errors import InputError
from hesspect.exporting.call import Inputs, Rows, free_rows


@contextlib.contextmanager
def returning(model: nn.Module, choose: Callable[..., Any], around: Callable[[], Any] = contextlib.nullcontext, takes: str | None = None) -> Iterator[None]:
    """The model with a `forward` that returns the chosen output, of the same signature.

    :param around: a context in which the model's own `forward` runs
    :param takes: a further keyword argument, which is not the model's but `choose`'s second
    """
    own = model.forward

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        further = () if takes is None else (kwargs.pop(takes),)
        with around():
            return choose(own(*args, **kwargs), *further)

    if takes is not None:
        forward.__signature__ = _with_keyword(inspect.signature(own), takes)  # type: ignore[attr-defined]

    with _set_forward(model, forward):
        yield


@contextlib.contextmanager
def _set_forward(model: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = vars(model).get("forward")
    vars(model)["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del vars(model)["forward"]
        else:
            vars(model)["forward"] = before


def _with_keyword(signature: inspect.Signature, name: str) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    at = len(parameters) - (bool(parameters) and parameters[-1].kind == inspect.Parameter.VAR_KEYWORD)
    return signature.replace(parameters=[*parameters[:at], inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY), *parameters[at:]])


def _line_of(error: BaseException) -> str:
    """The first line of an error that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) < 400 else text[:400] + "…"


def _what_failed(error: BaseException) -> str:
    if isinstance(error, GuardOnDataDependentSymNode):
        return ("it decides by the values of a tensor (a condition, .item(), float(x), a shape), and a program has one way for all values; torch.where "
                "takes either value without a decision")
    return f"{type(error).__name__}: {_line_of(error)}"


def _place_of(error: BaseException) -> str:
    """The line at which it happened of the innermost code that is not Python's, PyTorch's or this package's."""
    folders = [str(Path(module.__file__ or "").parent) for module in (torch, hesspect)]
    standard = sysconfig.get_path("stdlib") + os.sep

    def is_own(name: str) -> bool:
        in_standard = name.startswith(standard) and not name.startswith(sysconfig.get_path("purelib") + os.sep)
        return os.path.isabs(name) and not in_standard and not name.startswith(tuple(folder + os.sep for folder in folders))

    own = [frame for frame in traceback.extract_tb(error.__traceback__) if is_own(frame.filename)]
    return f" (in {own[-1].name}, {own[-1].filename} line {own[-1].lineno}: {own[-1].line})" if own else ""


@contextlib.contextmanager
def _said_on_success() -> Iterator[None]:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        yield
    sys.stderr.write(said.getvalue())


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Python's collector walks all nodes of a large graph again and again while it grows, half of the time of an export, and finds next to nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def traced(model: nn.Module, inputs: Inputs, rows: Rows) -> torch.export.ExportedProgram:
    """The program, with a free number of rows unless they are fixed.

    :raises InputError: torch.export cannot take the model
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _spelled_out(model, inputs):
                shapes = rows.dynamic_shapes(inputs, free_rows())
                # kwargs in the order of a dictionary must be the shapes' too
                dynamic = None if shapes is None else _by_argument(model, inputs, shapes)
                with _said_on_success():  # torch.export prints the graph so far where it fails
                    return torch.export.export(model, inputs.args, inputs.kwargs, dynamic_shapes=dynamic, strict=False)
        except Exception as error:  # torch.export raises what the model does
            advice = ""
            if not rows.fixed and "dynamic" in str(error).lower() and "batch" in str(error):
                advice = "; the model takes one number of rows only (len(x) fixes it, x.shape[0] does not): batch_dim=None exports it with that of the example"
            raise InputError(f"the model cannot be exported: {_what_failed(error)}{_place_of(error)}{advice}") from error


@contextlib.contextmanager
def _spelled_out(model: nn.Module, inputs: Inputs) -> Iterator[None]:
    """The model with a `forward` that names each argument of the call, instead of `*args` and `**kwargs`: torch.export asks for shapes by these names."""
    own = model.forward
    signature = inspect.signature(own)
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if all(p.kind not in collecting for p in signature.parameters.values()):
        yield
        return
    given = signature.bind(*inputs.args, **inputs.kwargs).arguments
    named: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind == inspect.Parameter.VAR_POSITIONAL:
            kind = named[-1].kind if named else inspect.Parameter.POSITIONAL_ONLY
            named += [inspect.Parameter(f"{name}_{i}", kind) for i in range(len(given.get(name, ())))]
        elif parameter.kind == inspect.Parameter.VAR_KEYWORD:
            named += [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in given.get(name, {})]
        else:
            # An argument left out would come before one of *args.
            named.append(parameter.replace(default=inspect.Parameter.empty) if name in given else parameter)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **kwargs)

    forward.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
    with _set_forward(model, forward):
        yield


def _by_argument(model: nn.Module, inputs: Inputs, shapes: tuple[Any, Any]) -> Any:
    """Dynamic shapes as torch.export wants them where there are positional and keyword arguments: by the names of `forward`."""
    args, kwargs = shapes
    if not args:
        return dict(kwargs)
    if not kwargs:
        return tuple(args)
    position = iter(args)
    return {name: kwargs[name] if name in kwargs else next(position)
            for name in inspect.signature(model.forward).bind(*inputs.args, **inputs.kwargs).arguments}


def without_idle_writes(program: torch.export.ExportedProgram) -> list[str]:
    """Takes out what writes to buffers that nothing else reads: counters, running means. In place.

    :return: the buffers' names
    """
    buffers = program.graph_signature.inputs_to_buffers

    def writes(node: torch.fx.Node) -> bool:
        return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable

    def written(node: torch.fx.Node) -> torch.fx.Node | None:
        """The buffer, through what other writes return of it."""
        at: Any = node
        while isinstance(at, torch.fx.Node) and writes(at):
            at = at.args[0] if at.args else None
        return at if isinstance(at, torch.fx.Node) and at.name in buffers else None

    def may_be_idle(node: torch.fx.Node) -> bool:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.returns:
            return False
        return not writes(node) or written(node) is not None

    idle: set[torch.fx.Node] = set()
    for node in reversed(program.graph.nodes):
        if may_be_idle(node) and idle.issuperset(node.users):
            idle.add(node)
    while wrong := [n for n in idle if (writes(n) and not idle.issuperset(written(n).users)) or not idle.issuperset(n.users)]:  # type: ignore[union-attr]
        idle.difference_update(wrong)
    names = sorted({buffers[written(n).name] for n in idle if writes(n)})  # type: ignore[union-attr]
    if names:
        for node in [n for n in reversed(program.graph.nodes) if n in idle]:
            program.graph.erase_node(node)
        program.graph_module.recompile()
    return names


def rename(program: torch.export.ExportedProgram, names: dict[str, str]) -> None:
    """Gives parameters and buffers other names, in place."""
    for spec in program.graph_signature.input_specs:
        if spec.target in names:
            spec.target = names[spec.target]
    for table in (program.state_dict, program.constants):
        for old in [name for name in table if name in names]:
            table[names[old]] = table.pop(old)


def drop(program: torch.export.ExportedProgram, names: set[str]) -> None:
    """Takes parameters out that the graph does not use."""
    specs = program.graph_signature.input_specs
    gone = {spec.arg.name for spec in specs if spec.target in names}
    for node in list(program.graph.nodes):
        if node.op == "placeholder" and node.name in gone:
            if node.users:
                raise InputError(f"{node.name} is used and cannot be left out")
            program.graph.erase_node(node)
    specs[:] = [spec for spec in specs if spec.target not in names]
    for name in names:
        program.state_dict.pop(name, None)
    program.graph_module.recompile()


def merge(program: torch.export.ExportedProgram, names: list[str]) -> str | None:
    """Makes the graph use one name of a tied weight.

    :return: the one that it uses; None where it uses none
    """
    at = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target in names}
    used = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in at and node.users]
    for other in used[1:]:
        other.replace_all_uses_with(used[0])
    if len(used) > 1:
        program.graph_module.recompile()
    return at[used[0].name] if used else None


def digest(program: torch.export.ExportedProgram) -> str:
    """SHA-256 of the graph and of all weights: the same for the same model, unlike that of the file, which has times in it."""
    made = hashlib.sha256(str(program.graph_module.code).encode())
    tables: dict[str, Any] = {**program.state_dict, **program.constants}
    for name, value in sorted(tables.items()):
        made.update(f"{name} {getattr(value, 'shape', '')} {getattr(value, 'dtype', '')} {getattr(value, 'requires_grad', '')}".encode())
        if isinstance(value, torch.Tensor) and not value.is_meta and value.numel():
            made.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()


@contextlib.contextmanager
def _unchecked() -> Iterator[None]:
    """torch.export.save also makes another form of what it writes, to see whether that can be done, and throws it away: half of its time."""
    from torch._export.serde import serialize

    usual = vars(serialize).get("canonicalize")
    if usual is None:
        yield
        return
    vars(serialize)["canonicalize"] = lambda program, *args, **kwargs: program
    try:
        yield
    finally:
        vars(serialize)["canonicalize"] = usual


@_uncollected()
def save(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes the `.pt2`; it appears under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, making = tempfile.mkstemp(prefix=".making-", suffix=".pt2", dir=path.parent)
    os.close(handle)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _unchecked():
                torch.export.save(program, making)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(making, 0o666 & ~umask)
        os.replace(making, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(making)
