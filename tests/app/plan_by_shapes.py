#!/usr/bin/env python3
"""Plans by shapes alone, of a Llama-shaped program without weights: every figure against arithmetic by hand."""

import re
import unittest
import warnings

import h5py
import torch
import torch.nn as nn
import torch.nn.functional as F
from harness import Case, hesspect

USAGE, MEMORY = 2, 5
H, HEADS, WIDE, WORDS, LAYERS, TOKENS, ROWS = 64, 4, 128, 96, 4, 16, 12
STORED, RUN = 2, 4  # bfloat16 in the file, float32 in the run


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.norm2 = nn.RMSNorm(H), nn.RMSNorm(H)
        self.qkv, self.o = nn.Linear(H, 3 * H, bias=False), nn.Linear(H, H, bias=False)
        self.gate, self.up, self.down = nn.Linear(H, WIDE, bias=False), nn.Linear(H, WIDE, bias=False), nn.Linear(WIDE, H, bias=False)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.layers = nn.Embedding(WORDS, H), nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm, self.head = nn.RMSNorm(H), nn.Linear(H, WORDS, bias=False)

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


ATTENTION, MLP = H * 4 * H + H, 3 * H * WIDE + H
PARAMETERS = 2 * WORDS * H + H + LAYERS * (ATTENTION + MLP)
# Operations of the matrix products of a row, once: matrices, and scores and their sums in every head.
FLOPS = TOKENS * 2 * (LAYERS * (4 * H * H + 3 * H * WIDE) + WORDS * H) + LAYERS * 4 * TOKENS * TOKENS * H


def shown(size):
    """As the program writes bytes."""
    if size < 1024:
        return f"{size} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1023.995:
            return f"{size:.2f} {unit}"


class PlanByShapes(Case):
    @classmethod
    def setUpClass(cls):
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = Llama().to(torch.bfloat16)
            cls.program = torch.export.export(model, (), {"ids": torch.zeros(2, TOKENS, dtype=torch.long)},
                                              dynamic_shapes={"ids": {0: torch.export.Dim("batch", min=1, max=4096)}}, strict=False)

    def setUp(self):
        super().setUp()
        torch.export.save(self.program, self.folder / "model.pt2")
        with h5py.File(self.folder / "data.h5", "w") as f:
            f["ids"] = f["target"] = (torch.arange(ROWS * TOKENS).reshape(ROWS, TOKENS) % WORDS).numpy()

    def run_it(self, command, *more):
        return hesspect(command, "--model", self.folder / "model.pt2", "--data", self.folder / "data.h5", "--loss", "causal_lm", "--rows-in-use", "off", *more)

    def plan(self, *more, code=0):
        ended = self.run_it("plan", "--for", "eigs", "--top", 1, "--bottom", 0, "--max-steps", 10, "--true-residuals=false", *more)
        self.assertDone(ended, code)
        return ended.out

    def row(self, text, kind):
        found = re.search(rf"^ +{re.escape(kind)} +([\d.]+ \w+)", text, re.MULTILINE)
        self.assertIsNotNone(found, f"no row {kind!r} in\n{text}")
        return found.group(1)

    def test_figures_by_hand(self):
        ranks, rate = 4, 1e8
        text = self.plan("--world", ranks, "--memory", "1G", "--parameters", "sharded", "--groups", 1, "--micro-batch", 1, "--lock-step", 1, "--flops", "100M",
                         "--bandwidth", "1G", "--latency", 0.001)
        share = -(-PARAMETERS // ranks)
        self.assertEqual(self.row(text, "parameters, a share of them"), shown(PARAMETERS * STORED // ranks))
        # In, out, a work vector, gradient.
        self.assertEqual(self.row(text, "vectors, shares of them"), shown(4 * share * RUN))
        self.assertEqual(self.row(text, "Lanczos basis"), shown(11 * share * RUN))
        self.assertEqual(self.row(text, "data"), shown(ROWS // ranks * 2 * TOKENS * 8))
        segments = int(re.search(r"whole for one of (\d+) segments at a time", text).group(1))
        self.assertGreater(segments, 1)
        # The largest segment: of pieces that follow one another, between which the residual stream alone crosses, or what the last norm makes of it.
        pieces = [WORDS * H] + [ATTENTION, MLP] * LAYERS + [H, WORDS * H]
        sums = {sum(pieces[i:j]) for i in range(len(pieces)) for j in range(i + 1, len(pieces) + 1)}
        products = self.row(text, "a segment's products")
        # Two segments' at once, for the next is gathered meanwhile; and of the products a share, as it comes back.
        largest = [n for n in sums if shown(2 * n * RUN * (ranks + 1) // ranks) == products]
        self.assertTrue(largest, text)
        self.assertEqual(self.row(text, "a segment's parameters and vectors"), shown(2 * largest[0] * (STORED + 2 * RUN)))
        # Three micro-batches, each with these entries at each cut and their tangents, and at one cut both of their adjoints.
        residual = TOKENS * H * RUN
        self.assertEqual(self.row(text, "what crosses the cuts"), shown(3 * (2 * residual * (segments - 1) + 2 * residual)))
        calls = 2 * (2 * segments - 1) + segments
        self.assertIn(f"{calls + 5} collective calls a step", text)
        self.assertIn(f"{calls} of the calls are a product's", text)
        # All but the last segment are gathered twice; all products are summed.
        sent = self.row(text.replace("sent by a rank", "").replace("a step, ", "\n  sent  "), "sent")
        last = [sum(pieces[i:]) for i in range(len(pieces))]
        by_hand = {shown(3 * ((2 * PARAMETERS - p) * (STORED + RUN) + PARAMETERS * RUN) // 4) for p in last}
        self.assertIn(sent, by_hand)
        # 3 micro-batches of 11 units, but for the last segment, which is not taken forwards first.
        seconds = float(re.search(r"([\d.]+) s for a product of one probe", text).group(1))
        head = TOKENS * 2 * WORDS * H
        self.assertTrue(3 * (11 * FLOPS - 3 * FLOPS / segments * 2 - 3 * head) / rate < seconds + 0.05 < 3 * 11 * FLOPS / rate + 0.1, text)
        self.assertIn("nothing was tried", text)

    def test_what_fits(self):
        """Memory decides: whole on every rank, shared, or not at all, with what would do."""
        everything = self.plan("--world", 4, "--memory", "1G", "--flops", "1G")
        self.assertRegex(everything, r"replicated +fits")
        self.assertRegex(everything, r"sharded +fits")
        small = self.plan("--world", 4, "--memory", "33M", "--flops", "1G", code=MEMORY)
        self.assertRegex(small, r"replicated +does not fit")
        self.assertIn("would fit: ", small)
        self.assertIn("of memory for each rank", small)

    def test_host_memory_is_beside_gpus(self):
        ended = self.run_it("plan", "--parameters", "host")
        self.assertEqual(ended.code, USAGE, ended.err)
        self.assertIn("beside a GPU", ended.err)

    def test_for_gpus_that_are_not_here(self):
        text = self.plan("--device", "cuda", "--world", 16, "--memory", "80G", "--parameters", "host", "--flops", "100T")
        self.assertIn("shares of these, in host memory", text)
        self.assertIn("in host memory, ", text)


if __name__ == "__main__":
    unittest.main()
