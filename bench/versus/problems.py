"""The problems that every tool is given: model, loss and data in PyTorch, and the same for hesspect as files.

The workloads use the weights and rows that `python -m hesspect.workloads` wrote under runs/; made.py has models that are
made here. A planted problem is a quadratic function whose Hessian has a spectrum that is known exactly.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

import made

ROOT = Path(__file__).resolve().parents[2]
MADE = ROOT / "build" / "versus"  # what the benchmark makes: environment, planted problems, results of runs


@dataclasses.dataclass
class Problem:
    name: str
    model: nn.Module  # eval mode, of `dtype`, takes the tuple of inputs as one argument
    criterion: nn.Module  # of (output, target): the mean over the rows of a batch
    batches: list  # of (inputs, target), inputs a TupleInput, micro-batches of equal size
    dtype: torch.dtype
    arguments: list  # of hesspect: model, data, loss, rows, micro-batch, dtype

    @property
    def parameters(self):
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def n(self):
        return sum(p.numel() for p in self.parameters)


class TupleInput:
    """Several input tensors that act as one where a tool asks for size(0) or moves it to a device."""

    def __init__(self, tensors):
        self.tensors = tuple(tensors)

    def size(self, dim):
        return self.tensors[0].size(dim)

    @property
    def shape(self):
        return self.tensors[0].shape

    def to(self, *args, **kwargs):
        return self


class OneArgument(nn.Module):
    """model(*inputs) as model(TupleInput)."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        return self.inner(*inputs.tensors)


@dataclasses.dataclass(frozen=True)
class Workload:
    rows: int
    batch: int
    dtype: torch.dtype
    loss: str
    folder: str = ""  # under runs/, where that is not the problem's name


# cnn and minilm with fewer rows than in configs/: the peers' products are to be measured wholly, not extrapolated.
WORKLOADS = {
    "cnn": Workload(250, 50, torch.float32, "cross_entropy"),
    "widedeep": Workload(10000, 2500, torch.float64, "bce_with_logits"),
    "minilm": Workload(4, 4, torch.float32, "cross_entropy"),
    "minilm64": Workload(64, 16, torch.float32, "cross_entropy", "minilm"),
}


def _cnn(state):
    from hesspect.workloads.cnn import DigitNet

    return DigitNet(), ["image"]


def _widedeep(state):
    from hesspect.workloads.widedeep import CATEGORIES, CROSSES, WideDeep

    names = [c.replace("-", "_") for c in CATEGORIES]
    sizes = {k: state[f"wide.{k}.weight"].shape[0]
             for k in names + ["_".join(part.replace("-", "_") for part in cross) for cross in CROSSES]}
    return WideDeep(sizes, names, state["norm.weight"].shape[0]), list(sizes) + ["continuous"]


def _minilm(state):
    from hesspect.workloads.minilm import pretrained

    without_fused_attention()
    return pretrained(), ["input_ids", "attention_mask"]


def folder_of(name):
    return ROOT / "runs" / (WORKLOADS[name].folder or name)


def workload(name, dtype=None, rows=None, batch=None):
    """One of them, with runs/NAME's weights and first rows, in `dtype` (default: that of the benchmark)."""
    import h5py
    from safetensors.torch import load_file

    folder, settings = folder_of(name), WORKLOADS[name]
    dtype, rows, batch = dtype or settings.dtype, rows or settings.rows, batch or settings.batch
    state = load_file(folder / "weights.safetensors")
    model, inputs = {"cnn": _cnn, "widedeep": _widedeep, "minilm": _minilm}[folder.name](state)
    model.load_state_dict(state)
    model = model.eval().to(dtype)
    with h5py.File(folder / "data.h5") as file:
        arrays = [torch.as_tensor(file[k][:rows]) for k in [*inputs, "target"]]
    arrays = [a.to(dtype) if a.is_floating_point() else a for a in arrays]
    pieces = list(zip(*(a.split(batch) for a in arrays)))
    criterion = nn.CrossEntropyLoss() if settings.loss == "cross_entropy" else nn.BCEWithLogitsLoss()
    arguments = ["--model", str(folder / "model.pt2"), "--weights", str(folder / "weights.safetensors"), "--data", str(folder / "data.h5"),
                 "--loss", settings.loss, "--samples", str(rows), "--micro-batch", str(batch), "--dtype", str(dtype).removeprefix("torch.")]
    return Problem(name, OneArgument(model), criterion, [(TupleInput(p[:-1]), p[-1]) for p in pieces], dtype, arguments)


def without_fused_attention():
    """The fused attention kernels have no double backward."""
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)


def own(name, dtype=None):
    """One of made.py's, in `dtype` (default float32); trains and exports it the first time."""
    import h5py
    from safetensors.torch import load_file, save_file

    settings, folder = made.MADE[name], MADE / "problems"
    program, data, weights = (folder / f"{name}.{suffix}" for suffix in ("pt2", "h5", "safetensors"))
    without_fused_attention()
    if not (program.is_file() and data.is_file() and weights.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        model, inputs, target = made.make(settings)
        free = {k: {0: torch.export.Dim("batch", min=1, max=4096)} for k in inputs}
        torch.export.save(torch.export.export(model, (), {k: x[:4] for k, x in inputs.items()}, dynamic_shapes=free), program)
        save_file({k: p.detach().contiguous().clone() for k, p in model.state_dict().items()}, weights)
        with h5py.File(data, "w") as file:
            for k, x in {**inputs, "target": target}.items():
                file[k] = x.numpy()
    model = made.GPT(settings.sizes) if settings.sizes else made.ResNet20()
    model.load_state_dict(load_file(weights))
    dtype = dtype or torch.float32
    with h5py.File(data) as file:
        arrays = [torch.as_tensor(file[k][()]) for k in [*(k for k in file if k != "target"), "target"]]
    arrays = [a.to(dtype) if a.is_floating_point() else a for a in arrays]
    pieces = list(zip(*(a.split(settings.batch) for a in arrays)))
    arguments = ["--model", str(program), "--data", str(data), "--loss", *settings.loss, "--samples", str(settings.rows),
                 "--micro-batch", str(settings.batch), "--dtype", str(dtype).removeprefix("torch.")]
    return Problem(name, OneArgument(model.eval().to(dtype)), settings.criterion, [(TupleInput(p[:-1]), p[-1]) for p in pieces], dtype, arguments)


def weights_sha256(name):
    path = MADE / "problems" / f"{name}.safetensors" if name in made.MADE else folder_of(name) / "weights.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- planted spectra -------------------------------------------------------------------------------------------------

BLOCK = 64  # coordinates that are mixed by one orthogonal matrix


def _outliers(n):
    """Ten outliers from 100 down by factors of 0.75, then the decaying bulk of a trained network: 5 j^-0.9."""
    bulk = 5.0 * np.arange(1.0, n - 9.0) ** -0.9
    return np.concatenate([100.0 * 0.75 ** np.arange(10), bulk])


def _marchenko_pastur(n):
    """Ten outliers from 20 down to 6.5 above a Marchenko-Pastur bulk (aspect ratio 1/4: 0.25 to 2.25) of a quarter of the
    dimensions, the rest zero."""
    count = n // 4 - 10
    lo, hi = 0.25, 2.25
    grid = np.linspace(lo, hi, 20001)[1:-1]
    mass = np.cumsum(np.sqrt((hi - grid) * (grid - lo)) / grid)
    bulk = np.interp((np.arange(count) + 0.5) / count, mass / mass[-1], grid)
    return np.concatenate([20.0 - 1.5 * np.arange(10), bulk, np.zeros(n - 10 - count)])


PLANTED = {
    "planted-decay": (1_000_000, _outliers),
    "planted-mp": (1_000_000, _marchenko_pastur),
}


def planted_spectrum(name):
    """[n] the eigenvalues, descending, as float32 stores them."""
    n, make = PLANTED[name]
    return np.sort(make(n).astype(np.float32).astype(np.float64))[::-1]


class Quadratic(nn.Module):
    """½ xᵀAx, A = P Qᵀ D Q P: P a Householder reflection, Q an orthogonal matrix that mixes blocks of 64 coordinates, for
    after P alone eigenvectors are nearly coordinate vectors, and Hutchinson's estimate with Rademacher probes nearly exact."""

    def __init__(self, spectrum, seed=20):
        super().__init__()
        n = len(spectrum)
        random = np.random.default_rng(seed)
        u = random.standard_normal(n)
        mix, _ = np.linalg.qr(random.standard_normal((BLOCK, BLOCK)))
        self.x = nn.Parameter(torch.as_tensor(random.standard_normal(n), dtype=torch.float32))
        self.register_buffer("u", torch.as_tensor(u / np.linalg.norm(u), dtype=torch.float32))
        self.register_buffer("mix", torch.as_tensor(mix, dtype=torch.float32))
        self.register_buffer("d", torch.as_tensor(spectrum[random.permutation(n)].copy(), dtype=torch.float32))

    def forward(self, rows):
        """rows [1]: ones; the value does not depend on them but by their mean."""
        reflected = self.x - 2 * torch.dot(self.u, self.x) * self.u
        y = (reflected.view(-1, BLOCK) @ self.mix).view(-1)
        return 0.5 * torch.dot(self.d * y, y) * rows.mean()


class OutputItself(nn.Module):
    """The criterion of a model whose output is the loss."""

    reduction = "mean"

    def forward(self, output, target):
        return output


def planted(name):
    """A planted problem in float32; exports it for hesspect the first time."""
    import h5py

    folder = MADE / "problems"
    model = Quadratic(planted_spectrum(name)).eval()
    program, data = folder / f"{name}.pt2", folder / f"{name}.h5"
    rows = torch.ones(1)
    if not (program.is_file() and data.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        torch.export.save(torch.export.export(model, (rows,), strict=False), program)
        with h5py.File(data, "w") as file:
            file["rows"] = rows.numpy()
    arguments = ["--model", str(program), "--data", str(data), "--loss", "output", "--dtype", "float32"]
    return Problem(name, OneArgument(model), OutputItself(), [(TupleInput([rows]), rows)], torch.float32, arguments)


NAMES = [*PLANTED, *WORKLOADS, *made.MADE]


def rows_of(name):
    return (WORKLOADS.get(name) or made.MADE[name]).rows


def problem(name, dtype=None):
    """@param dtype  of workloads and of made.py's models; default: that of the benchmark"""
    return planted(name) if name in PLANTED else own(name, dtype) if name in made.MADE else workload(name, dtype)
