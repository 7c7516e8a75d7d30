"""The package as it is built: a wheel and an sdist with everything in them, one version everywhere."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import hesspect

SOURCE = Path(__file__).resolve().parents[2]


def test_one_version():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((SOURCE / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["title"] and citation["authors"][0]["name"] and citation["message"]
    project = tomllib.loads((SOURCE / "python/pyproject.toml").read_text())["project"]
    cmake = re.search(r"project\(hesspect VERSION (\S+)", (SOURCE / "CMakeLists.txt").read_text())[1]
    assert citation["version"] == project["version"] == hesspect.__version__ == cmake


def test_both_projects_agree():
    """The one with the program wants all that the package alone wants, and torch."""
    alone, whole = (tomllib.loads((SOURCE / path).read_text())["project"] for path in ("python/pyproject.toml", "pyproject.toml"))
    assert {key: whole[key] for key in ("name", "version", "requires-python", "optional-dependencies")} == \
        {key: alone[key] for key in ("name", "version", "requires-python", "optional-dependencies")}
    assert set(whole["dependencies"]) == {*alone["dependencies"], "torch>=2.11"}


def test_sdist_of_the_program(tmp_path):
    """All that is compiled and packed, and nothing that is not in git; tests/install/wheel.py makes the wheel."""
    pytest.importorskip("scikit_build_core")
    code = "import sys; sys.path.insert(0, 'cmake'); import build_backend as b; print(b.build_sdist(sys.argv[1]))"
    name = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=SOURCE, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(tmp_path / name) as archive:
        packed = {str(Path(*Path(member.name).parts[1:])) for member in archive.getmembers() if member.isfile()} - {"PKG-INFO"}
    tracked = set(subprocess.run(["git", "ls-files"], cwd=SOURCE, check=True, capture_output=True, text=True).stdout.splitlines())
    needed = {file for file in tracked if re.match(r"(src|include|cmake|python/hesspect|examples)/|(CMakeLists.txt|pyproject.toml|README.md)$", file)}
    assert needed <= packed and len(needed) > 500
    assert not [file for file in packed - tracked if not (SOURCE / file).exists() or re.match(r"(build|runs|shared|\.venv)", file)]


def test_wheel_and_sdist(tmp_path):
    """Both are built from a copy by the backend that pyproject.toml names; the wheel has every module, the sdist makes the same wheel."""
    pytest.importorskip("setuptools")
    copy = tmp_path / "python"
    shutil.copytree(SOURCE / "python", copy, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "build", "*.whl"))
    build = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
    made = lambda what, where: tmp_path / "out" / subprocess.run([sys.executable, "-c", build, what, str(tmp_path / "out")], cwd=where, check=True, capture_output=True,
                                                                text=True).stdout.split()[-1]
    sdist = made("build_sdist", copy)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "from_sdist", filter="data")
    (unpacked,) = (tmp_path / "from_sdist").iterdir()
    wheel = made("build_wheel", unpacked)
    files = {str(p.relative_to(SOURCE / "python")) for p in (SOURCE / "python/hesspect").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert "hesspect/schema.json" in files and "hesspect/py.typed" in files and "hesspect/data/cli.py" in files
    assert {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} == files
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    found = subprocess.run([sys.executable, "-c", "import hesspect; print(hesspect.__file__, hesspect.write_data.__name__)"], capture_output=True, text=True, check=True,
                           env={"PYTHONPATH": str(tmp_path / "installed"), "PATH": "/usr/bin"}, cwd=tmp_path).stdout
    assert found.startswith(str(tmp_path / "installed"))
