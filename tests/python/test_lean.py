"""Commands in Python start without what they have no use for; where they then fail, they are run again with all of it."""

import os
import subprocess
import sys

import h5py
import pytest

pytest.importorskip("tokenizers")
from test_data_text import make_tokenizer  # noqa: E402

QUICK = {**os.environ, "HF_HUB_OFFLINE": "1"}


def python(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=QUICK, timeout=200)


def test_a_tokenizer_needs_no_torch(tmp_path):
    make_tokenizer(tmp_path, "gpt", {"n_positions": 16})
    (tmp_path / "corpus.txt").write_text("the cat sees a dog\n" * 8)
    done = python("-X", "importtime", "-m", "hesspect", "data", "text", tmp_path, tmp_path / "corpus.txt", "--seq", "4", "-o", tmp_path / "d.h5")
    modules = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 0 and "tokenizers" in modules and not modules & {"torch", "torchvision", "scipy"}
    assert not [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    with h5py.File(tmp_path / "d.h5") as file:
        assert file["input_ids"].shape == (12, 4)


def test_what_fails_is_run_again_with_everything(tmp_path):
    """And says its error once."""
    done = python("-m", "hesspect", "data", "text", tmp_path / "none", tmp_path / "corpus.txt", "-o", tmp_path / "d.h5")
    assert done.returncode == 4 and done.stderr.count("\n") == 1 and done.stderr.startswith("hesspect: error: ") and "no such folder" in done.stderr
    code = ("import sys\nfrom hesspect import lean\nimport hesspect.lean as own\nown._AGAIN = 'import sys; print(sys.argv[1:], sys.modules.get(\"torch\", 0))'\n"
            "sys.exit(lean.run(lambda given: print('lost', file=sys.stderr) or 4, ['data', 'text', 'x']))")
    again = python("-c", code)
    assert (again.returncode, again.stdout, again.stderr) == (0, "['data', 'text', 'x'] 0\n", "")


def test_usage_errors_end_at_once(tmp_path):
    done = python("-m", "hesspect", "data", "text", "--sek", "4")
    assert done.returncode == 2 and "usage:" in done.stderr
