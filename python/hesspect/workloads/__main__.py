"""Command line: python -m hesspect.workloads NAME DIR."""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from hesspect.workloads import FILES, NAMES


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hesspect.workloads", description="Trains a small real model and writes what hesspect reads.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder for model.pt2, weights.safetensors and data.h5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--force", action="store_true", help="make it again where it is there already")
    args = parser.parse_args(argv)
    if not args.force and all((args.dir / f).is_file() for f in FILES):
        print(f"{args.dir}: {args.name} is there already (--force makes it again)")
        return 0

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    started = time.monotonic()
    import torch

    from hesspect.workloads import common

    if args.threads > 0:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    try:
        workload = importlib.import_module(f"hesspect.workloads.{args.name}").make(args.seed)
        common.write(workload, args.dir)
    except (common.WorkloadError, ImportError) as error:
        print(f"hesspect.workloads: {error}", file=sys.stderr)
        return 4
    except OSError as error:
        print(f"hesspect.workloads: {args.dir}: can't write: {error}", file=sys.stderr)
        return 4
    common.report(workload, args.name, args.dir, time.monotonic() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
