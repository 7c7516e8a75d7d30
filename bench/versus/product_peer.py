"""Products of a peer on request, as bench/product_cost/product_server.cpp gives hesspect's: see there for the lines.

    product_peer.py TOOL PROBLEM      TOOL: pyhessian, pyhessian-whole, curvlinops or eigenthings

"pyhessian" is its product with the gradient's graph kept (`hessian_vector_product`, what it runs for a single batch of data), summed over the
problem's micro-batches; "pyhessian-whole" the same on all rows at once. The other two keep nothing between products.
"""

import sys
import time

import torch


class PyHessian:
    def __init__(self, problem, batches):
        import importlib

        module = importlib.import_module("pyhessian.hessian")
        torch.set_default_dtype(problem.dtype)
        self.product = module.hessian_vector_product
        self.parts = []
        for batch in batches:
            problem.model.zero_grad(set_to_none=True)
            self.parts.append(module.hessian(problem.model, problem.criterion, data=batch, cuda=False))

    def __call__(self, v):
        """v: a list, a tensor for each parameter."""
        products = [self.product(part.gradsH, part.params, v) for part in self.parts]
        return products[0] if len(products) == 1 else [sum(x) / len(products) for x in zip(*products)]


class Curvlinops:
    def __init__(self, problem):
        import curvlinops

        self.operator = curvlinops.HessianLinearOperator(problem.model, problem.criterion, problem.parameters, problem.batches,
                                                         check_deterministic=False, num_data=sum(t.size(0) for _, t in problem.batches))

    def __call__(self, v):
        return self.operator @ v


class Eigenthings:
    def __init__(self, problem):
        import hessian_eigenthings as library

        self.operator = library.HessianOperator(problem.model, problem.batches, library.supervised_loss(problem.criterion))

    def __call__(self, v):
        return [self.operator.matvec(torch.cat([x.reshape(-1) for x in v]))]


def make(tool, problem):
    import problems

    if tool == "pyhessian":
        return PyHessian(problem, problem.batches)
    if tool == "pyhessian-whole":
        inputs = problems.TupleInput(torch.cat(t) for t in zip(*(i.tensors for i, _ in problem.batches)))
        return PyHessian(problem, [(inputs, torch.cat([t for _, t in problem.batches]))])
    return {"curvlinops": Curvlinops, "eigenthings": Eigenthings}[tool](problem)


def peak_bytes():
    """Not getrusage's, which remembers the process that this one was forked from."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024


def main():
    import warnings

    import problems

    {"curvlinops": lambda: __import__("curvlinops"), "eigenthings": lambda: __import__("hessian_eigenthings")}.get(
        sys.argv[1], lambda: __import__("pyhessian"))()

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    tool, name = sys.argv[1:]
    problem = problems.problem(name)
    base = peak_bytes()
    product = make(tool, problem)
    random = [torch.randn_like(p) for p in problem.parameters]
    print("ready", len(problem.batches), len(problem.batches), base, flush=True)
    for line in sys.stdin:
        if line.startswith("product"):
            cpu, wall = time.process_time(), time.monotonic()
            product(random)
            print(f"{time.process_time() - cpu:.6f} {time.monotonic() - wall:.6f}", flush=True)
        elif line.startswith("check"):
            v = [torch.full_like(p, problem.n**-0.5) for p in problem.parameters]
            flat = torch.cat([x.detach().reshape(-1).double() for x in product(v)])
            print(flat.sum().item() * problem.n**-0.5, flat.norm().item(), flush=True)
        elif line.startswith("memory"):
            print(peak_bytes(), flush=True)


if __name__ == "__main__":
    main()
