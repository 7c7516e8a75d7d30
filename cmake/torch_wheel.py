"""Says where the torch of a Python environment is, and what lies beside it: for cmake/TorchWheel.cmake and cmake/build_backend.py.

    python torch_wheel.py        NAME=VALUE on lines of their own; lists are parted by ';'. Exit code 1: no torch

torch itself is not imported. Within a build that pip isolates, the interpreter is the environment's own and sees none of its packages;
`-E` lets it see them again.
"""

import glob
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig


def _folders(name, seen_by):
    """Where a file of that relative path is, in the order of the folders that Python imports from."""
    return [path for folder in seen_by if os.path.exists(path := os.path.join(folder, name))]


def _version(package, folder):
    """By its metadata, or its version.py; None where neither says."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        with open(os.path.join(folder, "version.py"), encoding="utf-8") as file:
            found = re.search(r"^__version__ *= *['\"]([^'\"]+)", file.read(), re.M)
    except OSError:
        return None
    return found and found[1]


def _cuda(torch_dir, seen_by, version=None):
    """CUDA's and NCCL's headers and libraries, from NVIDIA's wheels for CUDA 13, and what is missing of them.

    :param version: the one of CUDA's headers, as pip takes it; else that of the wheel with CUDA's runtime
    """
    if not os.path.exists(os.path.join(torch_dir, "lib", "libtorch_cuda.so")):
        return {}
    roots = _folders(os.path.join("nvidia", "cu13"), seen_by)
    having = lambda file: [root for root in roots if os.path.exists(os.path.join(root, file))]
    libraries = having("lib/libcudart.so.13")
    nccl = [root for root in _folders(os.path.join("nvidia", "nccl"), seen_by) if os.path.exists(os.path.join(root, "include", "nccl.h"))]
    if not libraries or not nccl:
        return {"CUDA": "another"}
    found = {"CUDA": "13", "CUDA_LIB": os.path.join(libraries[0], "lib"), "NCCL_INCLUDE": os.path.join(nccl[0], "include"), "NCCL_LIB": os.path.join(nccl[0], "lib")}
    wanted = {"include/cuda_runtime_api.h": "nvidia-cuda-runtime", "include/crt/host_config.h": "nvidia-cuda-crt", "include/nv/target": "nvidia-cuda-cccl"}
    version = version or ".".join((_version("nvidia-cuda-runtime", "") or "13").split(".")[:2]) + ".*"
    include, missing = [], []
    for file, wheel in wanted.items():
        places = having(file)
        if places:
            include += [os.path.join(places[0], "include")]
        else:
            missing.append(f"{wheel}=={version}")
    return {**found, "CUDA_INCLUDE": list(dict.fromkeys(include)), "CUDA_MISSING": missing, "CUDA_WANTED": version}


def here():
    """What this interpreter sees; None where it sees no torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    torch_dir = os.path.dirname(spec.origin)
    # conda-forge has LibTorch's files in the environment's own folders.
    lib = next((folder for folder in (os.path.join(torch_dir, "lib"), os.path.join(sys.prefix, "lib")) if glob.glob(os.path.join(folder, "libtorch_cpu.so*"))), "")
    include = next((folder for folder in (os.path.join(torch_dir, "include"), os.path.join(sys.prefix, "include")) if os.path.exists(os.path.join(folder, "ATen", "ATen.h"))), "")
    scripts, packages = sysconfig.get_path("scripts"), sysconfig.get_path("platlib")
    return {"TORCH": torch_dir, "VERSION": _version("torch", torch_dir) or "", "LIB": lib, "INCLUDE": include, "PACKAGES": os.path.relpath(packages, scripts),
            **_cuda(torch_dir, list(dict.fromkeys(filter(None, [os.path.dirname(torch_dir), *sys.path]))))}


def look(python=sys.executable):
    """What `python` sees, with its own environment where a build is isolated from that; None: no torch.

    :return: TORCH (folder of the package), VERSION, LIB, INCLUDE, PACKAGES (from the folder of scripts), and of CUDA 13 CUDA_LIB, CUDA_INCLUDE, NCCL_LIB,
        NCCL_INCLUDE, CUDA_MISSING (wheels whose headers are not there); CUDA is "another" for one whose layout is not known
    """
    for flags in ([], ["-E"]):
        done = subprocess.run([python, *flags, os.path.abspath(__file__), "--json"], capture_output=True, text=True)
        found = json.loads(done.stdout) if done.returncode == 0 else None
        if found is not None:
            break
    else:
        return None
    if found.get("CUDA_MISSING"):
        # Build requirements of an isolated build are in the isolated part only.
        found.update(_cuda(found["TORCH"], list(dict.fromkeys([os.path.dirname(found["TORCH"]), *filter(None, sys.path)])), found["CUDA_WANTED"]))
    return found


def main():
    found = here() if "--json" in sys.argv else look()
    if "--json" in sys.argv:
        print(json.dumps(found))
        return 0
    for name, value in (found or {}).items():
        print(f"{name}={';'.join(value) if isinstance(value, list) else value}")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
