import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import hesspect
from conftest import write_result


def test_reads_every_part(result_file):
    r = hesspect.read(result_file)
    assert r.density.shape == r.lambdas.shape == r.density_errors.shape
    assert np.trapezoid(r.density, r.lambdas) == pytest.approx(1.0, abs=1e-3)
    assert r.eigenvalues[0] == 12.4 and r.eigenvalues[-1] == -1.3
    assert r.converged.dtype == bool and r.converged.sum() == 11
    assert (r.trace, r.trace_stderr, r.trace_samples) == (118.7, 4.2, 3)
    assert r.alpha.shape == (3, 20) and r.beta.shape == (3, 20)
    assert r.ritz.shape == r.weight.shape == (3, 20)
    assert (r.n_parameters, r.n_rows, r.hvp_count, r.loss) == (24058, 1000, 131, 0.0231)
    assert (r.n_top, r.n_bottom, r.sigma) == (10, 3, 0.12)
    assert (r.curvature, r.model, r.warnings) == ("hessian", "runs/cnn/model.pt2", ("one", "two"))


def test_reads_how_good_everything_is(tmp_path):
    r = hesspect.read(write_result(tmp_path / "r.h5", layout=2))
    assert r.cumulative.tolist() == [0.01, 0.8, 0.99, 1.0] and r.cumulative_lower[1] == 0.75 and r.cumulative_upper[1] == 0.85
    assert (r.band, r.density_confidence, r.w1, r.w1_sampling, r.w1_quadrature) == ("jackknife", 0.9, 0.031, 0.03, 0.001)
    assert r.density_converged is True and r.spectrum_range.tolist() == [-1.31, 12.41]
    assert (r.exact_points, r.zero_width, r.weight_at_zero, r.negative_mass) == (13.0, 1e-5, 0.79, 0.012)
    assert (r.weight_at_zero_error, r.negative_mass_error) == (0.01, 0.002)
    assert r.moments.tolist() == [0.1, 0.2, 0.3, 0.4] and np.isnan(r.moments_error[3])
    assert r.which == ("top",) * 10 + ("bottom",) * 3 and r.n_magnitude == 0
    assert set(r.true_residuals) == {2e-3} and set(r.eigenvalue_errors) == {1e-6}
    assert (r.eigenvalue_method, r.eigenvalue_steps, r.thick_restarts) == ("lanczos", 80, 1)
    assert (r.trace_half_width, r.trace_confidence, r.trace_converged, r.trace_method) == (7.5, 0.9, False, "deflated")
    assert (r.trace_captured, r.trace_deflated, r.trace_products) == (100.0, 13, 2)
    assert r.trace_sample.mean() == pytest.approx(r.trace)
    assert r.layer_names == ("stem.weight", "head.weight", "head.bias") and r.layer_sizes.tolist() == [1000, 50, 10]
    assert r.layer_traces[0] == 100 and r.layer_means[2] == -0.13 and np.isnan(r.layer_mean_errors[2])
    assert r.products == {"first_probe": 80, "trace": 2, "total": 82}


def test_every_field_of_the_schema_is_an_attribute_of_its_own(tmp_path):
    """As written by the rule, with its label in the documentation: two fields of one name would hide each other."""
    schema = json.loads((Path(hesspect.__file__).parent / "schema.json").read_text())
    fields = {field["path"]: field for field in schema if not field["path"].startswith(("diagnostics/products/", "blocks/"))}
    attributes = {field.name for field in dataclasses.fields(hesspect.Result)} - {"path", "products", "blocks"}
    assert len(attributes) == len(fields) and "trace_half_width" in attributes
    documented = hesspect.Result.__doc__.splitlines()
    assert "sigma: Standard deviation of the Gaussian kernel, in loss/parameter^2" in documented
    values = {"float64": 0.5, "int64": np.int64(3), "uint64": np.uint64(3), "bool": np.uint8(1), "text": "word"}
    with h5py.File(tmp_path / "r.h5", "w") as f:
        for path, field in fields.items():
            value = values[field["type"]]
            f[f"entry/{path}"] = np.full([2] * len(field["shape"]), value, dtype=None if field["type"] != "text" else h5py.string_dtype())
    r = hesspect.read(tmp_path / "r.h5")
    for name in attributes:
        value = getattr(r, name)
        assert np.size(value) and np.all(np.isin(value, ["word"] if isinstance(value, (str, tuple)) else [0.5, 3, True])), name
    assert r.row_check == "word" and r.unit_rows == 3 and r.model == "word" and r.converged.dtype == bool


def test_the_first_layout_says_less(result_file):
    r = hesspect.read(result_file)
    assert r.cumulative is None and r.layer_means is None and r.true_residuals is None and r.trace_half_width is None
    assert r.products == {} and r.which == () and r.layer_names == ()


@pytest.mark.parametrize("name, values", [("cumulative/cumulative_lower", np.ones(3)), ("eigenvalues/error", np.ones(2)),
                                          ("layers/mean", np.ones(4)), ("layers/name", ["a", "b"]), ("eigenvalues/which", ["top"])])
def test_parts_of_the_second_layout_that_do_not_fit_are_refused(tmp_path, name, values):
    path = write_result(tmp_path / "r.h5", layout=2)
    with h5py.File(path, "r+") as f:
        del f["entry"][name]
        f["entry"][name] = values
    with pytest.raises(hesspect.ResultError, match="broken"):
        hesspect.read(path)


def test_parts_that_a_run_left_out_are_none(tmp_path):
    r = hesspect.read(write_result(tmp_path / "r.h5", density=False, trace=False))
    assert r.density is None and r.lambdas is None and r.trace is None
    assert r.eigenvalues is not None


def test_what_is_no_result_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["x"] = 1.0
    whole = write_result(tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    for path, word in ((tmp_path / "none.h5", "no such file"), (tmp_path, "directory"), (tmp_path / "text.h5", "not an HDF5 file"),
                       (tmp_path / "other.h5", "not a result"), (tmp_path / "cut.h5", "broken")):
        with pytest.raises(hesspect.ResultError, match=word) as caught:
            hesspect.read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_that_do_not_fit_together_are_refused(result_file):
    with h5py.File(result_file, "r+") as f:
        del f["entry/density/density"]
        f["entry/density/density"] = np.ones(7)
    with pytest.raises(hesspect.ResultError, match="lambda"):
        hesspect.read(result_file)
