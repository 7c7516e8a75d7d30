#!/usr/bin/env python3
"""Runs fuzz targets for some seconds each and says how many inputs each took. Exit code 1 where one failed.

    run_fuzz.py TREE FIXTURES SECONDS [TARGET...]

TREE is the build tree of the preset `fuzz`, FIXTURES the models that tests/fixtures/make_fixtures.py wrote. Seeds are made
from these once. What a target finds worth keeping stays in TREE/corpus/TARGET and is where the next run goes on from;
with --fresh a run starts from the seeds alone and keeps nothing. An input that ends a target is left in TREE/crashes.
Exit code 77, which ctest takes as skipped, where TREE has no targets and --skip-unbuilt says that this is no fault.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Small inputs run faster and lose nothing but repetitions; what is larger among the seeds is cut.
LARGEST_INPUT = {"ini": 2048, "pickle": 4096, "program": 1 << 14, "result": 1 << 14, "checkpoint": 8192}
LARGEST_OTHER = 8192
# A reader may take ten times its file and this: one allocation of more, or more than so much in all, ends the target.
# The sanitizers' own memory and LibTorch's libraries are in the second figure.
ALLOCATION_MB = 64
RESIDENT_MB = 640
RESIDENT_WITH_TORCH_MB = 2048
SLOWEST_S = 10
TORCH = {"data", "lanczos_record", "program", "symbolic", "weights"}


def targets_of(tree):
    return sorted(path.name.removesuffix("_fuzz") for path in (tree / "fuzz").glob("*_fuzz"))


def make_seeds(tree, fixtures):
    """Once for each state of the script that makes them and of the fixtures."""
    seeds, script = tree / "seeds", HERE / "make_seeds.py"
    newest = max([script.stat().st_mtime, *(path.stat().st_mtime for path in fixtures.glob("*.pt2"))])
    stamp = seeds / ".made"
    if stamp.exists() and stamp.stat().st_mtime > newest:
        return seeds
    made = Path(tempfile.mkdtemp(dir=tree, prefix="seeds-"))  # two targets may come here at once
    subprocess.run([sys.executable, script, fixtures, made], check=True)
    (made / ".made").touch()
    old = tree / f"{made.name}-old"
    try:
        if seeds.exists():
            seeds.rename(old)
        made.rename(seeds)
    except OSError:
        if not stamp.exists():
            raise
        shutil.rmtree(made)
    shutil.rmtree(old, ignore_errors=True)
    return seeds


def command_of(target, tree, corpus, seeds, crashes, seconds):
    resident = RESIDENT_WITH_TORCH_MB if target in TORCH else RESIDENT_MB
    command = [tree / "fuzz" / f"{target}_fuzz", corpus, seeds / target, f"-max_total_time={seconds}", f"-timeout={SLOWEST_S}",
               f"-max_len={LARGEST_INPUT.get(target, LARGEST_OTHER)}", f"-malloc_limit_mb={ALLOCATION_MB}", f"-rss_limit_mb={resident}",
               f"-artifact_prefix={crashes}/", "-print_final_stats=1", "-len_control=20", "-detect_leaks=0"]
    words = HERE / f"{target}.dict"
    return [str(part) for part in command] + ([f"-dict={words}"] if words.exists() else [])


def run(target, tree, seeds, seconds, fresh):
    """@return whether all inputs were answered"""
    crashes = tree / "crashes" / target
    crashes.mkdir(parents=True, exist_ok=True)
    before = set(crashes.iterdir())
    with tempfile.TemporaryDirectory() as nothing_kept:
        corpus = Path(nothing_kept) if fresh else tree / "corpus" / target
        corpus.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        done = subprocess.run(command_of(target, tree, corpus, seeds, crashes, seconds), stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, errors="replace")
        elapsed = time.monotonic() - started
    counted = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    peak = re.search(r"stat::peak_rss_mb:\s+(\d+)", done.stderr)
    inputs = int(counted.group(1)) if counted else 0
    print(f"fuzz: {target}: {inputs:,} inputs in {elapsed:.0f} s, peak {peak.group(1) if peak else '?'} MB, "
          + ("none failed" if done.returncode == 0 else f"FAILED (exit code {done.returncode})"), flush=True)
    if done.returncode == 0 and inputs > 0:
        return True
    print(done.stderr[-6000:], file=sys.stderr)
    for path in sorted(set(crashes.iterdir()) - before):
        print(f"fuzz: {target}: the input is {path}; again: {tree / 'fuzz' / (target + '_fuzz')} {path}", file=sys.stderr)
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("fixtures", type=Path)
    parser.add_argument("seconds", type=int)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--skip-unbuilt", action="store_true")
    arguments = parser.parse_args()
    known = targets_of(arguments.tree)
    if arguments.skip_unbuilt and not set(arguments.targets) <= set(known):
        print(f"skipped: {arguments.tree} has no such target; launch/build fuzz makes them")
        return 77
    unknown = sorted(set(arguments.targets) - set(known))
    if unknown or not known:
        print(f"run_fuzz.py: no target {', '.join(unknown)} in {arguments.tree}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    seeds = make_seeds(arguments.tree, arguments.fixtures)
    good = [run(target, arguments.tree, seeds, arguments.seconds, arguments.fresh) for target in arguments.targets or known]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
