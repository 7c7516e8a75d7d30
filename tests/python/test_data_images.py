"""python -m hesspect data images: pixels against torchvision's transforms and Hugging Face's processors."""

import json

import h5py
import numpy as np
import pytest

image = pytest.importorskip("PIL.Image")
from hesspect import DataError, verify_data  # noqa: E402
from hesspect.data import cli  # noqa: E402
from hesspect.data.images import list_images, write_images  # noqa: E402
from hesspect.data.preprocess import PRESETS, Preprocessing, read_preprocessing  # noqa: E402

SIZES = [(40, 52), (61, 37), (30, 30), (33, 90), (64, 65), (21, 20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i in range(18):
        height, width = SIZES[i % 6]
        rough = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        picture = image.fromarray(rough).resize((width, height), image.Resampling.BICUBIC)
        where = base / ["dog", "cat", "bird"][i % 3]
        (where / "more").mkdir(parents=True, exist_ok=True)
        picture = picture.convert(["RGB", "L", "P", "RGBA"][i % 4])
        picture.save(where / ("more" if i % 2 else "") / f"{i}.{'png' if i % 4 > 1 else 'jpeg'}")
    (base / "cat" / "notes.txt").write_text("no image")
    return base


def arrays(path):
    verify_data(path)
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}, dict(file.attrs)


@pytest.mark.parametrize("resize, crop", [(32, (28, 28)), (32, (25, 31)), ((24, 36), None), (20, (40, 23))])
def test_as_torchvision(folder, tmp_path, resize, crop):
    pytest.importorskip("torchvision")
    from torchvision import datasets, transforms

    how = Preprocessing(resize, "bilinear", crop, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    steps = [transforms.Resize(resize), *([transforms.CenterCrop(crop)] if crop else []), transforms.ToTensor(), transforms.Normalize(how.mean, how.std)]
    own = datasets.ImageFolder(folder, transforms.Compose(steps))
    expected = [own[i] for i in range(len(own))]
    data, attributes = arrays(write_images(tmp_path / "d.h5", folder, how).path)
    assert np.allclose(data["x"], np.stack([pixels for pixels, _ in expected]), atol=1e-6) and data["x"].dtype == np.float32
    assert data["target"].tolist() == [label for _, label in expected] == sorted([0, 1, 2] * 6) and attributes["loss"] == "cross_entropy"
    assert [c["name"] for c in json.loads((tmp_path / "d.classes.json").read_text())] == own.classes == ["bird", "cat", "dog"]


def test_presets(folder):
    """Those of torchvision's own weights."""
    torchvision = pytest.importorskip("torchvision")
    files = list_images(folder)[0]
    for preset, weights in (("imagenet", torchvision.models.ResNet18_Weights.IMAGENET1K_V1), ("imagenet-v2", torchvision.models.ResNet50_Weights.IMAGENET1K_V2)):
        with image.open(files[0]) as one:
            ours = PRESETS[preset](one)
            theirs = weights.transforms(antialias=True)(one.convert("RGB"))
        assert np.abs(ours - theirs.numpy()).max() < 1e-5


def test_sample_and_command(folder, tmp_path, capsys):
    whole, _ = arrays(write_images(tmp_path / "d.h5", folder, Preprocessing((16, 16))).path)
    arguments = ["images", str(folder), "--preset", "raw", "--resize", "16x16", "-o", str(tmp_path / "e.h5"), "--seed", "3", "--input", "img"]
    assert cli.main([*arguments, "--rows", "7", "--workers", "3"]) == 0 and "7 of 18 rows: img float32 [7, 3, 16, 16], target int64 [7]" in capsys.readouterr().out
    few, attributes = arrays(tmp_path / "e.h5")
    assert np.array_equal(few["img"], whole["x"][few["source_row"]]) and np.array_equal(few["target"], whole["target"][few["source_row"]])
    assert json.loads(attributes["preprocessing"])["resize"] == [16, 16] and attributes["classes"] == 3
    (tmp_path / "classes.txt").write_text("dog\nfish\ncat\nbird\n")
    assert cli.main([*arguments, "--force", "--mode", "L", "--classes", str(tmp_path / "classes.txt"), "--mean", "0.5", "--std", "0.25", "--crop", "8"]) == 0
    grey, _ = arrays(tmp_path / "e.h5")
    assert grey["img"].shape == (18, 1, 8, 8) and sorted(set(grey["target"])) == [0, 2, 3] and grey["img"].min() < -0.5
    assert "no image" not in capsys.readouterr().out


def test_hugging_face(folder, tmp_path):
    """Its processors resize tensors, here PIL does: a pixel may round the other way."""
    pytest.importorskip("torchvision")
    transformers = pytest.importorskip("transformers")
    files = list_images(folder)[0]
    for kind, keys in (("ViTImageProcessor", {"size": {"height": 24, "width": 30}, "resample": 2}),
                       ("CLIPImageProcessor", {"size": {"shortest_edge": 26}, "crop_size": {"height": 24, "width": 24}, "resample": 3}),
                       ("CLIPImageProcessor", {"do_resize": False, "crop_size": {"height": 35, "width": 47}}),
                       ("ConvNextImageProcessor", {"size": {"shortest_edge": 28}, "crop_pct": 0.875, "resample": 3})):
        processor = getattr(transformers, kind)(**keys, image_mean=[0.4, 0.5, 0.6], image_std=[0.5, 0.4, 0.3])
        processor.save_pretrained(tmp_path)
        how, hugging_face = read_preprocessing(tmp_path)
        assert hugging_face
        for path in files[:6]:
            with image.open(path) as one:
                one = one.convert("RGB")
                theirs = np.asarray(processor(one, return_tensors="np")["pixel_values"][0])
                ours = how(one)
            assert ours.shape == theirs.shape and np.abs(ours - theirs).max() < 2.1 / 255 / 0.3, kind


def test_timm(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {
        "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center", "mean": [0.5] * 3, "std": [0.25] * 3}}))
    assert read_preprocessing(tmp_path) == (Preprocessing(235, "bicubic", (224, 224), mean=(0.5,) * 3, std=(0.25,) * 3), False)


def test_refused(folder, tmp_path, capsys):
    (tmp_path / "flat").mkdir()
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "b.png").write_text("no")
    (tmp_path / "deep" / "a").mkdir(parents=True)
    image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep" / "a" / "b.png")
    (tmp_path / "pad.json").write_text(json.dumps({"do_resize": False, "do_pad": True}))
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "size.json").write_text(json.dumps({"do_resize": True, "size": {"longest_edge": 3}, "image_mean": [0], "image_std": [1]}))
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    for arguments, line in (([tmp_path / "none"], "none: no such folder"), ([tmp_path / "flat"], "flat: has no folders"), ([tmp_path / "empty"], "has no images (.jpg"),
                            ([tmp_path / "broken"], "b.png: not an image, or a broken one"), ([folder, "--preset", "raw"], "pixels, "),
                            ([tmp_path / "deep"], "more than 8 bits each"),
                            ([folder, "--config", tmp_path / "pad.json"], "do_pad is on, which is not done here"), ([folder, "--config", tmp_path / "other.json"], "neither a preprocessor"),
                            ([folder, "--config", tmp_path / "size.json"], "a size of {'longest_edge': 3} is not known here"), ([folder, "--config", tmp_path / "no.json"], "no such file"),
                            ([folder, "--classes", tmp_path / "classes.txt"], "folder 'bird' is not one of the 2 classes"), ([folder, "--mode", "L"], "3 means and 3 deviations for 1 channel"),
                            ([folder, "--rows", "19"], "there are 18 rows, fewer than the 19 asked for")):
        assert cli.main(["images", *map(str, arguments), "-o", str(tmp_path / "d.h5")]) == 4, arguments
        said = capsys.readouterr().err
        assert line in said and said.count("\n") == 1, (line, said)
    assert not (tmp_path / "d.h5").exists()
    with pytest.raises(DataError, match="give a size to resize or crop to"):
        write_images(tmp_path / "d.h5", folder, PRESETS["raw"], rows=5)
