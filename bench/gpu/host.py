#!/usr/bin/env python3
"""Parameters and vectors in host memory beside a GPU (`--parameters host`) against all of them on it: time, memory, numbers.

    host.py --make FOLDER [--millions 470]                     bench/scale/does_not_fit.py's Llama-shaped model and rows
    host.py --hesspect BINARY --table FILE [--device cuda] FOLDER

A density of ten Lanczos steps, products in segments. From host memory it must have the same largest Ritz value to 1e-3, and take less of the device's
memory. Then `--memory` is halfway between the two: all on the device must be refused (exit code 5), from host memory it must run. What is fetched ahead
shows as the difference between the times with and without, and in the timeline of the second, FOLDER/ahead.json. With `--device cpu` one rank's
`--parameters sharded` stands in, whose code is the same but for the streams; there is no second memory to be spared then.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT_OF_MEMORY = 5
WAYS = {"replicated": ["--parameters", "replicated", "--product", "segments"], "host": ["--parameters", "host", "--fetch-ahead", "off"],
        "host, fetched ahead": ["--parameters", "host", "--fetch-ahead", "on", "--trace-json", "ahead.json"]}


def run(binary, folder, device, options):
    """(exit code, the result's figures or None, what it said)"""
    import h5py

    command = [binary, "density", "--model", "model.pt2", "--weights", "model.safetensors", "--data", "data.h5", "--loss", "causal_lm", "--device", device,
               "--micro-batch", "4", "--groups", "1", "--rows-in-use", "off", "--probes", "1", "--steps", "10", "--max-steps", "10", "--density-w1", "0",
               "--rtol-trace", "0", "--reorthogonalization", "none", "--seed", "0", "--force", "--output", "result.h5", *options]
    ended = subprocess.run([str(c) for c in command], cwd=folder, capture_output=True, text=True)
    if ended.returncode not in (0, 3):
        return ended.returncode, None, (ended.stderr.strip().splitlines() or [""])[-1][:200]
    with h5py.File(folder / "result.h5") as file:
        d = file["entry/diagnostics"]
        ritz = []
        file.visititems(lambda name, item: ritz.append(item[()].max()) if name.endswith("/ritz") else None)
        return ended.returncode, {"ms": 1e3 * float(d["hvp_seconds"][()] / d["hvp_count"][()]), "device": float(d["peak_device_bytes"][()]),
                                  "forecast": float(d["forecast_memory_bytes"][()]), "largest": float(max(ritz))}, ended.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--millions", type=int, default=470)
    parser.add_argument("--hesspect", type=lambda path: Path(path).resolve())
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.make:
        making = [sys.executable, ROOT / "bench/scale/does_not_fit.py", arguments.folder, "--millions", str(arguments.millions), "--write-only"]
        sys.exit(subprocess.run(making).returncode)
    on_gpu = arguments.device != "cpu"
    lines = ["## Parameters in host memory\n", "| | ms a product | device, MiB | forecast, MiB | largest Ritz value | seconds in all |", "| --- | --- | --- | --- | --- | --- |"]
    found, wrong = {}, []

    def take(name, options, expected=(0, 3)):
        options = options if on_gpu else ["sharded" if o == "host" else o for o in options]
        started = time.monotonic()
        code, figures, said = run(arguments.hesspect, arguments.folder, arguments.device, options)
        if code not in expected:
            wrong.append(f"{name}: exit code {code}: {said}")
        if figures:
            found[name] = figures
            device, forecast = (f"{figures[what] / 2**20:.0f}" for what in ("device", "forecast"))
            lines.append(f"| {name} | {figures['ms']:.1f} | {device} | {forecast} | {figures['largest']:.6g} | {time.monotonic() - started:.0f} |")
        else:
            lines.append(f"| {name} | exit code {code} | | | {said.replace('|', '/')} | |")
        print(lines[-1], flush=True)

    for name, options in WAYS.items():
        take(name, options)
    if len(found) == len(WAYS):
        whole, *others = found.values()
        for name, other in zip(list(WAYS)[1:], others, strict=True):
            if not abs(other["largest"] - whole["largest"]) < 1e-3 * abs(whole["largest"]):
                wrong.append(f"{name}: largest Ritz value {other['largest']}, all on the device {whole['largest']}")
            if on_gpu and not other["device"] < whole["device"]:
                wrong.append(f"{name}: {other['device']:.0f} bytes of the device, all on it {whole['device']:.0f}")
        if on_gpu:
            most = str(int((whole["device"] + others[-1]["device"]) / 2))
            take("replicated, --memory halfway", [*WAYS["replicated"], "--memory", most], (OUT_OF_MEMORY,))
            take("host, --memory halfway", ["--parameters", "host", "--memory", most])
    text = "\n".join([*lines, "", *(f"**Wrong**: {line}" for line in wrong)]) + "\n"
    if arguments.table:
        with open(arguments.table, "a") as file:
            file.write(text)
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    main()
