#!/usr/bin/env python3
"""Writes the first inputs of each fuzz target from the test models.

    make_seeds.py FIXTURES OUT
"""

import io
import json
import struct
import sys
import zipfile
from pathlib import Path

LARGEST = 1 << 16
LARGEST_PROGRAM = 1 << 14


def without_stack_traces(value):
    if isinstance(value, dict):
        return {key: without_stack_traces(item) for key, item in value.items() if key not in ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node")}
    return [without_stack_traces(item) for item in value] if isinstance(value, list) else value


def parts_of_program(path):
    """The graph, the configurations of weights and constants, and bytes for them: the parts that program_fuzz.cpp puts into an archive again."""
    with zipfile.ZipFile(path) as archive:
        names = {name.split("/", 1)[1]: name for name in archive.namelist() if "/" in name}
        model = without_stack_traces(json.loads(archive.read(names["models/model.json"])))
        configs = [archive.read(names[name]) if name in names else b"{}"
                   for name in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")]
    return b"\0".join([json.dumps(model, separators=(",", ":")).encode(), *configs, b"\x3f" * 64])


def small_zip(entries):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


def safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


SAFETENSORS = [
    safetensors({}),
    safetensors({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "b": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]}}, b"\1" * 32),
    safetensors({"e": {"dtype": "BF16", "shape": [0, 4], "data_offsets": [0, 0]}, "f": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}}, b"\1\0\1\0"),
]

MANIFEST = {
    "hesspect_checkpoint": 4, "kind": "probe", "run_id": "r", "probe": 0, "steps": 2, "state": "00ff", "n": 10, "ranks": 2, "cut": [2, 5, 1, 0, 10],
    "basis_element_bytes": 4, "running_element_bytes": 8,
    "pieces": [{"set": "basis", "first_row": 0, "rows": 3, "rank": r, "bytes": 60, "sha256": "0123456789abcdef" * 4,
                "file": f"basis-000000-000003.rank-000{r}-of-0002.0123456789abcdef"} for r in (0, 1)],
}
QUADRATURE = {"probe": 0, "alpha": [1.5, 2], "beta": [0.5], "beta_last": 0, "ritz": [1, 3], "weight": [0.5, 0.5], "norm_sq": 10, "breakdown": False, "orthogonality_loss": 1e-16}
EIGENVALUE = {"value": 3, "residual": 1e-9, "true_residual": "000000000000f87f", "error": 1e-9, "converged": True}
EIGENVALUES = {"top": [EIGENVALUE], "bottom": [], "magnitude": [], "steps": 2, "residual_products": 0, "thick_restarts": 0, "method": "lanczos", "converged": True, "exhausted": False}
SAMPLE = {"probe": 0, "quadratic_form": 12.5, "product_norm_sq": 20, "layers": [4, 8.5]}
BYTES = {name: 8 for name in ("process", "parameters", "buffers", "data", "vectors", "basis", "basis_host", "kept_graphs", "transient", "outputs", "holes")}
PLAN = {"groups": 1, "data_ranks": 2, "lock_step": 1, "joint": 4, "basis_dtype": "float32", "basis_memory": "device", "bytes": BYTES, "fits": True, "product_s": 0.5, "run_s": 9.5} | {
    name: 2 for name in ("max_basis", "micro_batch", "micro_batches", "kept_graphs", "graph_budget_bytes", "products", "products_in_turn", "messages_per_step", "message_bytes_per_step")}
LAYOUT = {"plan": PLAN, "world": 2, "threads": 1, "device": "cpu"}
RUN = {
    "hesspect_checkpoint": 4, "kind": "run", "run_id": "r", "config": "steps = 80\n", "model": [{"path": "m.pt2", "sha256": "00"}], "weights": [], "data": [{"path": {"hex": "ff"}, "sha256": ""}],
    "layout": LAYOUT, "finished": [{"quadrature": QUADRATURE, "eigenvalues": EIGENVALUES}], "samples": [SAMPLE], "deflated": [SAMPLE],
    "deflation": {"rank": 3, "captured": 1.5, "layers": []},
    "trace": {"value": 1, "standard_error": 0.1, "half_width": 0.2, "confidence": 0.9, "samples": 3, "products": 6, "captured": 0.5, "deflated": 3, "method": "deflated", "converged": True},
    "eigenvalues": None,
    "symmetry_error": 1e-16, "curvature_scale": 1, "products": 3, "product_s": 0.5, "communication_s": 0, "elapsed_s": 1, "starts": 1, "overwrite": False,
}


def a_result():
    """What a run of everything leaves, small, as result_fuzz.cpp reads it: layout 2."""
    process = {name: "x" for name in ("run_id", "version", "git_revision", "build_type", "torch_version", "hdf5_version", "mpi_version", "command", "config", "weights_format", "model_torch_version",
                                      "dtype", "device", "distribution", "curvature", "loss", "start_time", "end_time")}
    process |= {"argv": ["hesspect", "analyze"], "hosts": ["a"], "ranks": 1, "threads": 2, "seed": 7}
    for name in ("model", "weights", "data"):
        process |= {name: ["f"], f"{name}_sha256": ["0f"]}
    diagnostics = {name: 1.5 for name in ("symmetry_error", "orthogonality_loss", "hvp_seconds", "communication_seconds", "cost_in_gradients", "elapsed_seconds", "loss", "gradient_norm", "n_loss_terms",
                                          "forecast_seconds", "forecast_hvp_seconds", "gradient_seconds", "product_share")}
    diagnostics |= {name: 2 for name in ("hvp_count", "n_parameters", "n_rows", "micro_batch", "peak_memory_bytes", "peak_device_bytes", "groups", "data_ranks", "lock_step", "basis_bytes", "micro_batches",
                                         "kept_graphs", "messages_per_step", "message_bytes_per_step", "starts", "forecast_memory_bytes")}
    diagnostics |= {"basis_dtype": "float32", "basis_memory": "host", "widened_weights": [], "warnings": ["w"]}
    entry = {
        "density": {"lambda": [-1, 0, 0.5, 2], "density": [0.1, 1, 0.5, 0.01], "density_errors": [0, 0, 0, 0], "sigma": 0.1},
        "cumulative": {"lambda": [-1, 2], "cumulative": [0.5, 1], "cumulative_lower": [0.25, 0.5], "cumulative_upper": [0.75, 1], "confidence": 0.9, "band": "jackknife", "probes": 3, "converged": 1,
                       "w1": 0.1, "w1_sampling": 0.05, "w1_quadrature": 0.05, "range": [-1, 2], "exact_points": 1, "zero_width": 1e-6, "weight_at_zero": 0.1, "weight_at_zero_error": 0.01,
                       "negative_mass": 0.2, "negative_mass_error": 0.01, "moments": [1, 2, 3, 4], "moments_error": [0.1, 0.1, 0.1, 0.1]},
        "eigenvalues": {"eigenvalue": [2, 1, -1], "which": ["top", "top", "bottom"], "residual": [0, 0, 0], "true_residual": [None, 0, 0], "error": [0, 0, 0], "converged": [1, 1, 0], "n_top": 2, "n_bottom": 1,
                        "steps": 20, "all_converged": 0, "exhausted": 0, "residual_products": 1, "thick_restarts": 0, "method": "lanczos"},
        "trace": {"value": 1.5, "stderr": 0.1, "samples": 2, "half_width": 0.2, "confidence": 0.9, "products": 1, "captured": 0.5, "deflated": 2, "method": "deflated", "converged": 1,
                  "sample": [1.4, 1.6], "sample_product_norm_sq": [2, 2], "sample_probe": [0, 1]},
        "layers": {"name": ["a", "b"], "size": [4, 6], "trace": [1, 0.5], "trace_error": [0.1, None]},
        "quadrature": {"alpha": [[1, 2], [1, None]], "beta": [[0.5, 0.1], [0.2, None]], "ritz": [[0, 2], [1, None]], "weight": [[0.5, 0.5], [1, None]], "norm_sq": [10, 10],
                       "orthogonality_loss": [0, 0], "probe": [0, 1], "steps_taken": [2, 1], "breakdown": [0, 1]},
        "process": process, "diagnostics": diagnostics,
        "diagnostics/products": {name: 3 for name in ("symmetry", "first_probe", "density", "trace", "eigenvalues", "residuals", "surplus", "total")},
    }
    return {"hesspect_schema": 2} | {f"/entry/{group}/{name}": value for group, items in entry.items() for name, value in items.items()}


def main():
    fixtures, out = Path(sys.argv[1]), Path(sys.argv[2])
    counts = {}

    def seed(target, content):
        folder = out / target
        folder.mkdir(parents=True, exist_ok=True)
        if len(content) > LARGEST:
            return
        counts[target] = counts.get(target, 0) + 1
        (folder / f"seed-{counts[target]:03}").write_bytes(content if isinstance(content, bytes) else content.encode())

    for path in sorted(fixtures.glob("*.pt2")):
        try:
            content = parts_of_program(path)
        except (KeyError, zipfile.BadZipFile):
            continue
        if len(content) <= LARGEST_PROGRAM:
            seed("program", content)
        seed("zip", path.read_bytes())
    for path in sorted((fixtures / "ckpt").iterdir()):
        if not path.is_file():
            continue
        if path.stat().st_size <= LARGEST:
            seed("weights", b"\0" + path.read_bytes())
        if path.suffix == ".safetensors":
            seed("safetensors", path.read_bytes())
        if zipfile.is_zipfile(path):
            seed("zip", path.read_bytes())
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith("data.pkl"):
                        seed("pickle", archive.read(name))
                        seed("weights", b"\1" + archive.read(name))
    for content in SAFETENSORS:
        seed("safetensors", content)
        seed("weights", b"\0" + content)
        seed("data", b"\0" + content)
    seed("weights", b"\2" + json.dumps({"metadata": {"total_size": 32}, "weight_map": {"a": "shard.safetensors", "b": "shard.safetensors"}}).encode())
    seed("zip", small_zip({"m/a": b"abc", "m/b/": b"", "m/data/0": b"\0" * 16}))
    seed("ini", "# comment\n[model]\nmodel = m.pt2\ndata = \"d # 1.h5\"  ; more\nloss = cross_entropy\nmicro-batch = 64\nseed = 7\ntop=3\n")
    seed("ini", "\ufeffsteps = 80\r\nprobes=4\nrtol-eigs = 1e-3\nsigma = 0.01\n")
    for path in sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.ini")):
        seed("ini", path.read_bytes())
    seed("checkpoint", json.dumps(RUN))
    seed("checkpoint", json.dumps(MANIFEST))
    seed("result", json.dumps(a_result()))
    seed("result", json.dumps({name: value for name, value in a_result().items() if "density" not in name and "cumulative" not in name and "layers" not in name}))
    for target in ("symbolic", "hdf5", "data", "lanczos_record"):
        for length in (8, 64, 256):
            seed(target, bytes((7 * i + length) % 256 for i in range(length)))
    print("fuzz: seeds: " + ", ".join(f"{target} {count}" for target, count in sorted(counts.items())))


if __name__ == "__main__":
    sys.exit(main())
