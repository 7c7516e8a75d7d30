import curvlinops
import matplotlib.pyplot as plt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype=torch.float32, attn_implementation="eager").eval()
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
ids = tokenizer(open("corpus.txt").read(), return_tensors="pt")["input_ids"][0, :8 * 64].reshape(8, 64)
# Its model takes one tensor and gives one
class Logits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model
    def forward(self, ids):
        return self.model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
logits = Logits()
hessian = curvlinops.HessianLinearOperator(logits, torch.nn.CrossEntropyLoss(), list(logits.parameters()), [(ids, ids[:, 1:].flatten())], check_deterministic=False, num_data=8)
spectrum = curvlinops.LanczosApproximateSpectrumCached(hessian, 20)
grid, density = spectrum.approximate_spectrum()
plt.semilogy(grid, density + 1e-8)
plt.savefig("figure.png")
(values, _), = spectrum._lanczos_iters
print("largest", values.max().item())
