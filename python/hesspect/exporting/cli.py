"""Command line of the exports: python -m hesspect export KIND …

    export hf FOLDER -o model.pt2 --task causal-lm
    export torchvision resnet18 -o model.pt2
    export timm resnet18 -o model.pt2
    export lightning last.ckpt --module package.module:Class --example 3,32,32 -o model.pt2
    export peft ADAPTER --base FOLDER --task causal-lm -o model.pt2

Exit codes are the program's: 0 done; 2 usage; 4 bad input.
"""

import argparse
import importlib
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from hesspect.errors import Error, UsageError

#: as huggingface.py has them, which wants torch
_TASKS = ("causal-lm", "masked-lm", "sequence-classification", "token-classification", "image-classification", "seq2seq")


def parser() -> argparse.ArgumentParser:
    """Of the command's line."""
    whole = argparse.ArgumentParser(prog="hesspect export", description="Writes the exported program that hesspect reads.")
    kinds = whole.add_subparsers(dest="kind", required=True, metavar="KIND")

    def kind(name: str, what: str, source: str, of_source: str) -> argparse.ArgumentParser:
        made = kinds.add_parser(name, help=what, description=what)
        made.add_argument("source", metavar=source, help=of_source)
        made.add_argument("-o", "--output", type=Path, required=True, metavar="M.pt2", help="the program")
        made.add_argument("--force", action="store_true", help="write over a program that is there already")
        return made

    def of_text(made: argparse.ArgumentParser) -> None:
        made.add_argument("--task", required=True, metavar="|".join(_TASKS), help="the head, the inputs and the loss")
        made.add_argument("--seq", type=int, metavar="N", help="tokens a row [512, or as many as the model has positions for]")
        made.add_argument("--target-seq", type=int, metavar="N", help="of the decoder [as --seq]")
        made.add_argument("--inputs", type=lambda text: text.split(","), metavar="NAME,…", help="others than the task's")

    of_text(kind("hf", "a Hugging Face folder, by its configuration alone; its weights stay there, for --weights FOLDER", "FOLDER",
                 "with config.json"))
    for name, library in (("torchvision", "torchvision"), ("timm", "timm")):
        made = kind(name, f"a model of {library} by its name", "NAME", "as resnet18")
        made.add_argument("--pretrained", action="store_true", help=f"with the weights that {library} has for it")
        made.add_argument("--classes", type=int, metavar="N", help="how many the last layer has [the model's own]")
        made.add_argument("--size", type=int, metavar="N", help="pixels along both sides [the model's own]")
    made = kind("lightning", "a checkpoint of PyTorch Lightning: program and weights", "FILE.ckpt", "the checkpoint")
    made.add_argument("--module", required=True, metavar="MODULE:CLASS", help="where its class is, as package.models:Net")
    made.add_argument("--example", required=True, action="append", metavar="[NAME=]SIZES[:int]",
                      help="the size of a row of an input without the rows, as 3,32,32; again for more, by name for keyword arguments")
    made.add_argument("--model-output", metavar="NAME", help="which of the model's outputs")
    made = kind("peft", "an adapter of PEFT (LoRA) on a Hugging Face folder; weights stay there, for --weights BASE --weights ADAPTER", "ADAPTER",
                "the adapter's folder, with adapter_config.json")
    made.add_argument("--base", type=Path, metavar="FOLDER", help="the model below [what the adapter names, if it is a folder]")
    made.add_argument("--train", choices=("adapter", "all"), default="adapter", help="whose curvature [adapter: the base is constant]")
    of_text(made)
    return whole


def _class_at(place: str) -> Any:
    name, _, attribute = place.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--module {place}: {error}") from error


def _example(texts: list[str]) -> Any:
    """Made-up rows of the sizes that are given."""
    import torch

    from hesspect.exporting.call import Inputs

    args, kwargs = [], {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        sizes, _, kind = sizes.partition(":")
        try:
            shape = [3, *(int(size) for size in sizes.split(",") if size)]
        except ValueError as error:
            raise UsageError(f"--example {text}: sizes are whole numbers, as 3,32,32") from error
        if kind not in ("", "int", "float"):
            raise UsageError(f"--example {text}: behind the sizes stands :int, or nothing")
        value = torch.zeros(shape, dtype=torch.int64) if kind == "int" else torch.randn(shape, generator=torch.Generator().manual_seed(0))
        if name:
            kwargs[name] = value
        else:
            args.append(value)
    return Inputs(*args, **kwargs)


def _made(args: argparse.Namespace) -> Any:
    if args.kind == "hf":
        from hesspect.exporting.huggingface import export_hf

        return export_hf(args.source, args.output, args.task, seq=args.seq, target_seq=args.target_seq, inputs=args.inputs)
    if args.kind == "peft":
        from hesspect.exporting.peft import export_peft

        return export_peft(args.source, args.output, args.task, base=args.base, train=args.train, seq=args.seq, target_seq=args.target_seq,
                           inputs=args.inputs)
    if args.kind == "lightning":
        from hesspect.exporting.lightning import export_lightning

        return export_lightning(args.source, _class_at(args.module), _example(args.example), args.output, model_output=args.model_output)
    from hesspect.exporting.vision import export_timm, export_torchvision

    export = export_timm if args.kind == "timm" else export_torchvision
    return export(args.source, args.output, pretrained=args.pretrained, classes=args.classes, size=args.size)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    logging.getLogger("hesspect").setLevel(logging.CRITICAL)  # what it would say is printed below
    warnings.simplefilter("ignore")
    try:
        if args.output.exists() and not args.force:
            raise UsageError(f"{args.output} is there already; --force writes over it")
        print(_made(args))
    except Error as error:
        print(f"hesspect: error: {error.line}", file=sys.stderr)
        return error.code
    return 0
