"""python -m hesspect data table: rows against pandas' own, on a small table of every kind of column."""

import json
import os
import subprocess

import h5py
import numpy as np
import pytest

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
from hesspect import DataError, verify_data  # noqa: E402
from hesspect.data import cli  # noqa: E402
from hesspect.data.schema import Column, make_schema, read_schema  # noqa: E402
from hesspect.data.table import write_table  # noqa: E402

N = 500
INI = """
[table]
missing_values = , NA

[target]
column = clicked
positive = yes

[age]
kind = numerical
missing = mean   # of all rows
standardise = yes
input = dense

[price paid]
kind = numerical
transform = log1p
input = dense

[country]
kind = categorical
min_count = 20
missing = unknown

[device]
kind = categorical
encoding = hash
buckets = 7

[slot]
kind = categorical
encoding = code
size = 12

[genres]
kind = multi-hot
length = 3
missing = unknown

[tags]
kind = multi-hot
separator = ;
dense = yes

[importance]
kind = weight
"""


def make_frame(seed=0):
    rng = np.random.default_rng(seed)
    many = lambda words, most, sep: [sep.join(rng.choice(words, rng.integers(1, most), replace=False)) for _ in range(N)]
    frame = pandas.DataFrame({
        "clicked": rng.choice(["yes", "no"], N), "age": rng.normal(40, 9, N), "price paid": rng.gamma(2, 30, N), "country": rng.choice(list("ABCDEFGH"), N, p=[.4, .2, .2, .1, .06, .02, .01, .01]),
        "device": rng.integers(0, 90, N), "slot": rng.integers(0, 12, N), "genres": many(["drama", "crime", "war", "film-noir", "comedy"], 5, "|"),
        "tags": many(["x", "y", "z"], 4, ";"), "importance": rng.random(N)})
    frame.loc[rng.choice(N, 40, replace=False), "age"] = np.nan
    frame.loc[rng.choice(N, 9, replace=False), "country"] = None
    frame.loc[rng.choice(N, 9, replace=False), "genres"] = None
    return frame


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder, frame = tmp_path_factory.mktemp("table"), make_frame()
    frame[:200].to_parquet(folder / "a.parquet", row_group_size=77)
    frame[200:].to_csv(folder / "b.csv.gz", index=False, na_rep="NA")
    (folder / "s.ini").write_text(INI)
    return folder, frame


def arrays(path):
    verify_data(path)
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}, dict(file.attrs)


def test_every_kind(table, tmp_path):
    folder, frame = table
    written = write_table(tmp_path / "d.h5", [folder / "a.parquet", folder / "b.csv.gz"], folder / "s.ini")
    data, attributes = arrays(written.path)
    fitted = json.loads((tmp_path / "d.columns.json").read_text())["fitted"]
    assert written.inputs == ("dense", "country", "device", "slot", "genres", "genres_mask", "tags", "importance") and attributes["loss"] == "bce_with_logits"
    assert {n: (a.dtype.name, a.shape) for n, a in data.items()} == {
        "dense": ("float32", (N, 2)), "country": ("int64", (N,)), "device": ("int64", (N,)), "slot": ("int64", (N,)), "genres": ("int64", (N, 3)),
        "genres_mask": ("float32", (N, 3)), "tags": ("float32", (N, 4)), "importance": ("float32", (N,)), "target": ("float32", (N,))}
    assert np.array_equal(data["target"], frame["clicked"] == "yes") and np.array_equal(data["slot"], frame["slot"])
    age = (frame["age"].fillna(frame["age"].mean()) - frame["age"].mean()) / frame["age"].std(ddof=0)
    assert np.allclose(data["dense"], np.stack([age, np.log1p(frame["price paid"])], axis=1), rtol=1e-6, atol=1e-6)
    assert np.isclose(fitted["column age"]["std"], frame["age"].std(ddof=0), rtol=1e-12) and fitted["column age"]["missing"] == 40
    counts = frame["country"].value_counts()
    kept = [v for v in sorted(counts.index, key=lambda v: (-counts[v], v)) if counts[v] >= 20]
    codes = {v: i + 1 for i, v in enumerate(kept)}
    assert np.array_equal(data["country"], [codes.get(v, 0) for v in frame["country"]])
    assert fitted["column country"]["values"] == ["<unknown>", *kept] and fitted["column country"]["counts"] == [N - sum(counts[kept]), *counts[kept]]
    assert fitted["column country"]["size"] == len(kept) + 1 == data["country"].max() + 1 and 4 <= len(kept) < 8
    bucket = {}
    for device, code in zip(frame["device"], data["device"]):
        assert bucket.setdefault(device, code) == code
    assert set(data["device"]) == set(range(1, 8)) and fitted["column device"]["size"] == 8
    assert fitted["column device"]["counts"] == {str(i): int((data["device"] == i).sum()) for i in range(1, 8)}
    lists = frame["genres"].map(lambda g: g.split("|") if isinstance(g, str) else None)
    values = fitted["column genres"]["values"]
    assert values[:2] == ["<padding>", "<unknown>"]
    for row, mask, words in zip(data["genres"], data["genres_mask"], lists):
        expected = [values.index(w) for w in words[:3]] if words else [1]
        assert row.tolist() == expected + [0] * (3 - len(expected)) and mask.tolist() == [1.0] * len(expected) + [0.0] * (3 - len(expected))
    assert f"in {sum(len(w or []) > 3 for w in lists)} rows" in attributes["notes"]
    flags = frame["tags"].str.get_dummies(";")
    assert np.array_equal(data["tags"][:, 1:], flags[fitted["column tags"]["values"][1:]]) and not data["tags"][:, 0].any()
    assert np.allclose(data["importance"], frame["importance"])


def test_again_with_the_same_columns(table, tmp_path):
    """Other rows get the ids and constants of the first call; a sample is some of all rows."""
    folder, frame = table
    files = [folder / "a.parquet", folder / "b.csv.gz"]
    whole, _ = arrays(write_table(tmp_path / "d.h5", files, folder / "s.ini").path)
    few, _ = arrays(write_table(tmp_path / "e.h5", files, columns=tmp_path / "d.columns.json", rows=60, seed=4).path)
    rows = few.pop("source_row")
    assert len(rows) == 60 and all(np.array_equal(few[n], whole[n][rows]) for n in whole)
    assert (tmp_path / "e.columns.json").read_bytes() == (tmp_path / "d.columns.json").read_bytes()
    sampled, _ = arrays(write_table(tmp_path / "f.h5", files, folder / "s.ini", rows=60, seed=4).path)
    assert all(np.array_equal(few[n], sampled[n]) for n in few)  # counted in all rows, not in the sample
    other = frame[:20].assign(country="Z", age=0.0)
    other.to_parquet(tmp_path / "o.parquet")
    data, _ = arrays(write_table(tmp_path / "g.h5", [tmp_path / "o.parquet"], columns=tmp_path / "d.columns.json").path)
    assert (data["country"] == 0).all() and np.allclose(data["dense"][:, 0], -frame["age"].mean() / frame["age"].std(ddof=0), rtol=1e-6)
    assert read_schema(folder / "s.ini") == make_schema(json.loads((tmp_path / "d.columns.json").read_text())["schema"])


def test_arrow_files(table, tmp_path):
    """Streams, as Hugging Face's data sets are kept, and files: the rows of the same table in Parquet."""
    from pyarrow import ipc

    from hesspect.data.records import records

    folder, frame = table
    schema, arrow = {"columns": {"slot": {"kind": "categorical"}}}, pyarrow.Table.from_pandas(frame)
    frame.to_parquet(tmp_path / "a.parquet")
    expected = write_table(tmp_path / "p.h5", [tmp_path / "a.parquet"], schema).sha256
    for name, writer in (("s.arrow", ipc.new_stream), ("f.feather", ipc.new_file)):
        with writer(tmp_path / name, arrow.schema) as file:
            file.write_table(arrow, max_chunksize=90)
        assert write_table(tmp_path / "d.h5", [tmp_path / name], schema).sha256 == expected
        found = list(records([tmp_path / name], ["tags", "slot"]))
        assert [r["tags"] for _, r in found] == frame["tags"].tolist() and found[0][0].endswith(f"{name}, record 1")
    (tmp_path / "no.arrow").write_text("no")
    for bad, line in ((lambda: list(records([tmp_path / "no.arrow"], ["a"])), "not an Arrow file"), (lambda: list(records([tmp_path / "s.arrow"], ["a"])), "no column 'a'"),
                      (lambda: write_table(tmp_path / "d.h5", [tmp_path / "no.arrow"], schema), "can't be read")):
        with pytest.raises(DataError, match=line):
            bad()


def test_missing_and_classes(tmp_path):
    frame = pandas.DataFrame({"y": ["b", "a", None, "c", "b"], "n": [1.0, None, 3.0, 4.0, 5.0], "k": [7.0, 7.0, 3.0, None, 3.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    schema = {"target": {"column": "y", "kind": "class", "missing": "drop"}, "columns": {"n": {"kind": "numerical", "missing": -1}, "k": {"kind": "categorical", "missing": "drop"}}}
    written = write_table(tmp_path / "d.h5", [tmp_path / "t.parquet"], schema)
    data, attributes = arrays(written.path)
    assert data["target"].tolist() == [1, 0, 1] and data["n"].tolist() == [1, -1, 5] and data["k"].tolist() == [1, 1, 2]
    assert "2 rows with a missing value were left out" in written.notes and attributes["loss"] == "cross_entropy"
    fitted = json.loads((tmp_path / "d.columns.json").read_text())["fitted"]
    assert fitted["target"]["values"] == ["a", "b"] and fitted["column k"]["values"] == ["<unknown>", "7", "3"]
    pandas.DataFrame({"y": [3, 0, 2], "n": [0.5] * 3, "list": [["u", "v"], [], ["v"]]}).to_parquet(tmp_path / "u.parquet")
    schema = {"target": {"column": "y", "kind": "class", "size": 6}, "columns": {"list": {"kind": "multi-hot", "length": 2}}}
    data, _ = arrays(write_table(tmp_path / "d.h5", [tmp_path / "u.parquet"], schema).path)
    assert data["target"].tolist() == [3, 0, 2] and data["list"].tolist() == [[3, 2], [0, 0], [2, 0]] and data["list_mask"].tolist() == [[1, 1], [0, 0], [1, 0]]
    data, attributes = arrays(write_table(tmp_path / "d.h5", [tmp_path / "u.parquet"], {"target": {"column": "y", "kind": "number"}, "columns": {"n": {"kind": "numerical"}}}).path)
    assert data["target"].tolist() == [3, 0, 2] and data["target"].dtype == np.float32 and attributes["loss"] == "mse"


def test_hashes():
    """As others compute them: zlib's CRC, Criteo's hexadecimal ids, blake2b of hashlib."""
    import hashlib
    import zlib

    from hesspect.data.columns import hashed

    of = lambda kind, value: hashed(Column("c", buckets=1000, hash=kind), value)
    assert of("crc32", "abc") == zlib.crc32(b"abc") % 1000 and of("modulo", "68fd1e64") == 0x68FD1E64 % 1000 and of("modulo", "1234567") == 567
    assert of("blake2b", "é") == int.from_bytes(hashlib.blake2b("é".encode(), digest_size=8).digest(), "little") % 1000
    with pytest.raises(DataError, match="'xyz' is no decimal or hexadecimal number"):
        of("modulo", "xyz")


def test_refused(table, tmp_path, capsys):
    folder, _ = table
    frame = pandas.DataFrame({"y": [0, 1, 2], "n": [0.5, None, np.inf], "s": ["a", "b", None], "f": [0.5, 1, 2], "c": [1, 2, 9], "same": [1.0] * 3})
    frame.to_parquet(tmp_path / "t.parquet")
    (tmp_path / "bad.csv").write_text("n,y\n1,0\nword,1\n")
    (tmp_path / "ragged.csv").write_text("n,y\n1,0\n1,2,3\n")
    files = [str(tmp_path / "t.parquet")]
    number, kind = {"n": {"kind": "numerical"}}, lambda **keys: {"columns": {"s": {"kind": "categorical", **keys}}}
    for schema, line in (
            ({"columns": {}}, "no columns"), ({"column": number}, "no part 'column'; did you mean 'columns'?"),
            ({"columns": {"n": {}}}, "column 'n': says no kind (numerical, categorical, multi-hot, weight)"),
            ({"columns": {"n": {"kind": "numeric"}}}, "kind is 'numeric'; did you mean 'numerical'?"),
            (kind(minimum_count=3), "no key 'minimum_count'; did you mean 'min_count'?"), (kind(min_count="few"), "min_count is 'few', not a whole number"),
            (kind(standardise=True), "standardise belongs to numerical, not to categorical"), (kind(encoding="hash"), "encoding hash needs buckets"),
            (kind(buckets=3), "buckets belongs to encoding hash"), (kind(encoding="code", size=3, missing="unknown"), "missing is 'unknown'; there are refuse, drop"),
            (kind(missing="mean"), "missing is 'mean'; there are refuse, drop, unknown"), (kind(encoding="hash", buckets=3, min_count=2), "belong to encoding vocabulary"),
            ({"columns": {"s": {"kind": "multi-hot"}}}, "a multi-hot column is dense, or its ids have a length"),
            ({"columns": {**number, "s": {"kind": "categorical", "input": "n"}}}, "columns 'n' and 's' both make the array 'n', but are of two kinds"),
            ({"target": {"kind": "binary"}, "columns": number}, "target: says no column"),
            ({"columns": {"m": {"kind": "numerical"}}}, "t.parquet: no column 'm'; it has y, n, s, f, c, same"),
            ({"columns": number}, "column 'n' holds an infinite value in row 2"), (kind(), "column 's' has no value in row 2: say what `missing` is"),
            ({"columns": {"s": {"kind": "numerical"}}}, "column 's' holds"), ({"columns": {"f": {"kind": "categorical"}}}, "column 'f' holds 0.5, a fraction"),
            ({"columns": {"c": {"kind": "categorical", "encoding": "code", "size": 9}}}, "column 'c': code 9 is not one of 0 to 8"),
            ({"columns": {"same": {"kind": "numerical", "standardise": True}}}, "column 'same' is 1 in all rows"),
            ({"target": {"column": "y"}, "columns": {"f": {"kind": "numerical"}}}, "column 'y' holds '2', not 0 or 1: say which value is positive"),
            ({"target": {"column": "y", "kind": "class", "size": 2}, "columns": {"f": {"kind": "numerical"}}}, "holds class 2, but there are 2")):
        (tmp_path / "s.json").write_text(json.dumps(schema))
        assert cli.main(["table", *files, "--schema", str(tmp_path / "s.json"), "-o", str(tmp_path / "d.h5")]) == 4, schema
        said = capsys.readouterr().err
        assert line in said and said.count("\n") == 1, (line, said)
    (tmp_path / "s.json").write_text(json.dumps({"columns": number}))
    (tmp_path / "no.json").write_text("{}")
    (tmp_path / "twice.ini").write_text("[a]\nkind = numerical\n[a]\n")
    for arguments, line in (([str(tmp_path / "bad.csv"), "--schema", str(tmp_path / "s.json")], "bad.csv: can't be read: In CSV column #0"),
                            ([str(tmp_path / "ragged.csv"), "--schema", str(tmp_path / "s.json")], "ragged.csv: can't be read"),
                            ([str(tmp_path / "t.json"), "--schema", str(tmp_path / "s.json")], "t.json: no such file"),
                            ([*files, "--schema", str(tmp_path / "none.ini")], "none.ini: no such file"),
                            ([*files, "--schema", str(tmp_path / "twice.ini")], "section 'a' already exists"),
                            ([*files, "--columns", str(tmp_path / "no.json")], "not a file of columns that `hesspect data table` wrote"),
                            ([str(folder / "a.parquet"), "--schema", str(folder / "s.ini"), "--rows", "201"], "there are 200 rows, fewer than the 201 asked for")):
        assert cli.main(["table", *arguments, "-o", str(tmp_path / "d.h5")]) == 4, arguments
        said = capsys.readouterr().err
        assert line in said and said.count("\n") == 1, (line, said)
    assert not (tmp_path / "d.h5").exists() and not (tmp_path / "d.columns.json").exists()
    with pytest.raises(DataError, match="is what the rows are read from"):
        write_table(tmp_path / "t.parquet", files, {"columns": {"f": {"kind": "numerical"}}})
    assert cli.main(["table", *files, "--schema", str(tmp_path / "s.json"), "-o", files[0]]) == 2 and "--force writes over it" in capsys.readouterr().err


@pytest.mark.skipif(not os.environ.get("HESSPECT_BIN"), reason="HESSPECT_BIN does not say where the program is")
def test_the_program_reads_it(table, tmp_path):
    """A factorisation machine with weights of rows, against PyTorch's dense Hessian on what pandas makes of the table."""
    torch = pytest.importorskip("torch")
    import hesspect

    folder, frame = table
    frame = frame[:200]
    assert cli.main(["table", str(folder / "a.parquet"), "--schema", str(folder / "s.ini"), "-o", str(tmp_path / "d.h5")]) == 0
    torch.manual_seed(0)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.country, self.slot, self.dense = torch.nn.Embedding(9, 2), torch.nn.Embedding(12, 2), torch.nn.Linear(2, 2)

        def forward(self, dense, country, slot):
            parts = torch.stack([self.country(country), self.slot(slot), self.dense(dense)])
            return ((parts.sum(0) ** 2 - (parts**2).sum(0)) / 2).sum(1)

    model = Model().double().eval()
    example = {"dense": torch.zeros(3, 2, dtype=torch.float64), "country": torch.zeros(3, dtype=torch.int64), "slot": torch.zeros(3, dtype=torch.int64)}
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model, (), example, dynamic_shapes={k: {0: batch} for k in example}, strict=False), tmp_path / "m.pt2")
    subprocess.run([os.environ["HESSPECT_BIN"], "eigs", "--model", "m.pt2", "--data", "d.h5", "--loss", "bce_with_logits", "--loss-weight", "importance",
                    "--dtype", "float64", "--top", "3", "--output", "r.h5", "--rtol-eigs", "1e-9"], cwd=tmp_path, check=True, capture_output=True)
    age = (frame["age"].fillna(frame["age"].mean()) - frame["age"].mean()) / frame["age"].std(ddof=0)
    counts = frame["country"].value_counts()
    codes = {v: i + 1 for i, v in enumerate(v for v in sorted(counts.index, key=lambda v: (-counts[v], v)) if counts[v] >= 20)}
    rows = [torch.as_tensor(np.stack([age, np.log1p(frame["price paid"])], axis=1).astype(np.float32)).double(),
            torch.tensor([codes.get(v, 0) for v in frame["country"]]), torch.tensor(frame["slot"].tolist())]
    target, weight = torch.tensor((frame["clicked"] == "yes").tolist()).double(), torch.tensor(frame["importance"].tolist()).float().double()
    shapes = {k: p.shape for k, p in model.named_parameters()}
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss(theta):
        parts = dict(zip(shapes, (t.view(s) for t, s in zip(theta.split([s.numel() for s in shapes.values()]), shapes.values()))))
        out = torch.func.functional_call(model, parts, tuple(rows))
        return (torch.nn.functional.binary_cross_entropy_with_logits(out, target, reduction="none") * weight).sum() / weight.sum()

    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat)).flip(0)[:3].numpy()
    assert np.allclose(hesspect.read(tmp_path / "r.h5").eigenvalues[:3], dense, rtol=1e-6)
