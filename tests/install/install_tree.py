#!/usr/bin/env python3
"""`cmake --install PREFIX` of the build tree that is there: the program from there, the example that is built on it, and what is said where
something is missing or another torch is in use."""

import importlib.metadata
import math
import re
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

from environments import BIN, MPIRUN, SITE, SOURCE, TREE, run, variables

TORCH = SITE / "torch"
TORCH_VERSION = importlib.metadata.version("torch").split("+")[0]
BAD_INPUT = 4


class Tree(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="hesspect_install_"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.prefix = cls.folder / "prefix"
        run("cmake", "--install", TREE, "--prefix", cls.prefix)
        cls.program = cls.prefix / "bin" / "hesspect"

    def test_program(self):
        """The same one, with nothing of the build tree in the folders where it looks for libraries; results are read with the help of its neighbour."""
        self.assertEqual(run(self.program, "--version").stdout, run(BIN, "--version").stdout)
        for file in (self.program, self.prefix / "bin" / "hesspect-try-hdf5", *(self.prefix / "lib" / "hesspect").glob("*.so")):
            paths = re.search(r"runpath: \[(.*)\]", run("readelf", "-d", file).stdout)[1].split(":")
            self.assertEqual([path for path in paths if path.startswith(str(TREE))], [], file)
            self.assertTrue(paths[0].startswith("$ORIGIN/../"), file)
        result = self.folder / "not_hdf5.h5"
        result.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 600)
        said = run(self.program, "inspect", result, codes=(BAD_INPUT,)).stderr
        self.assertEqual(len(said.splitlines()), 1, said)
        self.assertNotIn("try-hdf5", said)

    def test_python(self):
        """Commands in Python go over to the package that was installed along, and it finds the program beside it."""
        package = self.prefix / "share" / "hesspect" / "python"
        interpreter = self.folder / "python"
        interpreter.write_text('#!/bin/sh\necho "$PYTHONPATH"\necho "$@"\n')
        interpreter.chmod(0o755)
        said = run(self.program, "plot", "r.h5", env=variables(HESSPECT_PYTHON=str(interpreter), PYTHONPATH="/elsewhere")).stdout
        self.assertEqual(said, f"{package}:/elsewhere\n-m hesspect plot r.h5\n")
        self.assertIn("usage:", run(self.program, "tables", "--help").stdout)
        found = run(sys.executable, "-c", "import hesspect; from hesspect.running import binary; print(hesspect.__file__, binary.find())",
                    env=variables(PYTHONPATH=str(package)), cwd=self.folder).stdout
        self.assertEqual(found.split(), [str(package / "hesspect" / "__init__.py"), str(self.program)])
        self.assertTrue((package / "hesspect" / "schema.json").is_file())

    def test_modulefile(self):
        (module,) = (self.prefix / "share" / "hesspect" / "modulefiles" / "hesspect").iterdir()
        self.assertRegex(run(self.program, "--version").stdout, rf"^hesspect {re.escape(module.name)} ")
        text = module.read_text()
        self.assertTrue(text.startswith("#%Module"))
        (root,) = re.findall(r"^set root (.+)$", text, re.M)
        paths = re.findall(r"^prepend-path (\w+) \$root(\S*)$", text, re.M)
        self.assertEqual([name for name, _ in paths], ["PATH", "PYTHONPATH", "CMAKE_PREFIX_PATH"])
        for _, path in paths:
            self.assertTrue(Path(root + path).is_dir(), path)

    def test_manual_page_and_completions(self):
        for file, word in (("man/man1/hesspect.1", ".TH"), ("bash-completion/completions/hesspect", "complete "), ("zsh/site-functions/_hesspect", "#compdef hesspect"),
                           ("fish/vendor_completions.d/hesspect.fish", "complete ")):
            text = (self.prefix / "share" / file).read_text()
            self.assertIn(word, text)
            self.assertIn("micro-batch", text.replace("\\-", "-"))

    def test_what_docker_copies_is_there(self):
        for file in ("Dockerfile", "Dockerfile.cpu"):
            for names in re.findall(r"^COPY --from=build ((?:/usr/local/\S+ )+)", (SOURCE / "docker" / file).read_text(), re.M):
                for name in names.split():
                    if "gpu" not in name or (TREE / "lib" / "libhesspect_gpu.so").exists():
                        self.assertTrue((self.prefix / Path(name).relative_to("/usr/local")).is_file(), name)

    def test_example(self):
        """The example's program gives the closed form's eigenvalue on any number of ranks, and says what its README shows."""
        build = self.folder / "example"
        run("cmake", "-S", SOURCE / "examples" / "own_operator", "-B", build, f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run("cmake", "--build", build)
        readme = (SOURCE / "examples" / "own_operator" / "README.md").read_text()
        for ranks in (1, 3):
            said = run(*(MPIRUN if ranks > 1 else []), *(["-n", ranks] if ranks > 1 else []), build / "own_operator").stdout
            value = float(re.search(r"largest eigenvalue (\S+)", said)[1])
            self.assertAlmostEqual(value, 1 / (1 - math.exp(-0.1)), places=9)
            if ranks == 3:
                rounding = re.compile(r"\d\.\de-(1[6-9]|[2-9]\d)|0\.0e\+00")  # whose digits are the compiler's and libm's
                self.assertIn(rounding.sub("(next to nothing)", said), rounding.sub("(next to nothing)", readme))
        self.assertIn(f"{self.prefix}/lib/hesspect", run("readelf", "-d", build / "own_operator").stdout)

    def test_rooms_that_cannot_be_had(self):
        """Each in a line that says what to do."""
        project = self.folder / "project"
        project.mkdir()
        for languages, room, options, words in (("CXX", "krylov", [], "LANGUAGES C CXX"), ("C CXX", "kryloff", [], "no room 'kryloff'"),
                                                ("C CXX", "krylov", [f"-DHESSPECT_PYTHON={self.other_python()}"], f"built against torch {TORCH_VERSION}")):
            (project / "CMakeLists.txt").write_text(f"cmake_minimum_required(VERSION 3.25)\nproject(mine LANGUAGES {languages})\n"
                                                    f"find_package(hesspect REQUIRED COMPONENTS {room})\n")
            shutil.rmtree(project / "build", ignore_errors=True)
            said = run("cmake", "-S", project, "-B", project / "build", f"-DCMAKE_PREFIX_PATH={self.prefix}", *options, codes=(1,)).stderr
            self.assertIn(words, " ".join(said.split()))

    def other_python(self):
        """An interpreter whose environment has another torch."""
        folder = self.folder / "other_torch"
        if not folder.exists():
            (folder / "torch").mkdir(parents=True)
            (folder / "torch" / "__init__.py").write_text("")
            (folder / "torch" / "version.py").write_text("__version__ = '2.11.7+cpu'\n")
            for name in ("lib", "include"):
                (folder / "torch" / name).symlink_to(TORCH / name)
            (folder / "torch-2.11.7.dist-info").mkdir()
            (folder / "torch-2.11.7.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.11.7\n")
            script = folder / "python"
            script.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
            script.chmod(0o755)
        return folder / "python"

    def test_another_torch_at_run_time(self):
        """The same libraries under another version's name: the program ends before it calls them, in a line, once for all ranks of a host."""
        self.other_python()
        env = variables(LD_LIBRARY_PATH=str(self.folder / "other_torch" / "torch" / "lib"), OMPI_MCA_odls_base_sigkill_timeout="0")
        ours = re.escape(TORCH_VERSION)
        expected = rf"hesspect: error: built against torch {ours}, but torch 2\.11\.7 is in use \({re.escape(str(self.folder))}/other_torch/torch\): .*install.*"
        said = run(self.program, "--version", codes=(BAD_INPUT,), env=env)
        self.assertRegex(said.stderr, rf"^{expected}\n$")
        self.assertEqual(said.stdout, "")
        said = run(*MPIRUN, "-n", "2", self.program, "--version", codes=(BAD_INPUT,), env=env).stderr
        self.assertEqual(len(re.findall(expected, said)), 1, said)
        # Libraries alone, as a container has them, say nothing of their version.
        (self.folder / "other_torch" / "torch" / "version.py").rename(self.folder / "version.py")
        self.addCleanup((self.folder / "version.py").rename, self.folder / "other_torch" / "torch" / "version.py")
        run(self.program, "--version", env=env)


class Missing(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="hesspect_missing_"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def said(self, *options, **env):
        done = run("cmake", "-S", SOURCE, "-B", self.folder / "build", *options, codes=(1,), env=variables(**env))
        self.assertEqual(done.stderr.count("CMake Error"), 1, done.stderr)
        return done.stderr

    def test_all_at_once(self):
        said = self.said("-DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_HDF5=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_OpenSSL=ON",
                         "-DCMAKE_DISABLE_FIND_PACKAGE_spdlog=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON", f"-DHESSPECT_PYTHON={self.folder}/no_python")
        for line in ("apt-get install libopenmpi-dev openmpi-bin libhdf5-dev libspdlog-dev libssl-dev libgtest-dev",
                     "conda install -c conda-forge openmpi hdf5 spdlog openssl gtest pytorch", "module load OpenMPI HDF5 spdlog OpenSSL googletest PyTorch",
                     "pip install 'torch>=2.11,<2.14'", "no_python has no torch"):
            self.assertIn(line, said)

    def test_without_a_compiler(self):
        """The rest is still looked for."""
        said = self.said(CC="/none/cc", CXX="/none/c++")
        self.assertIn("apt-get install g++\n", said)
        self.assertIn("module load GCC\n", said)


if __name__ == "__main__":
    unittest.main()
