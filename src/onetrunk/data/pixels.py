"""The pixel pipeline: everything that happens to an image between its file and the trunk.

One object does all of it (EXIF rotation, channels, alpha, bit depth, fit, size, normalization). It
is stored in the pack and used in training, evaluation, prediction, folding and export. An image is
first fitted to the *stored* size, `size` plus a margin for augmentation; without augmentation its
center is used.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from onetrunk.errors import BadInput

Fit = Literal["squash", "pad", "crop"]
FITS: tuple[Fit, ...] = get_args(Fit)
Raw = str | PathLike[str] | bytes | Image.Image | NDArray[Any]  # an image, encoded or decoded
U8 = NDArray[np.uint8]

# where an orientation may be stored
METADATA = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
MAX_PIXELS = 89_478_485  # of one image file; pillow warns of a decompression bomb above it
WHITE = (255, 255, 255, 255)
CLEAR = (
    "onetrunk transparent"  # in the `info` of a decoded picture of which a pixel was transparent
)
# the formats that are decoded; of the others, EPS starts ghostscript, and an icon may contain a
# picture far larger than its header declares
USUAL = ("JPEG", "PNG", "GIF", "BMP", "PPM")  # available without loading all of pillow's plugins
FORMATS = (*USUAL, "MPO", "WEBP", "DIB", "TIFF", "JPEG2000", "AVIF")

TURNS = {  # from EXIF's orientation to the operation that turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):
    """One image cannot be read. The message is the reason, without the name of the image."""


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message, at most 120 characters, or its type."""
    text = getattr(error, "strerror", None) or str(error)
    return text.split("\n")[0][:120] or type(error).__name__


@dataclass(frozen=True)
class Pixels:
    """How a domain's images become tensors.

    Attributes:
        size: Height and width of the trunk's input.
        fit: "squash" changes the aspect ratio, "crop" cuts the longer side, "pad" adds borders.
        margin: How many pixels the stored image is higher and wider than `size`.
        fill: The grey level of the borders; None: with "pad" the color of the image's own border
            (white if a pixel is transparent), and otherwise black.
        mean, std: Normalize 8-bit values scaled to 0…1, channel by channel.
    """

    size: tuple[int, int]
    fit: Fit = "squash"
    margin: int = 0
    fill: int | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise BadInput("unknown fit", got=self.fit, available=FITS)
        if min(self.size) < 1 or max(self.size) > 16_384:
            raise BadInput("expected a size of 1 to 16384 pixels", got=self.size)
        if not 0 <= self.margin <= 4096:
            raise BadInput("expected a margin of 0 to 4096 pixels", got=self.margin)
        if self.fill is not None and not 0 <= self.fill <= 255:
            raise BadInput("expected a grey level of 0 to 255 for fill", got=self.fill)
        if min(self.std) <= 0:
            raise BadInput("expected numbers above 0 for std", got=self.std)

    @property
    def stored(self) -> tuple[int, int]:
        """Height and width of the stored image, which augmentation starts from."""
        return self.size[0] + self.margin, self.size[1] + self.margin

    def to_json(self) -> dict[str, Any]:
        """Return a plain document, which `read_dataclass` reads."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    def read(self, raw: Raw) -> U8:
        """Return one image at the stored size, (H, W, 3); raise BadImage if it cannot be read."""
        return self.place(decode(raw))

    def place(self, picture: Image.Image) -> U8:
        """Fit a decoded picture (mode L or RGB) to the stored size."""
        height, width = self.stored
        box, (top, left, h, w) = _geometry((picture.height, picture.width), self.stored, self.fit)
        fitted = picture
        if (box[2] - box[0], box[3] - box[1]) != (w, h):
            fitted = picture.resize((w, h), Image.Resampling.BILINEAR, box=box)
        elif (w, h) != picture.size:
            fitted = picture.crop(box)  # on the grid of pixels, as without scaling all boxes are
        pixels = np.asarray(fitted, dtype=np.uint8)
        if pixels.ndim == 2:
            pixels = np.broadcast_to(pixels[:, :, None], (*pixels.shape, 3))
        if (h, w) == (height, width):
            return np.ascontiguousarray(pixels)
        canvas = np.empty((height, width, 3), np.uint8)
        canvas[:] = _border_colour(picture) if self.fill is None else self.fill
        canvas[top : top + h, left : left + w] = pixels
        return canvas

    def place_target(self, target: NDArray[Any], empty: float) -> NDArray[Any]:
        """Fit a dense target (H, W[, C]) exactly as its image, by nearest pixel."""
        height, width = self.stored
        box, (top, left, h, w) = _geometry(target.shape[:2], self.stored, self.fit)
        y = ((np.arange(h) + 0.5) * (box[3] - box[1]) / h + box[1]).astype(int)
        x = ((np.arange(w) + 0.5) * (box[2] - box[0]) / w + box[0]).astype(int)
        y, x = y.clip(0, target.shape[0] - 1), x.clip(0, target.shape[1] - 1)
        placed = np.full((height, width, *target.shape[2:]), empty, target.dtype)
        placed[top : top + h, left : left + w] = target[y[:, None], x[None, :]]
        return placed

    def fill_around(self, stored_BHWC: U8) -> int | U8:
        """Return the grey level outside of stored images, or the color of each, (B, 1, 1, 3).

        Augmentation may move a crop over the edge. The color is that of the stored image's own
        border, so that it continues a padding.
        """
        if self.fill is not None or self.fit != "pad":
            return self.fill or 0
        x = stored_BHWC
        edges = (x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1])
        return _middle(np.concatenate(edges, 1))[:, None, None]

    def centre(self, stored_BHWC: U8) -> U8:
        """Return the center of stored images or targets, of `size` pixels, for evaluation."""
        height, width = self.size
        top, left = (stored_BHWC.shape[1] - height) // 2, (stored_BHWC.shape[2] - width) // 2
        return stored_BHWC[:, top : top + height, left : left + width]

    def normalize(self, images_BHWC: U8 | torch.Tensor) -> torch.Tensor:
        """Return the trunk's input: (B, 3, H, W) float32, channels last in memory."""
        images = torch.as_tensor(images_BHWC)
        count, height, width = images.shape[:3]
        std = torch.tensor(self.std, dtype=torch.float32, device=images.device)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=images.device)
        # over rows: a product over the three channels alone is not vectorised, and 5x slower
        scale = (1 / (255 * std)).repeat(width)
        shift = (-mean / std).repeat(width)
        rows = images.reshape(count * height, width * 3).float()
        if (
            rows.data_ptr() == images.data_ptr()
        ):  # floats are not copied by float(): keep the caller's array
            rows = rows.clone()
        torch.addcmul(shift, rows, scale, out=rows)
        return rows.view(count, height, width, 3).permute(0, 3, 1, 2)

    def prepare(self, images: Sequence[Raw]) -> torch.Tensor:
        """Return images of any kind as one normalized batch, prepared as for evaluation."""
        return self.normalize(self.centre(np.stack([self.read(image) for image in images])))


def decode(raw: Raw) -> Image.Image:
    """Decode any image to an upright 8-bit picture, L or RGB, with transparency over white.

    Raises BadImage with the reason.
    """
    try:
        picture = _open(raw)
        if picture.width * picture.height > MAX_PIXELS:
            raise BadImage(
                f"{picture.width}×{picture.height} pixels are over the limit of {MAX_PIXELS:,}"
            )
        if min(picture.size) < 1:
            raise BadImage(f"it has no pixels: {picture.width}×{picture.height}")
        picture.load()  # before the orientation is read: pillow turns a TIFF while it loads it
        turn = TURNS.get(_orientation(picture))
        if turn is not None:
            picture = picture.transpose(turn)
        return _eight_bit(picture)
    except (BadImage, MemoryError):  # the image may be intact if memory runs out
        raise
    except Image.DecompressionBombError:
        raise BadImage(f"its header claims over {2 * MAX_PIXELS:,} pixels") from None
    except FileNotFoundError:
        raise BadImage("no such file") from None
    except PermissionError:
        raise BadImage("no permission to read it") from None
    except UnidentifiedImageError:
        raise BadImage("not an image, or of a format that is not supported") from None
    except Exception as error:  # decoders may raise any exception
        raise BadImage(reason_of(error)) from None


def _open(raw: Raw) -> Image.Image:
    if isinstance(raw, Image.Image):
        return raw
    if isinstance(raw, np.ndarray):
        return _from_array(raw)
    if not isinstance(raw, bytes):
        raw = Path(raw).read_bytes()
    if not raw:
        raise BadImage("the file is empty")
    try:
        return Image.open(io.BytesIO(raw), formats=USUAL)
    except UnidentifiedImageError:
        return Image.open(io.BytesIO(raw), formats=_formats())


@cache
def _formats() -> list[str]:
    """Return the FORMATS that this pillow supports; the check takes a sixth of a second."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _orientation(picture: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 for broken metadata, as image viewers do."""
    if picture.format in ("JPEG", "PNG") and not METADATA & picture.info.keys():
        return 1  # pillow's own check costs a tenth of decoding a small image
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _from_array(array: NDArray[Any]) -> Image.Image:
    """Read (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): 8 or 16 bits, booleans, floats in 0…1."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise BadImage(f"expected an array (H, W), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            low, high = array.min(), array.max()
            raise BadImage(f"expected floating-point pixels in 0…1, got {low:g} to {high:g}")
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise BadImage(f"expected 8- or 16-bit pixels or floats in 0…1, got {array.dtype}")
    return Image.fromarray(array)


def _eight_bit(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode in ("L", "RGB") and "transparency" not in picture.info:
        return picture
    if mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65_535:
            raise BadImage("integer pixels outside 0…65535")
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if mode == "F":
        raise BadImage("floating-point pixels of unknown range; save it with 8 or 16 bits")
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        opaque = picture.getchannel("A").getextrema() == (255, 255)
        over = Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture)
        picture = over.convert("RGB")
        picture.info = {} if opaque else {CLEAR: WHITE}
        return picture
    return picture.convert("L" if mode == "1" else "RGB")


def _border_colour(picture: Image.Image) -> U8:
    """Return the median of the outermost pixels by channel; white for a transparent picture."""
    if picture.info.get(CLEAR) is WHITE:  # the same object: a file may have a text of this name
        return np.array(WHITE[:3], np.uint8)
    w, h = picture.size
    boxes = ((0, 0, w, 1), (0, h - 1, w, h), (0, 0, 1, h), (w - 1, 0, w, h))
    edges = [np.asarray(picture.crop(box), np.uint8).reshape(-1) for box in boxes]
    channels = len(picture.getbands())
    colour: U8 = _middle(np.concatenate(edges).reshape(1, -1, channels))[0]
    return colour


def _middle(pixels_BNC: U8) -> U8:
    """Return the upper median of pixels by channel, (B, C)."""
    middle: U8 = np.sort(pixels_BNC, 1)[:, pixels_BNC.shape[1] // 2]
    return middle


def _geometry(
    source: Sequence[int], out: tuple[int, int], fit: Fit
) -> tuple[tuple[float, float, float, float], tuple[int, int, int, int]]:
    """Return a box (x0, y0, x1, y1) of the source, and the place (top, left, h, w) it fills."""
    height, width = source[0], source[1]
    if fit == "crop":
        # the box begins on the grid of pixels, so that without scaling it is an exact cut
        x0 = max(0, (width * out[0] - height * out[1]) // (2 * out[0]))
        y0 = max(0, (height * out[1] - width * out[0]) // (2 * out[1]))
        across, down = min(width, height * out[1] / out[0]), min(height, width * out[0] / out[1])
        return (x0, y0, x0 + across, y0 + down), (0, 0, *out)
    if fit == "pad":
        scale = min(out[0] / height, out[1] / width)
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        return (0, 0, width, height), ((out[0] - h) // 2, (out[1] - w) // 2, h, w)
    return (0, 0, width, height), (0, 0, *out)
