"""Executes the notebooks of docs/notebooks in a folder of their own, and writes them with their outputs where the site looks for them.

    run_notebooks.py OUTPUT_FOLDER [NAME …]      exit code 1 where a cell fails, or a stored notebook has outputs; 77 without nbclient

A cell with the tag `long` is executed only where HESSPECT_LONG is set.
"""

import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[2] / "docs/notebooks"


def main() -> int:
    if any(importlib.util.find_spec(name) is None for name in ("nbclient", "nbformat", "ipykernel")):
        print("nbclient or ipykernel not installed: launch/setup --test")
        return 77
    import nbformat
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    output, names = Path(sys.argv[1]).resolve(), sys.argv[2:]
    output.mkdir(parents=True, exist_ok=True)
    if os.environ.get("HESSPECT_BIN"):
        os.environ["PATH"] = f"{Path(os.environ['HESSPECT_BIN']).resolve().parent}{os.pathsep}{os.environ['PATH']}"
    os.environ.pop("MPLBACKEND", None)  # the notebook's own, which draws into its outputs
    failed = False
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        notebook = nbformat.read(path, as_version=4)
        if any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells):
            print(f"{path}: is stored with outputs: clear them")
            failed = True
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="hesspect-notebook-") as folder:
            # This interpreter as the kernel, whatever kernels the user has installed.
            manager = KernelManager(kernel_cmd=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
            client = NotebookClient(notebook, km=manager, timeout=600, startup_timeout=300, resources={"metadata": {"path": folder}},
                                    skip_cells_with_tag="none" if os.environ.get("HESSPECT_LONG") else "long")
            try:
                client.execute()
            except CellExecutionError as error:
                print(f"{path}: {error}")
                failed = True
                continue
        nbformat.write(notebook, output / path.name)
        print(f"{path.name}: {time.monotonic() - start:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
