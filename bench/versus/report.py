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


def said_ratio(ratio):
    return "" if ratio is None else f"{ratio[0]:.3g} ({ratio[1]:.3g}–{ratio[2]:.3g})"


def said_cost(setting):
    """Products, core-seconds, MiB."""
    if setting is None:
        return ["", "", ""]
    return [f"{setting.median('products'):.0f}", span(p.core_s for p in setting.points.values()),
            f"{np.median(list(setting.peak_bytes.values())) / 2**20:.0f}"]


def equal_error_rows(problem):
    rows = []
    for task, target, tool, setting, mine in problem.equal_error():
        ratio = [said_ratio(compare.ratios(setting, mine, name) if mine else None) for name in ("core_s", "products")]
        rows.append([TITLES[task], "" if target is None else f"{target:.2g}", compare.NAMES[tool],
                     setting.label.removeprefix("default, ") + (" *" if setting.extrapolated else ""), *said_cost(setting),
                     mine.label if mine else "not reached", *said_cost(mine), *ratio])
    return rows


def summary_row(name, problem):
    """What the goals ask: PyHessian over hesspect for the three together and for the density, and the nearest peer."""
    ratio = {(task, tool, what): compare.ratios(setting, mine, what) if mine else None
             for task, _, tool, setting, mine in problem.equal_error() for what in ("core_s", "products")}
    nearest = []
    for task in ("top", "trace", "density", "together"):
        known = {tool: r for (t, tool, what), r in ratio.items() if t == task and what == "core_s" and r}
        tool = min(known, key=lambda t: known[t][0], default=None)
        nearest.append(f"{known[tool][0]:.3g} {compare.NAMES[tool]}" if tool else "")
    return [name, *(said_ratio(ratio.get(key)) for key in (("together", "pyhessian", "core_s"), ("together", "pyhessian", "products"),
                                                           ("density", "pyhessian", "core_s"))), *nearest]


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
    from matplotlib.ticker import NullFormatter

    tasks = [task for task in ("top", "trace", "density") if problem.tasks[task]]
    figure, axes = plt.subplots(2, len(tasks), figsize=(4 * len(tasks), 6.5), layout="constrained", sharey="col", squeeze=False)
    for column, task in enumerate(tasks):
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
            for minor in (axis.xaxis, axis.yaxis):
                minor.set_minor_formatter(NullFormatter())
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
           "## In short\n",
           "Cost over hesspect's at equal error: PyHessian's, then that of the nearest of the three peers in core-seconds.\n",
           table(["", "PyHessian, the three: core-s", "products", "density: core-s", "nearest: top-10", "trace", "density", "the three"],
                 [summary_row(n, p) for n, p in every.items()]),
           "## At equal error\n",
           "A peer's cheapest setting that reaches the error, and hesspect's; ratios are the peer's cost over hesspect's. `*`: more probes than were run; their number follows from the variance, their cost from that of "
           "a probe.\n"]
    for name, problem in every.items():
        out += [f"### {name}\n", table(["task", "error at most", "tool", "its setting", "products", "core-s", "MiB", "hesspect's setting", "products",
                                        "core-s", "MiB", "ratio of core-s", "of products"], equal_error_rows(problem)),
                f"![{name}]({target.name}-{name}.png)\n"]
        plot(problem, target.parent / f"{target.name}-{name}.png")
    out.append("## Every setting\n")
    for name, problem in every.items():
        out += [f"### {name}\n", table(["task", "tool", "setting", "products", "core-s", "with start", "error", "peak MiB", "seeds"], setting_rows(problem))]
    target.with_name(target.name + ".md").write_text("\n".join(out))
    print(target.with_name(target.name + ".md"))
