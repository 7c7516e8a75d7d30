"""PyHessian, curvlinops and hessian-eigenthings behind one interface, with what each needs to run here.

An adapter has `top(count, …)`, `trace(…)` and `density(…)`, which call the peer's own functions with the peer's own
defaults but for what a setting names, and return a dict of what accuracy.py can judge:
    values            eigenvalues
    estimate          of the trace, or `samples` with `at`, the core-seconds when each sample was there
    alpha, beta       the tridiagonal matrix of a Lanczos run, with `at`: its leading blocks are what shorter runs give
`products` counts Hessian-vector products over all rows.
"""

import importlib
import time
import warnings

import numpy as np
import torch

warnings.filterwarnings("ignore", message="Using backward\\(\\) with create_graph=True")


def _flat(tensor):
    return np.asarray(tensor, dtype=np.float64).reshape(-1)


def _tridiagonal(matrix):
    return {"alpha": _flat(matrix.diagonal()), "beta": _flat(matrix.diagonal(1))}


class PyHessian:
    """Patched at run time: torch.eig, which PyTorch removed in 1.13 (torch.linalg.eig in its place, the same LAPACK
    routine), and PyTorch's default dtype, which its own vectors follow, set to that of the model. cuda=False is its own option.

    mode "data": its single batch of all rows, whose gradient graph it keeps. "loader": the micro-batches, rebuilt each time.
    """

    def __init__(self, problem, mode="data"):
        module = importlib.import_module("pyhessian.hessian")  # the package's attribute of that name is the class

        torch.set_default_dtype(problem.dtype)
        torch.eig = self._eig
        self.products, self.stamps, self.tridiagonal = 0, [], None
        if mode == "data":
            inputs = problem.batches[0][0].__class__(torch.cat(t) for t in zip(*(i.tensors for i, _ in problem.batches)))
            target = torch.cat([t for _, t in problem.batches])
            self.hessian = module.hessian(problem.model, problem.criterion, data=(inputs, target), cuda=False)
            module.hessian_vector_product = self._counted(module.hessian_vector_product)
        else:
            self.hessian = module.hessian(problem.model, problem.criterion, dataloader=problem.batches, cuda=False)
            self.hessian.dataloader_hv_product = self._counted(self.hessian.dataloader_hv_product)

    def _eig(self, matrix, eigenvectors=False):
        self.tridiagonal = matrix
        values, vectors = torch.linalg.eig(matrix)
        return torch.view_as_real(values), vectors.real

    def _counted(self, product):
        def counted(*args):
            result = product(*args)
            self.products += 1
            self.stamps.append(time.process_time())
            return result

        return counted

    def top(self, count, tol=1e-3, iterations=100):
        values, _ = self.hessian.eigenvalues(maxIter=iterations, tol=tol, top_n=count)
        return {"values": values}

    def trace(self, probes=100, tol=1e-3):
        """tol=0: as many probes as are asked for, so that one run shows the error after each."""
        start, first = time.process_time(), len(self.stamps)
        samples = self.hessian.trace(maxIter=probes, tol=tol)
        return {"samples": samples, "at": [stamp - start for stamp in self.stamps[first:]]}

    def density(self, steps=100):
        start, first = time.process_time(), len(self.stamps)
        self.hessian.density(iter=steps, n_v=1)
        return _tridiagonal(self.tridiagonal) | {"at": [stamp - start for stamp in self.stamps[first:]]}


class Curvlinops:
    """Not patched. Its matrix products run `columns` vectors at a time (a subclass), for with all columns at once, as it
    does by itself, the traces of these models would not fit in memory; check_deterministic=False, its own option."""

    def __init__(self, problem, columns=1):
        import curvlinops

        outer = self
        self.products, self.stamps, self.library, self.n = 0, [], curvlinops, problem.n

        class InPieces(curvlinops.HessianLinearOperator):
            def _matmat(self, matrix):
                count = matrix[0].shape[-1]
                pieces = [super(InPieces, self)._matmat(list(part)) for part in zip(*(m.split(columns, -1) for m in matrix))]
                outer.products += count
                outer.stamps += [time.process_time()] * count
                return [torch.cat(parts, -1) for parts in zip(*pieces)]

        self.operator = InPieces(problem.model, problem.criterion, problem.parameters, problem.batches, check_deterministic=False,
                                 num_data=sum(t.size(0) for _, t in problem.batches))

    def top(self, count, tol=1e-3, ncv=None):
        """As its documentation does it: scipy.sparse.linalg.eigsh on its SciPy operator."""
        from scipy.sparse.linalg import eigsh

        dtype = np.dtype(str(self.operator.dtype).removeprefix("torch."))
        start = torch.randn(self.n).numpy().astype(dtype)  # eigsh's own start does not follow the seed
        return {"values": eigsh(self.operator.to_scipy(dtype=dtype), k=count, which="LA", tol=tol, ncv=ncv, v0=start)[0]}

    def trace(self, method="hutchpp", products=99):
        """"hutchinson": a call for each probe, so that its samples are seen."""
        if method == "hutchinson":
            start, first = time.process_time(), len(self.stamps)
            samples = [self.library.hutchinson_trace(self.operator, 1).item() for _ in range(products)]
            return {"samples": samples, "at": [stamp - start for stamp in self.stamps[first:]]}
        estimate = {"hutchpp": self.library.hutchpp_trace, "xtrace": self.library.xtrace}[method]
        return {"estimate": estimate(self.operator, products).item()}

    def density(self, steps=100):
        """Boundaries are given, for it needs them only for the grid that it smooths on: they would cost products."""
        start, first = time.process_time(), len(self.stamps)
        cached = self.library.LanczosApproximateSpectrumCached(self.operator, steps, boundaries=(-1.0, 1.0))
        cached.approximate_spectrum()
        (values, vectors), = cached._lanczos_iters
        return _tridiagonal(vectors * values @ vectors.T) | {"at": [stamp - start for stamp in self.stamps[first:]]}


class HessianEigenthings:
    """Not patched."""

    def __init__(self, problem):
        import hessian_eigenthings as library

        self.products, self.library, outer = 0, library, self
        self.stamps = []

        class Counted(library.HessianOperator):
            def matvec(self, v):
                result = super().matvec(v)
                outer.products += 1
                outer.stamps.append(time.process_time())
                return result

        self.operator = Counted(problem.model, problem.batches, library.supervised_loss(problem.criterion))
        self.seed = torch.initial_seed()

    def _lanczos(self, call):
        """What `call` returns, and the tridiagonal matrix of the Lanczos run in it."""
        modules = [importlib.import_module(f"hessian_eigenthings.algorithms.{m}") for m in ("lanczos", "spectral_density")]
        original, kept = modules[0].lanczos_tridiagonal, []

        def keeping(*args, **kwargs):
            kept.append(original(*args, **kwargs))
            return kept[0]

        for module in modules:
            module.lanczos_tridiagonal = keeping
        start, first = time.process_time(), len(self.stamps)
        result = call()
        run = {"alpha": _flat(kept[0].alphas), "beta": _flat(kept[0].betas), "at": [stamp - start for stamp in self.stamps[first:]]}
        for module in modules:
            module.lanczos_tridiagonal = original
        return result, run

    def top(self, count, steps=None):
        """Re-orthogonalisation on, also beyond the 50 steps where its default is off; the largest, not of magnitude."""
        result, run = self._lanczos(lambda: self.library.lanczos(self.operator, k=count, max_iter=steps, which="LA",
                                                                 reorthogonalize=True, seed=self.seed))
        return run | {"values": _flat(result.eigenvalues)}

    def trace(self, method="hutch++", products=99):
        start, first = time.process_time(), len(self.stamps)
        result = self.library.trace(self.operator, num_matvecs=products, method=method, seed=self.seed)
        if method == "hutchinson":
            return {"samples": _flat(result.samples).tolist(), "at": [stamp - start for stamp in self.stamps[first:]]}
        return {"estimate": result.estimate}

    def density(self, steps=80):
        """One run, not the ten of its default."""
        return self._lanczos(lambda: self.library.spectral_density(self.operator, lanczos_steps=steps, num_runs=1, seed=self.seed))[1]


ADAPTERS = {"pyhessian": PyHessian, "curvlinops": Curvlinops, "eigenthings": HessianEigenthings}
