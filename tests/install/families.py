"""Small random checkpoints of Hugging Face's families as they are published (shards of bfloat16, tokenizer or image processor beside), and what PyTorch alone says of them."""

import dataclasses

TOKENS = """
from pathlib import Path
import torch, transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

lines = [f"the {a} fox {b} over the {c} dog" for a in ("quick", "brown", "old") for b in ("jumps", "runs", "looks") for c in ("lazy", "sleeping", "small")]
Path("corpus.txt").write_text("\\n".join(lines))
Path("pairs.csv").write_text("text,target\\n" + "\\n".join(f"{line},{' '.join(reversed(line.split()))}" for line in lines))
words = Tokenizer(models.BPE())
words.pre_tokenizer = pre_tokenizers.ByteLevel()
special = ["<pad>", "<s>", "</s>", "<mask>"]
words.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=40, special_tokens=special, show_progress=False))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", mask_token="<mask>")
tokenizer.save_pretrained("folder")
sizes = dict(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16,
             pad_token_id=0, bos_token_id=1, eos_token_id=2)
"""

IMAGES = """
from pathlib import Path
import numpy as np, torch, transformers
from PIL import Image

rng = np.random.default_rng(0)
for k, name in enumerate(("cat", "dog", "owl")):
    (Path("images") / name).mkdir(parents=True)
    for i in range(4):
        Image.fromarray(rng.integers(60 * k, 60 * k + 120, (8, 8, 3), dtype=np.uint8)).save(Path("images") / name / f"{i}.png")
transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained("folder")
"""

SAVE = """
torch.manual_seed(0)
model = made()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
model.to(torch.bfloat16).save_pretrained("folder", max_shard_size="1KB")
assert len(list(Path("folder").glob("*.safetensors"))) > 1
"""

LOAD = """
import transformers
model = transformers.AutoModelFor{auto}.from_pretrained("folder", dtype=torch.float64, attn_implementation="eager").eval()
if hasattr(model, "set_experts_implementation") and "Moe" in type(model).__name__:
    model.set_experts_implementation("eager")
logits = model(**{{name: arrays[name].double() if arrays[name].is_floating_point() else arrays[name] for name in {inputs}}}, use_cache=False).logits
"""
LOAD_IMAGES = LOAD.replace(", use_cache=False", "")

SHIFTED = "largest(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), arrays['target'][:, 1:].flatten()), list(model.parameters()), 3)\n"
PER_TOKEN = "largest(torch.nn.functional.cross_entropy(logits.flatten(0, 1), arrays['target'].flatten()), list(model.parameters()), 3)\n"
PER_ROW = "largest(torch.nn.functional.cross_entropy(logits, arrays['target']), list(model.parameters()), 3)\n"


@dataclasses.dataclass(frozen=True)
class Family:
    """From folder to spectrum: what is typed, and the same in PyTorch."""

    made: str  #: an expression, the model
    task: str  #: of `hesspect export hf`
    data: str  #: the line that makes data.h5
    loss: str
    oracle: str  #: prints n and the largest eigenvalues, from `arrays`
    make: str = TOKENS

    def script(self):
        """Writes the folder."""
        return self.make + f"\ndef made():\n    return {self.made}\n" + SAVE


def causal(made):
    return Family(made, "causal-lm --seq 8", "hesspect data text folder corpus.txt --seq 8 --rows 12 -o data.h5", "causal_lm",
                  LOAD.format(auto="CausalLM", inputs=["input_ids"]) + SHIFTED)


FAMILIES = {
    "llama": causal("transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_key_value_heads=1))"),
    "qwen": causal("transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes, num_key_value_heads=1, tie_word_embeddings=True))"),
    "gpt2": causal("transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=len(tokenizer), n_positions=16, n_embd=8, n_layer=1, n_head=2, n_inner=12, "
                   "bos_token_id=1, eos_token_id=2))"),
    "mixture_of_experts": causal("transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**sizes, num_key_value_heads=1, head_dim=4, moe_intermediate_size=6, num_experts=4, "
                                 "num_experts_per_tok=2))"),
    "bert": Family("transformers.BertForMaskedLM(transformers.BertConfig(**sizes))", "masked-lm --seq 8",
                   "hesspect data text folder corpus.txt --form masked-lm --mask-share 0.4 --seq 8 --rows 12 -o data.h5", "masked_lm",
                   LOAD.format(auto="MaskedLM", inputs=["input_ids", "attention_mask"]).replace(", use_cache=False", "") + PER_TOKEN),
    "t5": Family("transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2, "
                 "relative_attention_num_buckets=4, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0))", "seq2seq --seq 8 --target-seq 6",
                 "hesspect data text folder pairs.csv --form seq2seq --seq 8 --target-seq 6 --rows 12 -o data.h5", "masked_lm",
                 LOAD.format(auto="Seq2SeqLM", inputs=["input_ids", "attention_mask", "decoder_input_ids"]) + PER_TOKEN),
    "vit": Family("transformers.ViTForImageClassification(transformers.ViTConfig(hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=8, "
                  "patch_size=4, num_labels=3))", "image-classification", "hesspect data images images --config folder -o data.h5", "cross_entropy",
                  LOAD_IMAGES.format(auto="ImageClassification", inputs=["pixel_values"]) + PER_ROW, IMAGES),
}
