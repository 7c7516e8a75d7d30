import matplotlib.pyplot as plt
import torch
from hessian_eigenthings import HessianOperator, hf_lm_loss, spectral_density
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype=torch.float32, attn_implementation="eager").eval()
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
ids = tokenizer(open("corpus.txt").read(), return_tensors="pt")["input_ids"][0, :8 * 64].reshape(8, 64)
operator = HessianOperator(model, [{"input_ids": ids, "labels": ids, "use_cache": False}], hf_lm_loss())
result = spectral_density(operator, lanczos_steps=20, num_runs=1)
plt.semilogy(result.grid, result.density + 1e-8)
plt.savefig("figure.png")
print("largest", result.raw_eigenvalues.max().item())
