"""Headlines as clean text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.headlines.text import _TWINS, bare, fold, normalise

_HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("&<>;#/ax&ampltgnbsp38\u0301\u0316\u0344\u200b\u202eаοｅ＆＜"),
    ),
    max_size=60,
)
_MARKUP = st.lists(
    st.sampled_from(
        ["&", "amp;", "#38;", "#x26;", "lt;", "gt;", "<", ">", "b", "br", "/", "&#65286;", "&#97;", "--", "!"]
    ),
    max_size=30,
).map("".join)


@given(st.one_of(_HOSTILE, _MARKUP))
def test_normalising_is_idempotent(title: str) -> None:
    """A title that was normalised stays as it is."""
    once = normalise(title)
    assert normalise(once) == once


@given(_HOSTILE)
def test_folding_keeps_places(title: str) -> None:
    """The folded text and the text without accents have their characters at the same places."""
    assert len(fold(title)) == len(bare(title))


@given(_HOSTILE)
def test_nothing_invisible_is_left(title: str) -> None:
    """No control, format character or lone surrogate is left, so the result is encodable and has one line."""
    clean = normalise(title)
    clean.encode()
    assert not [
        char for char in clean if unicodedata.category(char) in ("Cc", "Cs") or char in "\u200b\u202e\u2028"
    ]


@pytest.mark.parametrize(
    ("title", "clean"),
    [
        ("  Apple\u00a0 beats\t\nestimates ", "Apple beats estimates"),
        ("AT&amp;T to buy Time Warner", "AT&T to buy Time Warner"),
        ("AT&amp;amp;amp;T", "AT&T"),
        ("Macy’s “best” quarter – analysts", 'Macy\'s "best" quarter - analysts'),
        ("<b>Tesla</b> falls<br/>again", "Tesla falls again"),
        ("&lt;script&gt;alert(1)&lt;/script&gt; Gold", "alert(1) Gold"),
        ("Yield < 2% > 1%", "Yield < 2% > 1%"),
        ("Apple <AAPL.O> rises", "Apple <AAPL.O> rises"),
        ("Te\u200bsla\u202e up", "Tesla up"),
        ("Ｔｅｓｌａ ５％", "Tesla 5%"),
        ("Apple™ Watch®", "Apple Watch"),
        ("", ""),
    ],
)
def test_clean_form(title: str, clean: str) -> None:
    """Decorations of feeds and pages go, what a headline says stays."""
    assert normalise(title) == clean


@pytest.mark.parametrize(
    ("title", "clean"),
    [
        ("Р\u0430yР\u0430l", "PayPal"),
        ("Αpple", "Apple"),
        ("Сбербанк отчитался", "Сбербанк отчитался"),
        ("ΔΕΗ", "ΔΕΗ"),
        ("TNFα drug", "TNFα drug"),
        ("WiFiшка", "WiFiшка"),
        ("苹果公司", "苹果公司"),
    ],
)
def test_look_alikes(title: str, clean: str) -> None:
    """Look-alikes inside a Latin word become Latin; words of another script stay."""
    assert normalise(title) == clean


def test_twins_are_letters_of_the_scripts_they_are_said_to_be() -> None:
    """Each look-alike is a Cyrillic or Greek letter, its twin a Latin one, of the same case or caseless
    shape."""
    for source, target in _TWINS.items():
        name = unicodedata.name(chr(source))
        assert name.startswith(("CYRILLIC", "GREEK"))
        assert unicodedata.name(chr(target)).startswith("LATIN")
        assert chr(source).isupper() == chr(target).isupper() or chr(target) in "Il"


@pytest.mark.parametrize(
    ("text", "folded"), [("Nestlé", "nestle"), ("ŁÓDŹ", "lodz"), ("Straße", "strasse"), ("İş", "is")]
)
def test_folding(text: str, folded: str) -> None:
    """Case and accents do not matter for matching."""
    assert fold(text) == folded


@pytest.mark.parametrize(
    "unit",
    [
        "\u0301\u0316",
        "&amp;",
        "&#38;amp;",
        "<b ",
        "<!--",
        "\u202e\u202d",
        "аa",
        "\u1100\u1161",
        "&#",
        "&&#97;mp;",
    ],
)
def test_hostile_floods_end(unit: str) -> None:
    """A flood of marks, escapes, tags or overrides is normalised in the time that its length allows."""
    clean = normalise(unit * 200_000)
    assert len(clean) <= 2 * len(unit) * 200_000
