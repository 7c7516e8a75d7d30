"""What is done to an image before a model sees it: resized, cropped, scaled, normalised; as torchvision, Hugging Face and timm have it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from hesspect.data.sources import Array, DataError

INTERPOLATIONS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}  # numbers as in PIL
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """In this order; sizes are (height, width), or one number for the shorter side."""

    resize: tuple[int, int] | int | None = None
    interpolation: str = "bilinear"
    crop: tuple[int, int] | None = None
    floor_crop: bool = False  #: where an odd number of pixels is left, the crop begins above the middle; else at the nearest even one
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    mode: str = "RGB"

    def __call__(self, image: Any) -> Array:
        """A PIL image as [channels, height, width] float32."""
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"pixels of mode {image.mode}, more than 8 bits each, which Pillow would cut off: write them with hesspect.write_data")
        image = image.convert(self.mode)
        if self.resize is not None:
            height, width = self._resized(image.height, image.width)
            if (height, width) != (image.height, image.width):
                image = image.resize((width, height), INTERPOLATIONS[self.interpolation])
        pixels = np.asarray(image, np.float32)
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if self.crop is not None:
            pixels = self._cropped(pixels)
        pixels = pixels * np.float32(self.scale)
        if self.mean:
            pixels = (pixels - np.array(self.mean, np.float32)[:, None, None]) / np.array(self.std, np.float32)[:, None, None]
        return np.ascontiguousarray(pixels, np.float32)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.resize, tuple):
            return self.resize
        assert self.resize is not None
        if height <= width:
            return self.resize, int(self.resize * width / height)
        return int(self.resize * height / width), self.resize

    def _cropped(self, pixels: Array) -> Array:
        """The middle; black around it where the image is smaller."""
        assert self.crop is not None
        height, width = self.crop
        missing = max(0, height - pixels.shape[1]), max(0, width - pixels.shape[2])
        if any(missing):
            pixels = np.pad(pixels, ((0, 0), (missing[0] // 2, (missing[0] + 1) // 2), (missing[1] // 2, (missing[1] + 1) // 2)))
        top, left = (self._start(all_ - part) for all_, part in ((pixels.shape[1], height), (pixels.shape[2], width)))
        return pixels[:, top:top + height, left:left + width]

    def _start(self, left_over: int) -> int:
        return left_over // 2 if self.floor_crop else round(left_over / 2)


PRESETS = {
    "imagenet": Preprocessing(256, "bilinear", (224, 224), mean=_MEAN, std=_STD),
    "imagenet-v2": Preprocessing(232, "bilinear", (224, 224), mean=_MEAN, std=_STD),
    "clip": Preprocessing(224, "bicubic", (224, 224), mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
    "cifar10": Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "mnist": Preprocessing(mean=(0.1307,), std=(0.3081,), mode="L"),
    "raw": Preprocessing(),
}

#: keys of a Hugging Face processor that change pixels and are not done here: refused where they are on
_UNKNOWN = ("do_pad", "do_reduce_labels", "do_rescale_offset", "rescale_offset", "do_thumbnail", "do_align_long_axis", "do_flip_channel_order", "do_crop_margin",
            "do_color_quantize", "do_split_image", "do_image_splitting", "include_top", "do_grayscale")
#: keys that are done, or change nothing of an image's pixels
_DONE = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_convert_rgb",
         "crop_pct", "image_processor_type", "feature_extractor_type", "processor_class")


def _pair(where: str, value: Any) -> tuple[int, int] | int:
    if isinstance(value, dict) and {"height", "width"} <= set(value):
        return int(value["height"]), int(value["width"])
    if isinstance(value, dict) and set(value) == {"shortest_edge"}:
        return int(value["shortest_edge"])
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return int(value[0]), int(value[1])
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise DataError(f"{where}: a size of {value!r} is not known here")


def _square(size: tuple[int, int] | int) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _interpolation(where: str, value: Any) -> str:
    found = next((name for name, number in INTERPOLATIONS.items() if value in (name, number)), None)
    if found is None:
        raise DataError(f"{where}: interpolation {value!r} is not known here; there are {', '.join(INTERPOLATIONS)}")
    return found


def _hugging_face(where: str, config: dict[str, Any]) -> Preprocessing:
    for key in _UNKNOWN:
        if config.get(key):
            raise DataError(f"{where}: {key} is on, which is not done here: write the processor's output with hesspect.write_data")
    for key, value in config.items():
        if key.startswith("do_") and value and key not in _DONE:
            raise DataError(f"{where}: {key} is not known here: write the processor's output with hesspect.write_data")
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    size = _pair(where, config["size"]) if "size" in config else None
    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    if config.get("do_resize", True):
        if size is None:
            raise DataError(f"{where}: says no size")
        resize = size
        if kind.startswith("ConvNext") or "crop_pct" in config:
            share, edge = float(config.get("crop_pct") or 224 / 256), _square(size)[0]
            resize, crop = (int(edge / share), (edge, edge)) if edge < 384 else ((edge, edge), None)
        elif isinstance(config["size"], int) and kind.startswith(("ViT", "Deit", "Beit")):
            resize = _square(size)  # old files say one number where both sides are meant
    if config.get("do_center_crop", False):
        crop = _square(_pair(where, config["crop_size"]))
    normalise = config.get("do_normalize", True)
    if normalise and not ("image_mean" in config and "image_std" in config):
        raise DataError(f"{where}: normalises, but says no image_mean and image_std")
    return Preprocessing(resize, _interpolation(where, config.get("resample", 2)), crop, True,
                         float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
                         tuple(map(float, config["image_mean"])) if normalise else (), tuple(map(float, config["image_std"])) if normalise else ())


def _timm(where: str, config: dict[str, Any]) -> Preprocessing:
    config = {**config, **config.get("pretrained_cfg", {})}
    channels, height, width = (int(v) for v in config.get("test_input_size", config["input_size"]))
    share, mode = float(config.get("test_crop_pct", config.get("crop_pct", 0.875))), config.get("crop_mode", "center")
    if channels not in (1, 3):
        raise DataError(f"{where}: {channels} channels; an image has 1 or 3")
    scaled = (math.floor(height / share), math.floor(width / share))
    if mode == "center":
        resize: tuple[int, int] | int = scaled[0] if height == width else scaled
    elif mode == "squash":
        resize = scaled
    else:
        raise DataError(f"{where}: crop_mode {mode!r} is not known here; there are center and squash")
    return Preprocessing(resize, _interpolation(where, config.get("interpolation", "bicubic")), (height, width), mean=tuple(map(float, config["mean"])),
                         std=tuple(map(float, config["std"])), mode="L" if channels == 1 else "RGB")


def read_preprocessing(path: Path) -> tuple[Preprocessing, bool]:
    """What a preprocessor_config.json of Hugging Face or a config.json of timm says (or a folder with one), and whether it is the former.

    :raises DataError: no such file, or a step that is not done here
    """
    if path.is_dir():
        names = [n for n in ("preprocessor_config.json", "config.json") if (path / n).is_file()]
        if not names:
            raise DataError(f"{path}: has neither preprocessor_config.json nor config.json")
        path = path / names[0]
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    try:
        if isinstance(config, dict) and ("pretrained_cfg" in config or "input_size" in config):
            return _timm(str(path), config), False
        if isinstance(config, dict) and any(key in config for key in ("image_mean", "do_normalize", "do_resize", "image_processor_type")):
            return _hugging_face(str(path), config), True
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: can't be read: {type(error).__name__} {error}") from None
    raise DataError(f"{path}: neither a preprocessor_config.json of Hugging Face nor a config.json of timm")
