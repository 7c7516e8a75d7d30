import torch, hesspect
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained("FOLDER", dtype=torch.float32), AutoTokenizer.from_pretrained("FOLDER")
ids = tokenizer(open("corpus.txt").read(), return_tensors="pt")["input_ids"][0, :8 * 64].reshape(8, 64)
result = hesspect.spectrum(model, {"input_ids": ids}, loss="causal_lm", command="density", steps=20, density_w1=0, rtol_trace=0)
result.plot().savefig("figure.png")
