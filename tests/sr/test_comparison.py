import numpy as np
import pytest
from PIL import Image

from quantnas_ext.errors import InputError
from quantnas_ext.reporting.figures import save_figure
from quantnas_ext.sr.evaluation.comparison import comparison_figure, telling_region


def photograph(height, width, seed):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def columns(sizes=((60, 80), (90, 70)), scale=2):
    lr, bicubic, ours, hr = [], [], [], []
    for seed, (height, width) in enumerate(sizes):
        hr.append(photograph(height * scale, width * scale, seed))
        lr.append(hr[-1][::scale, ::scale])
        bicubic.append(lr[-1].repeat(scale, 0).repeat(scale, 1))
        ours.append((0.3 * bicubic[-1] + 0.7 * hr[-1]).astype(np.uint8))
    return [("LR", lr), ("bicubic", bicubic), ("ours", ours), ("HR", hr)]


def test_every_pixel_of_a_crop_is_an_equal_square_of_the_picture(tmp_path):
    given = columns()
    path = save_figure(comparison_figure(given, crop=48), tmp_path / "picture.png")
    picture = np.array(Image.open(path).convert("RGB"))
    axes = comparison_figure(given, crop=48).axes
    assert len(axes) == 2 * 5
    for row in range(2):
        hr = given[-1][1][row]
        top, left = telling_region(hr, [given[1][1][row], given[2][1][row]], 48, 2)
        for column, (_, images) in enumerate(given):
            unit = 2 if column == 0 else 1
            crop = images[row][top // unit : (top + 48) // unit, left // unit : (left + 48) // unit]
            place = axes[5 * row + 1 + column].get_position()
            x, y = round(place.x0 * picture.shape[1]), round((1 - place.y1) * picture.shape[0])
            side = round(place.width * picture.shape[1])
            zoomed = crop.repeat(side // len(crop), 0).repeat(side // len(crop), 1)
            assert side % len(crop) == 0
            np.testing.assert_array_equal(picture[y : y + side, x : x + side], zoomed)


def test_the_region_is_where_the_methods_differ_and_the_original_has_detail():
    hr = np.full((96, 120, 3), 100, np.uint8)
    hr[40:70, 60:100:2] = 200  # the only detail
    hr[4:30, 4:40:2] = 200  # detail on which the methods agree
    one, other = hr.copy(), hr.copy()
    other[44:68, 66:96] += 30  # where they differ
    other[80:, :30] += 50  # where they differ without detail
    top, left = telling_region(hr, [one, other], side=24, step=3)
    assert top % 3 == 0 and left % 3 == 0
    assert 42 <= top <= 48 and 63 <= left <= 75
    assert telling_region(hr, [other, one], side=24, step=3) == (top, left)


def test_psnr_under_each_method_is_that_of_the_definition():
    given = columns(sizes=((60, 80),))
    figure = comparison_figure(given, crop=40, names=["noise"])
    texts = {text.get_text(): text for text in figure.texts}

    def luma(image):
        return np.round(16 + image @ np.array([65.481, 128.553, 24.966]) / 255, 12)

    def psnr(image, reference):
        return 10 * np.log10(255**2 / np.mean((luma(image) - luma(reference)) ** 2))

    hr = given[-1][1][0]
    results = [images[0] for _, images in given[1:-1]]
    top, left = telling_region(hr, results, 40, 2)
    square = np.s_[top : top + 40, left : left + 40]
    captions = [
        f"{psnr(image[2:-2, 2:-2], hr[2:-2, 2:-2]):.2f} dB (crop {psnr(image[square], hr[square]):.2f})"
        for image in results
    ]
    assert set(captions) <= set(texts)
    assert texts[captions[0]].get_fontweight() == "normal" and texts[captions[1]].get_fontweight() == "bold"
    assert {"noise", "LR", "bicubic", "ours", "HR", "20 × 20 pixels"} <= set(texts)


def _float_image(given):
    given[2] = ("ours", [image / 255 for image in given[2][1]])


def _too_few_images(given):
    given[2] = ("ours", given[2][1][:1])


def _other_size(given):
    given[2] = ("ours", [image[:-1] for image in given[2][1]])


def _no_method(given):
    del given[1:3]


def _lr_that_does_not_match(given):
    given[0] = ("LR", [image[:-1] for image in given[0][1]])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_float_image, "'ours' has a float64 image"),
        (_too_few_images, "'ours' has 1 images"),
        (_other_size, "'ours' has an image"),
        (_no_method, "2 columns"),
        (_lr_that_does_not_match, "whole multiple"),
    ],
)
def test_images_that_do_not_fit_are_named_and_nothing_is_written(tmp_path, spoil, named):
    given = columns()
    spoil(given)
    with pytest.raises(InputError, match=named):
        save_figure(comparison_figure(given), tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())
