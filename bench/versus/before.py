"""One hesspect against another, an older build say, in turn: core-seconds and products of top-10, trace, density and the three together.

    build/versus/venv/bin/python bench/versus/before.py OLD NEW [--only cnn widedeep] [--tasks top trace density together] [--rounds 3]

A setting of settings.py for each task; the answers of both are compared too.
"""

import argparse
import statistics

import problems
import runs
import settings

FIXED = ("--density-w1", "0", "--rtol-trace", "0", "--probes", "1")
TASKS = {
    "top": settings.hesspect("eigs 1e-3", "top", "eigs", *settings.TOP, "--rtol-eigs", "1e-3"),
    "trace": settings.hesspect("trace 0.01", "trace", "trace", "--rtol-trace", "0.01"),
    "density": settings.hesspect("steps 20", "density", "density", *FIXED, "--steps", "20"),
    "together": settings.hesspect("all 1e-3 0.01", "together", "analyze", *settings.TOP, "--rtol-eigs", "1e-3", "--rtol-trace", "0.01", "--density-w1", "0.003", "--steps", "10"),
}
# On four rows a trace to 1 % would take thousands of products
MINILM = {"trace": ("trace", "--rtol-trace", "0.35", "--layers=false"),
          "together": ("analyze", *settings.TOP, "--rtol-eigs", "1e-2", "--rtol-trace", "0.35", "--density-w1", "0.01", "--steps", "10", "--layers=false")}


def answer(task, found):
    if task == "top":
        return found["values"]
    return [found["estimate"]] if task in ("trace", "together") else [found["ritz"][0][-1] if isinstance(found["ritz"][0], list) else found["ritz"][-1]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--only", nargs="+", default=["planted-decay", "planted-mp", "cnn", "widedeep", "minilm"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print("| problem | task | old: products, core-s | new: products, core-s | old/new core-s | answers differ by |\n| --- | --- | --- | --- | --- | --- |")
    for name in given.only:
        arguments = problems.problem(name).arguments
        for task in given.tasks:
            run = TASKS[task]
            if name == "minilm" and task in MINILM:
                run = settings.hesspect(run.label, task, *MINILM[task])
            found = {given.old: [], given.new: []}
            for _ in range(given.rounds):
                for binary in found:
                    found[binary].append(runs.run_hesspect(binary, name, arguments, run, 0)["tasks"][task])
            old, new = found.values()
            differ = max(abs(a / b - 1) for a, b in zip(answer(task, old[0]), answer(task, new[0])))
            ratios = [a["core_s"] / b["core_s"] for a, b in zip(old, new)]
            cost = [f"{f[0]['products']}, {statistics.median(r['core_s'] for r in f):.3g}" for f in (old, new)]
            print(f"| {name} | {task} | {cost[0]} | {cost[1]} | {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) | {differ:.1g} |", flush=True)


if __name__ == "__main__":
    main()
