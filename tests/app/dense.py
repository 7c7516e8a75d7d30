"""Whole Hessians by PyTorch's own double reverse mode, a row at a time."""

import torch


def hessian_of(loss, model):
    """Of a scalar, over the model's parameters [n, n], as an array."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)])
    rows = []
    for entry in gradient:
        row = torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([r.reshape(-1) for r in row]))
    return torch.stack(rows).detach().numpy()
