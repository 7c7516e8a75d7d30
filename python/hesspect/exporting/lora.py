"""LoRA as PEFT computes it, y = base(x) + scale · B(A(x)), for linear layers, GPT-2's Conv1D and embeddings.

PEFT itself need not be there: the adapter's configuration is read, and what it asks for and is not known here is refused.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from hesspect.errors import InputError

_UNKNOWN = ("use_dora", "megatron_config", "layer_replication", "modules_to_save", "trainable_token_indices", "target_parameters",
            "alora_invocation_tokens", "arrow_config", "lora_bias")  #: settings that would change the program, and are not known here


class LoraLayer(nn.Module):
    """A layer and its adapter. `is_transposed`: the layer's weight is [in, out], as GPT-2's."""

    def __init__(self, base_layer: nn.Module, rank: int, scale: float, train_base: bool) -> None:
        super().__init__()
        self.base_layer = base_layer
        for parameter in base_layer.parameters():
            parameter.requires_grad_(train_base)
        weight: torch.Tensor = base_layer.weight
        self.scale, self.is_embedding = scale, isinstance(base_layer, nn.Embedding)
        rows, columns = (weight.shape[1], weight.shape[0]) if isinstance(base_layer, nn.Embedding) or _is_conv1d(base_layer) else weight.shape
        if self.is_embedding:
            self.lora_embedding_A = nn.ParameterDict({"default": nn.Parameter(torch.empty(rank, columns))})
            self.lora_embedding_B = nn.ParameterDict({"default": nn.Parameter(torch.empty(rows, rank))})
        else:
            self.lora_A = nn.ModuleDict({"default": nn.Linear(columns, rank, bias=False)})
            self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, rows, bias=False)})

    @property
    def weight(self) -> Any:
        return self.base_layer.weight

    @property
    def bias(self) -> Any:
        return self.base_layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.base_layer(x)
        if self.is_embedding:
            return out + self.scale * (F.embedding(x, self.lora_embedding_A["default"].T) @ self.lora_embedding_B["default"].T)
        return out + self.scale * self.lora_B["default"](self.lora_A["default"](x))


def _is_conv1d(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def read_adapter(folder: Path) -> dict[str, Any]:
    """:raises InputError: no adapter, or one of a kind that is not known here"""
    path = folder / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InputError(f"{path}: adapters of type {kind!r} are not known, LORA alone; export the PEFT model itself by hesspect.export")
    unknown = [name for name in _UNKNOWN if config.get(name)]
    if config.get("bias", "none") != "none":
        unknown.append("bias")
    if unknown:
        raise InputError(f"{path}: {', '.join(unknown)} is not known here; export the PEFT model itself by hesspect.export")
    return config


def _within(name: str, wanted: str | list[str]) -> bool:
    """A pattern of the whole name, or a list of its endings."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in wanted)


def _is_target(name: str, config: dict[str, Any]) -> bool:
    """As PEFT decides: by the name, and of the layers that are listed."""
    targets, excluded = config.get("target_modules"), config.get("exclude_modules") or []
    if not targets or (excluded and _within(name, excluded)) or not _within(name, targets):
        return False
    layers = config.get("layers_to_transform")
    if layers is None:
        return True
    pattern = config.get("layers_pattern")
    words = [pattern] if isinstance(pattern, str) else pattern
    found = re.search(rf".*\.{'(?:' + '|'.join(words) + ')' if words else '[^.]*'}\.(\d+)\.", name)
    return found is not None and int(found[1]) in ([layers] if isinstance(layers, int) else layers)


def _of_pattern(name: str, patterns: dict[str, Any], otherwise: Any) -> Any:
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return value
    return otherwise


def add_adapter(model: nn.Module, config: dict[str, Any], train_base: bool) -> list[str]:
    """Puts a layer with an adapter in place of each that the adapter is for.

    :return: their names
    :raises InputError: it is for a layer of a kind that is not known here, or for none
    """
    if not train_base:
        model.requires_grad_(False)
    changed: list[str] = []
    for name, module in list(model.named_modules()):
        if not _is_target(name, config):
            continue
        if not (isinstance(module, (nn.Linear, nn.Embedding)) or _is_conv1d(module)):
            raise InputError(f"the adapter is for {name}, a {type(module).__name__}: linear layers, Conv1D and embeddings alone are known here")
        rank = _of_pattern(name, config.get("rank_pattern") or {}, config["r"])
        alpha = _of_pattern(name, config.get("alpha_pattern") or {}, config.get("lora_alpha", 8))
        scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], LoraLayer(module, rank, scale, train_base))
        changed.append(name)
    if not changed:
        raise InputError(f"the adapter's target_modules {config.get('target_modules')!r} are none of the model's")
    return changed
