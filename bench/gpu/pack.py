"""Packs what a bare GPU machine lacks into one folder: an archive of Debian's headers, libraries and programs, and wheels.

The archive holds this machine's files as `launch/setup` installed them, and the shared libraries that these want, all but the C and C++
libraries: it is unpacked into a prefix of its own, never into `/`.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MULTIARCH = "usr/lib/x86_64-linux-gnu"
PACKAGES = ["libopenmpi-dev", "libopenmpi3", "openmpi-bin", "openmpi-common", "libpmix2", "libhdf5-dev", "libhdf5-103-1", "libhdf5-hl-100",
            "libspdlog-dev", "libspdlog1.10", "libfmt-dev", "libfmt9", "nlohmann-json3-dev", "libgtest-dev", "libssl-dev",
            "libboost-program-options1.74-dev", "libboost-program-options1.74.0"]
KEPT = re.compile(rf"/(usr/include|{MULTIARCH}|usr/lib/cmake|usr/share/cmake|usr/share/openmpi|usr/share/pmix|usr/bin/(mpi|orte)|etc/openmpi)")
# No Java, Fortran or static libraries, nor fabrics that one machine has no use for and that bring libraries of their own.
LEFT_OUT = re.compile(r"\.la$|(?<!libgtest)(?<!libgtest_main)\.a$|\.jar$|\.mod$|/pkgconfig/|fortran|java|mpifh|usempi|oshmem|mca_(spml|scoll|memheap|sshmem|atomic)_|"
                      r"_(ofi|ucx|psm|psm2|usnic|openib|portals4|verbs|cuda|monitoring)\.so|/mca_mtl_|libhdf5\w*_cpp|hwloc|\.pc$|romio")
BASE = re.compile(r"/(ld-linux|libc|libm|libdl|libpthread|librt|libresolv|libutil|libstdc\+\+|libgcc_s|libgomp)[-.]")
WHEELS = ["nvidia-cuda-crt==13.0.88", "nvidia-cuda-cccl==13.0.85"]  # CUDA headers: torch's own wheels lack these
WHEELS_TO_RUN = ["h5py==3.16.0", "safetensors==0.8.0"]  # installed there where the machine has none


def output(*command):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def package_files():
    for package in PACKAGES:
        for line in output("dpkg", "-L", package).splitlines():
            path = Path(line)
            if KEPT.match(line) and not LEFT_OUT.search(line) and (path.is_file() or path.is_symlink()) and path.exists() and not path.is_dir():
                yield path


def boost_files():
    """Boost's headers are many: of those folders alone that program_options takes from, with CMake's files for them."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "boost.cpp"
        source.write_text("#include <boost/program_options.hpp>\n#include <boost/version.hpp>\n")
        for file in set(re.findall(r"/usr/include/boost/\S+", output("g++", "-std=c++20", "-M", source))):
            folder_of_it = Path(file).parent
            yield from ([Path(file)] if folder_of_it.name == "boost" else (f for f in folder_of_it.rglob("*") if f.is_file()))
    for folder in Path("/", MULTIARCH, "cmake").glob("[Bb]oost*"):
        yield from (f for f in ([folder] if folder.is_file() else folder.rglob("*")) if f.is_file())


def with_libraries(files):
    """These and the shared libraries that they want."""
    found = set(files)
    for path in list(found):
        real = path.resolve()
        found.add(real)
        with open(real, "rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        for library in re.findall(r"=> (/\S+)", subprocess.run(["ldd", real], capture_output=True, text=True).stdout):
            if not BASE.search(library):
                library = Path("/usr", library[1:]) if library.startswith("/lib/") else Path(library)
                found |= {library, library.resolve()}
    return found


def name_of(path):
    """Debian's alternatives are links through /etc: the file itself takes their name."""
    return str(path).lstrip("/")


def add_all(archive, files):
    for path in sorted(files):
        if path.is_symlink() and "alternatives" not in str(path.readlink()):
            link = archive.gettarinfo(path, name_of(path))
            target = path.readlink()
            if target.is_absolute():
                link.linkname = "/".join([".."] * len(path.parts[1:-1])) + str(target)
            archive.addfile(link)
        else:
            real = path.resolve()
            entry = archive.gettarinfo(real, name_of(path))
            entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", real.stat().st_size
            with open(real, "rb") as data:
                archive.addfile(entry, data)


def wheels(folder, python):
    platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in (17, 24, 26, 27, 28, 31, 34)] + ["--platform=manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--implementation=cp",
               f"--python-version={python}", *platforms]
    subprocess.run([*command, "-d", folder / "headers", *WHEELS], check=True)
    subprocess.run([*command, "-d", folder / "run", *WHEELS_TO_RUN], check=True)
    peers = ROOT / "bench/versus/requirements.txt"
    names = [line for line in peers.read_text().splitlines() if line and not line.startswith("#")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "-w", folder / "peers", *names], check=True)


def pack(folder, python):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.rglob("*.whl"):
        old.unlink()
    with tarfile.open(folder / "prefix.tar.xz", "w:xz", preset=2) as archive:
        add_all(archive, with_libraries([*package_files(), *boost_files()]))
    wheels(folder, python)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**20
    print(f"{folder}: {size:.1f} MiB")
    if size > 60:
        sys.exit("the kit is over 60 MiB")
