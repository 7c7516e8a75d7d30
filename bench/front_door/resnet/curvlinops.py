import curvlinops
import matplotlib.pyplot as plt
import torch
import torchvision
from torchvision import transforms
model = torchvision.models.resnet18(num_classes=3)
model.load_state_dict(torch.load("FOLDER/weights.pt"))
data = torchvision.datasets.ImageFolder("FOLDER/images", transforms.ToTensor())
loader = torch.utils.data.DataLoader(data, batch_size=24)
model.eval()
hessian = curvlinops.HessianLinearOperator(model, torch.nn.CrossEntropyLoss(), list(model.parameters()), loader, check_deterministic=False)
spectrum = curvlinops.LanczosApproximateSpectrumCached(hessian, 20)
grid, density = spectrum.approximate_spectrum()
plt.semilogy(grid, density + 1e-8)
plt.savefig("figure.png")
(values, _), = spectrum._lanczos_iters
print("largest", values.max().item())
