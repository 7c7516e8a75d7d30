"""What `kit run` does on the GPU machine: a list of steps, each with the time that is left, whose ends and logs make the report."""

import datetime
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TREE = ROOT / "build" / "gpu"  # prefix, site and build
TARGETS = ["hesspect", "comm_tests", "comm_mpi_tests", "krylov_mpi_tests", "tangent_tests"]
TESTS = [  # every test with a part that wants a GPU or NCCL, and the kernels' own, which go to the GPU where there is one
    ("NCCL and CUDA, alone", [], "comm_tests", []),
    ("communicators on one rank", ["-n", "1"], "comm_mpi_tests", ["communicator_test"]),
    ("communicators on two ranks", ["-n", "2"], "comm_mpi_tests", ["communicator_test", "agree_test"]),
    ("Lanczos on two ranks", ["-n", "2"], "krylov_mpi_tests", ["lanczos_mpi_test"]),
    ("GPU kernels", [], "tangent_tests", ["gpu_kernels_test"]),
    ("kernels", [], "tangent_tests", ["norm_kernels_test", "softmax_kernels_test", "cross_entropy_kernels_test", "pointwise_kernels_test",
                                      "sums_kernels_test", "vectorised_kernels_test"]),
]


class Steps:
    def __init__(self, seconds, out):
        self.end, self.out, self.done = time.monotonic() + seconds, out, []

    def left(self):
        return self.end - time.monotonic()

    def run(self, name, command, environment=None, share=1.0):
        """True if it ended well. Its log is OUT/NAME.log; `share`: of the time that is left, at most."""
        started, log = time.monotonic(), self.out / (name.replace(" ", "-").replace(",", "") + ".log")
        with open(log, "w") as file:
            try:
                code = subprocess.run([str(c) for c in command], stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT,
                                      timeout=max(1.0, share * self.left())).returncode
            except subprocess.TimeoutExpired:
                code = "out of time"
        return self.note(name, code, time.monotonic() - started, log.read_text(errors="replace"))

    def note(self, name, code, seconds, text):
        tail = text.strip().splitlines()
        said = next((line for line in reversed(tail) if "PASSED" in line or "SKIPPED" in line or "FAILED" in line), tail[-1] if tail else "")
        self.done.append({"step": name, "code": code, "seconds": round(seconds, 1), "said": said.strip()[:160]})
        print(f"{name}: {'ok' if code == 0 else code} ({seconds:.0f} s) {said.strip()[:160]}", flush=True)
        if code != 0:
            print("\n".join(tail[-15:]), flush=True)
        return code == 0


def unpack(kit):
    """Debian's files into TREE/prefix, wheels into TREE/site; only those wheels to run with that this Python lacks."""
    shutil.rmtree(TREE / "site", ignore_errors=True)
    with tarfile.open(kit / "prefix.tar.xz") as archive:
        archive.extractall(TREE / "prefix")
    missing = {"run": lambda name: importlib.util.find_spec(name) is None, "headers": lambda name: True, "peers": lambda name: True}
    for group, wanted in missing.items():
        for wheel in (kit / group).glob("*.whl"):
            if wanted(wheel.name.split("-")[0]):
                zipfile.ZipFile(wheel).extractall(TREE / "site" / ("peers" if group == "peers" else ""))


def environment():
    """Of the machine with the prefix's programs and libraries; Open MPI and PMIx are told where they now are."""
    prefix = TREE / "prefix"
    libraries = prefix / "usr/lib/x86_64-linux-gnu"
    own = {"PATH": f"{prefix}/usr/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH": f"{libraries}:{libraries}/pmix2/lib:{os.environ.get('LD_LIBRARY_PATH', '')}",
           "OPAL_PREFIX": prefix / "usr", "OPAL_LIBDIR": libraries / "openmpi/lib", "OPAL_PKGLIBDIR": libraries / "openmpi/lib/openmpi3",
           "OPAL_SYSCONFDIR": prefix / "etc/openmpi", "OPAL_DATADIR": prefix / "usr/share", "PMIX_INSTALL_PREFIX": libraries / "pmix2",
           "PYTHONPATH": f"{TREE}/site:{TREE}/site/peers:{ROOT}/python", "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
           "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
           "PMIX_MCA_pcompress_base_silence_warning": "1", "HESSPECT_SOURCE": ROOT, "HESSPECT_PYTHON": sys.executable}
    return os.environ | {k: str(v) for k, v in own.items()}


def configure():
    """The prefix is not where CMake's modules look for Debian's MPI and HDF5, so that they are told."""
    usr = TREE / "prefix" / "usr"
    libraries = usr / "lib/x86_64-linux-gnu"
    headers = next((TREE / "site").glob("nvidia/*/include"), TREE / "site")
    settings = {"CMAKE_BUILD_TYPE": "Release", "CMAKE_UNITY_BUILD": "ON", "CMAKE_UNITY_BUILD_BATCH_SIZE": "8", "HESSPECT_PYTHON": sys.executable,
                "HESSPECT_USE_CCACHE": "OFF", "CMAKE_PREFIX_PATH": usr, "CMAKE_CXX_FLAGS": f"-isystem {headers} -isystem {usr}/include/x86_64-linux-gnu",
                "CMAKE_EXE_LINKER_FLAGS": f"-Wl,-rpath-link,{libraries}",
                "MPI_SKIP_COMPILER_WRAPPER": "ON", "MPI_CXX_LIB_NAMES": "mpi", "MPI_mpi_LIBRARY": libraries / "openmpi/lib/libmpi.so",
                "MPI_CXX_HEADER_DIR": libraries / "openmpi/include", "MPIEXEC_EXECUTABLE": usr / "bin/orterun", "MPI_CXX_SKIP_MPICXX": "ON",
                "HDF5_ROOT": usr, "HDF5_C_INCLUDE_DIR": usr / "include/hdf5/serial", "HDF5_hdf5_LIBRARY_RELEASE": libraries / "hdf5/serial/libhdf5.so",
                "HDF5_hdf5_hl_LIBRARY_RELEASE": libraries / "hdf5/serial/libhdf5_hl.so",
                "OPENSSL_ROOT_DIR": usr, "OPENSSL_INCLUDE_DIR": usr / "include", "OPENSSL_CRYPTO_LIBRARY": libraries / "libcrypto.so"}
    return ["cmake", "-G", "Ninja", "-S", ROOT, "-B", TREE / "release", *(f"-D{k}={v}" for k, v in settings.items())]


def versions(environment):
    code = ("import torch, platform; print('Python', platform.python_version() + ', torch', torch.__version__ + ',', "
            "torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout.strip()


def report(steps, about, products, out):
    lines = [f"# On a GPU machine, {datetime.date.today()}\n", f"{about}, {os.cpu_count()} cores; `bench/gpu/kit run` (bench/gpu/README.md).\n",
             "| step | end | seconds | |", "| --- | --- | --- | --- |"]
    lines += [f"| {s['step']} | {'well' if s['code'] == 0 else s['code']} | {s['seconds']} | {s['said'].replace('|', '/')} |" for s in steps.done]
    if products.is_file():
        lines += ["", products.read_text().strip()]
    name = f"{datetime.date.today()}-gpu"
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    (out / f"{name}.json").write_text(json.dumps({"about": about, "steps": steps.done}, indent=1) + "\n")


def run(arguments):
    out = Path(os.environ.get("OUT") or ROOT / "build" / "gpu-results")
    out.mkdir(parents=True, exist_ok=True)
    steps, jobs = Steps(arguments.seconds, out), arguments.jobs or os.cpu_count()
    started = time.monotonic()
    unpack(arguments.folder)
    steps.note("unpack", 0, time.monotonic() - started, "")
    env = environment()
    about = versions(env)
    # The models are made and exported while the compiler runs.
    compare = [sys.executable, HERE / "compare.py", "--device", arguments.device]
    making = subprocess.Popen([*map(str, compare), "--make", *arguments.problems], env=env | {"OMP_NUM_THREADS": "2"}, cwd=ROOT,
                              stdout=open(out / "models.log", "w"), stderr=subprocess.STDOUT)
    table = out / "products.txt"
    if steps.run("configure", configure(), env) and steps.run("build", ["cmake", "--build", TREE / "release", "-j", jobs, "--target", *TARGETS], env, 0.75):
        tests = TREE / "release" / "tests"
        for name, mpirun, program, files in TESTS:
            launcher = [TREE / "prefix/usr/bin/orterun", "--oversubscribe", "--bind-to", "none", *mpirun] if mpirun else []
            steps.run(name, [*launcher, tests / program, *files], env, 0.4)
        started = time.monotonic()
        try:
            code = making.wait(timeout=max(1.0, 0.5 * steps.left()))
        except subprocess.TimeoutExpired:
            code = "out of time"
        steps.note("models", code, time.monotonic() - started, (out / "models.log").read_text())
        steps.run("products", [*compare, "--hesspect", TREE / "release/bin/hesspect", "--table", table, *arguments.problems], env)
    making.kill()
    report(steps, about, table, out)
    return 0 if all(s["code"] == 0 for s in steps.done) else 1
