"""Money: any currency as whole cents of the reference currency, so that sums are exact."""

from __future__ import annotations

from collections.abc import Mapping

MAX_CENTS = 10**12  # ten thousand million; more is taken as this much, so that sums stay exact everywhere

# US dollars for one unit, rounded yearly means of 2025; TAPEWATCH_CURRENCIES overrides or adds.
RATES: Mapping[str, float] = {
    "USD": 1.0,
    "EUR": 1.13,
    "GBP": 1.32,
    "CHF": 1.2,
    "JPY": 0.0067,
    "CNY": 0.139,
    "INR": 0.0115,
    "CAD": 0.715,
    "AUD": 0.645,
    "NZD": 0.58,
    "SEK": 0.102,
    "NOK": 0.0965,
    "DKK": 0.151,
    "PLN": 0.267,
    "CZK": 0.0457,
    "HUF": 0.00284,
    "RON": 0.224,
    "TRY": 0.0254,
    "BRL": 0.179,
    "MXN": 0.052,
    "ZAR": 0.056,
    "KRW": 0.0007,
    "SGD": 0.766,
    "HKD": 0.128,
    "THB": 0.0304,
    "IDR": 0.0000608,
    "MYR": 0.234,
    "PHP": 0.0174,
    "AED": 0.272,
    "SAR": 0.267,
    "ILS": 0.29,
}


def parse_rates(text: str) -> dict[str, float]:
    """`EUR=1.13,GBP=1.32` over the table above. Raises ValueError that names the wrong part."""
    rates = dict(RATES)
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = part.partition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not name.strip().isalpha() or not 0 < rate < 1e9:
            raise ValueError(f"{part!r} is not CURRENCY=RATE with a rate above 0")
        rates[name.strip().upper()] = rate
    return rates


def cents(amount: float, currency: str, rates: Mapping[str, float]) -> int:
    """Whole cents of the reference currency; a currency that the table lacks is taken at par.

    The amount is a finite number; half a cent goes to the even one. `eur` is EUR.
    """
    rate = rates.get(currency) or rates.get(currency.upper(), 1.0)
    found = amount * rate * 100
    return round(max(-MAX_CENTS, min(MAX_CENTS, found)))  # bounded first: the largest floats overflow
