import importlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype=torch.float32, attn_implementation="eager")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
ids = tokenizer(open("corpus.txt").read(), return_tensors="pt")["input_ids"][0, :8 * 64].reshape(8, 64)
# PyTorch took torch.eig away in 1.13
def eig(matrix, eigenvectors=False):
    values, vectors = torch.linalg.eig(matrix)
    return torch.view_as_real(values), vectors.real
torch.eig = eig
# Its model takes one tensor and gives one
class Logits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model
    def forward(self, ids):
        return self.model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
hessian = importlib.import_module("pyhessian.hessian").hessian
values, weights = hessian(Logits(), torch.nn.CrossEntropyLoss(), data=(ids, ids[:, 1:].flatten()), cuda=False).density(iter=20, n_v=1)
values, weights = np.array(values[0]), np.array(weights[0])
# The package on PyPI has no density_plot
sigma = (values.max() - values.min()) / 100
grid = np.linspace(values.min() - 5 * sigma, values.max() + 5 * sigma, 2000)
density = (weights * np.exp(-0.5 * ((grid[:, None] - values) / sigma) ** 2)).sum(1) / (sigma * np.sqrt(2 * np.pi))
plt.semilogy(grid, density + 1e-8)
plt.savefig("figure.png")
print("largest", values.max())
