"""Image files as cameras, scanners, editors and broken disks leave them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin, features

from quantnas_ext.errors import InputError
from quantnas_ext.sr.data.image_files import read_header
from quantnas_ext.sr.data.images import image_headers, read_image, read_picture

SUFFIXES = ["png", "jpg", "webp", "gif", "bmp", "tif", "jp2", "ppm", "tga"] + ["avif"] * features.check("avif")
OPTIONS = {"tif": {"compression": "tiff_lzw"}, "webp": {"lossless": True}}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Smooth colours with some noise, `uint8 [40, 56, 3]`."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :56]
    smooth = np.stack([4 * x, 6 * y, 255 - 2 * (x + y)], axis=-1)
    return (smooth + rng.integers(-9, 9, smooth.shape)).clip(0, 255).astype(np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height by the header alone."""
    header = read_header(path)
    return header.width, header.height


def encoded(image: Image.Image | np.ndarray, suffix: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, Image.registered_extensions()[f".{suffix}"], **(OPTIONS.get(suffix, {}) | options))
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def exif_block(kind: int, value: bytes, count: int = 1) -> bytes:
    """EXIF with an orientation of some type, and an exposure time as two signed numbers, one of them negative."""
    fractions = struct.pack("<ii", -1, 3)
    offset = 8 + 2 + 2 * 12 + 4
    entries = [(0x0112, kind, count, value), (0x829A, 5, 1, struct.pack("<I", offset))]
    if len(value) > 4:
        entries[0] = (0x0112, kind, count, struct.pack("<I", offset + len(fractions)))
    directory = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + fractions + value


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_copy_that_was_cut_short_is_named(photo: np.ndarray, suffix: str, tmp_path: Path) -> None:
    whole = encoded(photo, suffix)
    for share in (0.0, 0.02, 0.5, 0.8):
        path = tmp_path / f"cut_{share}.{suffix}"
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=f"image '{path}' cannot be read \\(.+\\); replace or remove it") as caught:
            read_picture(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="the file is empty"):
        image_size(tmp_path / f"cut_0.0.{suffix}")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flipped_bits_on_a_disk_give_an_image_or_one_sentence(photo: np.ndarray, suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    whole = np.frombuffer(encoded(photo, suffix), np.uint8)
    path = tmp_path / f"flipped.{suffix}"
    refused = 0
    for _ in range(40):
        damaged = whole.copy()
        places = rng.integers(0, min(len(whole), 400), 6)
        damaged[places] ^= rng.integers(1, 256, len(places), dtype=np.uint8)
        path.write_bytes(damaged.tobytes())
        for read in (image_size, read_picture):
            try:
                read(path)
            except InputError as error:
                assert str(path) in str(error) and "\n" not in str(error)
                refused += 1
    assert refused


def test_a_codec_that_is_not_there_is_named(photo: np.ndarray, tmp_path: Path) -> None:
    for codec in (34712, 34925, 50000, 50001, 65000):  # JPEG 2000, LZMA, zstd, WebP, none
        plain = TiffImagePlugin.ImageFileDirectory_v2()
        path = tmp_path / f"{codec}.tif"
        Image.fromarray(photo).save(path, tiffinfo=plain)
        data = bytearray(path.read_bytes())
        entry = struct.pack("<HHI", 259, 3, 1)  # the tag of the compression
        data[(at := data.index(entry) + 8) : at + 2] = struct.pack("<H", codec)
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"{codec}.tif' cannot be read"):
            read_picture(path)


def test_odd_exif_turns_the_photograph_or_is_ignored(photo: np.ndarray, tmp_path: Path) -> None:
    turned = np.rot90(photo, -1)
    cases = {  # type and value of the tag, the value as Pillow writes it to a TIFF, what is right
        "short": (3, b"\6\0", 6, turned),
        "long": (4, b"\6\0\0\0", 6, turned),
        "byte": (1, b"\6", b"\6", turned),
        "text": (2, b"6\0", "6", turned),
        "undefined": (7, b"\6", b"\6", turned),
        "fraction": (5, struct.pack("<II", 6, 1), 6, turned),
        "signed": (10, struct.pack("<ii", 6, 1), 6, turned),
        "zero": (3, b"\0\0", 0, photo),
        "nine": (3, b"\x09\0", 9, photo),
        "nonsense": (2, b"up\0", "up", photo),
        "no_number": (5, struct.pack("<II", 6, 0), None, photo),
    }
    for name, (kind, value, in_tiff, expected) in cases.items():
        exif = b"Exif\0\0" + exif_block(kind, value, len(value) if kind in (2, 7) else 1)
        files = {suffix: encoded(photo, suffix, exif=exif) for suffix in ("png", "webp", "jpg")}
        if in_tiff is not None:
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            tags.tagtype[274] = kind
            tags[274] = in_tiff
            files["tif"] = encoded(photo, "tif", tiffinfo=tags, compression=None)
        for suffix, data in files.items():
            path = tmp_path / f"{name}.{suffix}"
            path.write_bytes(data)
            image = read_image(path)
            assert image.shape == expected.shape, path.name
            assert suffix == "jpg" or np.array_equal(image, expected), path.name
            assert image_size(path) == (expected.shape[1], expected.shape[0]), path.name
    (tmp_path / "junk.jpg").write_bytes(encoded(photo, "jpg", exif=b"Exif\0\0II*\0\xff\xff\xff"))
    assert read_image(tmp_path / "junk.jpg").shape == photo.shape == (*image_size(tmp_path / "junk.jpg")[::-1], 3)


def test_orientation_behind_the_pixels_of_a_png_counts(photo: np.ndarray, tmp_path: Path) -> None:
    plain = encoded(photo, "png")
    late = plain[:-12] + chunk(b"tEXt", b"Comment\0none") + chunk(b"eXIf", exif_block(3, b"\6\0")) + plain[-12:]
    (tmp_path / "late.png").write_bytes(late)
    assert image_size(tmp_path / "late.png") == (40, 56)
    assert np.array_equal(read_image(tmp_path / "late.png"), np.rot90(photo, -1))


def test_the_size_of_a_png_is_told_without_its_pixels(tmp_path: Path) -> None:
    (tmp_path / "header.png").write_bytes(png_header(2040, 1356) + chunk(b"IDAT", zlib.compress(b"nothing")))
    assert image_size(tmp_path / "header.png") == (2040, 1356)


def test_files_named_after_another_format_are_read(photo: np.ndarray, tmp_path: Path) -> None:
    for suffix, name in (("bmp", "bitmap.png"), ("png", "picture.JPG"), ("tif", "scan.jpeg"), ("webp", "web.png")):
        (tmp_path / name).write_bytes(encoded(photo, suffix))
        assert np.array_equal(read_image(tmp_path / name), photo)


def test_every_kind_of_pixel_becomes_8_bit_rgb(photo: np.ndarray, tmp_path: Path) -> None:
    grey = photo[..., 0]
    opacity = np.where(grey > 90, 255, 0).astype(np.uint8)
    wide = (photo.astype(np.uint32) * 257).astype(np.uint16)
    three = np.dstack([grey] * 3)
    palette = Image.fromarray(photo).quantize(16)
    files = {
        "bits.png": (encoded(Image.fromarray(opacity).convert("1"), "png"), np.dstack([opacity] * 3), 0),
        "grey_alpha.png": (encoded(Image.fromarray(np.dstack([grey, opacity])), "png"), three, 0),
        "alpha.webp": (encoded(np.dstack([photo, opacity]), "webp", exact=True), photo, 0),
        "alpha.tif": (encoded(np.dstack([photo, opacity]), "tif"), photo, 0),
        "palette.png": (encoded(palette, "png", transparency=3), np.asarray(palette.convert("RGB")), 0),
        "cmyk.tif": (encoded(Image.fromarray(photo).convert("CMYK"), "tif"), photo, 1),
        "cmyk.jpg": (encoded(Image.fromarray(photo).convert("CMYK"), "jpg", quality=100), photo, None),
        "grey16.tif": (encoded(Image.fromarray(wide[..., 0]), "tif"), three, 0),
        "grey16.png": (encoded(Image.fromarray(wide[..., 0]), "png"), three, 0),
        "grey16.pgm": (b"P5 56 40 65535\n" + wide[..., 0].astype(">u2").tobytes(), three, 0),
        "grey10.pgm": (b"P5 56 40 1023\n" + (grey * np.uint16(4)).astype(">u2").tobytes(), three, 1),
        "rgb16.png": (cv2.imencode(".png", wide[..., ::-1])[1].tobytes(), photo, 0),
        "rgb16.tif": (cv2.imencode(".tif", wide[..., ::-1])[1].tobytes(), photo, 0),
        "first.gif": (
            encoded(palette, "gif", save_all=True, append_images=[Image.new("P", (56, 40))]),
            np.asarray(palette.convert("RGB")),
            0,
        ),
        "first.tif": (
            encoded(photo, "tif", save_all=True, append_images=[Image.new("L", (9, 9))]),
            photo,
            0,
        ),
    }
    lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB", ImageCms.Intent.PERCEPTUAL
    )
    files["lab.tif"] = (encoded(ImageCms.applyTransform(Image.fromarray(photo), lab), "tif"), photo, None)
    for name, (data, expected, tolerance) in files.items():
        (tmp_path / name).write_bytes(data)
        picture = read_picture(tmp_path / name)
        assert picture.rgb.dtype == np.uint8 and picture.rgb.shape == expected.shape, name
        difference = np.abs(picture.rgb.astype(int) - expected)
        assert difference.mean() < 3 and (tolerance is None or difference.max() <= tolerance), name
        assert (picture.alpha is not None) == ("alpha" in name or name == "palette.png"), name
        assert picture.grey == name.startswith(("grey", "bits")), name
    for name, image in {"float.tif": photo[..., 0] / np.float32(255), "int.tif": grey.astype(np.int32)}.items():
        (tmp_path / name).write_bytes(encoded(image, "tif"))
        with pytest.raises(InputError, match=f"{name}' has 32-bit pixels; save it with 8 or 16 bits"):
            read_picture(tmp_path / name)


def test_16_bits_are_rounded_not_clipped_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ramp = np.linspace(0, 65535, 60 * 50).reshape(50, 60).astype(np.uint16)
    paths = [tmp_path / name for name in ("ramp.png", "ramp.tif", "colours.png", "plain.png")]
    for path in paths[:2]:
        Image.fromarray(ramp).save(path)
        assert np.array_equal(read_image(path)[..., 0], np.rint(ramp / 257))
    cv2.imwrite(str(paths[2]), np.dstack([ramp] * 3))
    assert np.abs(read_image(paths[2])[..., 0] - ramp / 257).max() <= 1
    Image.fromarray((ramp >> 8).astype(np.uint8)).save(paths[3])
    image_headers(paths, tmp_path)
    image_headers(paths, tmp_path)
    said = capsys.readouterr().err
    assert f"3 of 4 images in '{tmp_path}' have more than 8 bits per channel, and are read with 8" in said
    assert said.count("\n") == 1


def display_p3() -> bytes:
    """A profile with the primaries of Display P3: that of sRGB with other colorants, adapted to D50."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    colorants = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for number in range(struct.unpack_from(">I", profile, 128)[0]):
        tag, offset = struct.unpack_from(">4sI", profile, 132 + 12 * number)
        if tag in colorants:
            struct.pack_into(">3i", profile, offset + 8, *(round(value * 65536) for value in colorants[tag]))
    return bytes(profile)


def test_a_telephone_s_wide_colours_become_srgb(photo: np.ndarray, tmp_path: Path) -> None:
    muted = (photo // 4 + 110).astype(np.uint8)  # all of it within sRGB
    encoded_values = muted / 255
    linear = np.where(encoded_values <= 0.04045, encoded_values / 12.92, ((encoded_values + 0.055) / 1.055) ** 2.4)
    to_srgb = [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]  # CSS Color 4
    linear = linear @ np.transpose(to_srgb)
    expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert linear.min() > 0 and np.abs(expected - muted).max() > 8
    opaque = np.full((40, 56), 200, np.uint8)
    for name, image in {"p3.png": muted, "p3.tif": muted, "p3_alpha.png": np.dstack([muted, opaque])}.items():
        Image.fromarray(image).save(tmp_path / name, icc_profile=display_p3())
        picture = read_picture(tmp_path / name)
        assert np.abs(picture.rgb - expected).max() <= 1.5, name
        assert (picture.alpha is not None) == (name == "p3_alpha.png")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo).save(tmp_path / "srgb.png", icc_profile=srgb)
    assert np.array_equal(read_image(tmp_path / "srgb.png"), photo)


def test_a_damaged_colour_profile_is_left_aside_and_said(
    photo: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = display_p3()
    damaged = {"cut": profile[:200], "junk": b"no profile at all", "blank": bytes(len(profile))}
    for name, data in damaged.items():
        Image.fromarray(photo).save(tmp_path / f"{name}.png", icc_profile=data)
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), photo)
    grey = tmp_path / "grey.png"  # kept by an editor that took the colours away
    Image.fromarray(photo[..., 1]).save(grey, icc_profile=profile)
    assert np.array_equal(read_image(grey)[..., 0], photo[..., 1]) and read_picture(grey).grey
    image_headers(sorted(tmp_path.iterdir()), tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "4 of 4 images" in said and "an unusable colour profile" in said


def test_a_file_made_to_fill_the_memory_is_refused_and_a_large_scan_is_not(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "scan.png").write_bytes(png_header(16000, 12500) + pixels)
    for read, side in ((image_size, 60000), (read_picture, 60000), (read_picture, 25000)):
        (tmp_path / "bomb.png").write_bytes(png_header(side, side) + pixels)
        with pytest.raises(InputError, match="bomb.png' .* (too large|more than).* 536 megapixels"):
            read(tmp_path / "bomb.png")
    assert image_size(tmp_path / "scan.png") == (16000, 12500)
    assert limit == Image.MAX_IMAGE_PIXELS
