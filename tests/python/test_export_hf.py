"""From a sharded bf16 folder as `save_pretrained` writes it to eigenvalues, against PyTorch's dense ones in float64."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import hesspect
from dense import WidenFloat32, assert_same_spectrum, eigenvalues_of, program, write_arrays

LONG = os.environ.get("HESSPECT_LONG") == "1"
transformers = pytest.importorskip("transformers")
LENGTH = 5  # tokens a row; models are so small that their dense Hessians take a second
DECODER = {"hidden_size": 4, "intermediate_size": 3, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 7,
           "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 0}
BERT = {"vocab_size": 7, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 3, "max_position_embeddings": 6}


def saved(folder, model_class, config, dtype=torch.bfloat16):
    """A rough model, sharded on the disk; the same in float64."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(3)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter)).copy_(parameter.to(dtype))
    copy.deepcopy(model).to(dtype).save_pretrained(folder, max_shard_size=200)  # which rounds buffers too, unlike from_pretrained
    model.config.use_cache = False
    model.set_attn_implementation("eager")  # PyTorch's fused attention has no second derivative
    if "Moe" in type(model).__name__ or "Mixtral" in type(model).__name__:
        model.set_experts_implementation("eager")
    return model.double()


def logits_of(model, **inputs):
    with WidenFloat32():
        return model(**inputs).logits


def per_token(logits, target):
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))


def shifted(logits, ids):
    """The loss of a causal language model."""
    return per_token(logits[:, :-1], ids[:, 1:])


def text(n=6, vocabulary=7, length=LENGTH):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, vocabulary, (n, length), generator=generator)


def mask(n=6, length=LENGTH):
    return (torch.arange(length) < torch.tensor([length, 3, length, 4, 2, length])[:n, None]).long()


LANGUAGE = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {}),
    "qwen": ("Qwen2ForCausalLM", "Qwen2Config", {"tie_word_embeddings": True}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"n_positions": 6, "n_embd": 4, "n_layer": 1, "n_head": 2, "n_inner": 3}),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {"num_local_experts": 2, "num_experts_per_tok": 2, "intermediate_size": 3}),
    "qwen_moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig",
                 {"head_dim": 2, "moe_intermediate_size": 3, "num_experts": 3, "num_experts_per_tok": 2}),
}


#: by kinds that the others have: a tied head as GPT-2, experts as Qwen's
_ALIKE = ("qwen", "mixtral")


@pytest.mark.parametrize("name", [name for name in LANGUAGE if LONG or name not in _ALIKE])
def test_causal_language_models(tmp_path, name):
    kind, config, options = LANGUAGE[name]
    model = saved(tmp_path / "hf", getattr(transformers, kind), getattr(transformers, config)(**{**DECODER, **options}))
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 1
    made = hesspect.export_hf(tmp_path / "hf", tmp_path / "m.pt2", "causal-lm", seq=LENGTH)
    assert made.inputs == {"input_ids": "input_ids"} and made.losses[0].startswith("causal_lm") and not made.warnings
    parameters = list(model.parameters())
    assert made.parameters == sum(p.numel() for p in parameters)
    ids = text()
    exact = eigenvalues_of(shifted(logits_of(model, input_ids=ids), ids), parameters)
    data = write_arrays(tmp_path / "d.h5", input_ids=ids, target=ids)
    assert_same_spectrum(tmp_path / "m.pt2", data, "causal_lm", tmp_path / "r.h5", exact, "--weights", tmp_path / "hf")


def test_bert_with_a_tied_head_and_padding(tmp_path):
    model = saved(tmp_path / "hf", transformers.BertForMaskedLM, transformers.BertConfig(**BERT))
    made = hesspect.export_hf(tmp_path / "hf", tmp_path / "m.pt2", "masked-lm", seq=LENGTH)
    assert made.losses[0].startswith("masked_lm") and list(made.inputs) == ["input_ids", "attention_mask"]
    ids, there = text(), mask()
    target = torch.where((torch.arange(LENGTH) % 2 == 0) & (there == 1), ids, -100)
    exact = eigenvalues_of(per_token(logits_of(model, input_ids=ids, attention_mask=there), target), list(model.parameters()))
    data = write_arrays(tmp_path / "d.h5", input_ids=ids, attention_mask=there, target=target)
    assert_same_spectrum(tmp_path / "m.pt2", data, "masked_lm", tmp_path / "r.h5", exact, "--weights", tmp_path / "hf")


def test_t5_with_four_names_of_one_weight(tmp_path):
    config = transformers.T5Config(vocab_size=7, d_model=4, d_kv=2, d_ff=3, num_layers=1, num_heads=2, relative_attention_num_buckets=4,
                                   decoder_start_token_id=0)
    model = saved(tmp_path / "hf", transformers.T5ForConditionalGeneration, config)
    made = hesspect.export_hf(tmp_path / "hf", tmp_path / "m.pt2", "seq2seq", seq=LENGTH, target_seq=4)
    assert made.shape == ("N", 4, 7) and made.losses[0].startswith("masked_lm")
    ids, there, target = text(), mask(), text(length=4)
    start = F.pad(target[:, :-1], (1, 0))
    exact = eigenvalues_of(per_token(logits_of(model, input_ids=ids, attention_mask=there, decoder_input_ids=start), target), list(model.parameters()))
    data = write_arrays(tmp_path / "d.h5", input_ids=ids, attention_mask=there, decoder_input_ids=start, target=target)
    assert_same_spectrum(tmp_path / "m.pt2", data, "masked_lm", tmp_path / "r.h5", exact, "--weights", tmp_path / "hf")


def test_vit_whose_stored_names_are_others(tmp_path):
    config = transformers.ViTConfig(hidden_size=4, intermediate_size=3, num_hidden_layers=1, num_attention_heads=2, image_size=4, patch_size=2,
                                    num_labels=3)
    model = saved(tmp_path / "hf", transformers.ViTForImageClassification, config)
    hesspect.export_hf(tmp_path / "hf", tmp_path / "m.pt2", "image-classification")
    x, target = torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(2)), torch.arange(7) % 3
    exact = eigenvalues_of(F.cross_entropy(logits_of(model, pixel_values=x.double()), target), list(model.parameters()))
    data = write_arrays(tmp_path / "d.h5", pixel_values=x, target=target)
    assert_same_spectrum(tmp_path / "m.pt2", data, "cross_entropy", tmp_path / "r.h5", exact, "--weights", tmp_path / "hf")


def test_classification_of_rows_and_of_tokens(tmp_path):
    """Weights that the task does not use are taken and told; a head that the folder lacks is told."""
    saved(tmp_path / "lm", transformers.BertForMaskedLM, transformers.BertConfig(**BERT))
    made = hesspect.export_hf(tmp_path / "lm", tmp_path / "m.pt2", "token-classification", seq=LENGTH)
    assert any("not used for this task" in note and "cls.predictions" in note for note in made.notes)
    assert any("lacks 2" in warning and "classifier" in warning for warning in made.warnings)
    save_file({"classifier.weight": torch.ones(2, 4), "classifier.bias": torch.zeros(2)}, tmp_path / "head.safetensors")
    data = write_arrays(tmp_path / "d.h5", input_ids=text(), attention_mask=mask(), target=text() % 2)
    run = ("trace", "--model", tmp_path / "m.pt2", "--data", data, "--loss", "masked_lm", "--output", tmp_path / "r.h5", "--weights", tmp_path / "lm")
    program(*run, "--weights", tmp_path / "head.safetensors", "--rtol-trace", 0)
    assert "classifier.weight" in program(*run, "--force", code=4).stderr

    model = saved(tmp_path / "cls", transformers.BertForSequenceClassification, transformers.BertConfig(**BERT, num_labels=3))
    made = hesspect.export_hf(tmp_path / "cls", tmp_path / "c.pt2", "sequence-classification", seq=LENGTH)
    assert made.losses[0].startswith("cross_entropy") and made.parameters == sum(p.numel() for p in model.parameters())


def test_a_folder_without_weights_has_the_names_that_would_be_saved(tmp_path):
    model = saved(tmp_path / "hf", transformers.MixtralForCausalLM, transformers.MixtralConfig(**DECODER, num_local_experts=2))
    for file in (tmp_path / "hf").glob("*.safetensors*"):
        file.rename(tmp_path / file.name)
    hesspect.export_hf(tmp_path / "hf", tmp_path / "m.pt2", "causal-lm", seq=LENGTH)
    ids = text()
    data = write_arrays(tmp_path / "d.h5", input_ids=ids, target=ids)
    done = program("trace", "--model", tmp_path / "m.pt2", "--data", data, "--loss", "causal_lm", "--output", tmp_path / "r.h5", "--rtol-trace", 0,
                   "--weights", tmp_path / "model.safetensors.index.json", "--dtype", "float64")
    loss = shifted(logits_of(model, input_ids=ids), ids).item()
    assert hesspect.read(tmp_path / "r.h5").loss == pytest.approx(loss, abs=1e-12), done.stderr


@pytest.mark.parametrize("train", ["adapter", "all"] if LONG else ["adapter"])
def test_an_adapter_of_peft(tmp_path, train):
    """The formulas of LoRA written out, on files as PEFT writes them; the base in shards."""
    rank, alpha = 2, 3
    model = saved(tmp_path / "hf", transformers.LlamaForCausalLM, transformers.LlamaConfig(**DECODER))
    generator = torch.Generator().manual_seed(4)
    weights = {}
    for name, rows, columns in (("model.layers.0.self_attn.q_proj", 4, 4), ("model.layers.0.self_attn.v_proj", 2, 4)):
        weights[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) * 0.5
        weights[f"base_model.model.{name}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.5
    (tmp_path / "adapter").mkdir()
    save_file(weights, tmp_path / "adapter/adapter_model.safetensors", metadata={"format": "pt"})
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "lora_dropout": 0.1, "bias": "none",
                "target_modules": ["v_proj", "q_proj"], "base_model_name_or_path": str(tmp_path / "hf"), "inference_mode": True}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(settings))
    made = hesspect.export_peft(tmp_path / "adapter", tmp_path / "m.pt2", "causal-lm", train=train, seq=LENGTH)
    ids = text()
    leaves = {name: value.double().requires_grad_(True) for name, value in weights.items()}
    own = dict(model.named_parameters())
    merged = {name: value + alpha / rank * leaves[f"base_model.model.{name[:-7]}.lora_B.weight"] @ leaves[f"base_model.model.{name[:-7]}.lora_A.weight"]
              for name, value in own.items() if name.endswith(("q_proj.weight", "v_proj.weight"))}
    with WidenFloat32():
        logits = torch.func.functional_call(model, {**own, **merged}, kwargs={"input_ids": ids}).logits
    parameters = [*leaves.values(), *(own.values() if train == "all" else ())]
    exact = eigenvalues_of(shifted(logits, ids), parameters)
    assert made.parameters == len(exact)
    data = write_arrays(tmp_path / "d.h5", input_ids=ids, target=ids)
    assert_same_spectrum(tmp_path / "m.pt2", data, "causal_lm", tmp_path / "r.h5", exact, "--weights", tmp_path / "hf", "--weights", tmp_path / "adapter")

    settings["use_dora"] = True
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(hesspect.InputError, match="use_dora"):
        hesspect.export_peft(tmp_path / "adapter", tmp_path / "x.pt2", "causal-lm")


def test_what_is_no_folder_or_no_task_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/config.json").write_text("{}")
    for folder, task, kind, word in ((tmp_path / "no", "causal-lm", hesspect.InputError, "no such folder"),
                                     (tmp_path / "empty", "causal-lm", hesspect.InputError, "config.json"),
                                     (tmp_path / "bad", "causal-lm", hesspect.InputError, "config.json"),
                                     (tmp_path / "bad", "causal-lmm", hesspect.UsageError, "did you mean 'causal-lm'")):
        with pytest.raises(kind, match=word) as caught:
            hesspect.export_hf(folder, tmp_path / "m.pt2", task)
        assert "\n" not in caught.value.line
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(hesspect.UsageError, match="no head"):
        hesspect.export_hf(tmp_path / "vit", tmp_path / "m.pt2", "causal-lm")


def test_large_models_without_their_memory(tmp_path):
    """Two layers of Llama-3 70 B, 3.8 · 10⁹ parameters, in a process of its own. (All 80 layers: docs/models.md.)"""
    transformers.LlamaConfig(hidden_size=8192, intermediate_size=28672, num_hidden_layers=2, num_attention_heads=64, num_key_value_heads=8,
                             vocab_size=128256).save_pretrained(tmp_path / "hf")
    code = ("import hesspect, resource, sys\n"
            "made = hesspect.export_hf(sys.argv[1], sys.argv[2], 'causal-lm', seq=512)\n"
            "print(made.parameters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "hf", tmp_path / "m.pt2"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    parameters, peak_kib = map(int, done.stdout.split())
    assert parameters == 3_812_663_296 and peak_kib < 2 << 20
    assert (tmp_path / "m.pt2").stat().st_size < 4 << 20
