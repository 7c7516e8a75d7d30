"""A Hugging Face model's weights under the names of its checkpoint.

The library's own models often have other names than the files that are read into them, and other tensors: one for all experts where the file has
one for each, say. `transformers` converts when it loads. Here the program takes the file's tensors as its parameters, and the
conversion is a part of the program: the curvature is that of the weights as they are stored, and `--weights FOLDER` fits.
"""

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn as nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hesspect.exporting import program
from hesspect.exporting.folder import Stored
from hesspect.exporting.skeleton import fake_tensor
from hesspect.text import listed

_SOURCES, _EXTRA = "_hesspect_sources", "_hesspect_extra"
_COUNTERS = ("num_batches_tracked", "position_ids", "inv_freq", "masked_bias", "n_averaged")  #: may be in files and no program


class _Conversion:
    """Some of a checkpoint's tensors to one or more of the model's, by the library's own rule."""

    def __init__(self, converter: Any, layer: str) -> None:
        self.layer = layer
        self.converter = deepcopy(converter)
        for operation in self.converter.operations:
            # The library's rules run without gradients; within the program they must have them.
            plain = getattr(type(operation).convert, "__wrapped__", None)
            if plain is not None:
                operation.convert = functools.partial(plain, operation)
        self.sources: list[tuple[str, str]] = []  # pattern, name in the checkpoint

    def __call__(self, tensors: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
        collected: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
        for pattern, name in self.sources:
            collected[pattern].append(tensors[name])
        self.converter.collected_tensors = collected
        made = self.converter.convert(self.layer, model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


def _rules(model: nn.Module) -> tuple[list[Any], list[Any]]:
    """The library's renamings and conversions for a model; none in versions that have no such rules."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming
    except ImportError:
        return [], []
    rules = get_model_conversion_mapping(model)
    return [r for r in rules if isinstance(r, WeightRenaming)], [r for r in rules if isinstance(r, WeightConverter)]


def names_to_save(model: nn.Module) -> dict[str, Stored]:
    """What `save_pretrained` would write: the names where no checkpoint is at hand. Tied weights are there once."""
    first: dict[int, str] = {}
    kept: dict[str, torch.Tensor] = {}
    targets = getattr(model, "all_tied_weights_keys", None) or {}
    for name, value in model.state_dict(keep_vars=True).items():
        if name not in targets and first.setdefault(id(value), name) == name:
            kept[name] = value.detach()
    with contextlib.suppress(ImportError):
        from transformers.core_model_loading import revert_weight_conversion

        kept = revert_weight_conversion(model, kept)
    return {name: Stored(tuple(value.shape), value.dtype) for name, value in kept.items()}


class CheckpointNames:
    """How a model's weights are called in its checkpoint. Gives the model the checkpoint's parameters where they differ from its own.

    :param stored: the checkpoint's names and forms
    """

    def __init__(self, model: nn.Module, stored: dict[str, Stored], mode: FakeTensorMode) -> None:
        self.model = model
        self.conversions: list[_Conversion] = []
        self.renamed: dict[str, str] = {}  # the model's name: the checkpoint's
        self.extra: list[str] = []  # of the checkpoint, of no use to the model
        self._pair(stored)
        self._sources = [name for conversion in self.conversions for _, name in conversion.sources]
        with mode, torch.no_grad():
            self._put_sources(stored, mode)
        self.missing = self._find_missing()
        self._ties = self._find_ties()
        self._put_extra(stored, mode)

    def _pair(self, stored: dict[str, Stored]) -> None:
        renamings, converters = _rules(self.model)
        of_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
        own = self.model.state_dict()
        prefix = getattr(self.model, "base_model_prefix", "") or None
        by_layer: dict[str, _Conversion] = {}
        for name in _natural(stored):
            target, pattern = _target(name, renamings, converters, prefix, own)
            if target not in own:
                self.extra.append(name)
            elif pattern is not None:
                conversion = by_layer.setdefault(target, _Conversion(of_pattern[pattern], target))
                conversion.sources.append((pattern, name))
            elif target in self.renamed:
                self.extra.append(name)
            else:
                self.renamed[target] = name
        self.conversions = list(by_layer.values())

    def _put_sources(self, stored: dict[str, Stored], mode: FakeTensorMode) -> None:
        """The checkpoint's own tensors as parameters, in place of what is converted from them."""
        def source(name: str) -> nn.Parameter:
            return nn.Parameter(fake_tensor(stored[name].shape, torch.float32, mode))

        holder = nn.ParameterList([source(name) for name in self._sources]).eval()
        self._targets: list[tuple[nn.Module, str, str]] = []
        for conversion in self.conversions:
            for name in conversion({s: holder[i] for i, s in enumerate(self._sources)}, self.model):
                path, _, attribute = name.rpartition(".")
                module = self.model.get_submodule(path)
                del module._parameters[attribute]
                self._targets.append((module, attribute, name))
        if self._sources:
            setattr(self.model, _SOURCES, holder)

    def _find_missing(self) -> list[str]:
        """Parameters and persistent buffers of the model that the checkpoint holds under none of their names."""
        names: defaultdict[int, list[str]] = defaultdict(list)
        for name, value in self.model.state_dict(keep_vars=True).items():
            names[id(value)].append(name)
        return [group[0] for group in names.values()
                if not any(name in self.renamed or name.startswith(_SOURCES) or name.endswith(_COUNTERS) for name in group)]

    def _put_extra(self, stored: dict[str, Stored], mode: FakeTensorMode) -> None:
        """What the model has no use for becomes buffers, so that the program takes the checkpoint as it is."""
        self.extra = [name for name in self.extra if not name.endswith(_COUNTERS) and stored[name].dtype is not None]
        if not self.extra:
            return
        holder = nn.Module().eval()
        for i, name in enumerate(self.extra):
            dtype = stored[name].dtype
            assert dtype is not None
            holder.register_buffer(str(i), fake_tensor(stored[name].shape, torch.float32 if dtype.is_floating_point else dtype, mode))
        setattr(self.model, _EXTRA, holder)

    @contextlib.contextmanager
    def converted(self) -> Iterator[None]:
        """Within the block the model's converted parameters are computed from the checkpoint's."""
        holder = getattr(self.model, _SOURCES, ())
        tensors = {name: holder[i] for i, name in enumerate(self._sources)}
        values = {name: value for conversion in self.conversions for name, value in conversion(tensors, self.model).items()}
        for module, attribute, name in self._targets:
            vars(module)[attribute] = values[name]
        try:
            yield
        finally:
            for module, attribute, _ in self._targets:
                del vars(module)[attribute]

    def give_to(self, made: torch.export.ExportedProgram) -> None:
        """Gives the program's weights the checkpoint's names; of a tied weight those that the checkpoint has."""
        names = dict(self.renamed)
        names |= {f"{_SOURCES}.{i}": name for i, name in enumerate(self._sources)}
        names |= {f"{_EXTRA}.{i}": name for i, name in enumerate(self.extra)}
        for group in self._ties:
            there = [name for name in group if name in self.renamed] or group[:1]
            used = program.merge(made, group) or there[0]
            program.drop(made, {name for name in group if name != used and name not in there})
            if used not in there:  # the graph's name of it is none of the checkpoint's
                names[used] = names.pop(there[0], there[0])
                program.drop(made, {there[0]})
        program.rename(made, names)

    def _find_ties(self) -> list[list[str]]:
        groups: defaultdict[int, list[str]] = defaultdict(list)
        for name, param in self.model.named_parameters(remove_duplicate=False):
            groups[id(param)].append(name)
        return [group for group in groups.values() if len(group) > 1]

    def notes(self) -> list[str]:
        """What is unlike a plain module, for people."""
        lines = []
        if self.conversions:
            lines.append(f"{len(self._sources)} of the checkpoint's tensors are the program's parameters as they are stored, and are converted "
                         f"within it to {len(self._targets)} of the model's ({listed([name for *_, name in self._targets], 1)})")
        if self.extra:
            lines.append(f"{len(self.extra)} of the checkpoint's tensors are not used for this task: {listed(self.extra)}")
        return lines


def _natural(names: Iterable[str]) -> list[str]:
    """Numbers within names in their order, as the library takes the experts."""
    return sorted(names, key=lambda name: [(0, int(word), "") if word.isdigit() else (1, 0, word) for word in name.split(".")])


def _target(name: str, renamings: list[Any], converters: list[Any], prefix: str | None, own: dict[str, Any]) -> tuple[str, str | None]:
    """The model's name of a checkpoint's tensor, and which pattern of a converter takes it."""
    if not renamings and not converters:
        for change in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")):
            if change in own:
                return change, None
        return name, None
    from transformers.core_model_loading import rename_source_key

    target, pattern = rename_source_key(name, renamings, converters, prefix, own)
    if target not in own and name in own:
        target, pattern = rename_source_key(name, [], [], prefix, own)
    return str(target), pattern
