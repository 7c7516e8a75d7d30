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
TARGETS = ["hesspect", "gpu_tests", "comm_tests", "comm_mpi_tests", "krylov_mpi_tests", "tangent_tests", "curvature_tests", "curvature_mpi_tests"]
# Models of the tests below, by tests/fixtures.
FIXTURES = ["mlp_ce", "cnn_bn", "gpt2", "fourier", "complex_parameters", "llama", "widedeep", "mixture", "ckpt"]
# Whole runs against the CPU's, which CI has on simulated GPUs; those of two ranks want two of these.
WHOLE_RUNS = ["test_three_families", "test_products", "test_what_autograd_has_a_part_in", "test_parameters_in_host_memory", "test_rounded_matrix_products",
              "test_resumed_to_the_same_bits", "test_distance_from_initial_weights", "test_inputs", "test_other_commands"]
TESTS = [  # every test with a part that wants a GPU or NCCL, and the kernels' own, which go to the GPU where there is one
    ("the library for GPUs", [], "gpu_tests", []),
    ("NCCL and CUDA, alone", [], "comm_tests", []),
    ("communicators on one rank", ["-n", "1"], "comm_mpi_tests", ["communicator_test"]),
    ("communicators on two ranks", ["-n", "2"], "comm_mpi_tests", ["communicator_test", "agree_test"]),
    ("Lanczos on two ranks", ["-n", "2"], "krylov_mpi_tests", ["lanczos_mpi_test"]),
    ("GPU kernels", [], "tangent_tests", ["gpu_kernels_test"]),
    ("kernels", [], "tangent_tests", ["norm_kernels_test", "softmax_kernels_test", "cross_entropy_kernels_test", "pointwise_kernels_test",
                                      "sums_kernels_test", "vectorised_kernels_test"]),
    ("CUDA graphs", [], "curvature_tests", ["replayed_products_test"]),
    ("parameters in shards and in host memory", ["-n", "1"], "curvature_mpi_tests", ["--gtest_filter=OnAGpu.*", "sharded_products_test"]),
]


class Steps:
    """Each has a log, LOGS/NAME.log."""

    def __init__(self, seconds, logs):
        self.end, self.logs, self.done, self.beside = time.monotonic() + seconds, logs, [], {}
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)

    def left(self):
        return self.end - time.monotonic()

    def run(self, name, command, environment, share=1.0):
        """True if it ended well. `share`: of the time that is left, at most."""
        self.begin(name, command, environment)
        return self.wait_for(name, share)

    def begin(self, name, command, environment):
        with open(self.log(name), "w") as file:
            self.beside[name] = subprocess.Popen([str(c) for c in command], stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)

    def wait_for(self, name, share):
        started = time.monotonic()
        try:
            code = self.beside[name].wait(timeout=max(1.0, share * self.left()))
        except subprocess.TimeoutExpired:
            code = "out of time"
            self.beside[name].kill()
        return self.note(name, code, time.monotonic() - started, self.log(name).read_text(errors="replace"))

    def log(self, name):
        return self.logs / (name.replace(" ", "-").replace(",", "") + ".log")

    def end_all(self):
        for process in self.beside.values():
            process.kill()

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
           "PMIX_MCA_pcompress_base_silence_warning": "1", "HESSPECT_SOURCE": ROOT, "HESSPECT_FIXTURES": TREE / "fixtures", "HESSPECT_PYTHON": sys.executable}
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
    """Few files, for machines that bring back no more."""
    lines = [f"# On a GPU machine, {datetime.date.today()}\n", f"{about}, {os.cpu_count()} cores; `bench/gpu/kit run` (bench/gpu/README.md).\n",
             "| step | end | seconds | |", "| --- | --- | --- | --- |"]
    lines += [f"| {s['step']} | {'well' if s['code'] == 0 else s['code']} | {s['seconds']} | {s['said'].replace('|', '/')} |" for s in steps.done]
    if products.is_file():
        lines += ["", products.read_text().strip()]
    name = f"{datetime.date.today()}-gpu"
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    (out / f"{name}.json").write_text(json.dumps({"about": about, "steps": steps.done}, indent=1) + "\n")
    with tarfile.open(out / f"{name}-logs.tar.gz", "w:gz") as archive:
        archive.add(steps.logs, "logs")


def run(arguments):
    out = Path(os.environ.get("OUT") or ROOT / "build" / "gpu-results")
    out.mkdir(parents=True, exist_ok=True)
    steps, jobs = Steps(arguments.seconds, TREE / "logs"), arguments.jobs or os.cpu_count()
    started = time.monotonic()
    unpack(arguments.folder)
    steps.note("unpack", 0, time.monotonic() - started, "")
    env = environment()
    about = versions(env)
    # The models are made and exported while the compiler runs.
    compare, table = [sys.executable, HERE / "compare.py", "--device", arguments.device], steps.logs / "products.txt"
    making = env | {"OMP_NUM_THREADS": "2"}
    steps.begin("fixtures", [sys.executable, ROOT / "tests/fixtures/make_fixtures.py", TREE / "fixtures", *(f"--only={name}" for name in FIXTURES)], making)
    steps.begin("models", [*compare, "--make", *arguments.problems], making)
    host, large = [sys.executable, HERE / "host.py", "--device", arguments.device], TREE / "large"
    steps.begin("large model", [*host, "--make", "--millions", str(arguments.millions), large], making)
    if steps.run("configure", configure(), env) and steps.run("build", ["cmake", "--build", TREE / "release", "-j", jobs, "--target", *TARGETS], env, 0.75):
        tests = TREE / "release" / "tests"
        steps.wait_for("fixtures", 0.3)
        for name, mpirun, program, files in TESTS:
            launcher = [TREE / "prefix/usr/bin/orterun", "--oversubscribe", "--bind-to", "none", *mpirun] if mpirun else []
            steps.run(name, [*launcher, tests / program, *files], env, 0.4)
        steps.wait_for("models", 0.5)
        steps.run("products", [*compare, "--hesspect", TREE / "release/bin/hesspect", "--table", table, *arguments.problems], env, 0.7)
        if steps.wait_for("large model", 0.5):
            steps.run("parameters in host memory", [*host, "--hesspect", TREE / "release/bin/hesspect", "--table", table, large], env)
        if arguments.device == "cuda":
            whole = [sys.executable, ROOT / "tests/simulated_gpu/whole_runs.py", *(f"OnSimulatedGpus.{name}" for name in WHOLE_RUNS)]
            steps.run("whole runs", whole, env | {"HESSPECT_BIN": str(TREE / "release/bin/hesspect"), "HESSPECT_TRUE_GPU": "1"})
    steps.end_all()
    report(steps, about, table, out)
    return 0 if all(s["code"] == 0 for s in steps.done) else 1
