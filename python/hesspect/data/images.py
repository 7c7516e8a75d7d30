"""Folders of images, one for each class, to rows: resized, cropped and normalised as the model was trained.

Only the images that a sample draws are read. Classes are numbered in the order of their folders' names, or of a file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hesspect.data.preprocess import INTERPOLATIONS, PRESETS, Preprocessing, read_preprocessing
from hesspect.data.sources import Array, DataError, Whole
from hesspect.data.writer import DataFile, atomic, write_data

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
_PIECE = 32


def _pillow() -> Any:
    try:
        import PIL.Image
    except ImportError:
        raise DataError("images need Pillow: pip install pillow") from None
    return PIL.Image


def list_images(folder: Path, classes: Sequence[str] | None = None) -> tuple[list[Path], Array, list[str]]:
    """Files, the class of each, and the classes' names.

    :raises DataError: no such folder, or no images
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not found:
        raise DataError(f"{folder}: has no folders; one for each class is wanted")
    names = list(classes) if classes is not None else found
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DataError(f"{folder}: folder {unknown[0]!r} is not one of the {len(names)} classes")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        own = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not own and classes is None:
            raise DataError(f"{folder / name}: has no images ({', '.join(SUFFIXES)})")
        files += own
        labels += [label] * len(own)
    if not files:
        raise DataError(f"{folder}: has no images ({', '.join(SUFFIXES)})")
    return files, np.array(labels, np.int64), names


def _read(path: Path, how: Preprocessing, size: dict[str, Any]) -> Array:
    image_of = _pillow()
    try:
        with image_of.open(path) as image:
            pixels = how(image)
    except (OSError, SyntaxError, ValueError, image_of.DecompressionBombError) as error:
        raise DataError(f"{path}: not an image, or a broken one ({str(error).splitlines()[0]})") from None
    first = size.setdefault("shape", (pixels.shape, path))
    if pixels.shape != first[0]:
        raise DataError(f"{path}: is {pixels.shape[1]} × {pixels.shape[2]} pixels, {first[1]} is {first[0][1]} × {first[0][2]}: give a size to resize or crop to")
    return pixels


def write_images(path: str | os.PathLike[str], folder: str | os.PathLike[str], how: Preprocessing = PRESETS["imagenet"], *, classes: Sequence[str] | None = None,
                 input: str = "x", rows: int | None = None, seed: int = 0, first: bool = False, workers: int = 0, compression: str | None = None) -> DataFile:
    """Rows of a folder of images, [rows, channels, height, width] float32, and their classes.

    :param folder: has a folder for each class
    :param how: what is done to each image; `hesspect.data.preprocess` has presets and reads files
    :param classes: their names in order, else the folders' in alphabetical order
    :param rows: how many; a random sample by `seed`, or with `first` those that come first
    :raises DataError: what is no image, or has another size than the first
    """
    path = Path(path)
    files, labels, names = list_images(Path(folder), classes)
    size: dict[str, Any] = {}
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        def cut(part: Any) -> dict[str, Any]:
            numbers = range(part.start, part.stop) if isinstance(part, slice) else [int(i) for i in part]
            images = list(pool.map(lambda i: _read(files[i], how, size), numbers))
            return {input: np.stack(images), "target": labels[list(numbers)]}

        if rows is not None and rows < len(files) and not first:
            _read(files[0], how, size)  # sizes are compared with that of the first file, whatever is drawn
        written = write_data(path, Whole(len(files), cut, _PIECE), targets="target", rows=rows, seed=None if first or rows is None else seed, source=str(folder),
                             compression=compression, attributes={"loss": "cross_entropy", "preprocessing": dataclasses.asdict(how), "classes": len(names)}, warn=False)
    with atomic(path.with_suffix(".classes.json")) as part:
        counts = np.bincount(labels, minlength=len(names)).tolist()
        part.write_text(json.dumps([{"class": i, "name": n, "images": c} for i, (n, c) in enumerate(zip(names, counts, strict=True))], indent=1, ensure_ascii=False) + "\n",
                        encoding="utf-8")
    return written


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _size(text: str) -> tuple[int, int] | int:
    parts = [int(part) for part in text.lower().split("x")]
    if len(parts) not in (1, 2) or min(parts) < 1:
        raise ValueError
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def _how(args: argparse.Namespace) -> tuple[Preprocessing, bool]:
    how, hugging_face = read_preprocessing(args.config) if args.config else (PRESETS[args.preset or "imagenet"], False)
    changes: dict[str, Any] = {key: getattr(args, key) for key in ("resize", "interpolation", "mean", "std", "mode") if getattr(args, key) is not None}
    if args.crop is not None:
        changes["crop"] = args.crop if isinstance(args.crop, tuple) else (args.crop, args.crop)
    how = dataclasses.replace(how, **changes)
    channels = 1 if how.mode == "L" else 3
    if len(how.mean) not in (0, channels) or len(how.mean) != len(how.std):
        raise DataError(f"{len(how.mean)} means and {len(how.std)} deviations for {channels} channel{'s' if channels > 1 else ''}")
    if any(not s > 0 for s in how.std):
        raise DataError("a deviation is not above 0")
    return how, hugging_face


def _run(args: argparse.Namespace) -> DataFile:
    how, hugging_face = _how(args)
    classes = None
    if args.classes:
        try:
            classes = [line.strip() for line in args.classes.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{args.classes}: can't be read: {error}") from None
    return write_images(args.output, args.folder, how, classes=classes, input=args.input or ("pixel_values" if hugging_face else "x"), rows=args.rows,
                        seed=args.seed, first=args.first, workers=args.workers, compression=args.compression)


def add_parser(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser("images", help="folders of images, one for each class", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--preset", choices=PRESETS, help="resize, crop and normalisation (default: imagenet)")
    what.add_argument("--config", type=Path, metavar="PATH", help="a checkpoint's folder, its preprocessor_config.json, or timm's config.json")
    parser.add_argument("--resize", type=_size, metavar="N|HxW", help="the shorter side, or both")
    parser.add_argument("--crop", type=_size, metavar="N|HxW", help="the middle")
    parser.add_argument("--interpolation", choices=INTERPOLATIONS, help="between pixels, where an image is resized")
    parser.add_argument("--mean", type=_numbers, metavar="M,M,M", help="of pixels from 0 to 1, taken off each channel")
    parser.add_argument("--std", type=_numbers, metavar="S,S,S", help="that each channel is divided by")
    parser.add_argument("--mode", choices=("RGB", "L"), help="L: one channel, of grey")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="the classes' names in order, one a line (default: folders' names, sorted)")
    parser.add_argument("--input", metavar="NAME", help="name of the array (default: x, or pixel_values with a Hugging Face config)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="threads that read images (default: as many as cores, at most 8)")
    parser.set_defaults(run=_run)
