"""write_data: what h5py reads is what went in, whatever it came as; and what can't be written is refused in one line."""

import collections
import dataclasses
import json
import os
import subprocess
import warnings

import h5py
import numpy as np
import pytest

import hesspect
from hesspect import DataError, verify_data, write_data
from hesspect.data import sample_rows

SMALL = {"x": np.arange(60, dtype=np.float32).reshape(20, 3) / 7, "target": np.arange(20) % 4}


def pieces(arrays, size):
    """Batches of `size` rows."""
    rows = len(next(iter(arrays.values())))
    return [{k: v[i:i + size] for k, v in arrays.items()} for i in range(0, rows, size)]


def check(path, expected=SMALL):
    with h5py.File(path) as file:
        assert sorted(file) == sorted(expected)
        for name, values in expected.items():
            assert file[name].dtype == np.asarray(values).dtype and np.array_equal(file[name][()], values), name
    assert verify_data(path).rows == len(next(iter(expected.values())))


@dataclasses.dataclass
class Pair:
    x: np.ndarray
    target: np.ndarray


def forms():
    x, y = SMALL["x"], SMALL["target"]
    named = collections.namedtuple("named", ["x", "target"])
    parts = pieces(SMALL, 6)
    return {
        "dict": SMALL,
        "tuple": (x, y),
        "dicts": parts,
        "generator": (p for p in parts),
        "tuples": [(p["x"], p["target"]) for p in parts],
        "lists": [[p["x"], p["target"]] for p in parts],
        "pairs": [({"x": p["x"]}, p["target"]) for p in parts],
        "nested": [([p["x"]], p["target"]) for p in parts],
        "labels": [{"x": p["x"], "labels": p["target"]} for p in parts],
        "named tuples": [named(**p) for p in parts],
        "dataclasses": [Pair(**p) for p in parts],
        "python lists": [(p["x"], p["target"].tolist()) for p in parts],
    }


@pytest.mark.parametrize("form", list(forms()))
def test_forms(tmp_path, form):
    written = write_data(tmp_path / "d.h5", forms()[form])
    assert (written.rows, written.inputs, written.has_target, written.notes) == (20, ("x",), True, ())
    check(tmp_path / "d.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["d.h5"]


def test_torch(tmp_path):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.as_tensor(SMALL["x"]), torch.as_tensor(SMALL["target"]))
    write_data(tmp_path / "d.h5", torch.utils.data.DataLoader(data, batch_size=7))
    check(tmp_path / "d.h5")
    collate = lambda rows: {"x": torch.stack([r[0] for r in rows]).requires_grad_(), "labels": torch.stack([r[1] for r in rows])}
    write_data(tmp_path / "d.h5", torch.utils.data.DataLoader(data, batch_size=3, collate_fn=collate))
    check(tmp_path / "d.h5")
    with pytest.raises(DataError, match="one row at a time: give torch.utils.data.DataLoader"):
        write_data(tmp_path / "d.h5", data)
    with pytest.warns(UserWarning, match="shuffles with a generator that has no seed"):
        write_data(tmp_path / "d.h5", torch.utils.data.DataLoader(data, batch_size=7, shuffle=True))
    half = {"x": torch.tensor([[1.5], [-2.25]], dtype=torch.bfloat16)}
    write_data(tmp_path / "d.h5", half, dtypes={"x": torch.bfloat16})
    check(tmp_path / "d.h5", {"x": np.array([[1.5], [-2.25]], np.float32)})


def test_tables(tmp_path):
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    import pyarrow.dataset
    import pyarrow.parquet

    columns = {"age": np.linspace(1, 2, 20), "code": np.arange(20, dtype=np.int32), "label": np.arange(20) % 2}
    expected = {"age": columns["age"], "code": columns["code"], "target": columns["label"]}
    frame, table = pandas.DataFrame(columns), pyarrow.table(columns)
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    for rows in (frame, table, table.to_reader(max_chunksize=6), pyarrow.dataset.dataset(table), pyarrow.parquet.ParquetFile(tmp_path / "t.parquet")):
        write_data(tmp_path / "d.h5", rows)
        check(tmp_path / "d.h5", expected)
    lists = pyarrow.table({"ids": pyarrow.array([[1, 2], [3, 4], [5, 6]]), "v": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.arange(9.5)[:9]), 3)})
    write_data(tmp_path / "d.h5", lists, warn=False)
    check(tmp_path / "d.h5", {"ids": np.array([[1, 2], [3, 4], [5, 6]]), "v": np.arange(9.0).reshape(3, 3)})
    for bad, line in ((pyarrow.table({"ids": [[1], [2, 3]]}), "array 'ids', batch 0 has rows of unequal lengths (1 and 2): pad them"),
                      (pyarrow.table({"n": [1, None]}), "array 'n', batch 0 has a missing value in row 1"),
                      (pyarrow.table({"s": ["a"]}), "array 's', batch 0 holds string, no numbers"),
                      (pandas.DataFrame({"s": pandas.Categorical(["a", "b"])}), "array 's', batch 0 holds categories"),
                      (pandas.DataFrame({"n": pandas.array([1, None], dtype="Int64")}), "array 'n', batch 0 has a missing value in row 1")):
        with pytest.raises(DataError) as error:
            write_data(tmp_path / "e.h5", bad)
        assert line in str(error.value)


class LikeHuggingFace:
    """What write_data asks of a Hugging Face data set."""

    column_names = ("x", "labels")

    def with_format(self, name):
        assert name == "numpy"
        return self

    def __len__(self):
        return 20

    def select(self, rows):
        raise AssertionError

    def __getitem__(self, rows):
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        return {"x": SMALL["x"][rows], "labels": SMALL["target"][rows]}


def test_hugging_face(tmp_path):
    write_data(tmp_path / "d.h5", LikeHuggingFace())
    check(tmp_path / "d.h5")
    with pytest.raises(DataError, match=r"a dictionary of splits \(train\)"):
        write_data(tmp_path / "d.h5", {"train": LikeHuggingFace()})
    datasets = pytest.importorskip("datasets")
    own = datasets.Dataset.from_dict({"x": SMALL["x"].tolist(), "label": SMALL["target"].tolist()})
    for rows in (own, own.to_iterable_dataset()):
        write_data(tmp_path / "d.h5", rows, dtypes={"x": "float32"})
        check(tmp_path / "d.h5")
    write_data(tmp_path / "s.h5", own, rows=5, seed=1, dtypes={"x": "float32"})
    write_data(tmp_path / "t.h5", SMALL, rows=5, seed=1)
    assert verify_data(tmp_path / "s.h5").sha256 == verify_data(tmp_path / "t.h5").sha256


def test_names(tmp_path):
    a, b, y = SMALL["x"], SMALL["x"] + 1, SMALL["target"]
    path = tmp_path / "d.h5"
    write_data(path, [(a, b, y)], inputs=["ids", "mask"])
    check(path, {"ids": a, "mask": b, "target": y})
    write_data(path, [(y, a, b)], inputs=["ids", "mask"], targets=0)
    check(path, {"ids": a, "mask": b, "target": y})
    write_data(path, [((a, b), y)], inputs=["ids", "mask"])
    check(path, {"ids": a, "mask": b, "target": y})
    write_data(path, [(a, b)], inputs=["ids", "mask"])
    check(path, {"ids": a, "mask": b})
    write_data(path, {"a": a, "b": b, "labels": y, "other": y}, inputs={"x": "b"}, targets="other")
    check(path, {"x": b, "target": y})
    write_data(path, {"a": a, "labels": y}, targets=False)
    check(path, {"a": a, "labels": y})
    write_data(path, {"a": a, "labels": y}, inputs=["a", "labels"])
    check(path, {"a": a, "labels": y})
    for batches, options, line in (
            ([(a, b, y)], {}, "batch 0 has 2 inputs without names"),
            ([(a, b, y)], {"inputs": ["p"]}, "batch 0 has 2 inputs beside the target, but 1 names: p"),
            ([{"a": a}], {"inputs": ["b"]}, "batch 0 has no array 'b'; it has a"),
            ([{"a": a}], {"targets": "b"}, "batch 0 has no array 'b' for the target; it has a"),
            ([(a, y)], {"targets": 2}, "batch 0 has 2 arrays, and none at position 2"),
            ([{"a/../b": a}], {}, "can't be the name of an array"),
            ([3], {}, "batch 0 is a int; a batch is"),
            (3, {}, "int is no batches"), ("file.txt", {}, "the rows are a str"), ({}, {}, "without arrays"), ([], {}, "there are no rows")):
        with pytest.raises(DataError) as error:
            write_data(tmp_path / "e.h5", batches, **options)
        assert line in str(error.value), error.value
    assert [p.name for p in tmp_path.iterdir()] == ["d.h5"]
    assert isinstance(error.value, (hesspect.InputError, ValueError)) and error.value.code == 4 and error.value.line == str(error.value)


def test_refused(tmp_path):
    ok = {"x": np.zeros((2, 3)) + 0.5, "target": np.zeros(2, int)}
    for second, line in (
            ({"x": np.array([[1, 2, np.nan], [1, 2, 3]]), "target": [0, 0]}, "array 'x', batch 1 holds NaN in row 0 of the batch"),
            ({"x": np.array([[1, 2, 1], [1, 2, -np.inf]]), "target": [0, 0]}, "array 'x', batch 1 holds an infinite value in row 1 of the batch"),
            ({"x": np.zeros((2, 4)), "target": [0, 0]}, "array 'x', batch 1 has rows of shape [4], earlier ones [3]: pad or cut them"),
            ({"x": [[1.0, 2.0], [3.0]], "target": [0, 0]}, "array 'x', batch 1 has rows of unequal lengths (2 and 1): pad them"),
            ({"x": np.zeros((3, 3)), "target": [0, 0]}, "array 'target', batch 1 has 2 rows, but 'x' has 3"),
            ({"x": np.zeros((0, 3)), "target": []}, "array 'x', batch 1 is empty: its shape is [0, 3]"),
            ({"x": np.zeros((2, 3)), "target": ["a", "b"]}, "array 'target', batch 1 holds text, no numbers"),
            ({"x": np.zeros((2, 3)), "target": [None, 1]}, "array 'target', batch 1 has missing values (None)"),
            ({"x": np.zeros((2, 3)), "target": np.array([object(), 1])}, "array 'target', batch 1 holds Python objects (object), no numbers"),
            ({"x": np.zeros((2, 3)), "target": np.array([0.0, 1.0])}, "array 'target', batch 1 is float64, earlier ones int64"),
            ({"x": np.zeros((2, 3)), "target": 3}, "array 'target', batch 1 is a single number: its first dimension should be rows"),
            ({"x": np.zeros((2, 3)), "target": np.array([2**63, 0], np.uint64)}, "array 'target', batch 1 holds an unsigned value"),
            ({"x": np.ma.masked_equal([[1.0, 2, 3]] * 2, 2), "target": [0, 0]}, "array 'x', batch 1 has masked values"),
            ({"x": np.zeros((2, 3))}, "batch 1 lacks target"), ({**ok, "z": np.zeros(2)}, "batch 1 has z, which earlier ones have not"),
            ({"x": np.array(["2020-01-01"] * 2, "datetime64[D]"), "target": [0, 0]}, "array 'x', batch 1 holds datetime64[D], which hesspect does not read")):
        with pytest.raises(DataError) as error:
            write_data(tmp_path / "e.h5", [ok, second])
        assert line in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_types(tmp_path):
    path = tmp_path / "d.h5"
    ids = np.array([3.0, 5.0, 2.0])
    with pytest.warns(UserWarning, match="ids is float64 and holds nothing but integers"):
        write_data(path, {"ids": ids})
    with h5py.File(path) as file:
        assert "nothing but integers" in file.attrs["notes"] and file["ids"].dtype == np.float64
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_data(path, {"v": ids + 0.5})
    assert "ids was float64 and is written as int64" in write_data(path, {"ids": ids}, dtypes={"ids": "int64"}, warn=False).notes
    check(path, {"ids": ids.astype(np.int64)})
    for value, dtype, line in ((ids + 0.5, "int64", "is float64 with fractions, where int64 is wanted"),
                               (np.array([300]), "uint8", "holds 300, which does not fit uint8"),
                               (np.array([2**24 + 1]), "float32", "holds integers that float32 does not have"),
                               (np.array([1e300]), "float32", "holds a value that does not fit float32"),
                               (np.array([1j]), "float32", "is complex128, where float32 is wanted")):
        with pytest.raises(DataError) as error:
            write_data(path, {"ids": value}, dtypes={"ids": dtype})
        assert line in str(error.value)
    with pytest.raises(DataError, match="a dtype was given for array 'other', but the batches have ids"):
        write_data(path, {"ids": ids}, dtypes={"other": "int64"})
    every = {t: np.array([0, 1, 1], t) for t in ("bool", "int8", "uint8", "int16", "int32", "uint32", "float16", "float32", "float64", "complex64", "complex128")}
    write_data(path, every, targets=False, warn=False)
    check(path, every)
    check_big = write_data(path, {"x": SMALL["x"].astype(">f4")})
    assert check_big.arrays[0].dtype == "float32"
    check(path, {"x": SMALL["x"]})


def test_sample(tmp_path):
    n, seed = 503, 7
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(n, 5)), "target": np.arange(n)}
    write_data(tmp_path / "whole.h5", data, rows=100, seed=seed)
    with h5py.File(tmp_path / "whole.h5") as file:
        rows = file["source_row"][()]
        assert np.array_equal(file["target"][()], rows) and np.array_equal(file["x"][()], data["x"][rows])
        assert (file.attrs["seed"], file.attrs["rows_seen"], file.attrs["rows_chosen"]) == ("7", n, "sampled")
    assert len(set(rows)) == 100 and np.array_equal(rows, sample_rows(n, 100, seed)) and not np.array_equal(rows, np.sort(rows))
    digest = verify_data(tmp_path / "whole.h5").sha256
    for size in (1, 7, 100, 503):
        written = write_data(tmp_path / "b.h5", iter(pieces(data, size)), rows=100, seed=seed)
        assert written.sha256 == digest and written.rows_seen == n
    small = write_data(tmp_path / "small.h5", iter(pieces(data, 11)), rows=30, seed=seed)
    with h5py.File(small.path) as file:
        assert np.array_equal(file["source_row"][()], rows[:30])
    assert write_data(tmp_path / "b.h5", data, rows=100, seed=8).sha256 != digest
    everything = write_data(tmp_path / "b.h5", iter(pieces(data, 11)), rows=n, seed=seed)
    with h5py.File(everything.path) as file:
        assert np.array_equal(np.sort(file["source_row"][()]), np.arange(n))
    first = write_data(tmp_path / "b.h5", iter(pieces(data, 11)), rows=30)
    check(first.path, {k: v[:30] for k, v in data.items()})
    for rows, options, line in ((data, {"rows": 504, "seed": 1}, "there are 503 rows, fewer than the 504 asked for"),
                                (iter(pieces(data, 9)), {"rows": 504, "seed": 1}, "there are 503 rows, fewer than the 504 asked for"),
                                (iter(pieces(data, 9)), {"rows": 504}, "there are 503 rows, fewer than the 504 asked for"),
                                (data, {"rows": 0}, "at least 1 is needed"), (data, {"seed": 1}, "a seed without a number of rows")):
        with pytest.raises(DataError, match=line):
            write_data(tmp_path / "e.h5", rows, **options)


def test_units(tmp_path):
    """Rows that belong together are drawn together and stay in their order."""
    data = {"x": np.arange(60), "target": np.arange(60) // 4}
    whole = write_data(tmp_path / "a.h5", data, rows=20, seed=2, unit_rows=4)
    with h5py.File(whole.path) as file:
        rows = file["source_row"][()].reshape(-1, 4)
        assert np.array_equal(rows, rows[:, :1] + np.arange(4)) and (rows[:, 0] % 4 == 0).all() and len(set(rows[:, 0])) == 5 and file.attrs["unit_rows"] == 4
    for size in (1, 3, 7):
        assert write_data(tmp_path / "b.h5", iter(pieces(data, size)), rows=20, seed=2, unit_rows=4).sha256 == whole.sha256
    for arguments, line in (({"rows": 18, "seed": 2}, "18 rows are no whole number of units of 4"), ({"unit_rows": 0}, "unit_rows is 0"), ({"unit_rows": 7}, "60 rows, no whole number")):
        with pytest.raises(DataError, match=line):
            write_data(tmp_path / "e.h5", data, **{"unit_rows": 4, **arguments})


def test_every_row_is_as_likely():
    """1,000 seeds, 5 of 50 rows: each row is drawn 100 times, give or take; and pairs as independent draws have it."""
    drawn = np.array([np.isin(np.arange(50), sample_rows(50, 5, seed)) for seed in range(1000)], float)
    assert np.abs(drawn.sum(0) - 100).max() < 4.5 * np.sqrt(1000 * 0.1 * 0.9)
    together = (drawn.T @ drawn)[np.triu_indices(50, 1)]
    share = 5 * 4 / (50 * 49)
    assert abs(((together - 1000 * share) ** 2).mean() / (1000 * share * (1 - share)) - 1) < 0.15


def test_stream(tmp_path):
    """Chunks of whole rows near 1 MiB, bounded memory, whatever the batches are."""
    import tracemalloc

    rows, width = 96, 65536  # 24 MiB
    block = np.random.default_rng(0).random((8, width), np.float32)
    tracemalloc.start()
    write_data(tmp_path / "d.h5", ((block + i, np.full(8, i)) for i in range(rows // 8)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 << 20
    with h5py.File(tmp_path / "d.h5") as file:
        assert file["x"].chunks == (4, width) and file["x"].shape == (rows, width) and file["target"].shape == (rows,)
        assert np.array_equal(file["x"][40:48], block + 5) and file["target"].nbytes == file["target"].id.get_storage_size()
    written = write_data(tmp_path / "z.h5", {"x": block}, compression="gzip")
    assert h5py.File(tmp_path / "z.h5")["x"].compression == "gzip" and verify_data(tmp_path / "z.h5") == written


def test_provenance(tmp_path):
    written = write_data(tmp_path / "d.h5", SMALL, source=["a.csv", "b.csv"], attributes={"tokenizer": "t", "sizes": {"a": 3}})
    with h5py.File(written.path) as file:
        assert file.attrs["written_by"] == f"hesspect.write_data {hesspect.__version__}" and file.attrs["source"] == "a.csv\nb.csv"
        assert json.loads(file.attrs["versions"])["numpy"] == np.__version__ and file.attrs["sha256"] == written.sha256
        assert (file.attrs["rows"], file.attrs["rows_chosen"], file.attrs["tokenizer"], json.loads(file.attrs["sizes"])) == (20, "all", "t", {"a": 3})
    assert str(written).endswith("20 rows: x float32 [20, 3], target int64 [20]") and verify_data(written.path) == written
    with h5py.File(written.path, "r+") as file:
        file["target"][3] += 1
    with pytest.raises(DataError, match="array 'target' does not have the values that were written"):
        verify_data(written.path)
    with h5py.File(written.path, "r+") as file:
        del file["target"]
    with pytest.raises(DataError, match="its arrays are not those that were written"):
        verify_data(written.path)
    (tmp_path / "no.h5").write_text("no")
    h5py.File(tmp_path / "plain.h5", "w").close()
    for name, line in (("none.h5", "no such file"), ("no.h5", "not an HDF5 file"), ("plain.h5", "has no checksum")):
        with pytest.raises(DataError, match=line):
            verify_data(tmp_path / name)


def test_atomic(tmp_path):
    """What fails halfway leaves the older file as it was, and nothing beside it."""
    path = tmp_path / "d.h5"
    write_data(path, SMALL)
    before = path.read_bytes()

    def broken():
        yield SMALL
        raise RuntimeError("the loader's own")

    with pytest.raises(RuntimeError, match="the loader's own"):
        write_data(path, broken())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    for where, line in ((tmp_path, "is a directory"), (tmp_path / "none" / "d.h5", "can't be written: No such file")):
        with pytest.raises(DataError, match=line):
            write_data(where, SMALL)


def test_rows_along_another_dimension(tmp_path):
    x = np.random.default_rng(0).random((5, 12, 2))  # [time, rows, features]
    parts = [{"x": x[:, i:i + 5], "target": np.arange(12)[i:i + 5]} for i in range(0, 12, 5)]
    for batches in (parts, {"x": x, "target": np.arange(12)}):
        written = write_data(tmp_path / "d.h5", batches, batch_dims={"x": 1})
        assert written.rows == 12 and verify_data(tmp_path / "d.h5").rows == 12
        with h5py.File(written.path) as file:
            assert np.array_equal(file["x"][()], x) and np.array_equal(file["target"][()], np.arange(12))
    write_data(tmp_path / "s.h5", parts, batch_dims={"x": 1}, rows=4, seed=0)
    with h5py.File(tmp_path / "s.h5") as file:
        assert np.array_equal(file["x"][()], x[:, file["source_row"][()]])


@pytest.mark.skipif(not os.environ.get("HESSPECT_BIN"), reason="HESSPECT_BIN does not say where the program is")
def test_the_program_reads_it(tmp_path):
    """Eigenvalues of a tiny network on a sampled, chunked file, against PyTorch's dense Hessian on the rows that the file names."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double().eval()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 3)), rng.integers(0, 3, 400)
    program = torch.export.export(model, (torch.zeros(3, 3, dtype=torch.float64),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    torch.export.save(program, tmp_path / "model.pt2")
    name = program.graph_signature.user_inputs[0]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), batch_size=32)
    write_data(tmp_path / "data.h5", loader, inputs=[name], rows=64, seed=3, compression="gzip")
    subprocess.run([os.environ["HESSPECT_BIN"], "eigs", "--model", "model.pt2", "--data", "data.h5", "--loss", "cross_entropy", "--dtype", "float64",
                    "--top", "4", "--output", "r.h5", "--rtol-eigs", "1e-9"], cwd=tmp_path, check=True, capture_output=True)
    rows = sample_rows(400, 64, 3)
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    shapes = {k: p.shape for k, p in model.named_parameters()}

    def loss(theta):
        parts = dict(zip(shapes, (t.view(s) for t, s in zip(theta.split([s.numel() for s in shapes.values()]), shapes.values()))))
        out = torch.func.functional_call(model, parts, torch.as_tensor(x[rows]))
        return torch.nn.functional.cross_entropy(out, torch.as_tensor(y[rows]))

    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat)).flip(0)[:4].numpy()
    assert np.allclose(hesspect.read(tmp_path / "r.h5").eigenvalues[:4], dense, rtol=1e-9)
