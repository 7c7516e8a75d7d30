"""The training run of the digits' CNN that the benches of series take their checkpoints of."""

import h5py
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from hesspect.workloads.cnn import DigitNet
from hesspect.workloads.common import batches, export

HELD_OUT = 1000  # of the last rows, which no training sees


def train(folder, widths, values, labels, *, steps, lr, kept, seed=0):
    """AdamW with a constant rate. Writes folder/ckpt/step-N.safetensors after each of `steps`, model.pt2, and data.h5 with the first `kept` rows.

    :param widths: channels of the three layers, as DigitNet has them
    :param values: [rows, 1, height, width] float32
    :param labels: [rows] int64
    """
    torch.manual_seed(seed)
    rows = len(values) - HELD_OUT
    model = DigitNet(widths)
    x, y = torch.as_tensor(values[:rows]), torch.as_tensor(labels[:rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(seed)
    (folder / "ckpt").mkdir(parents=True, exist_ok=True)
    step = 0
    while step < max(steps):
        for part in batches(rows, 64, generator):
            model.train()
            loss = F.cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step in steps:
                save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(folder / "ckpt" / f"step-{step}.safetensors"))
                print(f"step {step}: loss {loss.item():.4f}", flush=True)
    torch.export.save(export(model, {"image": values[:rows]}), folder / "model.pt2")
    with h5py.File(folder / "data.h5", "w") as f:
        f["image"], f["target"] = values[:kept], labels[:kept]
