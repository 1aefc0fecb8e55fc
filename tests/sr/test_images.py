from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.image_files import read_header
from quantnas_ext.sr.data.images import list_images, read_image, read_picture, tensor_to_image, write_png


def test_every_kind_of_image_becomes_8_bit_rgb(photographs: dict[str, np.ndarray], tmp_path: Path) -> None:
    rgb = photographs["coffee"]
    grey = rgb[..., 1]
    kinds = {
        "rgb.png": (Image.fromarray(rgb), rgb),
        "rgb.bmp": (Image.fromarray(rgb), rgb),
        "rgb.tif": (Image.fromarray(rgb), rgb),
        "rgba.png": (Image.fromarray(np.dstack([rgb, grey])), rgb),
        "grey.png": (Image.fromarray(grey), np.dstack([grey] * 3)),
        "grey_alpha.png": (Image.fromarray(np.dstack([grey, grey])), np.dstack([grey] * 3)),
        "grey16.png": (Image.fromarray((grey * 257.0 + 100).clip(0, 65535).astype(np.uint16)), np.dstack([grey] * 3)),
    }
    for name, (image, expected) in kinds.items():
        image.save(tmp_path / name)
        picture = read_picture(tmp_path / name)
        assert picture.rgb.dtype == np.uint8 and np.array_equal(picture.rgb, expected), name
        assert picture.grey == name.startswith("grey")
        assert (picture.alpha is not None) == (name in ("rgba.png", "grey_alpha.png"))
        if picture.alpha is not None:
            assert np.array_equal(picture.alpha, grey)
    Image.fromarray(rgb).save(tmp_path / "photo.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "photo.jpg").astype(int) - rgb).mean() < 4


def test_a_turned_photograph_is_read_upright(photographs: dict[str, np.ndarray], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise
    Image.fromarray(photographs["coffee"]).save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(photographs["coffee"], -1)
    assert np.array_equal(read_image(tmp_path / "turned.png"), upright)
    header = read_header(tmp_path / "turned.png")
    assert (header.width, header.height) == (upright.shape[1], upright.shape[0])


def test_unusable_images_are_named(photographs: dict[str, np.ndarray], tmp_path: Path) -> None:
    write_png(tmp_path / "cut.png", photographs["coffee"])
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    Image.fromarray(np.ones((20, 20), np.float32)).save(tmp_path / "float.tif")
    for name in ("cut.png", "text.jpg"):
        with pytest.raises(InputError, match=f"{name}' cannot be read"):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match="float.tif' has 32-bit pixels"):
        read_image(tmp_path / "float.tif")
    with pytest.raises(InputError, match="absent.png' does not exist"):
        read_image(tmp_path / "absent.png")


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    for folder, reason in ((".", "holds no images"), ("absent", "does not exist"), ("notes.txt", "is a file")):
        with pytest.raises(InputError, match=f"'{tmp_path / folder}' {reason}"):
            list_images(tmp_path / folder)


def test_network_output_is_clipped_and_rounded_to_nearest() -> None:
    values = torch.tensor([-0.1, 0.0, 100.4 / 255, 100.6 / 255, 1.0, 1.2])
    image = tensor_to_image(values.repeat(1, 3, 1, 1))
    assert image[0, :, 0].tolist() == [0, 0, 100, 101, 255, 255]
