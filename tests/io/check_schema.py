"""Checks a result of result_file_test.cpp as its readers see it: h5py, and silx and xarray where they are installed. The
second file is what hesspect writes of that result after it has read it."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import h5py
import numpy as np

path = sys.argv[1]
PYTHON = Path(__file__).parents[2] / "python"
with h5py.File(path) as f:
    assert f.attrs["NX_class"] == "NXroot" and f.attrs["default"] == "entry"
    entry = f["entry"]
    assert entry.attrs["NX_class"] == "NXentry" and entry.attrs["default"] == "density"
    density = entry["density"]
    assert density.attrs["NX_class"] == "NXdata" and density.attrs["signal"] == "density"
    assert list(density.attrs["axes"]) == ["lambda"]
    np.testing.assert_array_equal(density["lambda"], [-1, 0, 1.5])
    assert density["density"].dims[0][0].name == "/entry/density/lambda"
    np.testing.assert_array_equal(entry["eigenvalues/eigenvalue"], [3.5, 2, -0.5])
    np.testing.assert_array_equal(entry["eigenvalues/converged"], [1, 0, 1])
    alpha, beta = entry["quadrature/alpha"][()], entry["quadrature/beta"][()]
    np.testing.assert_array_equal(alpha, [[1, 2, 3], [7, np.nan, np.nan]])
    np.testing.assert_array_equal(beta, [[0.5, 0.25, 0.125], [0, np.nan, np.nan]])
    assert entry["quadrature/weight"].shape == entry["quadrature/ritz"].shape == (2, 3)
    assert entry["trace/value"][()] == 12.5 and entry["trace/stderr"][()] == 0.5 and entry["trace/samples"][()] == 3
    trace = entry["trace"]
    for name, value in {"half_width": 0.9, "confidence": 0.95, "products": 2, "captured": 10, "deflated": 7,
                        "converged": 0}.items():
        assert trace[name][()] == value, name
    assert trace["method"].asstr()[()] == "deflated" and np.mean(trace["sample"][()]) == trace["value"][()]
    np.testing.assert_array_equal(trace["sample_probe"], [0, 5, 9])
    eigenvalues = entry["eigenvalues"]
    assert list(eigenvalues["which"].asstr()) == ["top", "top", "bottom"]
    np.testing.assert_array_equal(eigenvalues["true_residual"], [2e-9, np.nan, 3e-8])
    np.testing.assert_array_equal(eigenvalues["error"], [1e-17, 1e-3, 4e-8])
    assert eigenvalues["method"].asstr()[()] == "lanczos" and eigenvalues["steps"][()] == 42
    assert eigenvalues["residual_products"][()] == 3 and eigenvalues["thick_restarts"][()] == 1
    cumulative = entry["cumulative"]
    assert cumulative.attrs["signal"] == "cumulative" and list(cumulative.attrs["axes"]) == ["lambda"]
    assert list(cumulative.attrs["auxiliary_signals"]) == ["cumulative_lower", "cumulative_upper"]
    np.testing.assert_array_equal(cumulative["cumulative_upper"], [0.375, 1, 1])
    np.testing.assert_array_equal(cumulative["range"], [-1.5, 3.5])
    np.testing.assert_array_equal(cumulative["moments"], [1, 2, 3, 4])
    assert cumulative["band"].asstr()[()] == "jackknife" and cumulative["w1_quadrature"][()] == 0.25
    assert cumulative["weight_at_zero"][()] == 0.5 and cumulative["weight_at_zero_error"][()] == 0.0625
    layers = entry["layers"]
    assert list(layers["name"].asstr()) == ["a.weight", "a.bias"]
    np.testing.assert_array_equal(layers["mean"][()], [0.1, 2.5 / 94])
    np.testing.assert_array_equal(layers["mean_error"][()], [0.01, np.nan])
    products = entry["diagnostics/products"]
    assert {name: int(node[()]) for name, node in products.items()} == {
        "symmetry": 2, "first_probe": 80, "density": 40, "trace": 5, "eigenvalues": 6, "residuals": 3, "surplus": 1,
        "total": 137}

    summary, block = entry["block_summary"], entry["blocks/layer1.0 (a)"]
    assert list(summary["name"].asstr()) == ["layer1.0 (a)", "b"] == sorted(entry["blocks"], reverse=True)
    for name, values in {"parameters": [100, 4], "largest": [3, np.nan], "largest_error": [0.5, np.nan], "smallest": [-1, np.nan],
                         "smallest_error": [0.25, np.nan], "trace": [50, 8], "trace_error": [2, 0], "mean": [0.5, 2],
                         "mean_error": [0.02, 0], "js_distance": [[0, 0.75], [0.75, 0]]}.items():
        np.testing.assert_array_equal(summary[name], values, err_msg=name)
    for name, value in {"rest_parameters": 90, "norm_sq": 16, "norm_sq_error": 2, "off_block_share": 0.25, "off_block_share_error": 0.125,
                        "js_distance_mean": 0.75, "js_sigma": 0.03125}.items():
        assert summary[name][()] == value, name
    assert block["norm_sq"][()] == 9 and block["products"][()] == 120 and block["seconds"][()] == 0.5
    assert list(block["tensors"].asstr()) == ["a.weight", "a.bias"] and list(entry["blocks/b"]) == [
        "norm_sq", "norm_sq_error", "parameters", "products", "seconds", "tensors", "trace", "unused"]
    assert list(entry["process/selected"].asstr()) == ["a.weight", "a.bias"] and entry["diagnostics/n_model_parameters"][()] == 1000

    process = entry["process"]
    assert process.attrs["NX_class"] == "NXprocess" and process["program"].asstr()[()] == "hesspect"
    assert list(process["argv"].asstr()) == ["hesspect", "analyze", "--model", "modèle.pt2"]
    assert process["seed"][()] == 2**64 - 1
    assert list(process["model_sha256"].asstr()) == ["00ff"] and len(process["weights"]) == 0
    assert entry["diagnostics/hvp_count"][()] == 240 and np.isnan(entry["diagnostics/symmetry_error"][()])

    assert process["run_id"].asstr()[()] == "5eed"
    diagnostics = entry["diagnostics"]
    for name, value in {
        "peak_device_bytes": 101, "groups": 102, "data_ranks": 103, "lock_step": 104, "basis_bytes": 105,
        "micro_batches": 106, "kept_graphs": 107, "cuda_graphs": 112, "messages_per_step": 108, "message_bytes_per_step": 109,
        "starts": 110, "forecast_memory_bytes": 111, "forecast_seconds": 0.5, "forecast_hvp_seconds": 0.25,
        "gradient_seconds": 0.125, "product_share": 0.0625, "seconds_krylov": 0.375, "seconds_matrix_products": 0.03125,
    }.items():
        assert diagnostics[name][()] == value, name
    assert diagnostics["basis_dtype"].asstr()[()] == "bfloat16" and diagnostics["basis_memory"].asstr()[()] == "host"
    assert diagnostics["gradient_seconds"].attrs["units"] == "s" and diagnostics["basis_bytes"].attrs["units"] == "byte"

    def labelled(name, item):
        if isinstance(item, h5py.Dataset):
            assert item.attrs["long_name"], name
            assert "units" in item.attrs, name
        else:
            assert item.attrs["NX_class"], name

    f.visititems(labelled)

    # and nothing but what the schema names, as it names it
    found = {}
    entry.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    for name in [name for name in found if name.startswith("blocks/b/")]:  # it has not all that the other has
        del found[name]
    found = {re.sub("^blocks/[^/]+/", "blocks/<name>/", name): item for name, item in found.items()}
    beside = {"start_time", "end_time", *(name for name in found if name.rpartition("/")[2] == "title")}
    schema = {field["path"]: field for field in json.loads((PYTHON / "hesspect/schema.json").read_text())}
    assert found.keys() - beside == schema.keys(), found.keys() - beside ^ schema.keys()
    for name, field in schema.items():
        item = found[name]
        kind = "text" if item.dtype.kind == "S" else "bool" if item.dtype == np.uint8 else str(item.dtype)
        assert (kind, item.ndim) == (field["type"], len(field["shape"])), name
        assert (item.attrs["long_name"], item.attrs["units"]) == (field["long_name"], field["units"]), name
        for number, axis in enumerate(field["shape"]):
            coordinate = f"{Path(name).parent}/{axis}"
            if coordinate in found and coordinate != name:
                assert item.dims[number][0].name == found[coordinate].name, name

    with h5py.File(sys.argv[2]) as again:
        for name, item in found.items():
            np.testing.assert_array_equal(again[item.name][()], item[()], err_msg=name)
        assert again["entry/blocks/b/trace/method"].asstr()[()] == "exact"

    # the package's reader sees the same numbers
    sys.path.insert(0, str(PYTHON))
    import hesspect

    read = hesspect.read(path)
    assert read.run_id == "5eed" and read.basis_dtype == "bfloat16" and read.basis_memory == "host"
    assert read.products["total"] == 137 and read.layer_names == ("a.weight", "a.bias") and read.layer_means[0] == 0.1
    assert read.which == ("top", "top", "bottom") and read.eigenvalue_errors[2] == 4e-8 and read.true_residuals[0] == 2e-9
    assert read.trace_half_width == 0.9 and read.trace_sample.mean() == read.trace and read.trace_converged is False
    assert read.w1 == 0.75 and read.band == "jackknife" and read.cumulative_upper[1] == 1 and read.density_converged is False
    assert read.block_name == ("layer1.0 (a)", "b") and read.off_block_share == 0.25 and read.js_distance[0, 1] == 0.75
    assert read.blocks["layer1.0 (a)"]["eigenvalues/eigenvalue"][1] == -1 and read.blocks["b"]["trace/value"] == 8
    assert "density/density" not in read.blocks["b"]
    for name in ("peak_memory_bytes", "peak_device_bytes", "groups", "data_ranks", "lock_step", "basis_bytes",
                 "micro_batches", "kept_graphs", "messages_per_step", "message_bytes_per_step", "starts",
                 "forecast_memory_bytes", "forecast_seconds", "forecast_hvp_seconds", "gradient_seconds",
                 "product_share", "elapsed_seconds", "hvp_seconds"):
        assert getattr(read, name) == diagnostics[name][()], name

if importlib.util.find_spec("silx"):
    from silx.io import nxdata

    with h5py.File(path) as f:
        plot = nxdata.get_default(f)
        assert plot is not None and plot.is_valid and plot.is_curve and plot.signal.name == "/entry/density/density"
        assert plot.plot_style.signal_scale_type == "log" and plot.errors is not None
        for group in ("eigenvalues", "quadrature", "cumulative", "layers", "block_summary"):
            assert nxdata.NXdata(f["entry"][group]).is_valid, group
        assert len(nxdata.NXdata(f["entry/cumulative"]).auxiliary_signals) == 2

if importlib.util.find_spec("xarray") and importlib.util.find_spec("h5netcdf"):
    import xarray

    with xarray.open_dataset(path, group="entry/density", engine="h5netcdf") as d:
        assert d.density.dims == ("lambda",)
    with xarray.open_dataset(path, group="entry/quadrature", engine="h5netcdf") as d:
        assert d.alpha.dims == ("probe", "step")
    with xarray.open_dataset(path, group="entry/layers", engine="h5netcdf") as d:
        assert d["name"].dims == d["mean"].dims == ("index",)
