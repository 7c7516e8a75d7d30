"""The two folders that every tool starts from, made on the spot and from a seed.

    folders.py FOLDER       FOLDER/llm: tiny Llama as Hugging Face has it, corpus.txt; FOLDER/resnet: images by class, weights.pt
"""

import pydoc_data.topics
import sys
from pathlib import Path

import numpy as np
import torch


def make_llm(folder):
    """0.8 million parameters in shards of bfloat16, trained for 100 steps on Python's help texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder.mkdir(parents=True)
    text = "\n".join(pydoc_data.topics.topics.values())
    (folder / "corpus.txt").write_text(text)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.train_from_iterator(text.split("\n"), trainers.BpeTrainer(vocab_size=1000, special_tokens=["<s>", "</s>"], show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=1000, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
                                         max_position_embeddings=128))
    ids = torch.tensor(tokenizer(text)["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(100):
        rows = torch.stack([ids[s:s + 64] for s in torch.randint(0, len(ids) - 65, (16,))])
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step(), optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder / "FOLDER", max_shard_size="1MB")
    tokenizer.save_pretrained(folder / "FOLDER")


def make_resnet(folder):
    """ResNet-18 for 24 images of three classes, 32 pixels wide, trained for 3 passes."""
    import torchvision
    from PIL import Image

    rng = np.random.default_rng(0)
    for label, name in enumerate(("a", "b", "c")):
        (folder / "FOLDER/images" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 160, (32, 32, 3), dtype=np.uint8)
            pixels[8:24, 8:24, label] += 80
            Image.fromarray(pixels).save(folder / "FOLDER/images" / name / f"{i:02d}.png")
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=3)
    loader = torch.utils.data.DataLoader(torchvision.datasets.ImageFolder(folder / "FOLDER/images", torchvision.transforms.ToTensor()), batch_size=12, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(3):
        for images, labels in loader:
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step(), optimizer.zero_grad()
    torch.save(model.state_dict(), folder / "FOLDER/weights.pt")


if __name__ == "__main__":
    for kind, make in (("llm", make_llm), ("resnet", make_resnet)):
        if not (Path(sys.argv[1]) / kind).exists():
            make(Path(sys.argv[1]) / kind)
