"""Tables of a result: every array and value of the file stands in one, as pandas and json read them back."""

import json

import h5py
import numpy as np
import pytest
from conftest import write_blocks, write_landscape, write_result

import hesspect
from hesspect import __main__ as command_line
from hesspect.tables import tables, write_tables

pandas = pytest.importorskip("pandas")


def command(*arguments):
    return command_line.main(["tables", *map(str, arguments)])


def test_csv(tmp_path, capsys):
    path = write_result(tmp_path / "r.h5", layout=2)
    assert command(path) == 0
    folder = tmp_path / "r-tables"
    assert sorted(map(str, folder.iterdir())) == sorted(capsys.readouterr().out.split())
    read = lambda name: pandas.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=["NaN"])
    with h5py.File(path) as file:
        entry = file["entry"]
        for table, group in (("density", "density"), ("eigenvalues", "eigenvalues"), ("layers", "layers"), ("cumulative_lambda", "cumulative"), ("cumulative_power", "cumulative")):
            for name, values in read(table).items():
                stored = entry[group][name].asstr()[()] if entry[group][name].dtype.kind == "O" else entry[group][name][()]
                assert np.array_equal(values, stored, equal_nan=stored.dtype.kind == "f"), (table, name)
        long = read("quadrature_probe_step")
        assert len(long) == 60 and long["probe"].tolist() == np.repeat(range(3), 20).tolist() and long["step"].tolist() == list(range(20)) * 3
        for name in ("alpha", "beta", "ritz", "weight"):
            assert np.array_equal(long[name], entry["quadrature"][name][()].ravel())
        scalars = read("scalars").set_index("name")["value"]
        assert float(scalars["trace/value"]) == 118.7 and scalars["trace/method"] == "deflated" and scalars["cumulative/range/1"] == "12.41"
        assert scalars["diagnostics/products/total"] == "82" and scalars["trace/converged"] == "0"
        assert read("diagnostics_warnings")["warnings"].tolist() == ["one", "two"]
        covered = {c for c in read("columns")["path"] if c} | set(scalars.index) | {n.rpartition("/")[0] for n in scalars.index}
        stored = []
        entry.visititems(lambda name, node: stored.append(name) if isinstance(node, h5py.Dataset) else None)
    assert set(stored) <= covered, set(stored) - covered
    about = read("columns").set_index(["table", "column"])
    assert about.loc[("eigenvalues", "residual"), "units"] == "loss/parameter^2"


def test_json_blocks_landscape(tmp_path):
    assert command(write_blocks(tmp_path / "b.h5"), "--format", "json", "-o", tmp_path / "b") == 0
    found = json.loads((tmp_path / "b" / "block_summary_index_other.json").read_text())
    assert found["columns"]["js_distance"]["units"] == "" and len(found["data"]["js_distance"]) == 9
    assert found["data"]["js_distance"][1] == 0.4 and found["data"]["other"][:3] == [0, 1, 2]
    summary = json.loads((tmp_path / "b" / "block_summary_index.json").read_text())["data"]
    assert summary["name"] == ["embed", "layer.0", "head"] and summary["largest"] == [3.0, 12.0, None]
    assert command(write_landscape(tmp_path / "l.h5", 2), "-o", tmp_path / "l") == 0
    surface = pandas.read_csv(tmp_path / "l" / "landscape_alpha_beta.csv")
    assert len(surface) == 121 and np.allclose(surface["loss"] - surface["quadratic"], (surface["alpha"] ** 2 + 2 * surface["beta"] ** 2) ** 2)


def test_blocks_together(tmp_path):
    path = write_blocks(tmp_path / "b.h5")
    with h5py.File(path, "r+") as file:
        for i, name in enumerate(("embed", "head")):
            group = file.create_group(f"entry/blocks/{name}")
            group["parameters"] = np.int64(100 - i)
            group["eigenvalues/eigenvalue"] = np.array([3.0, 1.0]) - i
            if i:
                group["eigenvalues/residual"] = np.array([0.5, 0.25])
    found = tables(hesspect.read(path))
    table = found["blocks_eigenvalues"]
    assert table["block"] == ["embed"] * 2 + ["head"] * 2 and table["eigenvalue"] == [3.0, 1.0, 2.0, 0.0] and table["residual"] == [None, None, 0.5, 0.25]
    scalars = dict(zip(found["scalars"]["name"], found["scalars"]["value"]))
    assert scalars["blocks/head/parameters"] == 99
    assert "None" not in (write_tables(hesspect.read(path), tmp_path / "t") and (tmp_path / "t" / "blocks_eigenvalues.csv").read_text())


def test_refused(tmp_path, capsys):
    (tmp_path / "no.h5").write_text("no")
    (tmp_path / "file").write_text("")
    good = write_result(tmp_path / "r.h5")
    for arguments, line in (([tmp_path / "no.h5"], "not an HDF5 file"), ([tmp_path / "none.h5"], "no such file"), ([good, "-o", tmp_path / "file" / "x"], "can't be written")):
        assert command(*arguments) == 4
        said = capsys.readouterr().err
        assert line in said and said.count("\n") == 1
    assert command_line.main(["table"]) == 2 and "no command 'table'" in capsys.readouterr().err
    assert command_line.main([]) == 2 and command_line.main(["--help"]) == 0 and "tensorboard" in capsys.readouterr().out.lower()
