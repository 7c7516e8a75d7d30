"""python -m hesspect data text: rows against the tokenizer's own output, on tiny tokenizers made here."""

import gzip
import json
import os
import subprocess

import h5py
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
from hesspect import DataError, verify_data  # noqa: E402
from hesspect.data import cli  # noqa: E402
from hesspect.data.text import Options, write_text  # noqa: E402

WORDS = "the a cat dog sees likes runs and with of one red small house tree".split()


def make_tokenizer(folder, kind, config):
    """A word-level tokenizer: `gpt` with an end of text alone, `bert` with [CLS] and [SEP], `t5` with </s> behind each text."""
    special = {"gpt": ["<eos>"], "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "t5": ["<pad>", "</s>", "<unk>"]}[kind]
    vocabulary = {token: i for i, token in enumerate([*special, *WORDS])}
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token={"gpt": "<eos>", "bert": "[UNK]", "t5": "<unk>"}[kind]))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    names = {"gpt": {"eos_token": "<eos>"}, "t5": {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
             "bert": {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}}[kind]
    if kind == "bert":
        own.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        names["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    if kind == "t5":
        own.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=own, **names).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"vocab_size": len(vocabulary), **config}))
    return transformers.AutoTokenizer.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("tokenizers")
    found = {}
    for kind, config in (("gpt", {"n_positions": 16}), ("t5", {"decoder_start_token_id": 0}),
                         ("bert", {"max_position_embeddings": 32, "id2label": {"0": "bad", "1": "good", "2": "so so"}, "label2id": {"bad": 0, "good": 1, "so so": 2}})):
        (base / kind).mkdir()
        found[kind] = base / kind, make_tokenizer(base / kind, kind, config)
    return found


def sentences(n, seed=0, longest=12):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in range(n)]


def jsonl(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def arrays(path):
    verify_data(path)
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}, dict(file.attrs)


def test_packed(folders, tmp_path):
    folder, own = folders["gpt"]
    texts = sentences(149)
    (tmp_path / "a.txt").write_text("\n\n".join(texts[:70]) + "\n")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": t}) + "\n" for t in [*texts[70:], "  ", None])
    written = write_text(tmp_path / "d.h5", folder, [tmp_path / "a.txt", tmp_path / "b.jsonl.gz"], Options(seq=8))
    stream = [i for t in texts for i in [*own(t)["input_ids"], own.eos_token_id]]
    rows = np.array(stream[:len(stream) // 8 * 8]).reshape(-1, 8)
    data, attributes = arrays(written.path)
    assert sorted(data) == ["attention_mask", "input_ids", "target"] and (data["attention_mask"] == 1).all()
    assert np.array_equal(data["input_ids"], rows) and np.array_equal(data["target"], rows) and rows.dtype == data["target"].dtype
    assert len(stream) % 8 and f"the last {len(stream) % 8} tokens fill no row" in attributes["notes"] and "2 texts that are missing or blank" in attributes["notes"]
    assert attributes["loss"] == "causal_lm" and json.loads(attributes["options"])["seq"] == 8 and len(attributes["tokenizer_sha256"]) == 64
    sampled = write_text(tmp_path / "s.h5", folder, [tmp_path / "a.txt", tmp_path / "b.jsonl.gz"], Options(seq=8, seed=3), rows=20)
    data, _ = arrays(sampled.path)
    assert np.array_equal(data["input_ids"], rows[data["source_row"]])
    plain = write_text(tmp_path / "p.h5", folder, [tmp_path / "a.txt"], Options(seq=8, eos=False, split="file"))
    stream = own(" ".join(texts[:70]))["input_ids"]
    assert np.array_equal(arrays(plain.path)[0]["input_ids"].ravel(), stream[:len(stream) // 8 * 8])


def test_padded(folders, tmp_path):
    folder, own = folders["gpt"]
    texts = sentences(40)
    file = jsonl(tmp_path / "a.jsonl", [{"body": t} for t in texts])
    data, attributes = arrays(write_text(tmp_path / "d.h5", folder, [file], Options(seq=6, padded=True, text="body")).path)
    for i, text in enumerate(texts):
        ids = [*own(text)["input_ids"], own.eos_token_id][:6]
        n = len(ids)
        assert data["input_ids"][i].tolist() == ids + [own.eos_token_id] * (6 - n) and data["attention_mask"][i].tolist() == [1] * n + [0] * (6 - n)
        assert data["target"][i].tolist() == ids + [-100] * (6 - n)
    cut = sum(len(own(t)["input_ids"]) > 6 for t in texts)
    assert f"{cut} of 40 texts that were tokenised had to be cut" in attributes["notes"] and "no padding token" in attributes["notes"]
    few = arrays(write_text(tmp_path / "s.h5", folder, [file], Options(seq=6, padded=True, text="body", seed=1), rows=7).path)[0]
    assert np.array_equal(few["input_ids"], data["input_ids"][few["source_row"]])
    head = arrays(write_text(tmp_path / "f.h5", folder, [file], Options(seq=6, padded=True, text="body"), rows=7, first=True).path)[0]
    assert np.array_equal(head["target"], data["target"][:7])


def test_prompts(folders, tmp_path):
    """Of a question and its answer the answer alone is a target."""
    folder, own = folders["gpt"]
    file = jsonl(tmp_path / "a.jsonl", [{"q": "the cat", "text": "sees a dog"}, {"q": "one of the red", "text": "likes a house"}, {"q": "a a a a a a a", "text": "cat"}])
    data, attributes = arrays(write_text(tmp_path / "d.h5", folder, [file], Options(seq=7, padded=True, prompt="q")).path)
    ids = [own(q)["input_ids"] for q in ("the cat sees a dog <eos>", "one of the red likes a house", "a a a a a a a")]
    assert data["input_ids"].tolist() == [[*ids[0], 0], ids[1], ids[2]] and data["attention_mask"].sum(1).tolist() == [6, 7, 7]
    assert data["target"].tolist() == [[-100] * 2 + ids[0][2:] + [-100], [-100] * 4 + ids[1][4:], [-100] * 7]
    assert "1 of 3 texts that were tokenised had to be cut" in attributes["notes"] and "of 1 of them nothing but prompt is left" in attributes["notes"]


@pytest.mark.parametrize("padded", [False, True])
def test_masked(folders, tmp_path, padded, monkeypatch):
    folder, own = folders["bert"]
    texts = sentences(800)
    file = jsonl(tmp_path / "a.jsonl", [{"text": t} for t in texts])
    options = Options(form="masked-lm", seq=16, padded=padded, seed=5)
    data, attributes = arrays(write_text(tmp_path / "d.h5", folder, [file], options).path)
    if padded:
        clean = own(texts, padding="max_length", max_length=16, truncation=True)["input_ids"]
    else:
        stream = [i for t in texts for i in own(t, add_special_tokens=False)["input_ids"]]
        clean = [[2, *stream[i:i + 14], 3] for i in range(0, len(stream) - 13, 14)]
    clean, ids, target = np.array(clean), data["input_ids"], data["target"]
    chosen = target != -100
    assert np.array_equal(target[chosen], clean[chosen]) and np.array_equal(ids[~chosen], clean[~chosen])
    assert np.array_equal(data["attention_mask"], clean != 0) and (data["token_type_ids"] == 0).all() and attributes["loss"] == "masked_lm"
    ordinary = clean > 4
    assert not chosen[~ordinary].any()
    n, k = ordinary.sum(), chosen.sum()
    within = lambda share, of, p: abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / of)
    masks, same = (ids[chosen] == own.mask_token_id).mean(), (ids[chosen] == clean[chosen]).mean()
    assert within(k / n, n, 0.15) and within(masks, k, 0.8 + 0.1 / 20) and within(same, k, 0.1 + 0.1 / 20)
    monkeypatch.setattr("hesspect.data.text._TEXTS", 7)  # batches play no part
    again = write_text(tmp_path / "e.h5", folder, [file], options)
    assert again.sha256 == attributes["sha256"]
    few = arrays(write_text(tmp_path / "s.h5", folder, [file], options, rows=9).path)[0]
    assert np.array_equal(few["input_ids"], ids[few["source_row"]]) and np.array_equal(few["target"], target[few["source_row"]])
    assert write_text(tmp_path / "e.h5", folder, [file], Options(form="masked-lm", seq=16, padded=padded, seed=6)).sha256 != again.sha256


def test_classification(folders, tmp_path):
    folder, own = folders["bert"]
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts, pairs = sentences(30), sentences(30, 1)
    labels = [["bad", "good", "so so"][i % 3] for i in range(30)]
    parquet.write_table(pyarrow.table({"q": texts, "a": pairs, "y": labels, "other": list(range(30))}), tmp_path / "a.parquet")
    options = Options(form="classification", seq=20, text="q", pair="a", label="y")
    data, attributes = arrays(write_text(tmp_path / "d.h5", folder, [tmp_path / "a.parquet"], options).path)
    expected = own(texts, pairs, padding="max_length", truncation=True, max_length=20)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert np.array_equal(data[name], expected[name]), name
    assert data["target"].tolist() == [i % 3 for i in range(30)] and attributes["loss"] == "cross_entropy" and "token_type_ids among its inputs" in attributes["notes"]
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "".join(f"{t}\t{i % 3}\n" for i, t in enumerate(texts)))
    data, _ = arrays(write_text(tmp_path / "d.h5", folder, [tmp_path / "a.tsv"], Options(form="classification", seq=20)).path)
    assert data["target"].tolist() == [i % 3 for i in range(30)] and np.array_equal(data["input_ids"], own(texts, padding="max_length", max_length=20)["input_ids"])
    scores = jsonl(tmp_path / "s.jsonl", [{"text": t, "label": i / 4} for i, t in enumerate(texts)])
    data, attributes = arrays(write_text(tmp_path / "d.h5", folder, [scores], Options(form="classification", seq=20, regression=True)).path)
    assert np.array_equal(data["target"], np.arange(30, dtype=np.float32)[:, None] / 4) and attributes["loss"] == "mse"


def test_words(folders, tmp_path):
    """Labels at the first token of a word, as Hugging Face's own example has them."""
    folder, own = folders["bert"]
    records = [{"tokens": ["cat-dog", "sees", "the"], "tags": [2, 0, 1]}, {"tokens": ["a"], "tags": ["good"]}]
    file = jsonl(tmp_path / "a.jsonl", records)
    for every in (False, True):
        data, attributes = arrays(write_text(tmp_path / "d.h5", folder, [file], Options(form="token-classification", seq=8, text="tokens", label="tags", all_pieces=every)).path)
        assert own.convert_ids_to_tokens(data["input_ids"][0]) == ["[CLS]", "cat", "[UNK]", "dog", "sees", "the", "[SEP]", "[PAD]"]
        more = 2 if every else -100
        assert data["target"].tolist() == [[-100, 2, more, more, 0, 1, -100, -100], [-100, 1] + [-100] * 6]
    assert attributes["loss"] == "masked_lm"


def test_seq2seq(folders, tmp_path):
    folder, own = folders["t5"]
    source, goal = sentences(20), sentences(20, 1)
    file = jsonl(tmp_path / "a.jsonl", [{"text": s, "target": t} for s, t in zip(source, goal)])
    data, attributes = arrays(write_text(tmp_path / "d.h5", folder, [file], Options(form="seq2seq", seq=9, target_seq=7)).path)
    expected = own(source, padding="max_length", truncation=True, max_length=9)
    assert np.array_equal(data["input_ids"], expected["input_ids"]) and np.array_equal(data["attention_mask"], expected["attention_mask"])
    labels = np.array(own(text_target=goal, padding="max_length", truncation=True, max_length=7)["input_ids"])
    labels[labels == own.pad_token_id] = -100
    assert np.array_equal(data["target"], labels) and attributes["loss"] == "masked_lm"
    import torch

    config = transformers.T5Config(vocab_size=20, d_model=4, d_kv=2, d_ff=4, num_layers=1, num_heads=1, decoder_start_token_id=0)
    shifted = transformers.T5ForConditionalGeneration(config).prepare_decoder_input_ids_from_labels(torch.as_tensor(labels))
    assert np.array_equal(data["decoder_input_ids"], shifted) and np.array_equal(data["decoder_attention_mask"], labels != -100)


def test_refused(folders, tmp_path, capsys):
    gpt, bert, t5 = (str(folders[k][0]) for k in ("gpt", "bert", "t5"))
    text = str(jsonl(tmp_path / "a.jsonl", [{"text": "the cat", "label": "unheard"}, {"text": 3, "label": 7}]))
    label = str(jsonl(tmp_path / "l.jsonl", [{"text": "the cat", "label": "unheard"}]))
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{')
    (tmp_path / "list.json").write_text('[{"text": "a"},\n {"text": "b"}]')
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "few.csv").write_text("text,label\nx\n")
    (tmp_path / "no.parquet").write_text("no")
    (tmp_path / "a.docx").touch()
    words = str(jsonl(tmp_path / "w.jsonl", [{"text": ["a", "cat"], "label": [1]}]))
    small = tmp_path / "small"
    small.mkdir()
    make_tokenizer(small, "gpt", {"vocab_size": 2})
    for arguments, line in (
            ([gpt, text, "--seq", "17"], "the model has 16 positions, fewer than --seq 17"),
            ([gpt, text, "--seq", "8"], "a.jsonl, record 2: 'text' is a int, no text"),
            ([gpt, text, "--seq", "8", "--text", "body"], "a.jsonl, record 1: no 'body'; it has text, label"),
            ([gpt, text, "--form", "masked-lm", "--seq", "8"], "the tokenizer has no mask token"),
            ([bert, text, "--form", "masked-lm", "--seq", "2"], "--seq 2 leaves no room beside the 2 special tokens"),
            ([bert, label, "--form", "classification", "--seq", "8"], "record 1: label 'unheard' is no class of config.json's label2id (bad, good, so so)"),
            ([bert, words, "--form", "token-classification", "--seq", "8"], "w.jsonl, record 1: 2 words, but 1 labels"),
            ([bert, words, "--form", "token-classification", "--seq", "8", "--mask-share", "2"], "--mask-share 2 is not above 0"),
            ([gpt, str(tmp_path / "bad.jsonl"), "--seq", "8"], "bad.jsonl, line 2: not JSON"),
            ([gpt, str(tmp_path / "list.json"), "--seq", "8"], "write one object a line"),
            ([gpt, str(tmp_path / "latin.txt"), "--seq", "8"], "latin.txt: not UTF-8 text"),
            ([bert, str(tmp_path / "few.csv"), "--form", "classification", "--seq", "8"], "a record has more or fewer fields"),
            ([gpt, str(tmp_path / "no.parquet"), "--seq", "8"], "not a Parquet file"),
            ([gpt, str(tmp_path / "no.txt"), "--seq", "8"], "no.txt: no such file"),
            ([gpt, str(tmp_path / "a.docx"), "--seq", "8"], "a.docx: not known by its name"),
            ([str(tmp_path / "none"), text], "none: no such folder"), ([str(tmp_path), text], "its tokenizer can't be read"),
            ([str(small), label, "--seq", "8", "--padded"], "the tokenizer gives id 3, but the model's vocabulary has 2"),
            ([t5, label, "--form", "seq2seq", "--seq", "8"], "record 1: no 'target'"),
            ([gpt, text, "--seq", "1"], "--seq 1: at least 2 tokens"), ([gpt, text, "--prompt", "text"], "--prompt belongs to causal-lm with --padded"),
            ([gpt, label, "--rows", "9", "--seq", "8", "--padded"], "there are 1 rows, fewer than the 9 asked for")):
        assert cli.main(["text", *arguments, "-o", str(tmp_path / "d.h5")]) == 4, arguments
        said = capsys.readouterr().err
        assert line in said and said.count("\n") == 1 and said.startswith("hesspect: error: "), (line, said)
    assert cli.main(["text", gpt, text, "-o", "d.h5", "--first"]) == 2
    with pytest.raises(DataError, match="no form 'rhyme'"):
        write_text(tmp_path / "d.h5", gpt, [text], Options(form="rhyme"))


@pytest.mark.skipif(not os.environ.get("HESSPECT_BIN"), reason="HESSPECT_BIN does not say where the program is")
def test_the_program_reads_it(folders, tmp_path, capsys):
    """A tiny language model on padded rows, against PyTorch's dense Hessian of its loss on the tokenizer's own padded output."""
    import torch

    import hesspect

    folder, own = folders["gpt"]
    texts = sentences(24)
    assert cli.main(["text", str(folder), str(jsonl(tmp_path / "a.jsonl", [{"text": t} for t in texts])), "--seq", "6", "--padded", "-o", str(tmp_path / "d.h5")]) == 0
    assert "--loss causal_lm" in capsys.readouterr().out
    torch.manual_seed(0)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.Embedding(16, 4), torch.nn.Linear(4, 16)

        def forward(self, input_ids, attention_mask):
            h = self.table(input_ids) * attention_mask[..., None]
            return self.head(torch.tanh(h.cumsum(1)))

    model = Model().double().eval()
    batch = torch.export.Dim("batch")
    example = {k: torch.ones(3, 6, dtype=torch.int64) for k in ("input_ids", "attention_mask")}
    torch.export.save(torch.export.export(model, (), example, dynamic_shapes={k: {0: batch} for k in example}, strict=False), tmp_path / "m.pt2")
    subprocess.run([os.environ["HESSPECT_BIN"], "eigs", "--model", "m.pt2", "--data", "d.h5", "--loss", "causal_lm", "--dtype", "float64",
                    "--top", "3", "--output", "r.h5", "--rtol-eigs", "1e-9"], cwd=tmp_path, check=True, capture_output=True)
    own.pad_token = own.eos_token
    encoded = own([t + " <eos>" for t in texts], padding="max_length", truncation=True, max_length=6, return_tensors="pt")
    labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
    shapes = {k: p.shape for k, p in model.named_parameters()}
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss(theta):
        parts = dict(zip(shapes, (t.view(s) for t, s in zip(theta.split([s.numel() for s in shapes.values()]), shapes.values()))))
        out = torch.func.functional_call(model, parts, (encoded["input_ids"], encoded["attention_mask"]))
        return torch.nn.functional.cross_entropy(out[:, :-1].reshape(-1, 16), labels[:, 1:].reshape(-1))

    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat)).flip(0)[:3].numpy()
    assert np.allclose(hesspect.read(tmp_path / "r.h5").eigenvalues[:3], dense, rtol=1e-9)


@pytest.mark.skipif(not os.environ.get("HESSPECT_BIN"), reason="HESSPECT_BIN does not say where the program is")
@pytest.mark.parametrize("kind, form", [("bert", "masked-lm"), ("t5", "seq2seq")])
def test_from_a_folder_to_its_own_loss(folders, tmp_path, kind, form):
    """A checkpoint's folder exported, its texts as rows: the run's loss is what Hugging Face's model says of the same rows."""
    import torch

    import hesspect

    torch.manual_seed(0)
    folder, own = folders[kind]
    made = {"bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(
                vocab_size=len(own), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16)),
            "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(
                vocab_size=len(own), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0, pad_token_id=0))}[kind]
    model = made().eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "folder")
    own.save_pretrained(tmp_path / "folder")
    file = jsonl(tmp_path / "a.jsonl", [{"text": s, "target": t} for s, t in zip(sentences(40), sentences(40, 1))])
    hesspect.export_hf(tmp_path / "folder", tmp_path / "m.pt2", form, seq=10, target_seq=8)
    options = Options(form=form, seq=10, target_seq=8 if kind == "t5" else 0, padded=True)
    write_text(tmp_path / "d.h5", tmp_path / "folder", [file], options, rows=24)
    data, attributes = arrays(tmp_path / "d.h5")
    subprocess.run([os.environ["HESSPECT_BIN"], "trace", "--model", "m.pt2", "--weights", "folder", "--data", "d.h5", "--loss", attributes["loss"], "--dtype", "float64",
                    "--probes", "1", "--steps", "2", "--rtol-trace", "0", "--output", "r.h5"], cwd=tmp_path, check=True, capture_output=True)
    rows = {k: torch.as_tensor(v) for k, v in data.items() if k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        loss = float(model.double()(**rows, labels=torch.as_tensor(data["target"])).loss)
    assert abs(hesspect.read(tmp_path / "r.h5").loss / loss - 1) < (1e-12 if kind == "bert" else 1e-6)  # T5's own loss is of float32 logits
