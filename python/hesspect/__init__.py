"""The Python edge of hesspect: from a model to its spectrum, and reading and drawing results.

    import hesspect
    result = hesspect.spectrum(model, loader, loss="cross_entropy")    # export, data, run, result
    made = hesspect.export(model, example, "model.pt2")                # a program alone
    result = hesspect.read("result.h5")
    series = hesspect.open_series("series.h5")                         # of the checkpoints of a training
    result.eigenvalues, result.trace, result.density
    job = hesspect.submit("model.pt2", data="data.h5", loss="mse", spool="spool")    # for a resident `hesspect serve`

The computation itself is the C++ program `hesspect`. `python -m hesspect` has the commands of this package; `python -m hesspect.plot`
draws a result, `python -m hesspect.workloads` makes three real models to try it on.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hesspect.data import DataError, verify_data, write_data
from hesspect.errors import CommError, Error, InputError, InternalError, MemoryLimitError, ProgramNotFound, Stopped, UsageError
from hesspect.result import Result, ResultError, read
from hesspect.series import Series, open_series
from hesspect.service import Job, JobInfo, queue, submit

if TYPE_CHECKING:
    from hesspect.exporting.call import Inputs
    from hesspect.exporting.huggingface import export_hf
    from hesspect.exporting.lightning import export_lightning
    from hesspect.exporting.model_export import Exported, export
    from hesspect.exporting.peft import export_peft
    from hesspect.exporting.vision import export_timm, export_torchvision
    from hesspect.running.calls import analyze, spectrum

#: What needs torch or the program is imported only where it is used.
_LATER = {"Inputs": "exporting.call", "Exported": "exporting.model_export", "export": "exporting.model_export",
          "export_hf": "exporting.huggingface", "export_lightning": "exporting.lightning", "export_peft": "exporting.peft",
          "export_timm": "exporting.vision", "export_torchvision": "exporting.vision", "analyze": "running.calls", "spectrum": "running.calls"}

__all__ = ["CommError", "DataError", "Error", "Exported", "InputError", "Inputs", "InternalError", "Job", "JobInfo", "MemoryLimitError", "ProgramNotFound",
           "Result", "ResultError", "Series", "Stopped", "UsageError", "analyze", "export", "export_hf", "export_lightning", "export_peft", "export_timm",
           "export_torchvision", "open_series", "queue", "read", "spectrum", "submit", "verify_data", "write_data"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"hesspect.{_LATER[name]}"), name)
    raise AttributeError(f"module 'hesspect' has no attribute {name!r}")
