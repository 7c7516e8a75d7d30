"""pip's way to hesspect's wheel (PEP 517): scikit-build-core's, and before it a look at the environment's torch.

hesspect is compiled against the torch that it will run with, which an isolated build doesn't see. It is not fetched for the build, for
another one of some gigabytes would be no use: the environment's own is looked for (torch_wheel.py), and where there is none the build
ends before anything is fetched or compiled. CUDA's headers that torch's wheels don't bring are fetched for its CUDA.
"""

import sys

import torch_wheel
from scikit_build_core import build as _skbuild
from scikit_build_core.build import build_editable, build_sdist, build_wheel, get_requires_for_build_sdist  # noqa: F401
from scikit_build_core.build import prepare_metadata_for_build_editable, prepare_metadata_for_build_wheel  # noqa: F401

NO_TORCH = """{python} has no torch, and hesspect is compiled against the torch that it will run with.
  In that environment: pip install 'torch>=2.11,<2.14', and then hesspect again.
  Where torch is there, the build is isolated from it (uv and build do so): --no-build-isolation, after pip install scikit-build-core;
  or name that environment's interpreter: -C cmake.define.HESSPECT_PYTHON=PYTHON"""


def _setting(settings, name):
    """Of -C cmake.define.NAME=VALUE."""
    return str((settings or {}).get(f"cmake.define.{name}", "") or "")


def _required(settings):
    """Wheels with the headers of torch's CUDA that the environment lacks."""
    python = _setting(settings, "HESSPECT_PYTHON") or sys.executable
    found = torch_wheel.look(python)
    if found is None:
        sys.exit("hesspect: error: " + NO_TORCH.format(python=python))
    off = _setting(settings, "HESSPECT_USE_CUDA").lower() in ("off", "false", "no", "0")
    return [] if off or _setting(settings, "HESSPECT_BUILD_TREE") else list(found.get("CUDA_MISSING", []))


def get_requires_for_build_wheel(config_settings=None):
    wheels = _required(config_settings)
    return _skbuild.get_requires_for_build_wheel(config_settings) + wheels


def get_requires_for_build_editable(config_settings=None):
    wheels = _required(config_settings)
    return _skbuild.get_requires_for_build_editable(config_settings) + wheels
