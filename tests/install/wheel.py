#!/usr/bin/env python3
"""`pip install .`: the wheel of the build tree that is there, in an environment of its own; with HESSPECT_LONG=1 also one that is compiled.

Exit code 77 (skipped) where scikit-build-core is not installed.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

from environments import BACKEND, BIN, LONG, SITE, SOURCE, TREE, WITHOUT_BACKEND, make_environment, make_wheel, of_build_tree, pip, run, variables


def files_of(folder):
    """Bytecode aside."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="hesspect_wheel_"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def check(self, environment_folder, wheel):
        """Installs it, runs it, and takes it away."""
        python = environment_folder / "bin" / "python"
        before = files_of(environment_folder)
        pip(python, "install", "--no-deps", "--no-index", wheel)
        program = environment_folder / "bin" / "hesspect"
        self.assertTrue((environment_folder / "bin" / "hesspect-try-hdf5").exists())
        on_path = variables(PATH=f"{environment_folder / 'bin'}:{os.environ['PATH']}")
        self.assertEqual(run("hesspect", "--version", env=on_path).stdout, run(BIN, "--version").stdout)
        packages = next(environment_folder.glob("lib/python*/site-packages"))
        found = run("python", "-c", "import hesspect; from hesspect.running import binary; print(hesspect.__file__, binary.find())", env=on_path, cwd=self.folder).stdout
        self.assertEqual(found.split(), [str(packages / "hesspect" / "__init__.py"), str(program)])
        # Its commands in Python run in its environment, also where another one is first on the PATH.
        self.assertIn("usage:", run(program, "tables", "--help").stdout)
        (packages / "hesspect" / "tables.py").write_text("import sys\n\n\ndef main(argv):\n    print(sys.prefix)\n")
        self.assertEqual(run(program, "tables", "x").stdout, f"{environment_folder}\n")
        first = re.search(r"runpath: \[(.*)\]", run("readelf", "-d", program).stdout)[1].split(":")[1]
        self.assertEqual((program.parent / first.removeprefix("$ORIGIN/")).resolve(), packages / "torch" / "lib")  # where pip puts torch
        gpu = environment_folder / "lib" / "hesspect" / "libhesspect_gpu.so"
        self.assertEqual(gpu.exists(), (TREE / "lib" / "libhesspect_gpu.so").exists())
        pip(python, "uninstall", "-y", "hesspect")
        self.assertEqual(files_of(environment_folder), before)

    def test_of_the_build_tree(self):
        folder = self.folder / "environment"
        python = make_environment(folder)
        wheel = make_wheel(python, self.folder / "wheels", *of_build_tree())
        self.assertRegex(wheel.name, rf"^hesspect-[\d.]+-cp3{sys.version_info.minor}-cp3{sys.version_info.minor}-linux_")
        names = set(zipfile.ZipFile(wheel).namelist())
        package = {str(p.relative_to(SOURCE / "python")) for p in (SOURCE / "python" / "hesspect").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
        self.assertEqual({name for name in names if name.startswith("hesspect/")}, package)
        others = {name.split("/", 1)[1] for name in names if ".data/" in name}
        gpu = {"data/lib/hesspect/libhesspect_gpu.so"} if (TREE / "lib" / "libhesspect_gpu.so").exists() else set()
        self.assertEqual(others, {"scripts/hesspect", "scripts/hesspect-try-hdf5", "data/lib/hesspect/libhesspect_wait.so"} | gpu)
        self.check(folder, wheel)

    @unittest.skipUnless(LONG, "compiles everything: launch/test --long")
    def test_compiled(self):
        folder = self.folder / "environment"
        python = make_environment(folder)
        self.check(folder, make_wheel(python, self.folder / "wheels", env=variables(CMAKE_BUILD_PARALLEL_LEVEL=os.environ.get("HESSPECT_JOBS", "2")), timeout=5000))

    def test_without_torch(self):
        """It ends before anything is fetched or compiled."""
        python = make_environment(self.folder / "environment", with_torch=False)
        code = f"import sys; sys.path[:0] = ['{SOURCE}/cmake', '{BACKEND}']; import build_backend as b; b.get_requires_for_build_wheel()"
        # -S: no package of its own, as in a build that pip isolates; what is asked is the environment of the interpreter.
        said = run(python, "-S", "-c", code, codes=(1,)).stderr
        self.assertIn("has no torch", said)
        self.assertIn("--no-build-isolation", said)
        self.assertNotIn("Traceback", said)

    def test_the_environments_torch_through_isolation(self):
        """pip's isolated build: the environment's interpreter, whose packages a sitecustomize of pip's hides. CUDA's headers that are missing are asked for."""
        python = make_environment(self.folder / "environment")
        hidden = self.folder / "overlay"
        hidden.mkdir()
        (hidden / "sitecustomize.py").write_text(f"import sys\nsys.path[:] = [p for p in sys.path if p != '{SITE}']\n")
        code = f"import sys; sys.path[:0] = ['{SOURCE}/cmake']; import torch_wheel, json; print(json.dumps([torch_wheel.here(), torch_wheel.look()]))"
        look = lambda python, **env: json.loads(run(python, "-c", code, env=variables(**env)).stdout)
        inside, outside = look(python, PYTHONPATH=str(hidden))
        self.assertIsNone(inside)
        self.assertEqual(outside["TORCH"], str(SITE / "torch"))
        self.assertEqual(outside["VERSION"], importlib.metadata.version("torch"))

        other = self.folder / "other"  # torch with CUDA, and no more of CUDA's headers than it brings
        for file in ("torch/lib/libtorch_cpu.so", "torch/lib/libtorch_cuda.so", "torch/include/ATen/ATen.h", "nvidia/cu13/lib/libcudart.so.13",
                     "nvidia/cu13/include/cuda_runtime_api.h", "nvidia/nccl/include/nccl.h", "torch/__init__.py"):
            (other / file).parent.mkdir(parents=True, exist_ok=True)
            (other / file).write_text("")
        (other / "torch" / "version.py").write_text("__version__ = '2.12.1+cu130'\n")
        bare = make_environment(self.folder / "bare", with_torch=False)
        (next((self.folder / "bare").glob("lib/python*/site-packages")) / "other.pth").write_text(f"{other}\n")
        _, found = look(bare)
        self.assertEqual((found["VERSION"], found["LIB"], found["CUDA_MISSING"]),
                         ("2.12.1+cu130", str(other / "torch" / "lib"), ["nvidia-cuda-crt==13.*", "nvidia-cuda-cccl==13.*"]))
        (other / "torch" / "lib" / "libtorch_cuda.so").unlink()
        self.assertNotIn("CUDA", look(bare)[1])


if __name__ == "__main__":
    if BACKEND is None:
        print(WITHOUT_BACKEND)
        sys.exit(77)
    unittest.main()
