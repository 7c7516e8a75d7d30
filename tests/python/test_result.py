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
