"""From runs to points (products, core-seconds, error), and from points to what each tool takes for the same error."""

import dataclasses
import json
import math
from collections import defaultdict

import numpy as np

import accuracy

TOOLS = ("hesspect", "pyhessian", "curvlinops", "eigenthings")
NAMES = {"hesspect": "hesspect", "pyhessian": "PyHessian", "curvlinops": "curvlinops", "eigenthings": "hessian-eigenthings"}
# Half width of the trace's interval at 90 %, relative. minilm's on four rows is beyond everyone's budget here to 1 %.
TRACE_TARGET = {"minilm": 0.2}
# Over the width: the reference of minilm that is in the repository, one probe of 120 steps, is some 3.5e-5 from every tool's answer at 12 to 40 steps, which are within 2e-5 of
# each other: it tells no better.
DENSITY_FLOOR = {"minilm": 5e-5}
# hesspect's interval of a trace is so much wider for stopping when it likes; the peers' number of probes is given to them, by their variance.
STOPPING = 1.25
# An error counts as reached within a tenth, so that nobody is charged for the flat end of a curve.
WITHIN = 1.1
QUANTILE = 1.6449  # of the normal distribution, two-sided 90 %


@dataclasses.dataclass
class Point:
    products: float
    core_s: float
    error: float


@dataclasses.dataclass
class Setting:
    """One tool at one setting on one problem and task: a point for each seed."""

    tool: str
    label: str
    points: dict  # seed -> Point
    peak_bytes: dict  # seed -> int
    whole_s: dict  # seed -> core-seconds with imports and loading
    extrapolated: bool = False

    def median(self, name):
        return float(np.median([getattr(p, name) for p in self.points.values()]))

    def percentile_90(self):
        return float(np.quantile([p.error for p in self.points.values()], 0.9))


def load(path):
    """The runs in a file of JSON lines; of repeated ones the last."""
    runs = {}
    for text in open(path):
        line = json.loads(text)
        for task in line["tasks"]:
            runs[line["problem"], line["tool"], line["label"], line["seed"], task] = line
    return runs


def grid(most):
    return sorted({m for m in (*range(10, 40, 2), *range(40, 100, 5), *range(100, 401, 20), most) if m <= most})


class Problem:
    """Settings of one problem: `tasks[task]` is a list of Setting, `together` hesspect's runs of all three."""

    def __init__(self, name, runs):
        self.name, self.reference = name, accuracy.Reference(name)
        self.trace_target = TRACE_TARGET.get(name, 0.01)
        self.tasks, self.samples, self.setup, self.start = {"top": [], "trace": [], "density": [], "together": []}, {}, {}, {}
        self.loads = [line["load"] for (problem, *_), line in runs.items() if problem == name]
        found = defaultdict(dict)  # (task, tool, label) -> seed -> (points by suffix, line)
        for (problem, tool, label, seed, task), line in runs.items():
            if problem != name:
                continue
            self.setup[tool, seed] = line.get("setup_s", 0.0)
            for suffix, point in self._points(tool, task, line):
                found[task, tool, label + suffix].setdefault(seed, (point, line))
            if "samples" in line["tasks"][task]:
                self.samples.setdefault((tool, label), {})[seed] = line["tasks"][task]
        for (task, tool, label), by_seed in found.items():
            self.tasks[task].append(Setting(
                tool, label, {s: p for s, (p, _) in by_seed.items()},
                {s: line["tasks"][task]["peak_bytes"] for s, (_, line) in by_seed.items()},
                {s: p.core_s + (line["start_s"] if tool == "hesspect" else line["imports_s"] + line["load_s"]) for s, (p, line) in by_seed.items()}))
        self.triples = {(label, seed): self._triple(line["tasks"]["together"])
                        for (problem, tool, label, seed, task), line in runs.items() if problem == name and task == "together"}
        for tool, label in self.samples:
            self.tasks["trace"].append(self._hutchinson(tool, label))

    def _triple(self, found):
        """Errors of top, trace and density of one run of all three."""
        return (self.reference.top_error(found["values"]), self._trace_error(found),
                self.reference.cumulative_error(found["lambda"], found["cumulative"]))

    def _trace_error(self, found):
        """Against the reference; where that is itself too coarse, the half width that the tool says of its own."""
        if self.reference.trace_error > self.trace_target / 10 and found.get("half_width"):
            return found["half_width"] / STOPPING / abs(self.reference.trace)
        return abs(found["estimate"] / self.reference.trace - 1)

    def _points(self, tool, task, line):
        found = line["tasks"][task]
        core = found["core_s"] - (line["start_s"] if tool == "hesspect" else 0.0)
        if task == "together":
            yield "", Point(found["products"], core, max(self._triple(found)))
        elif "lambda" in found:
            yield "", Point(found["products"], core, self.reference.cumulative_error(found["lambda"], found["cumulative"]))
        elif "alpha" in found:  # leading blocks are shorter runs; what came after the last product counts for all
            alpha, beta, at = (np.array(found[k]) for k in ("alpha", "beta", "at"))
            for m in grid(len(alpha)):
                nodes, weights = accuracy.ritz(alpha, beta, m)
                error = self.reference.top_error(np.sort(nodes)[-10:]) if task == "top" else self.reference.density_error(nodes, weights)
                yield f", {m} steps", Point(m, at[m - 1] + core - at[-1], error)
        elif task == "top":
            yield "", Point(found["products"], core, self.reference.top_error(found["values"]))
        elif "estimate" in found:
            yield "", Point(found["products"], core, self._trace_error(found))

    def _hutchinson(self, tool, label):
        """As many plain probes as give the target at 90 %, by their variance; their cost is that of a probe times them."""
        runs = self.samples[tool, label]
        # All tools' probes have random signs: one variance.
        every = [(len(r["samples"]) - 1, np.var(r["samples"], ddof=1)) for by_seed in self.samples.values() for r in by_seed.values()]
        spread = math.sqrt(sum(k * v for k, v in every) / sum(k for k, _ in every)) / abs(self.reference.trace)
        probes = max(1, math.ceil((QUANTILE * spread / self.trace_target) ** 2))
        points = {seed: Point(probes, probes * r["at"][-1] / len(r["at"]), self.trace_target) for seed, r in runs.items()}
        most = max(len(r["samples"]) for r in runs.values())
        return Setting(tool, f"{label}, {probes} probes", points, {s: r["peak_bytes"] for s, r in runs.items()}, {}, probes > most)

    def targets(self):
        """What is to be reached: the trace to its interval, the others as well as PyHessian at its own setting."""
        full = {task: [s for s in self.tasks[task] if s.tool == "pyhessian" and s.label.split(",")[0] in ("default", "30 iterations")]
                for task in ("top", "density")}
        density = max(full["density"], key=lambda s: s.median("products"), default=None)
        return {"top": WITHIN * min((s.median("error") for s in full["top"]), default=1e-3), "trace": self.trace_target,
                "density": max(WITHIN * density.median("error"), DENSITY_FLOOR.get(self.name, 0)) if density else 1e-3}

    @staticmethod
    def reached(setting, task):
        """The error that a setting is good for: its median over seeds; of traces their 90th percentile."""
        return setting.percentile_90() if task == "trace" else setting.median("error")

    def cheapest(self, task, tool, target):
        """The cheapest setting that reaches the target."""
        able = [s for s in self.tasks[task] if s.tool == tool and self.reached(s, task) <= target * (1 + 1e-9)]
        return min(able, key=lambda s: s.median("core_s"), default=None)

    def cheapest_together(self, targets):
        """hesspect's cheapest run of all three that reaches every target."""
        able = []
        for setting in self.tasks["together"]:
            triples = np.array([self.triples[setting.label, seed] for seed in setting.points])
            if (np.median(triples[:, 0]) <= targets["top"] and np.quantile(triples[:, 1], 0.9) <= targets["trace"]
                    and np.median(triples[:, 2]) <= targets["density"]):
                able.append(setting)
        return min(able, key=lambda s: s.median("core_s"), default=None)

    def equal_error(self):
        """[(task, target, tool, the tool's cheapest setting that reaches it, hesspect's)].

        A tool that nowhere reaches the target is compared at the best error that it does reach. "together" (target None): the
        sum of a peer's three, and hesspect's cheapest run of all three that is as good in each.
        """
        rows, common = [], self.targets()
        for tool in TOOLS[1:]:
            pair, parts = {}, {}
            for task in ("top", "trace", "density"):
                own = min((self.reached(s, task) for s in self.tasks[task] if s.tool == tool), default=None)
                if own is None:
                    continue
                pair[task] = max(common[task], own if task == "trace" else WITHIN * own)
                parts[task] = self.cheapest(task, tool, pair[task])
                rows.append((task, pair[task], tool, parts[task], self.cheapest(task, "hesspect", pair[task])))
            if len(parts) == 3:
                rows.append(("together", None, tool, self._sum(tool, parts.values()), self.cheapest_together(pair)))
        order = ("top", "trace", "density", "together")
        return sorted(rows, key=lambda row: order.index(row[0]))

    def _sum(self, tool, parts):
        seeds = set.intersection(*(set(p.points) for p in parts))
        points = {seed: Point(sum(p.points[seed].products for p in parts),
                              sum(p.points[seed].core_s for p in parts) + self.setup.get((tool, seed), 0.0), math.nan) for seed in seeds}
        return Setting(tool, "sum of the three", points, {s: max(p.peak_bytes[s] for p in parts) for s in seeds}, {},
                       any(p.extrapolated for p in parts))


def ratios(peer, mine, name):
    """Median, least and largest over seeds of peer/mine."""
    seeds = sorted(set(peer.points) & set(mine.points))
    values = [getattr(peer.points[s], name) / max(getattr(mine.points[s], name), 1e-9) for s in seeds]
    return (float(np.median(values)), min(values), max(values)) if values else None
