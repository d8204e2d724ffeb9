"""The pixel pipeline: every kind of image file becomes the picture that image viewers show."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from onetrunk.data.pixels import CLEAR, MAX_PIXELS, BadImage, Fit, Pixels, Raw, decode
from onetrunk.errors import BadInput
from onetrunk.settings import read_dataclass
from tests.helpers.errors import raises
from tests.helpers.fakes import encoded, picture, png_header

SIZE = (9, 7)  # height, width: they differ, so that a turned image has another shape


def rgb(raw: Raw) -> np.ndarray:
    return np.asarray(decode(raw).convert("RGB"))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


# what a viewer does with a stored picture, by EXIF's table, in numpy's words
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_image_is_turned_once_by_its_exif_orientation(orientation: int, kind: str) -> None:
    stored = picture(1, *SIZE)
    options = {"lossless": True} if kind == "WEBP" else {}
    result = rgb(encoded(stored, kind, exif=exif(orientation), **options))
    np.testing.assert_array_equal(result, UPRIGHT[orientation](stored))


def test_a_jpeg_is_turned_by_its_exif_orientation() -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 200
    result = rgb(encoded(stored, "JPEG", exif=exif(6), quality=95))
    assert result.shape == (32, 16, 3)
    assert result[:12].min() > 180  # what was left is on top
    assert result[-12:].max() < 20


def test_a_turned_palette_keeps_its_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    result = rgb(encoded(image, "PNG", transparency=0, exif=exif(6)))
    np.testing.assert_array_equal(result[:, 0], [[255, 255, 255], [0, 0, 255], [0, 0, 255]])


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_an_invalid_orientation_is_ignored(orientation: int) -> None:
    stored = picture(2, *SIZE)
    np.testing.assert_array_equal(rgb(encoded(stored, exif=exif(orientation))), stored)


def test_an_image_with_broken_metadata_is_read() -> None:
    stored = picture(3, 16, 16)
    plain = encoded(stored, "JPEG")
    junk = b"Exif\0\0II*\0" + b"\xff" * 40
    marred = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk + plain[2:]
    np.testing.assert_array_equal(rgb(marred), rgb(plain))


def test_grey_becomes_three_equal_channels() -> None:
    grey = picture(4, *SIZE)[:, :, 0]
    result = Pixels(SIZE).read(encoded(grey))
    np.testing.assert_array_equal(result, np.repeat(grey[:, :, None], 3, 2))


def test_sixteen_bits_are_rounded_to_the_nearest_of_eight() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535, 65407, 65406]], np.uint16)
    expected = np.array([[round(int(v) / 257) for v in values[0]]], np.uint8)
    np.testing.assert_array_equal(rgb(encoded(values))[:, :, 0], expected)
    np.testing.assert_array_equal(rgb(values)[:, :, 0], expected)  # an array of 16 bits as well
    big = Image.frombytes("I;16B", (8, 1), values.astype(">u2").tobytes())
    np.testing.assert_array_equal(rgb(big)[:, :, 0], expected)
    picture_ = Image.fromarray(values.astype(np.int32))
    np.testing.assert_array_equal(rgb(picture_)[:, :, 0], expected)


@pytest.mark.parametrize("value", [-1, 65_536])
def test_integers_beyond_sixteen_bits_are_refused(value: int) -> None:
    with pytest.raises(BadImage, match="outside 0…65535"):
        decode(Image.fromarray(np.array([[0, value]], np.int32)))


def test_floating_point_pictures_are_refused_because_their_range_is_unknown() -> None:
    with pytest.raises(BadImage, match="unknown range"):
        decode(encoded(np.zeros((4, 4), np.float32), "TIFF"))


def test_a_palette_becomes_its_colours() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([9, 8, 7, 200, 100, 50, 1, 2, 3])
    result = rgb(encoded(image))
    np.testing.assert_array_equal(result, [[[9, 8, 7], [200, 100, 50], [1, 2, 3]]])


def over_white(image_HW4: np.ndarray) -> np.ndarray:
    alpha = image_HW4[..., 3:].astype(float) / 255
    return image_HW4[..., :3] * alpha + 255 * (1 - alpha)


def test_alpha_is_composited_over_white() -> None:
    image = np.random.default_rng(5).integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    image[0, 0] = (10, 20, 30, 0)
    result = rgb(encoded(image))
    assert np.abs(result - over_white(image)).max() <= 1
    np.testing.assert_array_equal(result[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(rgb(image), result)  # the same from an array


def test_grey_with_alpha_is_composited_over_white() -> None:
    image = np.random.default_rng(6).integers(0, 256, (*SIZE, 2), dtype=np.uint8)
    four = np.stack([image[..., 0]] * 3 + [image[..., 1]], -1)
    result = rgb(encoded(Image.fromarray(image, "LA")))
    assert np.abs(result - over_white(four)).max() <= 1


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_a_palettes_transparent_colour_is_white(transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([9, 8, 7, 200, 100, 50, 1, 2, 3])
    result = rgb(encoded(image, transparency=transparency))
    np.testing.assert_array_equal(result, [[[9, 8, 7], [255, 255, 255], [1, 2, 3]]])


def test_a_transparent_grey_level_or_colour_is_white() -> None:
    grey = np.array([[0, 77, 200]], np.uint8)
    assert rgb(encoded(grey, transparency=77))[0, :, 0].tolist() == [0, 255, 200]
    colour = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    result = rgb(encoded(colour, transparency=(4, 5, 6)))
    np.testing.assert_array_equal(result, [[[1, 2, 3], [255, 255, 255]]])


def test_one_bit_is_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False, True]]))
    assert image.mode == "1"
    assert rgb(encoded(image))[0, :, 1].tolist() == [255, 0, 255]
    assert rgb(np.array([[True, False, True]]))[0, :, 1].tolist() == [255, 0, 255]


def test_cmyk_becomes_rgb() -> None:
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 1:3] = 255  # magenta and yellow: red
    result = rgb(encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=95))
    assert (result[..., 0] > 235).all()
    assert (result[..., 1:] < 20).all()


def test_floats_in_0_to_1_are_rounded_and_others_refused() -> None:
    assert rgb(np.array([[0.0, 0.5, 1.0]]))[0, :, 0].tolist() == [0, 128, 255]
    for bad in (1.01, -0.01, np.nan, np.inf):
        with pytest.raises(BadImage, match="0…1"):
            decode(np.array([[0.0, bad]]))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 4, 2), np.uint8),
        np.zeros((1, 3, 4, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((3, 4), np.int64),
        np.zeros((3, 4, 3), np.complex64),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros((0, 0), np.float32),
    ],
    ids=lambda a: f"{a.shape}-{a.dtype}",
)
def test_an_array_that_is_not_an_image_is_refused(array: np.ndarray) -> None:
    with pytest.raises(BadImage):
        Pixels((8, 8)).read(array)


HOSTILE = {
    "text": b"this is a text, not a picture",
    "nothing": b"",
    "truncated png": encoded(picture(7, 64, 64))[:3000],
    "truncated jpeg": encoded(picture(7, 64, 64), "JPEG")[:1500],
    "header alone": encoded(picture(7, 64, 64))[:40],
    "30,000x30,000": png_header(30_000, 30_000),
    "just over": png_header(MAX_PIXELS // 5000 + 1, 5000),
    "no pixels": png_header(0, 5),
    "a gif of nothing": b"GIF89a\x05\0\x05\0\0\0\0;",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "icon": encoded(picture(1, 16, 16), "ICO"),
    "garbled png": bytes(
        b if i < 60 else b ^ 0x5A for i, b in enumerate(encoded(picture(7, 64, 64)))
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(BadImage) as error:
        Pixels((8, 8)).read(HOSTILE[name])
    reason = str(error.value)
    assert 3 < len(reason) < 200
    assert "\n" not in reason


def test_an_absurd_size_is_refused_before_anything_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    for name in ("30,000x30,000", "just over"):
        with pytest.raises(BadImage, match="pixels"):
            decode(HOSTILE[name])


def test_a_lack_of_memory_does_not_make_the_image_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", out_of_memory)
    with pytest.raises(MemoryError):
        decode(encoded(picture(1)))


def test_a_missing_file_and_a_folder_are_bad_images(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="no such file"):
        decode(tmp_path / "nowhere.jpg")
    with pytest.raises(BadImage):
        decode(tmp_path)


def test_the_users_picture_is_not_changed() -> None:
    image = Image.open(io.BytesIO(encoded(picture(8, *SIZE), exif=exif(6))))
    before = (image.size, image.mode, dict(image.getexif()))
    assert Pixels((8, 8)).read(image).shape == (8, 8, 3)
    assert (image.size, image.mode, dict(image.getexif())) == before


def test_path_string_bytes_picture_and_array_give_the_same_pixels(tmp_path: Path) -> None:
    array = picture(9, *SIZE)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(array))
    contract = Pixels((5, 6), "pad", margin=2)
    first = contract.read(array)
    for raw in (path, str(path), path.read_bytes(), Image.fromarray(array)):
        np.testing.assert_array_equal(contract.read(raw), first)


# the geometry against a slow reference: which source pixel is nearest to each stored one


def nearest(image: np.ndarray, size: tuple[int, int], fit: str, fill: float) -> np.ndarray:
    """Pixel by pixel: where does this stored pixel's middle lie in the source?"""
    height, width = image.shape[:2]
    out = np.full((*size, *image.shape[2:]), fill, image.dtype)
    if fit == "squash":
        scale_y, scale_x = size[0] / height, size[1] / width
    else:
        pick = max if fit == "crop" else min
        scale_y = scale_x = pick(size[0] / height, size[1] / width)
    place_h, place_w = size
    if fit == "pad":
        place_h, place_w = max(1, round(height * scale_y)), max(1, round(width * scale_x))
        scale_y, scale_x = place_h / height, place_w / width
    top, left = (size[0] - place_h) // 2, (size[1] - place_w) // 2
    for r in range(place_h):
        for c in range(place_w):
            y, x = (r + 0.5) / scale_y, (c + 0.5) / scale_x
            if fit == "crop":  # from a whole pixel
                y += int((height - size[0] / scale_y) / 2 + 1e-9)
                x += int((width - size[1] / scale_x) / 2 + 1e-9)
            out[top + r, left + c] = image[min(int(y), height - 1), min(int(x), width - 1)]
    return out


SHAPES = [(10, 10), (11, 23), (23, 11), (5, 41), (41, 5), (1, 9), (3, 2)]


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [(8, 8), (7, 12), (31, 17)], ids=str)
def test_targets_agree_with_the_slow_reference(
    fit: Fit, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    target = np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape)
    placed = Pixels(size, fit).place_target(target, -5)
    np.testing.assert_array_equal(placed, nearest(target, size, fit, -5))


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", [(24, 24), (20, 60), (60, 20), (15, 75)], ids=str)
def test_images_and_targets_are_fitted_alike(fit: Fit, shape: tuple[int, int]) -> None:
    # a smooth picture: bilinear and nearest agree to about a pixel's worth of slope
    y, x = np.mgrid[: shape[0], : shape[1]]
    grey = np.stack([y * 200 / shape[0], x * 200 / shape[1], y * 0 + 90], -1).astype(np.uint8)
    contract = Pixels((30, 30), fit, fill=255)
    image = contract.place(Image.fromarray(grey)).astype(int)
    target = contract.place_target(grey.astype(np.float32), 255)
    assert np.abs(image - target).max() <= 200 / min(shape) + 2


def test_an_image_of_the_stored_size_is_not_resampled() -> None:
    image = picture(1, 13, 17)
    for fit in ("squash", "pad", "crop"):
        np.testing.assert_array_equal(Pixels((13, 17), fit).read(image), image)


def test_padding_has_the_fill_and_the_image_is_in_the_middle() -> None:
    result = Pixels((10, 10), "pad", fill=33).read(np.full((4, 20, 3), 200, np.uint8))
    assert (result[4:6] == 200).all()
    assert (result[:4] == 33).all()
    assert (result[6:] == 33).all()


def framed(shape: tuple[int, int], colour: tuple[int, ...], width: int = 2) -> np.ndarray:
    """Noise with a border of one colour."""
    image = picture(4, *shape)
    inner = image[width:-width, width:-width].copy()
    image[:] = colour[:3]
    image[width:-width, width:-width] = inner
    return image


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (21, 22)], ids=str)
def test_padding_has_the_color_of_the_images_own_border(shape: tuple[int, int]) -> None:
    colour = (200, 120, 30)
    image = framed(shape, colour)
    image[0, :5] = 0  # a few other pixels do not count
    contract = Pixels((32, 32), "pad")
    result = contract.read(image)
    shown = Pixels((32, 32), "pad", fill=0).place_target(np.ones(shape, np.uint8), 0)
    assert (shown == 0).any()
    assert (result[shown == 0] == colour).all()
    np.testing.assert_array_equal(
        result[shown == 1], Pixels((32, 32), "pad", fill=0).read(image)[shown == 1]
    )
    # the colour of `around` is the padding's, so that a moved crop continues it
    np.testing.assert_array_equal(contract.fill_around(result[None]), [[[list(colour)]]])
    grey = contract.read(framed(shape, (90, 90, 90))[..., 0])
    assert (grey[shown == 0] == 90).all()


def test_the_border_is_the_upper_median_by_channel() -> None:
    image = np.zeros((1, 4, 3), np.uint8)  # all pixels are border; the outer ones count thrice
    image[0] = [[10, 0, 7], [30, 1, 7], [20, 2, 7], [40, 3, 7]]
    border = np.concatenate([image[0], image[0], image[:, 0], image[:, -1]])
    expected = [sorted(channel)[len(border) // 2] for channel in border.T.tolist()]
    assert Pixels((8, 8), "pad").read(image)[0, 0].tolist() == expected


def test_a_transparent_image_is_padded_with_white() -> None:
    image = np.dstack([framed((10, 40), (9, 9, 9)), np.full((10, 40), 255, np.uint8)])
    contract = Pixels((16, 16), "pad")
    assert (contract.read(image)[0] == 9).all()  # nothing is transparent
    image[5, 20, 3] = 254
    assert (contract.read(image)[0] == 255).all()
    assert (contract.read(encoded(image)) == contract.read(image)).all()
    assert (Pixels((16, 16), "pad", fill=3).read(image)[0] == 3).all()


def test_a_text_in_a_file_does_not_set_the_padding() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(CLEAR, "yes")
    stream = io.BytesIO()
    Image.fromarray(framed((10, 40), (9, 9, 9))).save(stream, "PNG", pnginfo=info)
    assert (Pixels((16, 16), "pad").read(stream.getvalue())[0] == 9).all()


@pytest.mark.parametrize("surplus", [0, 1, 2, 7])
def test_a_crop_without_scaling_is_an_exact_slice(surplus: int) -> None:
    left = surplus // 2
    wide = picture(3, 16, 12 + surplus)
    contract = Pixels((16, 12), "crop")
    np.testing.assert_array_equal(contract.read(wide), wide[:, left : left + 12])
    np.testing.assert_array_equal(contract.place_target(wide, 0), wide[:, left : left + 12])
    np.testing.assert_array_equal(contract.read(wide[..., 0])[..., 1], wide[:, left:, 0][:, :12])
    high = picture(3, 16 + surplus, 12)
    np.testing.assert_array_equal(contract.read(high), high[left : left + 16])
    # stored with a margin, of which evaluation uses the middle
    stored = Pixels((11, 7), "crop", margin=5)
    top = left + 2
    np.testing.assert_array_equal(
        stored.centre(stored.read(high)[None])[0], high[top : top + 11, 2:9]
    )


def test_a_padded_image_that_needs_no_scaling_is_not_resampled() -> None:
    image = picture(3, 16, 9)
    result = Pixels((16, 12), "pad").read(image)
    np.testing.assert_array_equal(result[:, 1:10], image)


def test_the_margin_is_stored_and_evaluation_uses_the_middle() -> None:
    contract = Pixels((8, 6), margin=4)
    assert contract.stored == (12, 10)
    image = picture(2, 12, 10)
    np.testing.assert_array_equal(contract.centre(image[None])[0], image[2:10, 2:8])
    assert contract.prepare([image]).shape == (1, 3, 8, 6)


def test_normalization_agrees_with_its_formula() -> None:
    contract = Pixels((5, 4), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    images = np.stack([picture(i, 5, 4) for i in range(3)])
    expected = (images / 255 - np.array(contract.mean)) / np.array(contract.std)
    result = contract.normalize(images)
    assert result.shape == (3, 3, 5, 4)
    assert result.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(result.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_normalization_does_not_change_its_input() -> None:
    contract = Pixels((5, 4), mean=(0.1, 0.2, 0.3))
    floats = torch.rand(2, 5, 4, 3) * 255
    levels = (floats).to(torch.uint8)
    kept_floats, kept_levels = floats.clone(), levels.clone()
    contract.normalize(floats)
    contract.normalize(levels)
    assert torch.equal(floats, kept_floats)
    assert torch.equal(levels, kept_levels)


def test_normalization_of_an_empty_batch_is_empty() -> None:
    assert Pixels((5, 4)).normalize(np.zeros((0, 5, 4, 3), np.uint8)).shape == (0, 3, 5, 4)


def test_the_pipeline_is_read_back_from_json() -> None:
    contract = Pixels((9, 7), "crop", 3, 128, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert read_dataclass(Pixels, contract.to_json()) == contract


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 5)},
        {"size": (5, 20_000)},
        {"fit": "stretch"},
        {"margin": -1},
        {"fill": 256},
        {"std": (0.1, 0.0, 0.1)},
    ],
    ids=str,
)
def test_an_impossible_pipeline_is_refused(wrong: dict[str, Any]) -> None:
    value = next(iter(wrong.values()))
    with raises(BadInput, *wrong, got=value):
        Pixels(**{"size": (8, 8), **wrong})


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for raw in (tmp_path / "a.png", b""):
        with pytest.raises(BadImage, match="empty"):
            decode(raw)
