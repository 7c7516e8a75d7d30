"""Which runs are made: every tool at several accuracies on every problem.

A peer's run is one process that does its tasks in turn (they share nothing but the loaded model); hesspect's is one command.
Fewer settings where a product is dear: minilm.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Run:
    tool: str
    label: str  # of the setting, unique within the tool
    tasks: dict  # peers: task -> settings. hesspect: {task: None}
    options: dict = dataclasses.field(default_factory=dict)  # peers: of the adapter
    command: tuple = ()  # hesspect: subcommand and options
    first_seeds: int = 99  # run for the first so many seeds only


def hesspect(label, task, command, *options, first_seeds=99):
    return Run("hesspect", label, {task: None}, command=(command, *options), first_seeds=first_seeds)


# True residuals cost a product for each pair; the peers do not know theirs.
TOP = ("--top", "10", "--bottom", "0", "--true-residuals=false")


def _hesspect(traces=("0.01", "0.005"), w1="0.003", eigs=("1e-2", "1e-3", "1e-4", "1e-5"), steps=("10", "14", "20", "28", "40", "80"), least="10", more=()):
    fixed = ("--density-w1", "0", "--rtol-trace", "0", "--probes", "1")  # steps as said, for a curve of error over cost
    every = lambda e, t: hesspect(f"all {e} {t}", "together", "analyze", *TOP, "--rtol-eigs", e, "--rtol-trace", t, "--density-w1", w1,
                                  "--steps", least, *more)
    return ([hesspect(f"eigs {e}", "top", "eigs", *TOP, "--rtol-eigs", e) for e in eigs]
            + [hesspect(f"trace {t}", "trace", "trace", "--rtol-trace", t, *more) for t in traces]
            + [hesspect(f"steps {s}", "density", "density", *fixed, "--steps", s) for s in steps]
            + [hesspect(f"w1 {w1}", "density", "density", "--density-w1", w1, "--rtol-trace", "0", "--probes", "1", "--steps", "10")]
            + [every(e, t) for e, t in zip(eigs[:2], traces)] + [every(eigs[1], traces[0])])


def _peers(pyhessian_tols=(1e-3,), probes=300, density=100, columns=4, arpack=(1e-2, 1e-3), lanczos=40, hutchpp=(30, 99), loader=True):
    others = {"steps": min(density, 80)}
    runs = [Run("pyhessian", f"tol {tol:g}", {"top": {"tol": tol}}) for tol in pyhessian_tols[1:]]
    runs += [Run("pyhessian", "default", {"top": {"tol": pyhessian_tols[0]}, "trace": {"probes": probes, "tol": 0}, "density": {"steps": density}})]
    if loader:  # its other mode: micro-batches, graphs rebuilt
        runs += [Run("pyhessian", "loader", {"trace": {"probes": 30, "tol": 0}}, {"mode": "loader"}, first_seeds=1)]
    runs += [Run("curvlinops", "default", {"top": {"tol": arpack[-1]}, "trace": {"products": hutchpp[-1]}, "density": others},
                 {"columns": columns})]
    runs += [Run("curvlinops", f"arpack {tol:g}", {"top": {"tol": tol}}, {"columns": columns}) for tol in arpack[:-1]]
    runs += [Run("curvlinops", f"hutch++ {m}", {"trace": {"products": m}}, {"columns": columns}) for m in hutchpp[:-1]]
    runs += [Run("eigenthings", "default", {"top": {"steps": lanczos}, "trace": {"products": hutchpp[-1]}, "density": others})]
    runs += [Run("eigenthings", f"hutch++ {m}", {"trace": {"products": m}}) for m in hutchpp[:-1]]
    return runs


def _densities(steps, pyhessian):
    """The density alone, and PyHessian alone beside it: where products are dear."""
    fixed = ("--density-w1", "0", "--rtol-trace", "0", "--probes", "1")
    return ([hesspect(f"steps {s}", "density", "density", *fixed, "--steps", s) for s in steps]
            + [Run("pyhessian", "default", {"density": {"steps": pyhessian}})])


PLAN = {
    "planted-decay": _hesspect() + _peers((1e-3, 1e-4), probes=400, loader=False),
    # A quarter of the spectrum is spread evenly over a tenth of its width: every step shows, and the bound of w1 is far off
    "planted-mp": _hesspect(steps=("10", "20", "40", "80", "110"), least="110") + _peers((1e-3, 1e-4), probes=100, loader=False),
    "cnn": _hesspect() + _peers((1e-3,), probes=300),
    "widedeep": _hesspect() + _peers((1e-3,), probes=500),
    # 0.35 of its own estimate, a quarter wider for stopping, is 0.2 of the reference. Layers off: for them every probe costs a further pass over the basis,
    # which on four rows is as dear as a product
    "minilm": _hesspect(("0.35",), "0.01", ("1e-1", "1e-2"), ("5", "7", "10", "20"), more=("--layers=false",))
    + [Run("pyhessian", "30 iterations", {"top": {"iterations": 30}, "trace": {"probes": 40, "tol": 0}, "density": {"steps": 40}}, first_seeds=1),
       Run("curvlinops", "default", {"top": {"tol": 1e-2, "ncv": 30}, "trace": {"method": "hutchinson", "products": 20}, "density": {"steps": 40}},
           {"columns": 1}, first_seeds=1),
       Run("eigenthings", "default", {"top": {"steps": 50}, "trace": {"method": "hutchinson", "products": 20}, "density": {"steps": 40}},
           first_seeds=1)],
    "minilm64": _densities(("5", "7", "10", "14", "20"), 40),
    "gpt1m": _densities(("10", "14", "20", "28", "40"), 100),
    "gpt10m": _densities(("10", "12", "14", "16", "20"), 40),
    "resnet20": _densities(("10", "14", "20", "28", "40"), 80),
}
SEEDS = {"planted-decay": 3, "planted-mp": 3, "cnn": 3, "widedeep": 3, "minilm": 2, "minilm64": 1, "gpt1m": 1, "gpt10m": 1, "resnet20": 1}
