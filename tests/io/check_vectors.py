"""Checks a file of vectors of vectors_file_test.cpp with h5py or the safetensors package: PATH, k, dtype."""

import json
import sys

import h5py
import numpy as np
import safetensors
from safetensors.numpy import load_file

path, k, dtype = sys.argv[1], int(sys.argv[2]), np.dtype(sys.argv[3])
values = {3: [3, 2, -1], 1: [7]}[k]
flat = np.stack([100 * i + np.arange(11) + 1 / 3 for i in range(k)]).astype(dtype)
expected = {
    "layers.0.bias": flat[:, 6:10],
    "layers.0.weight": flat[:, :6].reshape(k, 2, 3),
    "scale": flat[:, 10],
    "none": np.zeros((k, 0, 5), dtype),
}

if path.endswith(".safetensors"):
    with safetensors.safe_open(path, "np") as f:
        meta = f.metadata()
    assert json.loads(meta["values"]) == values
    quantity, run_id = meta["quantity"], meta["run_id"]
    read = load_file(path)
else:
    with h5py.File(path) as f:
        np.testing.assert_array_equal(f["values"], values)
        assert f["values"].attrs["units"] == "loss/parameter^2"
        quantity, run_id = f["quantity"].asstr()[()], f["run_id"].asstr()[()]
        read = {name: node[()] for name, node in f["vectors"].items()}
        assert all(node.attrs["long_name"].endswith(name) for name, node in f["vectors"].items())
assert quantity == "eigenvectors of the Hessian" and run_id == "5eed"
assert sorted(read) == sorted(expected)
for name, array in expected.items():
    assert read[name].dtype == dtype and read[name].shape == array.shape, name
    np.testing.assert_array_equal(read[name], array)
