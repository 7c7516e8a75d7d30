#!/usr/bin/env python3
"""A model that no rank can hold: replicated it is refused, with sharded parameters it runs, on 2 and on 4 ranks.

    .venv/bin/python bench/scale/does_not_fit.py FOLDER [--millions 70] [--ranks 2 4]

Writes a Llama-shaped Hugging Face folder of random bfloat16 weights, exports it and a few rows of random tokens, then:
`hesspect density` with all parameters on every rank, each process held by `ulimit -v` to less than that takes (exit code
5, and a line that tells of --parameters sharded), and with sharded parameters on each number of ranks, the largest held
to the same, ten Lanczos steps and a sample of the trace. Prints each run's largest peak memory of a rank beside the plan's forecast, and its time a
product. 470 million parameters take some 16 GB over four ranks.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {70: (768, 6, 2048, 8192), 470: (1024, 24, 4096, 32000)}  # hidden size, layers, inner size, vocabulary


def write_folder(folder, millions):
    hidden, layers, inner, vocabulary = SHAPES[millions]
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
              "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": 8,
              "num_key_value_heads": 8, "vocab_size": vocabulary, "max_position_embeddings": 512,
              "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "hidden_act": "silu"}
    (folder / "config.json").write_text(json.dumps(config))
    random = torch.Generator().manual_seed(0)
    normal = lambda *shape: (torch.randn(*shape, generator=random) / shape[-1] ** 0.5).bfloat16()
    tensors = {"model.embed_tokens.weight": normal(vocabulary, hidden), "lm_head.weight": normal(vocabulary, hidden),
               "model.norm.weight": torch.ones(hidden).bfloat16()}
    for i in range(layers):
        at = f"model.layers.{i}."
        for name in ("q", "k", "v", "o"):
            tensors[f"{at}self_attn.{name}_proj.weight"] = normal(hidden, hidden)
        for name, shape in {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}.items():
            tensors[f"{at}mlp.{name}_proj.weight"] = normal(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{name}.weight"] = torch.ones(hidden).bfloat16()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with h5py.File(folder / "data.h5", "w") as f:
        ids = np.random.default_rng(0).integers(0, vocabulary, (4, 32))
        f["input_ids"] = ids
        f["target"] = ids
    return sum(t.numel() for t in tensors.values())


def run(hesspect, folder, ranks, way, output, limit_kib=None):
    more = os.environ | {"OMP_NUM_THREADS": "1"}
    inner = [str(hesspect), "density", "--model", "model.pt2", "--weights", "model.safetensors", "--data", "data.h5", "--loss",
             "causal_lm", "--micro-batch", "1", "--groups", "1", "--rows-in-use", "off", "--probes", "1", "--steps", "10",
             "--max-steps", "10", "--density-w1", "0", "--rtol-trace", "0", "--reorthogonalization", "none",
             "--parameters", way, "--seed", "0", "--force", "--output", output]
    script = (f"ulimit -v {limit_kib}; " if limit_kib else "") + 'exec "$@"'
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), "bash", "-c", script, "hesspect"] + inner
    begun = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=more, capture_output=True, text=True, check=False)
    return done, time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--millions", type=int, default=70, choices=SHAPES)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--hesspect", type=Path, default=ROOT / "build/release/bin/hesspect")
    parser.add_argument("--write-only", action="store_true", help="the model, and no run")
    args = parser.parse_args()
    count = args.folder / "parameters.json"
    if not count.exists():  # of an earlier call
        n = write_folder(args.folder, args.millions)
        subprocess.run([sys.executable, "-m", "hesspect", "export", "hf", ".", "-o", "model.pt2", "--task", "causal-lm", "--seq", "32", "--force"], check=True,
                       cwd=args.folder, env=os.environ | {"PYTHONPATH": str(ROOT / "python")})
        count.write_text(json.dumps(n))
    n = json.loads(count.read_text())
    if args.write_only:
        return
    print(f"{n:,} parameters, {(args.folder / 'model.safetensors').stat().st_size / 2**20:.0f} MiB of bfloat16")
    limit = int(2 * n * 4 / 1024 + 3 * 2**20)  # of address space, of which libraries map 2 GiB and more
    done, _ = run(args.hesspect, args.folder, max(args.ranks), "replicated", "replicated.h5", limit)
    print("replicated, exit", done.returncode, [line for line in done.stderr.splitlines() if "error" in line])
    for ranks in args.ranks:
        done, seconds = run(args.hesspect, args.folder, ranks, "sharded", f"sharded{ranks}.h5", limit if ranks == max(args.ranks) else None)
        if done.returncode not in (0, 3):
            print(f"{ranks} ranks: exit {done.returncode}\n{done.stderr[-2000:]}")
            continue
        with h5py.File(args.folder / f"sharded{ranks}.h5") as f:
            d = f["entry/diagnostics"]
            peak, forecast, products = (d[name][()] for name in ("peak_memory_bytes", "forecast_memory_bytes", "hvp_count"))
            product_s = d["hvp_seconds"][()] / products
            print(f"{ranks} ranks: peak {peak / 2**20:.0f} MiB a rank, forecast {forecast / 2**20:.0f}; {products} products "
                  f"of {product_s:.1f} s, {seconds:.0f} s in all")
        print("   ", *re.findall(r"cost .*", done.stderr))


if __name__ == "__main__":
    main()
