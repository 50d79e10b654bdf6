"""Colours: readable on both themes, whatever the scheme."""

from __future__ import annotations

import pytest

from dashboard import palette

READABLE = 4.5  # to 1, WCAG 2.2, level AA for text
TEXTS = ("text", "muted", "negative", "neutral", "positive", "critical", "warning", "accent")


@pytest.mark.parametrize("scheme", palette.SCHEMES)
@pytest.mark.parametrize("theme", palette.THEMES)
@pytest.mark.parametrize("ground", ["background", "panel"])
def test_every_colour_of_text_is_readable(theme: palette.Theme, scheme: str, ground: str) -> None:
    """Each colour that text has is at least 4.5 to 1 against each ground that it stands on."""
    found = palette.colours(theme, scheme)
    ratios = {name: palette.contrast(found[name], found[ground]) for name in TEXTS}
    assert {name: ratio for name, ratio in ratios.items() if ratio < READABLE} == {}


@pytest.mark.parametrize("theme", palette.THEMES)
def test_a_scheme_swaps_negative_and_positive_only(theme: palette.Theme) -> None:
    """West and east are each other's reverse; all other colours stay."""
    west, east = palette.colours(theme, "west"), palette.colours(theme, "east")
    assert (west["negative"], west["positive"]) == (east["positive"], east["negative"])
    others = set(west) - {"negative", "positive"}
    assert {name: west[name] for name in others} == {name: east[name] for name in others}


def test_an_unknown_scheme_is_the_safe_one() -> None:
    """A URL may ask for anything."""
    assert palette.colours("light", "plaid") == palette.colours("light", "safe")


def test_contrast_of_black_and_white_is_the_largest() -> None:
    """The scale of contrast ends at 21 to 1 and begins at 1."""
    assert palette.contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert palette.contrast("#777777", "#777777") == 1
