"""Names and shapes of the tensors in a checkpoint's folder or file: headers are read, weights stay where they are."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import torch

from hesspect.errors import InputError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
           "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
_MOST_HEADER = 1 << 30
_SHARD = re.compile(r"-\d+-of-\d+\.")


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor's form in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None  #: None: one that torch has no name for


def _of_safetensors(path: Path) -> dict[str, Stored]:
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= min(_MOST_HEADER, path.stat().st_size):
                raise ValueError("its header is longer than the file")
            header: dict[str, Any] = json.loads(file.read(size))
        return {name: Stored(tuple(form["shape"]), _DTYPES.get(form["dtype"])) for name, form in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a safetensors file, or a broken one ({error})") from error


def _of_pickle(path: Path) -> dict[str, Stored]:
    try:
        state = torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except Exception as error:  # torch.load raises what its unpickler does
        raise InputError(f"{path}: not a PyTorch state dict ({str(error).splitlines()[0] if str(error) else type(error).__name__})") from error
    state = state.get("state_dict", state.get("model_state_dict", state))
    return {name: Stored(tuple(value.shape), value.dtype) for name, value in state.items() if isinstance(value, torch.Tensor)}


def _of_index(path: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        return [path.parent / str(name) for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not an index of shards ({error})") from error


def _choose(indexes: list[Path], files: list[Path], usual: str) -> list[Path]:
    """One file of the usual name, one index, one file, or one set of shards; as the program chooses."""
    named = [path for path in files if path.name == usual]
    if named:
        return named
    if len(indexes) == 1:
        return _of_index(indexes[0])
    shards = [path for path in files if _SHARD.search(path.name)]
    return files if len(files) == 1 or (shards and len(shards) == len(files)) else []


def weight_files(folder: Path) -> list[Path]:
    """The files that the program reads where it is given the folder; [] where there are none, or several sets."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(("training_args", "optimizer", "scheduler")))

    def with_end(*ends: str) -> list[Path]:
        return [path for path in files if path.name.endswith(ends)]

    safetensors, indexes = with_end(".safetensors"), with_end(".safetensors.index.json")
    if safetensors or indexes:
        return _choose(indexes, safetensors, "model.safetensors")
    return _choose(with_end(".bin.index.json"), with_end(".bin", ".pt", ".pth", ".ckpt"), "pytorch_model.bin")


def stored_in(files: list[Path]) -> dict[str, Stored]:
    """:raises InputError: a file that is missing or broken"""
    found: dict[str, Stored] = {}
    for path in files:
        if not path.exists():
            raise InputError(f"{path}: no such file, though the index names it")
        found |= _of_safetensors(path) if path.suffix == ".safetensors" else _of_pickle(path)
    return found
