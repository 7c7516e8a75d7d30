import importlib
import matplotlib.pyplot as plt
import numpy as np
import torch
import torchvision
from torchvision import transforms
model = torchvision.models.resnet18(num_classes=3)
model.load_state_dict(torch.load("FOLDER/weights.pt"))
data = torchvision.datasets.ImageFolder("FOLDER/images", transforms.ToTensor())
loader = torch.utils.data.DataLoader(data, batch_size=24)
# PyTorch took torch.eig away in 1.13
def eig(matrix, eigenvectors=False):
    values, vectors = torch.linalg.eig(matrix)
    return torch.view_as_real(values), vectors.real
torch.eig = eig
hessian = importlib.import_module("pyhessian.hessian").hessian
values, weights = hessian(model, torch.nn.CrossEntropyLoss(), dataloader=loader, cuda=False).density(iter=20, n_v=1)
values, weights = np.array(values[0]), np.array(weights[0])
# The package on PyPI has no density_plot
sigma = (values.max() - values.min()) / 100
grid = np.linspace(values.min() - 5 * sigma, values.max() + 5 * sigma, 2000)
density = (weights * np.exp(-0.5 * ((grid[:, None] - values) / sigma) ** 2)).sum(1) / (sigma * np.sqrt(2 * np.pi))
plt.semilogy(grid, density + 1e-8)
plt.savefig("figure.png")
print("largest", values.max())
