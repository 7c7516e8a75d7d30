#!/usr/bin/env python3
"""From nothing to a report as README says, in a fresh environment with hesspect's wheel: a sharded bfloat16 Hugging Face folder of each family, a
torchvision ResNet on a folder of images, and a recommender on a Parquet table. Largest eigenvalues are held against PyTorch's own, in float64.

Minutes: only with HESSPECT_LONG=1, else exit code 77 (skipped).
"""

import os
import shutil
import sys
import tempfile
import time
import unittest
from pathlib import Path

from environments import BACKEND, LONG, WITHOUT_BACKEND, make_environment, make_wheel, of_build_tree, pip, run, variables
from families import FAMILIES

DONE = (0, 3)  # 3: not all of it as good as the default accuracy, which small data seldom reach
CLOSE = "--dtype float64 --top 3 --bottom 1 --rtol-eigs 1e-6 --rtol-trace 0.2 --density-w1 0.1 --output result.h5"

# As PyTorch alone has it: the matrix whole, in float64.
DENSE = """
import h5py, torch
from torch.autograd import grad

def largest(loss, parameters, count):
    parameters = [p for p in parameters if p.requires_grad]
    g = torch.cat([one.flatten() for one in grad(loss, parameters, create_graph=True, materialize_grads=True)])
    rows = [torch.cat([one.flatten() for one in grad(g[i], parameters, retain_graph=True, materialize_grads=True)]) for i in range(len(g))]
    print(len(g), *torch.linalg.eigvalsh(torch.stack(rows)).flip(0)[:count].tolist())

arrays = {name: torch.as_tensor(data[:]) for name, data in h5py.File("data.h5").items()}
"""

IMAGES = """
from pathlib import Path
import numpy as np
from PIL import Image
rng = np.random.default_rng(0)
for k, name in enumerate(("cat", "dog", "owl")):
    (Path("images") / name).mkdir(parents=True)
    for i in range(8):
        Image.fromarray(rng.integers(60 * k, 60 * k + 120, (32, 32, 3), dtype=np.uint8)).save(Path("images") / name / f"{i}.png")
"""

# Of a network with millions of parameters: PyTorch's product with hesspect's eigenvector is the eigenvalue times it, and power iteration from a
# random vector, which is below the largest while it has not converged, finds none larger.
RESNET_PRODUCT = """
import h5py, torch
from safetensors.torch import load_file
program = torch.export.load("model.pt2").module()
x, y = (torch.as_tensor(h5py.File("data.h5")[name][:]) for name in ("x", "target"))
names, parameters = zip(*program.named_parameters())
g = torch.autograd.grad(torch.nn.functional.cross_entropy(program(x), y), parameters, create_graph=True)
dot = lambda a, b: sum((one * other).sum() for one, other in zip(a, b)).item()
product = lambda v: torch.autograd.grad(g, parameters, v, retain_graph=True)

vectors = load_file("vectors.safetensors")
v = [vectors[name][0] for name in names]
hv = product(v)
value = dot(v, hv) / dot(v, v)
residual = [one - value * other for one, other in zip(hv, v)]
assert dot(residual, residual) ** 0.5 <= 0.05 * value * dot(v, v) ** 0.5, (value, dot(residual, residual) ** 0.5)
torch.manual_seed(0)
v = [torch.randn_like(p) for p in parameters]
for _ in range(25):
    norm = dot(v, v) ** 0.5
    v = [one / norm for one in v]
    hv = product(v)
    assert dot(v, hv) <= 1.001 * value, (value, dot(v, hv))
    v = hv
print(sum(p.numel() for p in parameters), value)
"""

TABLE = """
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
rng = np.random.default_rng(0)
n = 300
user, item, price = rng.integers(0, 12, n), rng.integers(0, 15, n), np.exp(rng.normal(2, 1, n))
clicked = (rng.random(n) < 1 / (1 + np.exp((user - item) / 5))).astype(int)
pq.write_table(pa.table({"user": user, "item": item, "price": price, "clicked": clicked}), "clicks.parquet")
open("clicks.ini", "w").write('''[target]
column = clicked
[user]
kind = categorical
[item]
kind = categorical
[price]
kind = numerical
transform = log1p
standardise = yes
''')
"""

DEEPFM = """
import torch
from torch import nn

class DeepFM(nn.Module):
    def __init__(self, users, items, width=4):
        super().__init__()
        self.user, self.item = nn.Embedding(users, width), nn.Embedding(items, width)
        self.deep = nn.Sequential(nn.Linear(2 * width + 1, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, user, item, price):
        u, i = self.user(user), self.item(item)
        return (self.deep(torch.cat([u, i, price.reshape(-1, 1)], 1)) + (u * i).sum(1, keepdim=True)).squeeze(1)

def made(arrays):
    torch.manual_seed(0)
    return DeepFM(int(arrays["user"].max()) + 1, int(arrays["item"].max()) + 1)
"""

TABLE_EXPORT = """
import h5py, hesspect, torch
from deepfm import made
arrays = {name: torch.as_tensor(data[:]) for name, data in h5py.File("data.h5").items()}
print(hesspect.export(made(arrays), {name: arrays[name][:4] for name in ("user", "item", "price")}, "model.pt2"))
"""

TABLE_DENSE = DENSE + """
from deepfm import made
model = made(arrays).double()
output = model(arrays["user"], arrays["item"], arrays["price"].double())
largest(torch.nn.functional.binary_cross_entropy_with_logits(output, arrays["target"].double()), list(model.parameters()), 3)
"""


class FrontDoor(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = Path(tempfile.mkdtemp(prefix="hesspect_front_door_"))
        cls.addClassCleanup(shutil.rmtree, cls.root, ignore_errors=True)
        cls.environment = cls.root / "environment"
        python = make_environment(cls.environment)
        pip(python, "install", "--no-deps", "--no-index", make_wheel(python, cls.root / "wheels", *of_build_tree()))

    def setUp(self):
        self.folder = self.root / self.id().rsplit(".", 1)[1]
        self.folder.mkdir()
        self.started = time.monotonic()

    def shell(self, line, codes=(0,)):
        """A line as README has it."""
        path = f"{self.environment / 'bin'}:{os.environ['PATH']}"
        extra = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none"}
        return run("bash", "-ec", line, codes=codes, env=variables(PATH=path, **extra), cwd=self.folder, timeout=1500).stdout

    def script(self, text):
        (self.folder / "step.py").write_text(text)
        return self.shell("python step.py")

    def check_report(self, dense, count, rtol):
        """The report and the picture are there, and the largest eigenvalues are PyTorch's.

        :param dense: gives the number of parameters and the largest eigenvalues
        """
        self.assertIn("eigenvalue", self.shell("hesspect report result.h5"))
        self.shell("hesspect plot result.h5 -o spectrum.png")
        print(f"\n{self._testMethodName}: {time.monotonic() - self.started:.0f} s from folder to report and picture", flush=True)
        self.shell("hesspect report result.h5 --format html --output report.html")
        self.assertIn("<svg", (self.folder / "report.html").read_text())
        self.assertTrue((self.folder / "spectrum.png").read_bytes().startswith(b"\x89PNG"))
        numbers = [float(word) for word in dense().split()]
        found = self.script("import hesspect; r = hesspect.read('result.h5'); print(r.n_parameters, *sorted(r.eigenvalues, reverse=True))").split()
        self.assertEqual(int(found[0]), int(numbers[0]))
        for ours, theirs in zip(map(float, found[1:count + 1]), numbers[1:count + 1], strict=True):
            self.assertAlmostEqual(ours, theirs, delta=rtol * abs(numbers[1]))

    def check_family(self, name):
        """A sharded bfloat16 folder, as README's last example has it."""
        family = FAMILIES[name]
        self.script(family.script())
        self.started = time.monotonic()
        self.shell(f"hesspect export hf folder -o model.pt2 --task {family.task}")
        self.assertIn(f"--loss {family.loss} ", self.shell(family.data))
        self.shell("hesspect run --ranks 2 analyze --model model.pt2 --weights folder --data data.h5 --loss " + family.loss + " " + CLOSE, DONE)
        self.check_report(lambda: self.script(DENSE + family.oracle), 3, 1e-5)

    def test_torchvision_on_images(self):
        self.script(IMAGES)
        self.shell("hesspect data images images --preset raw --resize 32 --crop 32 -o data.h5")
        self.shell("hesspect export torchvision resnet18 -o model.pt2 --classes 3 --size 32")
        options = "--top 1 --bottom 0 --rtol-eigs 0.01 --steps 12 --rtol-trace 0.5 --max-hvps 24 --density-w1 0 --true-residuals=false --eigenvectors vectors.safetensors"
        self.shell(f"hesspect analyze --model model.pt2 --data data.h5 --loss cross_entropy {options} --output result.h5", DONE)
        self.check_report(lambda: self.script(RESNET_PRODUCT), 1, 1e-3)

    def test_table(self):
        self.script(TABLE)
        self.shell("hesspect data table clicks.parquet --schema clicks.ini -o data.h5")
        (self.folder / "deepfm.py").write_text(DEEPFM)
        self.script(TABLE_EXPORT)
        self.shell("mpirun -n 2 hesspect analyze --model model.pt2 --data data.h5 --loss bce_with_logits " + CLOSE, DONE)
        self.check_report(lambda: self.script(TABLE_DENSE), 3, 1e-5)


for name in FAMILIES:
    setattr(FrontDoor, f"test_folder_of_{name}", lambda self, name=name: self.check_family(name))


if __name__ == "__main__":
    if not LONG or BACKEND is None:
        print(WITHOUT_BACKEND if LONG else "minutes: launch/test --long")
        sys.exit(77)
    unittest.main()
