"""A picture that shows what super-resolution gains: LR, other methods, ours and HR side by side, pixels visible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from quantnas_ext.errors import InputError
from quantnas_ext.reporting.figures import FAINT_INK, INK
from quantnas_ext.reporting.table import number_text

Column = tuple[str, np.ndarray | Sequence[np.ndarray]]

_DPI = 200
_PANEL = 320  # side of a zoomed crop in pixels of the picture, as nearly as a whole zoom allows
_WIDEST = 1.55  # widest photograph, in heights
_GAP, _CAPTION, _HEADING, _MARGIN = 18, 44, 46, 16  # pixels of the picture
_FRAME_COLOUR = "#ffb000"


def comparison_figure(columns: Sequence[Column], *, crop: int = 64, names: Sequence[str] = ()) -> Figure:
    """One row a photograph: the whole original, then the same crop of every column, enlarged by a whole number.

    The crop is chosen by ``telling_region``, which does not ask which method is the better one. Under each method
    stands its PSNR on Y in dB: of the whole image without a border of ``scale`` pixels, and of the crop; the best in
    bold.

    Args:
        columns: title and image of each column, first LR, last HR, the methods between them; images are
            ``uint8 [h, w, 3]`` RGB, or a list of such, one a row.
        crop: side of the crop in HR pixels; rounded down to a multiple of the scale, and at most the shortest side of
            an image.
        names: names of the photographs, one a row.

    Raises:
        InputError: when columns are missing, or an image's kind or size does not fit.
    """
    titles = [title for title, _ in columns]
    rows = _rows(columns, names)
    scale = rows[0][-1].shape[0] // rows[0][0].shape[0]
    side = min(crop, *(length for *_, hr in rows for length in hr.shape[:2])) // scale * scale
    if side < scale:
        raise InputError(f"a crop of {crop} pixels is less than one LR pixel at scale {scale}; use at least {scale}")
    zoom = max(1, round(_PANEL / side))
    panel = side * zoom

    whole_sizes = [_fit(hr.shape[1], hr.shape[0], panel) for *_, hr in rows]
    first = _MARGIN + max(width for width, _ in whole_sizes) + _GAP
    width = first + len(titles) * (panel + _GAP) - _GAP + _MARGIN
    height = _HEADING + len(rows) * (panel + _CAPTION) + _MARGIN // 2
    canvas = _PixelFigure(width, height)
    for index, title in enumerate(titles):
        canvas.text(first + index * (panel + _GAP) + panel / 2, _HEADING / 2, title, bold=True, size=8.5)
    for index, (row, whole_size) in enumerate(zip(rows, whole_sizes, strict=True)):
        y = _HEADING + index * (panel + _CAPTION)
        top, left = telling_region(row[-1], row[1:-1], side, scale)
        below = y + panel + _CAPTION * 0.42
        x = _MARGIN + (first - _GAP - _MARGIN - whole_size[0]) // 2
        whole_y = y + (panel - whole_size[1]) // 2
        canvas.whole(row[-1], x, whole_y, whole_size, (left, top, side))
        canvas.text(x + whole_size[0] / 2, below, names[index] if names else "")
        captions = _captions(row, scale, top, left, side)
        for column, (image, (caption, bold)) in enumerate(zip(row, captions, strict=True)):
            unit = scale if column == 0 else 1
            patch = image[top // unit : (top + side) // unit, left // unit : (left + side) // unit]
            x = first + column * (panel + _GAP)
            canvas.pixels(patch, x, y, panel)
            canvas.text(x + panel / 2, below, caption, bold=bold, colour=INK if bold else FAINT_INK)
    return canvas.figure


def _rows(columns: Sequence[Column], names: Sequence[str]) -> list[tuple[np.ndarray, ...]]:
    """The columns' images row by row, which fit each other."""
    if len(columns) < 3:
        raise InputError(f"a comparison of {len(columns)} columns is none; give LR, at least one method, and HR")
    images = [(title, [one] if isinstance(one, np.ndarray) else list(one)) for title, one in columns]
    count = len(images[0][1])
    for title, column in images:
        if len(column) != count or not column:
            raise InputError(f"column {title!r} has {len(column)} images; give one for each of the {count} rows")
        for image in column:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise InputError(f"column {title!r} has a {image.dtype} image {image.shape}; use uint8 [h, w, 3] RGB")
    if names and len(names) != count:
        raise InputError(f"{len(names)} names are given for {count} photographs; give one for each, or none")
    lr_images, hr_images = images[0][1], images[-1][1]
    scale = max(1, hr_images[0].shape[0] // lr_images[0].shape[0])
    for lr, hr in zip(lr_images, hr_images, strict=True):
        if hr.shape[:2] != (scale * lr.shape[0], scale * lr.shape[1]):
            raise InputError(
                f"column {images[-1][0]!r} has an image {hr.shape} for {lr.shape} in {images[0][0]!r}; "
                "HR is a whole multiple of LR, the same in every row"
            )
    for title, column in images[1:-1]:
        for image, hr in zip(column, hr_images, strict=True):
            if image.shape != hr.shape:
                raise InputError(f"column {title!r} has an image {image.shape}; it must be {hr.shape} as in HR")
    return list(zip(*(column for _, column in images), strict=True))


def telling_region(hr: np.ndarray, results: Sequence[np.ndarray], side: int, step: int) -> tuple[int, int]:
    """Where a crop tells most: the methods differ and the original has detail.

    The score of a square is the mean spread of the methods' grey values in it, times the mean difference between
    neighbouring pixels of the original. Which method is nearer to the original plays no part. With one method, detail
    alone decides.

    Args:
        hr: the original, ``uint8 [h, w, 3]``.
        results: the methods' images, the same shape.
        side: side of the square in pixels, at most h and w.
        step: the square's corner lies on multiples of this.

    Returns:
        Row and column of the square's upper left corner.
    """
    grey = hr.mean(axis=2)
    steps = np.abs(np.diff(grey, axis=0, append=grey[-1:])) + np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    score = _square_means(steps, side, step)
    if len(results) > 1:
        score = score * _square_means(np.ptp([image.mean(axis=2) for image in results], axis=0), side, step)
    row, column = np.unravel_index(score.argmax(), score.shape)
    return int(row) * step, int(column) * step


def _square_means(values: np.ndarray, side: int, step: int) -> np.ndarray:
    """Mean of every square of a side whose corner lies on multiples of ``step``, by a summed-area table."""
    table = np.pad(values.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
    return sums[::step, ::step] / side**2


def _captions(row: Sequence[np.ndarray], scale: int, top: int, left: int, side: int) -> list[tuple[str, bool]]:
    """Text under each crop of a row, and whether it is set in bold; the PSNR of equal images is infinite."""
    # Here and not above, because BasicSR's metrics take seconds to import.
    from quantnas_ext.sr.evaluation.metrics import psnr_y

    _, *results, hr = row
    square = np.s_[top : top + side, left : left + side]
    whole = [psnr_y(image, hr, scale) for image in results]
    crops = [psnr_y(image[square], hr[square], 0) for image in results]
    methods = [
        (f"{number_text(figure, '.2f')} dB (crop {number_text(part, '.2f')})", len(whole) > 1 and figure == max(whole))
        for figure, part in zip(whole, crops, strict=True)
    ]
    return [(f"{side // scale} × {side // scale} pixels", False), *methods, (f"{side} × {side} pixels", False)]


def _fit(width: int, height: int, panel: int) -> tuple[int, int]:
    """Size of a whole photograph beside crops of side ``panel``."""
    factor = min(panel / height, _WIDEST * panel / width)
    return max(1, round(width * factor)), max(1, round(height * factor))


class _PixelFigure:
    """A figure whose parts are placed in pixels of the written .png, y downwards.

    Axes of a whole multiple of an image's size show every one of its pixels as an equal square.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)

    def text(self, x: float, y: float, text: str, *, size: float = 7.5, bold: bool = False, colour: str = INK) -> None:
        """Centred text."""
        place = (x / self.width, 1 - y / self.height)
        weight = "bold" if bold else "normal"
        self.figure.text(*place, text, ha="center", va="center", fontsize=size, fontweight=weight, color=colour)

    def pixels(self, image: np.ndarray, x: int, y: int, side: int) -> None:
        """A square image enlarged to ``side`` pixels without interpolation."""
        self._image(image, x, y, (side, side))

    def whole(self, image: np.ndarray, x: int, y: int, size: tuple[int, int], crop: tuple[int, int, int]) -> None:
        """A photograph reduced to ``size``, with a frame around the crop (left, top, side in its own pixels)."""
        reduced = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        axes = self._image(reduced, x, y, size)
        factor = size[0] / image.shape[1]
        left, top, side = (factor * value for value in crop)
        for colour, line in ((INK, 2.2), (_FRAME_COLOUR, 1.2)):
            axes.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=colour, linewidth=line))

    def _image(self, image: np.ndarray, x: int, y: int, size: tuple[int, int]) -> Axes:
        axes = self.figure.add_axes(
            (x / self.width, 1 - (y + size[1]) / self.height, size[0] / self.width, size[1] / self.height)
        )
        axes.imshow(image, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        return axes
