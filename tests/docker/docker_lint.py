#!/usr/bin/env python3
"""The Dockerfiles, as far as they can be judged without Docker: hadolint, and their facts against the rest of the tree."""

import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

SOURCE = Path(os.environ["HESSPECT_SOURCE"])
FILES = [SOURCE / "docker" / "Dockerfile", SOURCE / "docker" / "Dockerfile.cpu"]
OF_THE_COMPILER = {"libgomp1"}  # g++ brings it to the build stage
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def instructions(file):
    """[(instruction, arguments)], comments gone and continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def installed_packages(file):
    """Debian packages, a set for each stage."""
    stages = []
    for word, rest in instructions(file):
        if word == "FROM":
            stages.append(set())
        for words in re.findall(r"apt-get install ([^&|;]*)", rest):
            stages[-1] |= {w for w in words.split() if not w.startswith("-")}
    return stages


def setup_packages():
    """What launch/setup installs to build and run, tests aside."""
    text = (SOURCE / "launch" / "setup").read_text()
    found = set()
    for line in re.findall(r"^(?!.*with_tests).*packages\+?=\(([^)]*)\)", text, re.MULTILINE) + re.findall(r"for tool in ([^;]*);", text):
        found |= {w for w in line.split() if re.fullmatch(r"[a-z][a-z0-9.+-]*", w)}
    return found


def stem(package):
    """libhdf5-hl-100t64: libhdf5-hl, of libhdf5-dev; nothing where it is of no development package."""
    for name in setup_packages():
        if found := re.fullmatch(rf"({re.escape(name.removesuffix('-dev'))}(?:-[a-z]+)?)[\d.-]*(t64)?", package):
            return found[1]
    return None


class Dockerfiles(unittest.TestCase):
    @unittest.skipUnless(HADOLINT, "hadolint is not installed (launch/setup --test does)")
    def test_hadolint(self):
        done = subprocess.run([HADOLINT, "--no-color", "--config", SOURCE / "docker" / "hadolint.yaml", *FILES], capture_output=True,
                              text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_packages(self):
        """The build stage installs what launch/setup does; the other what that needs at run time."""
        wanted = setup_packages()
        self.assertIn("libhdf5-dev", wanted)
        self.assertIn("cmake", wanted)
        for file in FILES:
            with self.subTest(file.name):
                build, run = installed_packages(file)
                self.assertEqual(build, wanted - {"libgtest-dev"})
                self.assertEqual({p for p in run if stem(p) is None} - OF_THE_COMPILER, set())

    @unittest.skipUnless(shutil.which("dpkg-query") and 'VERSION_ID="12"' in Path("/etc/os-release").read_text(), "not Debian 12")
    def test_libraries(self):
        """Every library that the program names is in Dockerfile.cpu's last stage: in a package, in the wheel, Debian's base, or one of hesspect's own."""
        dynamic = subprocess.run(["readelf", "-d", os.environ["HESSPECT_BIN"]], check=True, capture_output=True, text=True).stdout
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
        of_wheels = re.compile(r"lib(torch|c10|cudart|nccl)")
        run = installed_packages(FILES[1])[-1]
        checked = 0
        for library in needed:
            if of_wheels.match(library):
                continue
            if library.startswith("libhesspect_"):
                for file in FILES:
                    self.assertIn(f" /usr/local/lib/hesspect/{library} ", file.read_text())
                continue
            owner = subprocess.run(["dpkg-query", "-S", f"*/{library}"], check=True, capture_output=True, text=True).stdout
            packages = {line.split(":")[0] for line in owner.splitlines()}
            self.assertTrue(packages & (run | {"libc6", "libgcc-s1", "libstdc++6"}), f"{library} is in {packages}")
            checked += 1
        self.assertGreater(checked, 5)
        stems = [{stem(p) for p in installed_packages(file)[-1] - OF_THE_COMPILER} for file in FILES]
        self.assertEqual(stems[0], stems[1])

    def test_pins(self):
        """Wheels are chosen out of python/requirements.txt, and no other version is written down."""
        requirements = SOURCE / "python" / "requirements.txt"
        for file, wanted in zip(FILES, ({"torch", "nvidia-cuda-crt", "nvidia-cuda-cccl"}, {"torch"})):
            with self.subTest(file.name):
                self.assertNotIn("==", file.read_text())
                (pattern,) = re.findall(r"grep -E '([^']*)' python/requirements.txt", file.read_text())
                chosen = subprocess.run(["grep", "-E", pattern, requirements], check=True, capture_output=True, text=True).stdout
                self.assertEqual({line.split("==")[0] for line in chosen.splitlines()}, wanted)

    def test_sources_of_copies(self):
        for file in FILES:
            copies = [rest.split() for word, rest in instructions(file) if word in ("COPY", "ADD")]
            self.assertTrue(copies)
            for words in copies:
                if words[0].startswith("--from="):
                    continue
                for source in words[:-1]:
                    self.assertTrue((SOURCE / source).exists(), f"{file.name}: {source}")

    def test_no_registry_is_named(self):
        for file in FILES:
            self.assertEqual(re.findall(r"https?://\S*|\b[\w-]+\.(?:org|com|io|net|dev)\b", file.read_text()), [], file.name)

    def test_as_the_launcher(self):
        """mpirun in a container has launch/mpirun.sh's settings, and what stops it reaches the ranks as a wish."""
        launcher = (SOURCE / "launch" / "mpirun.sh").read_text()
        self.assertIn("--oversubscribe --bind-to none", launcher)
        self.assertIn("btl_vader_single_copy_mechanism:-none", launcher)
        wanted = {"OMPI_MCA_rmaps_base_oversubscribe=1", "OMPI_MCA_hwloc_base_binding_policy=none",
                  "OMPI_MCA_btl_vader_single_copy_mechanism=none"}
        for file in FILES:
            with self.subTest(file.name):
                words = instructions(file)
                last = words[max(i for i, (word, _) in enumerate(words) if word == "FROM"):]
                self.assertEqual({setting for word, rest in last if word == "ENV" for setting in rest.split()}
                                 - {"DEBIAN_FRONTEND=noninteractive"}, wanted)
                self.assertEqual([rest for word, rest in last if word == "STOPSIGNAL"], ["SIGUSR1"])

    def test_not_root(self):
        for file in FILES:
            users = [rest for word, rest in instructions(file) if word == "USER"]
            self.assertTrue(users and users[-1] not in ("root", "0"), file.name)


if __name__ == "__main__":
    unittest.main()
