"""Colour scales and fonts of the pictures that onetrunk draws."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageFont

from onetrunk.data import drawing
from onetrunk.data.drawing import MAGMA, TABLEAU, VIRIDIS, colour_scale, text_font
from onetrunk.data.pixels import U8


@pytest.mark.parametrize("scale", [MAGMA, VIRIDIS], ids=["magma", "viridis"])
def test_scales_go_from_dark_to_bright(scale: U8) -> None:
    colours = colour_scale(scale, np.linspace(0, 1, 101).reshape(101, 1))
    assert colours.shape == (101, 1, 3) and colours.dtype == np.uint8
    brightness = colours[:, 0] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness) > -1).all() and brightness[-1] - brightness[0] > 150
    np.testing.assert_array_equal(colours[[0, -1], 0], scale[[0, -1]])
    np.testing.assert_array_equal(colour_scale(scale, np.array([-1.0, 2.0])), scale[[0, -1]])


def test_class_colours_are_distinct() -> None:
    assert len({tuple(colour) for colour in TABLEAU.tolist()}) == 20


def test_without_an_installed_font_pillow_s_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "FONTS", ("no-such-font.ttf",))
    font = text_font(12)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert font.getlength("shop") > 10
