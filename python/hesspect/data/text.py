"""Texts to rows of token ids, with the tokenizer of the checkpoint: packed without padding, or one row a text.

Whatever is random (masks, samples) hangs on the seed and a row's own number, never on batches. Texts are read and tokenised in a
stream; of a sample of padded rows only the texts that are drawn are tokenised.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hesspect.data.records import KINDS, SPLITS, Record, records
from hesspect.data.sources import Array, Batch, DataError, Lazy
from hesspect.data.writer import DataFile, write_data

FORMS = ("causal-lm", "masked-lm", "seq2seq", "classification", "token-classification")
IGNORED = -100
#: the loss of hesspect that takes what each form writes
LOSSES = {"causal-lm": "causal_lm", "masked-lm": "masked_lm", "seq2seq": "masked_lm", "classification": "cross_entropy",
          "token-classification": "masked_lm"}
_TEXTS = 64  # at a time


@dataclasses.dataclass
class Options:
    """What rows are to look like."""

    form: str = "causal-lm"
    seq: int = 512
    padded: bool = False
    text: str = "text"
    pair: str | None = None
    prompt: str | None = None
    label: str = "label"
    target: str = "target"
    target_seq: int = 0
    split: str = "line"
    eos: bool = True
    mask_share: float = 0.15
    regression: bool = False
    all_pieces: bool = False
    seed: int = 0


class Tokens:
    """A checkpoint's tokenizer and what its config.json says of lengths and ids."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            from transformers import AutoTokenizer
        except ImportError:
            raise DataError("texts need transformers: pip install transformers") from None
        if not folder.is_dir():
            raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; a checkpoint's folder with its tokenizer is wanted")
        try:
            self.own: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise DataError(f"{folder}: its tokenizer can't be read: {' '.join(str(error).split())[:200]}") from None
        self.folder = folder
        try:
            self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        except FileNotFoundError:
            self.config = {}
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / 'config.json'}: {error}") from None
        self.texts: dict[str, Any] = {**self.config, **self.config.get("text_config", {})}
        self.notes: list[str] = []
        self.pad = self._pad()
        self.before, self.after = self._around()

    def _pad(self) -> int:
        for name, token in (("pad", self.own.pad_token_id), ("eos", self.own.eos_token_id)):
            if token is not None:
                if name == "eos":
                    self.notes.append("the tokenizer has no padding token: its end of text is used, masked in attention and target")
                return int(token)
        self.notes.append("the tokenizer has neither a padding nor an end token: id 0 pads, masked in attention and target")
        return 0

    def _around(self) -> tuple[list[int], list[int]]:
        """The special tokens that a text is put between."""
        inner = list(self.own("a", add_special_tokens=False)["input_ids"])
        outer = list(self.own("a")["input_ids"])
        for start in range(len(outer) - len(inner) + 1):
            if outer[start:start + len(inner)] == inner:
                return outer[:start], outer[start + len(inner):]
        return [], []

    def check(self, options: Options) -> None:
        """Refuses what the model could not take.

        :raises DataError: more positions or other ids than the model has
        """
        # RoBERTa's positions begin behind the padding token's
        used = (self.own.pad_token_id or 0) + 1 if self.texts.get("model_type") in ("roberta", "xlm-roberta", "camembert", "longformer", "mpnet") else 0
        for name in ("max_position_embeddings", "n_positions"):
            positions = self.texts.get(name)
            if isinstance(positions, int) and 0 < positions < max(options.seq, options.target_seq) + used:
                padding = f", {used} of them for padding" if used else ""
                raise DataError(f"{self.folder}: the model has {positions:,} positions{padding}, fewer than --seq {max(options.seq, options.target_seq):,}")
        if options.form == "masked-lm" and self.own.mask_token_id is None:
            raise DataError(f"{self.folder}: the tokenizer has no mask token, which masked-lm needs")
        if options.form == "token-classification" and not self.own.is_fast:
            raise DataError(f"{self.folder}: token-classification needs a fast tokenizer (tokenizer.json)")
        if len(self.before) + len(self.after) >= options.seq:
            raise DataError(f"--seq {options.seq} leaves no room beside the {len(self.before) + len(self.after)} special tokens")

    def check_ids(self, ids: Array) -> Array:
        vocabulary = self.texts.get("vocab_size")
        if isinstance(vocabulary, int) and ids.size and int(ids.max()) >= vocabulary:
            raise DataError(f"{self.folder}: the tokenizer gives id {int(ids.max()):,}, but the model's vocabulary has {vocabulary:,}: they don't belong together")
        return ids

    def sha256(self) -> str:
        """Of the files that make the tokenizer."""
        digest = hashlib.sha256()
        for name in ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json"):
            path = self.folder / name
            if path.is_file():
                digest.update(f"{name}\n".encode() + path.read_bytes())
        return digest.hexdigest()


class Counts:
    """What was left out or cut."""

    def __init__(self) -> None:
        self.blank = self.tokenised = self.cut = self.without = self.tokens_left = 0

    def notes(self) -> list[str]:
        return [text for count, text in (
            (self.blank, f"{self.blank:,} texts that are missing or blank were left out"),
            (self.cut, f"{self.cut:,} of {self.tokenised:,} texts that were tokenised had to be cut"),
            (self.without, f"of {self.without:,} of them nothing but prompt is left, which adds nothing to the loss"),
            (self.tokens_left, f"the last {self.tokens_left:,} tokens fill no row and were left out")) if count]


def _texts(paths: Sequence[Path], options: Options, columns: Sequence[str], counts: Counts) -> Iterator[tuple[str, Record]]:
    """Records whose texts are there and not blank."""
    for where, record in records(paths, columns, options.split):
        blank = False
        for column in columns:
            if column == options.label and options.form in ("classification", "token-classification"):
                continue
            value = record[column]
            if value is None:
                blank = True
                continue
            if options.form == "token-classification":
                if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
                    raise DataError(f"{where}: {column!r} is no list of words")
            elif not isinstance(value, str):
                raise DataError(f"{where}: {column!r} is a {type(value).__name__}, no text")
            blank = blank or not (value if isinstance(value, list) else value.strip())
        if blank:
            counts.blank += 1
            continue
        yield where, record


def _pieces(items: Iterator[tuple[str, Record]]) -> Iterator[list[tuple[str, Record]]]:
    piece: list[tuple[str, Record]] = []
    for item in items:
        piece.append(item)
        if len(piece) == _TEXTS:
            yield piece
            piece = []
    if piece:
        yield piece


def _masked(tokens: Tokens, options: Options, ids: Array, real: Array, first: Sequence[int]) -> tuple[Array, Array]:
    """Inputs and targets of masked language modelling, as Devlin et al. (2019) have it: of the tokens that are chosen 80 % are
    masked, 10 % another token, 10 % as they are. `first`: each row's number."""
    special = np.isin(ids, np.array(tokens.own.all_special_ids, np.int64)) | ~real
    inputs, target = ids.copy(), np.full_like(ids, IGNORED)
    size = min(len(tokens.own), int(tokens.texts.get("vocab_size") or len(tokens.own)))
    for i, number in enumerate(first):
        rng = np.random.Generator(np.random.Philox(key=options.seed % 2**64, counter=[0, 0, number, 0]))
        draw, fate, other = rng.random(ids.shape[1]), rng.random(ids.shape[1]), rng.integers(0, size, ids.shape[1])
        chosen = (draw < options.mask_share) & ~special[i]
        target[i, chosen] = ids[i, chosen]
        inputs[i, chosen & (fate < 0.8)] = tokens.own.mask_token_id
        replaced = chosen & (fate >= 0.8) & (fate < 0.9)
        inputs[i, replaced] = other[replaced]
    return inputs, target


def _language_model(tokens: Tokens, options: Options, ids: Array, real: Array, numbers: Sequence[int], types: Array | None = None) -> Batch:
    tokens.check_ids(ids)
    if options.form == "masked-lm":
        inputs, target = _masked(tokens, options, ids, real, numbers)
    else:
        inputs, target = ids, np.where(real, ids, IGNORED)
    batch = {"input_ids": inputs, "attention_mask": real.astype(np.int64)}
    if types is not None:
        batch["token_type_ids"] = types
    return {**batch, "target": target}


def _packed(tokens: Tokens, options: Options, paths: Sequence[Path], counts: Counts) -> Iterator[Batch]:
    """Rows of one stream of tokens, cut every `seq`; of masked-lm each between the special tokens."""
    masked = options.form == "masked-lm"
    before, after = (tokens.before, tokens.after) if masked else ([], [])
    inner = options.seq - len(before) - len(after)
    end = tokens.own.eos_token_id if options.eos and not masked else None
    types = np.zeros(options.seq, np.int64) if "token_type_ids" in tokens.own.model_input_names else None
    waiting = np.empty(0, np.int64)
    row = 0
    for piece in _pieces(_texts(paths, options, [options.text], counts)):
        stream = [waiting]
        for ids in tokens.own([record[options.text] for _, record in piece], add_special_tokens=not masked, return_attention_mask=False, verbose=False)["input_ids"]:
            stream.append(np.asarray(ids, np.int64))
            if end is not None and (not ids or ids[-1] != end):
                stream.append(np.array([end], np.int64))
        waiting = np.concatenate(stream)
        count = len(waiting) // inner
        if count:
            rows = waiting[:count * inner].reshape(count, inner)
            rows = np.concatenate([np.tile(np.array(before, np.int64), (count, 1)), rows, np.tile(np.array(after, np.int64), (count, 1))], axis=1)
            yield _language_model(tokens, options, rows, np.ones_like(rows, bool), range(row, row + count), None if types is None else np.tile(types, (count, 1)))
            row += count
            waiting = waiting[count * inner:]
    counts.tokens_left = len(waiting)


def _pad_to(rows: Sequence[Sequence[int]], seq: int, value: int) -> Array:
    padded = np.full((len(rows), seq), value, np.int64)
    for i, ids in enumerate(rows):
        padded[i, :len(ids)] = ids
    return padded


class _Padded:
    """One row a text; each form has its method, of records and their numbers."""

    def __init__(self, tokens: Tokens, options: Options, counts: Counts) -> None:
        self._tokens, self._options, self._counts = tokens, options, counts
        self._make = {"causal-lm": self._model, "masked-lm": self._model, "seq2seq": self._translation, "classification": self._classes,
                      "token-classification": self._words}[options.form]
        self._label_ids = _label_ids(tokens.config)
        self.columns = {"causal-lm": [options.text, *([options.prompt] if options.prompt else [])], "masked-lm": [options.text], "seq2seq": [options.text, options.target],
                        "classification": [options.text, *([options.pair] if options.pair else []), options.label],
                        "token-classification": [options.text, options.label]}[options.form]

    def batches(self, paths: Sequence[Path]) -> Iterator[Lazy]:
        first = 0
        for piece in _pieces(_texts(paths, self._options, self.columns, self._counts)):
            yield self._lazy(piece, first)
            first += len(piece)

    def _lazy(self, piece: list[tuple[str, Record]], first: int) -> Lazy:
        return Lazy(len(piece), lambda rows: self._make([piece[i] for i in rows], [first + int(i) for i in rows]))

    def _encode(self, texts: Sequence[Any], seq: int, pairs: Sequence[str] | None = None, **how: Any) -> Any:
        encoded = self._tokens.own(list(texts), pairs, truncation=False, verbose=False, **how)
        self._counts.tokenised += len(texts)
        if any(len(ids) > seq for ids in encoded["input_ids"]):
            self._counts.cut += sum(len(ids) > seq for ids in encoded["input_ids"])
            encoded = self._tokens.own(list(texts), pairs, truncation=True, max_length=seq, verbose=False, **how)
        return encoded

    def _arrays(self, encoded: Any, seq: int) -> tuple[Array, Array, Array | None]:
        ids = encoded["input_ids"]
        types = encoded.get("token_type_ids") if "token_type_ids" in self._tokens.own.model_input_names else None
        return (self._tokens.check_ids(_pad_to(ids, seq, self._tokens.pad)), _pad_to([[1] * len(i) for i in ids], seq, 0),
                None if types is None else _pad_to(types, seq, 0))

    def _inputs(self, encoded: Any) -> Batch:
        ids, mask, types = self._arrays(encoded, self._options.seq)
        batch = {"input_ids": ids, "attention_mask": mask}
        return batch if types is None else {**batch, "token_type_ids": types}

    def _model(self, piece: list[tuple[str, Record]], numbers: list[int]) -> Batch:
        options, own = self._options, self._tokens.own
        end = own.eos_token_id if options.eos and options.form == "causal-lm" else None
        texts = [record[options.text] for _, record in piece]
        rows: list[list[int]]
        if options.prompt:
            prompts, rows = self._prompted([record[options.prompt] for _, record in piece], texts)
        else:
            prompts, rows = [0] * len(piece), self._encode(texts, options.seq)["input_ids"]
        if end is not None:
            for row in rows:
                if len(row) < options.seq and row[-1:] != [end]:
                    row.append(end)
        ids, mask, _ = self._arrays({"input_ids": rows}, options.seq)
        types = np.zeros_like(ids) if "token_type_ids" in own.model_input_names else None
        batch = _language_model(self._tokens, options, ids, mask.astype(bool), numbers, types)
        batch["target"][np.arange(options.seq) < np.array(prompts)[:, None]] = IGNORED
        return batch

    def _prompted(self, prompts: list[str], texts: list[str]) -> tuple[list[int], list[list[int]]]:
        """Of each row the length of its prompt, and its ids: the prompt's with the tokens that go before a text, and the text's."""
        before = self._tokens.before
        own, seq = self._tokens.own, self._options.seq
        heads = [[*before, *ids] for ids in own(prompts, add_special_tokens=False, verbose=False)["input_ids"]]
        rows = [[*head, *ids] for head, ids in zip(heads, own(texts, add_special_tokens=False, verbose=False)["input_ids"], strict=True)]
        self._counts.tokenised += len(rows)
        self._counts.cut += sum(len(row) > seq for row in rows)
        self._counts.without += sum(len(head) >= seq for head in heads)
        return [len(head) for head in heads], [row[:seq] for row in rows]

    def _translation(self, piece: list[tuple[str, Record]], _: list[int]) -> Batch:
        options, own = self._options, self._tokens.own
        start = self._tokens.config.get("decoder_start_token_id", own.pad_token_id)
        if start is None:
            raise DataError(f"{self._tokens.folder}: config.json says no decoder_start_token_id, which seq2seq needs")
        seq = options.target_seq or options.seq
        batch = self._inputs(self._encode([record[options.text] for _, record in piece], options.seq))
        goals = self._targets(piece, seq)
        labels = _pad_to(goals, seq, IGNORED)
        shifted = np.concatenate([np.full((len(labels), 1), start, np.int64), labels[:, :-1]], axis=1)
        return {**batch, "decoder_input_ids": np.where(shifted == IGNORED, self._tokens.pad, shifted),
                "decoder_attention_mask": _pad_to([[1] * len(g) for g in goals], seq, 0), "target": labels}

    def _targets(self, piece: list[tuple[str, Record]], seq: int) -> list[list[int]]:
        texts = [record[self._options.target] for _, record in piece]
        ids: list[list[int]] = self._tokens.own(text_target=texts, truncation=False, verbose=False)["input_ids"]
        self._counts.tokenised += len(texts)
        if any(len(i) > seq for i in ids):
            self._counts.cut += sum(len(i) > seq for i in ids)
            ids = self._tokens.own(text_target=texts, truncation=True, max_length=seq, verbose=False)["input_ids"]
        for i in ids:
            self._tokens.check_ids(np.asarray(i))
        return ids

    def _classes(self, piece: list[tuple[str, Record]], _: list[int]) -> Batch:
        options = self._options
        pairs = [record[options.pair] for _, record in piece] if options.pair else None
        batch = self._inputs(self._encode([record[options.text] for _, record in piece], options.seq, pairs))
        values = [self._label(where, record[options.label]) for where, record in piece]
        return {**batch, "target": np.array(values, np.float32)[:, None] if options.regression else np.array(values, np.int64)}

    def _label(self, where: str, value: Any) -> float | int:
        if self._options.regression:
            try:
                return float(value)
            except (TypeError, ValueError):
                raise DataError(f"{where}: label {value!r} is no number") from None
        count = int(self._tokens.config.get("num_labels") or len(self._tokens.config.get("id2label") or ()) or 0)
        if isinstance(value, str):
            if value in self._label_ids:
                return self._label_ids[value]
            try:
                value = int(value)
            except ValueError:
                known = ", ".join(list(self._label_ids)[:6]) or "none"
                raise DataError(f"{where}: label {value!r} is no class of config.json's label2id ({known})") from None
        if isinstance(value, bool) or not isinstance(value, int):
            if not (isinstance(value, (bool, float)) and float(value).is_integer()):
                raise DataError(f"{where}: label {value!r} is no class: a name of label2id or an integer is wanted")
            value = int(value)
        if value < 0 or (count and value >= count):
            raise DataError(f"{where}: label {value} is not one of the model's {count} classes" if count else f"{where}: label {value} is negative")
        return int(value)

    def _words(self, piece: list[tuple[str, Record]], _: list[int]) -> Batch:
        options = self._options
        encoded = self._encode([record[options.text] for _, record in piece], options.seq, is_split_into_words=True)
        target = np.full((len(piece), options.seq), IGNORED, np.int64)
        for i, (where, record) in enumerate(piece):
            words, labels = record[options.text], record[options.label]
            if not isinstance(labels, list) or len(labels) != len(words):
                raise DataError(f"{where}: {len(words)} words, but {len(labels) if isinstance(labels, list) else 'no list of'} labels")
            before = None
            for at, word in enumerate(encoded.word_ids(i)):
                if word is not None and (options.all_pieces or word != before) and labels[word] != IGNORED:
                    target[i, at] = self._label(where, labels[word])
                before = word
        return {**self._inputs(encoded), "target": target}


def _label_ids(config: dict[str, Any]) -> dict[str, int]:
    found = config.get("label2id") or {name: number for number, name in (config.get("id2label") or {}).items()}
    return {str(name): int(number) for name, number in found.items()}


def write_text(path: str | os.PathLike[str], folder: str | os.PathLike[str], files: Sequence[str | os.PathLike[str]], options: Options | None = None, *,
               rows: int | None = None, first: bool = False, compression: str | None = None) -> DataFile:
    """Rows of token ids for a checkpoint of Hugging Face.

    :param folder: the checkpoint, for its tokenizer and config.json
    :param files: txt, jsonl, csv, tsv (also .gz) or parquet
    :param rows: how many; a random sample by the options' seed, or with `first` those that come first
    :raises DataError: what can't be read or does not fit the model
    """
    options = options or Options()
    if options.form not in FORMS:
        raise DataError(f"no form {options.form!r}; there are {', '.join(FORMS)}")
    if options.seq < 2:
        raise DataError(f"--seq {options.seq}: at least 2 tokens are needed")
    if options.prompt and (options.form != "causal-lm" or not options.padded):
        raise DataError("--prompt belongs to causal-lm with --padded")
    if options.pair and options.form != "classification":
        raise DataError("--pair belongs to classification")
    if not 0 < options.mask_share <= 1:
        raise DataError(f"--mask-share {options.mask_share:g} is not above 0 and at most 1")
    tokens, counts = Tokens(Path(folder)), Counts()
    tokens.check(options)
    paths = [Path(f) for f in files]
    packed = options.form in ("causal-lm", "masked-lm") and not options.padded
    batches: Iterator[Any] = _packed(tokens, options, paths, counts) if packed else _Padded(tokens, options, counts).batches(paths)
    loss = "mse" if options.regression and options.form == "classification" else LOSSES[options.form]

    def notes() -> list[str]:
        found = counts.notes()
        if packed:
            found.append("rows are packed: attention goes over the ends of texts")
        if options.pair and "token_type_ids" in tokens.own.model_input_names:
            found.append("the second texts have tokens of type 1: export the model with token_type_ids among its inputs")
        return [*(tokens.notes if not packed else []), *found]

    return write_data(path, batches, targets="target", rows=rows, seed=None if first or rows is None else options.seed, source=[str(p) for p in paths], compression=compression,
                      attributes={"loss": loss, "checkpoint": str(folder), "tokenizer_sha256": tokens.sha256(), "options": dataclasses.asdict(options)},
                      notes=notes, warn=False)


def add_parser(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser("text", help="texts, with a checkpoint's tokenizer", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a Hugging Face checkpoint: its tokenizer and config.json are read")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=KINDS)
    parser.add_argument("--form", choices=FORMS, default="causal-lm", help="what a row is (default: causal-lm)")
    parser.add_argument("--seq", type=int, default=512, help="tokens in a row (default: 512)")
    parser.add_argument("--padded", action="store_true", help="one row a text, padded or cut, for causal-lm and masked-lm; default: packed, no padding")
    parser.add_argument("--text", default="text", metavar="COLUMN", help="the text (default: text); of token-classification a list of words")
    parser.add_argument("--pair", metavar="COLUMN", help="a second text of classification")
    parser.add_argument("--prompt", metavar="COLUMN", help="what stands before the text, for causal-lm with --padded: no target")
    parser.add_argument("--label", default="label", metavar="COLUMN", help="the class, a name or number; of token-classification a list (default: label)")
    parser.add_argument("--target", default="target", metavar="COLUMN", help="the text that seq2seq is to write (default: target)")
    parser.add_argument("--target-seq", type=int, default=0, metavar="N", help="its tokens (default: --seq)")
    parser.add_argument("--split", choices=SPLITS, default="line", help="what a text is in a txt file (default: line)")
    parser.add_argument("--no-eos", dest="eos", action="store_false", help="no end token behind each text of causal-lm")
    parser.add_argument("--mask-share", type=float, default=0.15, metavar="P", help="share of tokens that masked-lm chooses (default: 0.15)")
    parser.add_argument("--regression", action="store_true", help="classification's label is a number, for --loss mse")
    parser.add_argument("--all-pieces", action="store_true", help="token-classification: a word's label at all its tokens, not the first alone")
    parser.set_defaults(run=lambda args: write_text(
        args.output, args.folder, args.files, Options(**{f.name: getattr(args, f.name) for f in dataclasses.fields(Options)}),
        rows=args.rows, first=args.first, compression=args.compression))
