"""Running the program from Python: `spectrum` from a model and a loader, `analyze` from files."""

from hesspect.running.calls import analyze, spectrum

__all__ = ["analyze", "spectrum"]
