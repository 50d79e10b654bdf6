"""The colours of both themes, the three schemes for negative and positive, and what makes them CSS and flags.

Orange and blue stay apart for every kind of colour blindness. Many desks are used to red and green, and red means up
in Chinese markets: a scheme swaps that pair and nothing else. Colour never stands alone: a sign or a word goes with it.
"""

from __future__ import annotations

from typing import Literal

Theme = Literal["light", "dark"]

THEMES: dict[Theme, dict[str, str]] = {
    "light": {
        "background": "#FFFFFF",
        "panel": "#F5F7F9",
        "line": "#DDE3E8",
        "text": "#17202A",
        "muted": "#5A6876",
        "neutral": "#626E7C",
        "critical": "#B3261E",
        "warning": "#8A5A00",
        "accent": "#0B7285",
    },
    "dark": {
        "background": "#10151B",
        "panel": "#171E26",
        "line": "#29323C",
        "text": "#E6EBF0",
        "muted": "#93A1B0",
        "neutral": "#8C99A8",
        "critical": "#FF7A70",
        "warning": "#E0A93B",
        "accent": "#3EC1D3",
    },
}
# scheme -> theme -> (negative, positive)
SCHEMES: dict[str, dict[Theme, tuple[str, str]]] = {
    "safe": {"light": ("#B84A0E", "#1B66B3"), "dark": ("#F08A4B", "#5AA9F0")},
    "west": {"light": ("#B42A4B", "#1A7A3C"), "dark": ("#F2778F", "#4DBD74")},
    "east": {"light": ("#1A7A3C", "#B42A4B"), "dark": ("#4DBD74", "#F2778F")},
}
SCHEME_WORDS = {
    "safe": "orange is negative, blue is positive",
    "west": "red is negative, green is positive",
    "east": "green is negative, red is positive",
}


def colours(theme: Theme, scheme: str = "safe") -> dict[str, str]:
    """Every colour of a theme by its meaning; an unknown scheme is the safe one."""
    negative, positive = SCHEMES.get(scheme, SCHEMES["safe"])[theme]
    return {**THEMES[theme], "negative": negative, "positive": positive}


def variables(theme: Theme, scheme: str = "safe") -> str:
    """The colours as CSS custom properties, `--tw-negative` and so on."""
    found = colours(theme, scheme)
    return ":root{" + "".join(f"--tw-{name}:{value};" for name, value in found.items()) + "}"


def flags() -> list[str]:
    """Streamlit's flags for both themes."""
    made = ["--theme.baseFontSize", "14", "--theme.baseRadius", "4px", "--theme.showWidgetBorder", "true"]
    for theme, found in THEMES.items():
        for option, name in (
            ("primaryColor", "accent"),
            ("backgroundColor", "background"),
            ("secondaryBackgroundColor", "panel"),
            ("textColor", "text"),
            ("linkColor", "accent"),
            ("borderColor", "line"),
        ):
            made += [f"--theme.{theme}.{option}", found[name]]
    return made


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2, relative luminance), 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)
