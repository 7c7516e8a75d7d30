import torch, torchvision, hesspect
from torchvision import transforms
model = torchvision.models.resnet18(num_classes=3)
model.load_state_dict(torch.load("FOLDER/weights.pt"))
loader = torch.utils.data.DataLoader(torchvision.datasets.ImageFolder("FOLDER/images", transforms.ToTensor()), batch_size=24)
result = hesspect.spectrum(model, loader, loss="cross_entropy", command="density", steps=20, density_w1=0, rtol_trace=0)
result.plot().savefig("figure.png")
