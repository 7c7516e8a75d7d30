import matplotlib.pyplot as plt
from hessian_eigenthings import HessianOperator, spectral_density, supervised_loss
import torch
import torchvision
from torchvision import transforms
model = torchvision.models.resnet18(num_classes=3)
model.load_state_dict(torch.load("FOLDER/weights.pt"))
data = torchvision.datasets.ImageFolder("FOLDER/images", transforms.ToTensor())
loader = torch.utils.data.DataLoader(data, batch_size=24)
operator = HessianOperator(model.eval(), loader, supervised_loss(torch.nn.CrossEntropyLoss()))
result = spectral_density(operator, lanczos_steps=20, num_runs=1)
plt.semilogy(result.grid, result.density + 1e-8)
plt.savefig("figure.png")
print("largest", result.raw_eigenvalues.max().item())
