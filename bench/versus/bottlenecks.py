"""Where PyHessian's time goes, and what hesspect's counterparts are worth: the numbers of docs/pyhessian-bottlenecks.md.

    bench/versus/run --bottlenecks profile  [--only cnn ...]   # PyHessian under cProfile, shares of core-seconds
    bench/versus/run --bottlenecks rules    [--only cnn ...]   # its trace's stop rule, on the samples of earlier runs
    bench/versus/run --bottlenecks switches [--only cnn ...]   # hesspect with one thing at a time switched off
"""

import cProfile
import os
import pstats
import sys
import tempfile
import time

import numpy as np

import accuracy
import compare
import problems
import runs

# Python functions of PyHessian 0.1 and of PyTorch, by where they are; a share is the cumulative time of the function within
# the task, so that nested ones overlap as the indentation shows.
FUNCTIONS = [
    ("product", ("hessian_vector_product", "utils.py"), ("dataloader_hv_product", "hessian.py")),
    ("  forward of the model", ("_call_impl", "module.py"),),
    ("  first backward, create_graph", ("backward", "_tensor.py"),),
    ("  second backward", ("grad", "__init__.py"),),
    ("re-orthogonalisation and deflation: orthnormal", ("orthnormal", "utils.py"),),
    ("  its dots: group_product", ("group_product", "utils.py"),),
    ("  its updates: group_add", ("group_add", "utils.py"),),
    ("  norms: normalization", ("normalization", "utils.py"),),
    ("random signs: randint_like and v[v == 0] = -1", ("<built-in method torch.randint_like>", "~"),),
    ("eigen-decomposition of T: torch.eig", ("_eig", "peers.py"),),
]
SETTINGS = {"minilm": {"top": {"iterations": 5}, "trace": {"probes": 10, "tol": 0}, "density": {"steps": 30}}}
DEFAULT = {"top": {}, "trace": {"probes": 100, "tol": 0}, "density": {"steps": 100}}


def cumulative(stats, names):
    """Cumulative seconds of the outermost calls of functions with these names."""
    total = 0.0
    for (file, _, name), (_, _, _, seconds, _) in stats.items():
        for wanted, where in names:
            if name == wanted and (file == "~" if where == "~" else file.endswith("/" + where)):
                total += seconds
    return total


def profile_task(name, mode, task, settings):
    import torch

    import peers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    adapter = peers.PyHessian(problems.problem(name), mode=mode)
    profiler, start = cProfile.Profile(time.process_time), time.process_time()
    profiler.enable()
    adapter.top(10, **settings) if task == "top" else getattr(adapter, task)(**settings)
    profiler.disable()
    seconds, stats = time.process_time() - start, pstats.Stats(profiler).stats
    print(f"\n{name}, {mode}, {task} {settings}: {adapter.products} products, {seconds:.2f} core-s, "
          f"{1e3 * cumulative(stats, FUNCTIONS[0][1:]) / adapter.products:.1f} ms a product")
    for title, *names in FUNCTIONS:
        share = cumulative(stats, names) / seconds
        if share >= 0.002:
            print(f"  {100 * share:5.1f} %  {title}")
    loops = ("eigenvalues", "trace", "density")
    own = sum(tt for (file, _, fn), (_, _, tt, _, _) in stats.items() if file.endswith("/hessian.py") and fn in loops)
    print(f"  {100 * own / seconds:5.1f} %  the loop's own lines (v[v == 0] = -1, torch.zeros, list work)")


def profile(names):
    for name in names:
        for mode in ("data",) if name.startswith("planted") or name == "minilm" else ("data", "loader"):
            for task, settings in SETTINGS.get(name, DEFAULT).items():
                if mode == "loader" and task == "top":
                    continue  # as many products again
                profile_task(name, mode, task, settings)


def stop_rule(samples, tol=1e-3):
    """How many probes PyHessian's rule takes (hessian.py, line 186)."""
    trace = 0.0
    for count in range(1, len(samples) + 1):
        mean = np.mean(samples[:count])
        if abs(mean - trace) / (trace + 1e-6) < tol:
            return count
        trace = mean
    return len(samples)


def rules(names, path):
    """PyHessian's own stop rule on random orders of the samples that the runs have left."""
    every = compare.load(path)
    for name in names:
        samples = np.concatenate([line["tasks"][task]["samples"] for (problem, tool, _, _, task), line in every.items()
                                  if problem == name and tool == "pyhessian" and task == "trace"])
        random, reference = np.random.default_rng(0), accuracy.Reference(name)
        counts, errors = [], []
        for _ in range(500):
            part = random.choice(samples, 100)  # its maxIter
            counts.append(stop_rule(part))
            errors.append(abs(part[:counts[-1]].mean() / reference.trace - 1))
        print(f"{name}: stops after {np.median(counts):.0f} probes (median; 5 % to 95 %: {np.quantile(counts, 0.05):.0f} to {np.quantile(counts, 0.95):.0f}), "
              f"error {100 * np.median(errors):.1f} % (median), {100 * np.quantile(errors, 0.9):.1f} % (90 %); a sample spreads by "
              f"{100 * samples.std() / abs(reference.trace):.0f} % of the trace, negative: {100 * (samples < 0).mean():.0f} %")


def command(binary, name, *options):
    """What one hesspect command on a problem took (start-up taken off), and the trace's half width, as text."""
    import h5py

    arguments = problems.problem(name).arguments
    with tempfile.TemporaryDirectory(dir=problems.MADE) as folder:
        output = os.path.join(folder, "result.h5")
        code, core, _, said = runs.waited([binary, options[0], *arguments, "--threads", "1", "--output", output, "--quiet", *options[1:]])
        if code not in (0, 3):
            print(f"  {' '.join(options)}: exit {code}: {said.strip()[-300:]}")
            return None
        with h5py.File(output) as file:
            products, peak = (int(file[f"entry/diagnostics/{k}"][()]) for k in ("hvp_count", "peak_memory_bytes"))
            trace = [file[f"entry/trace/{k}"][()] for k in ("value", "half_width")] if "entry/trace" in file else None
    found = f"{products:5d} products {core - runs.start_up(binary, arguments):8.2f} core-s {peak / 2**20:7.0f} MiB"
    return found, f", trace ± {100 * trace[1] / abs(trace[0]):.2g} %" if trace else ""


def switches(binary, names):
    top = ("--top", "10", "--bottom", "0", "--true-residuals=false")
    for name in names:
        trace = "0.35" if name == "minilm" else "0.01"
        limit = ("--max-hvps", "500")
        every = ("analyze", *top, "--rtol-eigs", "1e-3", "--rtol-trace", trace, "--density-w1", "0.003", "--steps", "20", *limit)
        density = ("density", "--density-w1", "0", "--rtol-trace", "0", "--probes", "1")
        eigs = ("eigs", *top, "--rtol-eigs", "1e-3")
        cases = {
            "all three, one pass": every,
            "  gradient graphs rebuilt (--graph-memory 0)": (*every, "--graph-memory", "0"),
            "eigenvalues alone": eigs,
            "  power iteration (--method power)": ("eigs", "--top", "0", "--bottom", "0", "--magnitude", "10", "--true-residuals=false",
                                                   "--method", "power", "--rtol-eigs", "1e-3", *limit),
            "trace alone": ("trace", "--rtol-trace", trace, *limit),
            "  no deflation (--trace-method hutchinson)": ("trace", "--rtol-trace", trace, "--trace-method", "hutchinson", *limit),
            "density alone": (*density, "--steps", "60"),
            "  no re-orthogonalisation": (*density, "--steps", "60", "--reorthogonalization", "none"),
        }
        print(f"\n{name}")
        for title, options in cases.items():
            found = command(binary, name, *options)
            if found:
                print(f"  {found[0]}  {title}{found[1]}", flush=True)


if __name__ == "__main__":
    what, binary, path, *names = sys.argv[1:]
    {"profile": lambda: profile(names), "rules": lambda: rules(names, path), "switches": lambda: switches(binary, names)}[what]()
