#!/usr/bin/env python3
"""Holds the simulation against runs: a product's seconds at several rank counts, from the result files' diagnostics.

    check.py measure HESSPECT MODEL.pt2 DATA.h5 LOSS --folder FOLDER [--ranks 1 2] [--sharded] [--more '--product segments …']
    check.py compare RESULT.h5 … [--links LINKS.json] [--cores 2]

`measure` takes a short density run at each rank count. `compare` fits the rate of arithmetic on the results of one rank, takes what a collective costs from
LINKS.json (which `links` writes, see ping.c), simulates every result, and prints measured beside simulated. Runs with replicated parameters gather
whole vectors before all arithmetic and sum the products after it: one segment, nothing fetched ahead. Runs with sharded parameters (--sharded) visit
segments, as many as their messages tell, each taken for an equal share of parameters and arithmetic. Where ranks share cores (--cores, of the machine), arithmetic takes
as much longer.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py

import programs
import simulate


SHARDED = ("--parameters", "sharded", "--fetch-ahead", "off", "--reorthogonalization", "none")


@dataclass(frozen=True)
class Measured:
    file: str
    ranks: int
    groups: int
    parameters: int
    product_s: float
    arithmetic_s: float  # of it, the sweeps'
    collective_s: float
    products: int
    message_bytes: int
    messages: int
    micro_batches: int
    vectors: int
    element_bytes: int
    sharded: bool = False

    @property
    def segments(self):
        """Of a product of K vectors, with shared parameters: (1 + K)(2 S - 1) gathers and K S sums, and five small messages a step."""
        return round((self.messages - simulate.SMALL_SUMS + 1 + self.vectors) / (2 + 3 * self.vectors)) if self.sharded and self.messages else 1

    @staticmethod
    def of(path):
        with h5py.File(path) as f:
            d, process = f["entry/diagnostics"], f["entry/process"]
            number = lambda name: d[name][()].item()
            products = number("hvp_count")
            sweeps = sum(number(f"seconds_{kind}") for kind in ("values", "tangents", "adjoints", "adjoint_tangents", "products"))
            config = process["config"][()]
            config = config.decode() if isinstance(config, bytes) else str(config)
            # A rank's share: with groups, hvp_count is of all of them, and rank 0's seconds of one.
            return Measured(str(path), int(number("data_ranks")), int(number("groups")), int(number("n_parameters_in_use")), number("hvp_seconds") / products,
                            sweeps / products * number("groups"), number("communication_seconds") / products, int(products),
                            int(number("message_bytes_per_step")), int(number("messages_per_step")), int(number("micro_batches")), int(number("lock_step")),
                            8 if "float64" in [line.split("=")[-1].strip() for line in config.splitlines() if line.startswith("dtype")] else 4,
                            "parameters = sharded" in config.splitlines())


def replicated(measured, flops, micro_batches):
    """The program of such a run: its arithmetic is in one segment, as many operations as keep it busy for that long at 1 operation a second."""
    units = simulate.BOTH + measured.vectors * simulate.BOTH_VECTOR
    segment = programs.Segment(measured.parameters, flops / units / micro_batches, 0)
    # Parameters are there: only vectors are gathered and summed.
    return programs.Program(measured.file, (segment,), stored_bytes=0, run_bytes=measured.element_bytes)


def sharded(measured, flops, segments):
    """The program of a run with sharded parameters: equal segments, of as many operations as keep one rank busy for `flops` seconds at 1 operation a second."""
    forwards, back = simulate.FORWARD + measured.vectors * simulate.FORWARD_VECTOR, simulate.BOTH + measured.vectors * simulate.BOTH_VECTOR
    each = flops / ((segments - 1) * forwards + segments * back)
    size = -(-measured.parameters // segments)
    return programs.Program(measured.file, tuple(programs.Segment(size, each, 0) for _ in range(segments)), measured.element_bytes, measured.element_bytes)


def simulated(measured, one_rank_s, links, cores=None):
    """Seconds of a product on the run's ranks, from those on one rank."""
    link = simulate.Link(links["bandwidth"], links["latency"])
    share = 1 / measured.ranks if cores is None else 1 / min(measured.ranks, cores)
    if measured.sharded:
        machine = simulate.Machine(1.0, 1e10, measured.ranks, link, link, links.get("call", 0.0))
        work = simulate.Work(micro_batches=1, vectors=measured.vectors, ahead=0, sum_buffers=1)
        return simulate.product(sharded(measured, one_rank_s * share, measured.segments), machine, measured.ranks, work)
    machine = simulate.Machine(1.0, 1e10, measured.ranks, link, link, links.get("call", 0.0))
    program = replicated(measured, one_rank_s, 1)
    work = simulate.Work(micro_batches=1, vectors=measured.vectors, ahead=0)
    # A rank has its share of the rows.
    share = programs.Program(program.name, (programs.Segment(measured.parameters, program.segments[0].flops * share, 0),), 0, program.run_bytes)
    return simulate.product(share, machine, measured.ranks, work)


def compare(files, links, out=sys.stdout, cores=None):
    runs = sorted((Measured.of(f) for f in files), key=lambda m: (m.ranks, m.file))
    alone = [m.product_s for m in runs if m.ranks == 1 and m.groups == 1]
    if not alone:
        raise SystemExit("check.py: one of the results must be of one rank, by which the rate of arithmetic is known")
    one = statistics.median(alone)
    print("| ranks | product, ms | simulated, ms | off by | messages, ms | simulated, ms | bytes a step | by the formula |", file=out)
    print("|" + " --- |" * 8, file=out)
    worst = 0.0
    for m in runs:
        outcome = simulated(m, one, links, cores)
        off = outcome.seconds / m.product_s - 1
        if m.ranks > 1:
            worst = max(worst, abs(off))
        chunk = -(-m.parameters // m.ranks)
        formula = 2 * (m.ranks - 1) * m.vectors * chunk * m.element_bytes
        if m.sharded:  # parameters and vectors twice, but for the last segment, and the sums; padding is not in it
            whole = m.parameters * m.element_bytes
            formula = round((m.ranks - 1) / m.ranks * ((2 - 1 / m.segments) * (1 + m.vectors) * whole + m.vectors * whole))
        print(f"| {m.ranks} | {1e3 * m.product_s:.3f} | {1e3 * outcome.seconds:.3f} | {100 * off:+.0f} % | {1e3 * m.collective_s:.3f} | "
              f"{1e3 * (outcome.seconds - outcome.busy):.3f} | {m.message_bytes} | {formula} |", file=out)
    return worst


def measure(given):
    given.folder.mkdir(parents=True, exist_ok=True)
    files = []
    for ranks in given.ranks:
        file = given.folder / f"{'sharded' if given.sharded else 'replicated'}-{ranks}.h5"
        command = [given.hesspect, "density", "--model", given.model, "--data", given.data, "--loss", given.loss, "--probes", "1", "--steps", str(given.steps),
                   "--density-w1", "0", "--groups", "1", *(SHARDED if given.sharded else ()), "--output", str(file), "--force", *shlex.split(given.more)]
        subprocess.run(["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--quiet", "-n", str(ranks), *command], check=True)
        files.append(file)
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("measure")
    for name in ("hesspect", "model", "data", "loss"):
        run.add_argument(name)
    run.add_argument("--folder", type=Path, required=True)
    run.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    run.add_argument("--sharded", action="store_true", help="with sharded parameters, nothing fetched ahead")
    run.add_argument("--steps", type=int, default=20)
    run.add_argument("--more", default="", help="options of the runs")
    those = commands.add_parser("compare")
    those.add_argument("results", type=Path, nargs="+")
    those.add_argument("--links", type=Path, required=True)
    those.add_argument("--cores", type=int, help="of the machine; default: one for each rank")
    given = parser.parse_args()
    if given.command == "measure":
        print(*measure(given))
    else:
        compare(given.results, json.loads(given.links.read_text()), cores=given.cores)


if __name__ == "__main__":
    main()
