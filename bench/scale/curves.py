#!/usr/bin/env python3
"""Efficiency of sharded products from 1 to 1,024 GPUs, as a table and a picture.

    curves.py [--machine h100-dgx] [--picture FILE.png] [--table FILE.md]

The work is fixed: the same rows of data for every number of ranks. Efficiency is arithmetic over all time: what one rank that held everything would
take, over ranks times seconds.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import programs
import simulate

HERE = Path(__file__).resolve().parent
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Point:
    model: str
    change: str
    ranks: int
    groups: int
    micro_batches: int
    seconds: float
    efficiency: float
    waiting: float
    memory: float


def point(name, machine, ranks, rows, work, change="", groups=1, seed=0, straggling=True, **program_options):
    """One Lanczos step of each group, with so many rows of data in all; a group has all of them."""
    program = programs.known(name, **program_options)
    size = ranks // groups
    own = replace(work, micro_batches=max(1, -(-rows // size)))
    own = replace(own, passes=min(own.passes, own.micro_batches))
    if not straggling:
        machine = replace(machine, straggler=0.0)
    outcome = simulate.product(program, machine, size, own, seed, with_lanczos=True)
    units = sum((11 if s + 1 < len(program.segments) else 8) * segment.flops for s, segment in enumerate(program.segments))
    units += (work.vectors - 1) * sum((8 if s + 1 < len(program.segments) else 6) * segment.flops for s, segment in enumerate(program.segments))
    ideal = rows * units / machine.flops / size
    return Point(name, change, ranks, groups, own.micro_batches, outcome.seconds, ideal / outcome.seconds, outcome.waiting,
                 sum(simulate.rank_bytes(program, size, own).values()))


def curves(machine, rows, ranks=RANKS, work=simulate.Work()):
    return [point(name, machine, n, rows, work) for name in programs.SHAPES for n in ranks]


def changes(machine, rows, name, ranks, work=simulate.Work()):
    """What each change alone does to one point."""
    wide = replace(machine, between=replace(machine.between, bandwidth=2 * machine.between.bandwidth))
    near = replace(machine, between=replace(machine.between, latency=machine.between.latency / 2), inside=replace(machine.inside, latency=machine.inside.latency / 2))
    at = lambda change, *, m=machine, r=rows, w=work, **more: point(name, m, ranks, r, w, change, **more)
    found = [at("as it is"), at("no fetching ahead", w=replace(work, ahead=0)), at("two segments fetched ahead", w=replace(work, ahead=2)),
             at("4 passes", w=replace(work, passes=4)), at("one buffer of sums", w=replace(work, sum_buffers=1)), at("two layers a segment", layers_each=2),
             at("attention and the rest apart", parts=2), at("every large matrix apart", parts=4), at("4 vectors at a time", w=replace(work, vectors=4)),
             at("4 times the rows", r=4 * rows), at("twice the bandwidth between hosts", m=wide), at("half the latency", m=near),
             at("no stragglers", straggling=False)]
    found += [at(f"{g} groups of {ranks // g}", groups=g) for g in (2, 4, 8) if ranks // g >= 8]
    return found


def table(points, with_change=False):
    head = ["model", "change" if with_change else "ranks", "micro-batches a rank", "s a step", "efficiency", "waiting", "memory of a rank"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for p in points:
        lines.append(f"| {p.model} | {p.change if with_change else p.ranks} | {p.micro_batches} | {p.seconds:.3g} | {100 * p.efficiency:.0f} % | "
                     f"{100 * p.waiting / p.seconds:.0f} % | {p.memory / 1e9:.4g} GB |")
    return "\n".join(lines) + "\n"


def draw(points, rows, machine, file):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, marker in zip(programs.SHAPES, "os^"):
        own = [p for p in points if p.model == name]
        axes[0].plot([p.ranks for p in own], [100 * p.efficiency for p in own], marker=marker, label=f"Llama {name}")
        axes[1].plot([p.ranks for p in own], [p.memory / 1e9 for p in own], marker=marker, label=f"Llama {name}")
    axes[1].axhline(machine.memory / 1e9, color="grey", linestyle="--", linewidth=1, label="memory of a GPU")
    axes[0].set(xscale="log", xlabel="GPUs in one group", ylabel="efficiency of a Lanczos step, %", ylim=(0, 105))
    axes[1].set(xscale="log", yscale="log", xlabel="GPUs in one group", ylabel="memory of a rank, GB")
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.suptitle(f"{rows} rows of 2,048 tokens, simulated")
    figure.savefig(file, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", default="h100-dgx")
    parser.add_argument("--rows", type=int, default=1024, help="of data, 2,048 tokens each")
    parser.add_argument("--most", type=int, default=RANKS[-1], help="ranks")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--changes", nargs=2, metavar=("MODEL", "RANKS"), action="append", default=[], help="what each change does there (repeatable)")
    given = parser.parse_args()
    machine = simulate.Machine.of(json.loads((HERE / "machines.json").read_text())[given.machine])
    points = curves(machine, given.rows, [n for n in RANKS if n <= given.most])
    text = table(points)
    for name, ranks in given.changes:
        text += "\n" + table(changes(machine, given.rows, name, int(ranks)), with_change=True)
    print(text)
    if given.table:
        given.table.write_text(text)
    if given.picture:
        draw(points, given.rows, machine, given.picture)


if __name__ == "__main__":
    main()
