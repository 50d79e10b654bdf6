"""Headlines as text: one clean form for the model and the reader, one folded form for matching.

Pure functions that training and serving share. They take any string, never raise, and need time linear in its
length, so that a hostile title costs no more than a long one.
"""

from __future__ import annotations

import html
import re
import unicodedata

# Cyrillic and Greek letters whose usual glyph is that of a Latin letter (by the shapes in the Unicode code
# charts). Greek alpha and kappa stay out: TNFα and NFκB are words of their own.
_TWINS = str.maketrans(
    "АВЕЅІЈКМНОРСТУХԌԚԜӀаеіјорсухѕһԁԛԝӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρι",
    "ABESIJKMHOPCTYXGQWIaeijopcyxshdqwlABEZHIKMNOPTYXovpi",
)
_MIXED_SCRIPT = re.compile(r"[\u0370-\u03ff\u0400-\u052f]")
_WORD = re.compile(r"[^\W\d_]+")

# Before NFKC, which would turn the acute accent into a space with a mark and the trade mark into the
# letters TM.
_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛ʼ´′", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("™®℠", None),
    }
)
# Controls that are no white space, soft hyphen, joiners, bidirectional marks and overrides, fillers,
# variation selectors, tags, byte-order mark, lone surrogates.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff9-\uffff"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# `&amp;amp;lt;` is decoded to the end at once, so that nesting costs no passes.
_ENTITY = re.compile(
    r"&(?:(?:amp|#0{0,6}38|#x0{0,6}26);){0,64}(#\d{1,7}|#x[\da-f]{1,6}|[a-z][a-z\d]{1,30});", re.I | re.A
)
_INLINE = re.compile(
    r"</?(?:a|abbr|b|big|cite|code|em|font|i|mark|s|small|span|strong|sub|sup|tt|u)(?:\s[^<>]{0,2000})?/?>",
    re.I,
)
_BLOCK = re.compile(
    r"</?(?:article|blockquote|body|br|div|h[1-6]|head|hr|html|iframe|img|li|link|meta|ol|p|script|section|style|"
    r"table|td|th|title|tr|ul|video)(?:\s[^<>]{0,2000})?/?>|<!--|-->",
    re.I,
)
_MARKUP_START = re.compile(r"[&<](?=[#A-Za-z/!])|--(?=>)")
_BEYOND_LATIN = re.compile(r"[^\x00-\u02ff]{5,}")
_MARKS_IN_A_ROW = 4  # no orthography stacks more; NFKC sorts a run of marks in quadratic time
_PASSES = 6
_LETTERS = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D"}
    | {"ł": "l", "Ł": "L", "ı": "i"}
)


def normalise(title: str) -> str:
    """The title as the model reads it and the page shows it.

    Unicode NFKC; invisible characters, bidirectional overrides and controls removed; typographic quotes and
    dashes as ASCII; HTML entities decoded and HTML tags dropped; Cyrillic and Greek look-alikes inside a
    Latin word as Latin; white space as single spaces. Idempotent, linear in time, never raises. Joiners go
    too, so that text in scripts which need them (Persian, emoji sequences) loses that shaping.
    """
    if _is_plain(title):
        return " ".join(title.split())
    text = title
    for _ in range(_PASSES):
        before, text = text, _one_pass(text)
        if text == before:
            return text
    # Only nested escapes come here: what still looks like markup is pulled apart, so that nobody decodes it
    # later.
    return _settle(text)


def fold(text: str) -> str:
    """The text in lower case without accents, for matching; as long as `bare(text)`, character for
    character."""
    return text.lower() if text.isascii() else bare(text).lower()


def bare(text: str) -> str:
    """The text without accents, its case kept."""
    if text.isascii():
        return text
    split = unicodedata.normalize("NFKD", _thin_marks(text).translate(_LETTERS))
    return "".join(char for char in split if not unicodedata.combining(char))


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and "&" not in text and "<" not in text and "-->" not in text


def _one_pass(text: str) -> str:
    text = unicodedata.normalize("NFKC", _thin_marks(_INVISIBLE.sub("", text.translate(_TYPOGRAPHY))))
    text = _BLOCK.sub(" ", _INLINE.sub("", _ENTITY.sub(_decode, text)))
    if _MIXED_SCRIPT.search(text):
        text = _WORD.sub(_latinise, text)
    return " ".join(text.split())


def _settle(text: str) -> str:
    for _ in range(3):  # a pass may still turn a full-width ampersand into a plain one
        text = _one_pass(_MARKUP_START.sub(lambda found: f"{found[0]} ", text))
    return text


def _decode(found: re.Match[str]) -> str:
    return html.unescape(f"&{found[1]};")


def _latinise(found: re.Match[str]) -> str:
    """A word that is Latin but for look-alikes becomes Latin; any other stays as it is."""
    word = found[0]
    if word.isascii() or not any("A" <= char <= "Z" or "a" <= char <= "z" for char in word):
        return word
    folded = word.translate(_TWINS)
    return word if _MIXED_SCRIPT.search(folded) else folded


def _thin_marks(text: str) -> str:
    """At most four combining marks in a row."""
    return text if text.isascii() else _BEYOND_LATIN.sub(_thin_run, text)


def _thin_run(found: re.Match[str]) -> str:
    kept: list[str] = []
    marks = 0
    for char in found[0]:
        marks = marks + 1 if unicodedata.category(char)[0] == "M" else 0
        if marks <= _MARKS_IN_A_ROW:
            kept.append(char)
    return "".join(kept)
