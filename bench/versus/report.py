"""The tables and plots from the runs."""

import platform
import time
from pathlib import Path

import numpy as np

import compare
import problems

TITLES = {"top": "top-10", "trace": "trace", "density": "density", "together": "the three"}
COLOURS = {"hesspect": "#c0392b", "pyhessian": "#2c3e50", "curvlinops": "#2980b9", "eigenthings": "#27ae60"}


def table(columns, rows):
    return "\n".join(["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)] + ["| " + " | ".join(map(str, r)) + " |" for r in rows]) + "\n"


def span(values, form="{:.3g}"):
    values = list(values)
    low, middle, high = min(values), float(np.median(values)), max(values)
    text = form.format(middle)
    return text if len(values) < 2 or form.format(low) == form.format(high) else f"{text} ({form.format(low)}–{form.format(high)})"


def equal_error_rows(problem):
    targets, best = problem.equal_error()
    rows = []
    for task, tools in best.items():
        mine = tools["hesspect"]
        target = f"{targets[task]:.2g}" if task in targets else ""
        for tool in compare.TOOLS:
            setting = tools[tool]
            if setting is None:
                rows.append([TITLES[task], target, compare.NAMES[tool], "not reached", "", "", "", "", ""])
                continue
            ratio = {name: compare.ratios(setting, mine, name) if mine and tool != "hesspect" else None for name in ("core_s", "products")}
            said = {name: "" if r is None else f"{r[0]:.3g} ({r[1]:.3g}–{r[2]:.3g})" for name, r in ratio.items()}
            rows.append([TITLES[task], target, compare.NAMES[tool], setting.label + (" *" if setting.extrapolated else ""),
                         f"{setting.median('products'):.0f}", span((p.core_s for p in setting.points.values())), said["core_s"], said["products"],
                         f"{np.median(list(setting.peak_bytes.values())) / 2**20:.0f}"])
    return rows


def setting_rows(problem):
    rows = []
    for task, settings in problem.tasks.items():
        for s in sorted(settings, key=lambda s: (compare.TOOLS.index(s.tool), s.median("products"))):
            steps = s.label.rsplit(", ", 1)[-1]
            if steps.endswith(" steps") and int(steps.split()[0]) not in (20, 40, 60, 80, 100):
                continue  # the plots have them all
            errors = "by variance" if steps.endswith(" probes") else span((p.error for p in s.points.values()), "{:.2g}")
            if task == "together":
                triples = np.array([problem.triples[s.label, seed] for seed in s.points])
                errors = ", ".join(span(column, "{:.2g}") for column in triples.T)
            rows.append([TITLES[task], compare.NAMES[s.tool], s.label, span((p.products for p in s.points.values()), "{:.0f}"),
                         span(p.core_s for p in s.points.values()), span(s.whole_s.values()) if s.whole_s else "", errors,
                         f"{np.median(list(s.peak_bytes.values())) / 2**20:.0f}", len(s.points)])
    return rows


def plot(problem, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(12, 6.5), layout="constrained", sharey="col")
    for column, task in enumerate(("top", "trace", "density")):
        for row, (name, title) in enumerate((("core_s", "core-seconds"), ("products", "products"))):
            axis = axes[row, column]
            for tool in compare.TOOLS:
                settings = [s for s in problem.tasks[task] if s.tool == tool and not s.label.endswith(" probes")]
                x = [getattr(p, name) for s in settings for p in s.points.values()]
                y = [max(p.error, 1e-9) for s in settings for p in s.points.values()]
                axis.plot(x, y, "o", ms=2.5 if len(x) > 30 else 4, alpha=0.45, color=COLOURS[tool], label=compare.NAMES[tool])
                runs = problem.samples.get((tool, "default"), problem.samples.get((tool, "30 iterations"), {}))
                for found in runs.values() if task == "trace" else ():
                    samples, at = np.array(found["samples"]), np.array(found["at"])
                    m = np.unique(np.geomspace(1, len(samples), 60).astype(int))
                    errors = np.abs(np.cumsum(samples)[m - 1] / m / problem.reference.trace - 1)
                    axis.plot(at[m - 1] if name == "core_s" else m, np.maximum(errors, 1e-9), "-", lw=0.8, alpha=0.6, color=COLOURS[tool])
            axis.set(xscale="log", yscale="log", xlabel=title)
            axis.grid(alpha=0.25)
            if row == 0:
                axis.set_title({"top": "top-10: largest relative error", "trace": "trace: relative error", "density": "density: W1 / width"}[task])
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(problem.name)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(runs_path, target):
    """`target`.md and `target`-PROBLEM.png."""
    import torch

    runs = compare.load(runs_path)
    names = [n for n in problems.NAMES if any(key[0] == n for key in runs)]
    every = {name: compare.Problem(name, runs) for name in names}
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    loads = [x for p in every.values() for x in p.loads]
    out = [f"# hesspect and its peers, {time.strftime('%Y-%m-%d')}\n",
           f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, one thread a tool, one run at a time; load average before "
           f"the runs {min(loads):.1f} to {max(loads):.1f}. Medians over seeds, in brackets the smallest and the largest. bench/versus/README.md says what "
           "was measured and how.\n",
           "## At equal error\n",
           "Ratios are the tool's cost over hesspect's. `*`: more probes than were run; their number follows from the variance, their cost from that of "
           "a probe.\n"]
    for name, problem in every.items():
        out += [f"### {name}\n", table(["task", "error at most", "tool", "cheapest setting", "products", "core-s", "core-s over hesspect's",
                                        "products over hesspect's", "peak MiB"], equal_error_rows(problem)),
                f"![{name}]({target.name}-{name}.png)\n"]
        plot(problem, target.parent / f"{target.name}-{name}.png")
    out.append("## Every setting\n")
    for name, problem in every.items():
        out += [f"### {name}\n", table(["task", "tool", "setting", "products", "core-s", "with start", "error", "peak MiB", "seeds"], setting_rows(problem))]
    target.with_name(target.name + ".md").write_text("\n".join(out))
    print(target.with_name(target.name + ".md"))
