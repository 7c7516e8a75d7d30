"""Spectra of a training as it goes: checkpoints are dropped into the spool of `hesspect serve`, and what comes back is logged where the training logs.

    from hesspect.training import Watcher
    watcher = Watcher(model, "spool", program="model.pt2", data="data.h5", loss="cross_entropy", every=500, log=print)
    for step, (x, y) in enumerate(loader):
        ...
        watcher.step(step)          # after optimizer.step()
    watcher.close()

`TrainerCallback` does it for Hugging Face's Trainer, `LightningCallback` for Lightning. `CriticalSharpness` is a cheap measure that decides when the
exact run is worth its time. None of them draws from the training's random numbers or changes a parameter. docs/training.md has more.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hesspect.training.sharpness import CriticalSharpness
from hesspect.training.watcher import Watcher

if TYPE_CHECKING:
    from hesspect.training.lightning import LightningCallback
    from hesspect.training.trainer import TrainerCallback

#: What needs the library of a loop is imported only where it is used.
_LATER = {"LightningCallback": "lightning", "TrainerCallback": "trainer"}

__all__ = ["CriticalSharpness", "LightningCallback", "TrainerCallback", "Watcher"]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"hesspect.training.{_LATER[name]}"), name)
    raise AttributeError(f"module 'hesspect.training' has no attribute {name!r}")
