"""Build streams/headlines/vocabulary.tsv: how often tokens occur in headlines, and which of them are names.

    python -m models.build_vocabulary

Reads the training and validation parts of SEntFiN and Twitter Financial News Sentiment (both MIT), not their tests.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable

from models.splits import data_folder, official
from streams.headlines.text import bare, normalise
from streams.headlines.tokens import VOCABULARY, Vocabulary, trim

LEAST = 2  # headlines a token must occur in
NAME_SHARE = 0.8  # of a token's places inside headlines in sentence case: capitalised there, it is a name
_WORD = re.compile(r"[^\W\d_][\w.&']*")


def build(titles: Iterable[str]) -> str:
    """The vocabulary file's text."""
    blank = Vocabulary(1, {}, frozenset())
    frequencies: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    small: Counter[str] = Counter()
    headlines = 0
    for title in titles:
        headlines += 1
        frequencies.update({token.text for token in blank.tokens(title)})
        words = _WORD.findall(trim(bare(title)))
        inside = words[1:]
        if 2 * sum(word[0].isupper() for word in inside) > len(inside):
            continue  # every word of a headline in title case is capitalised
        for word in inside:
            (capital if word[0].isupper() else small).update(token.text for token in blank.tokens(word))
    lines = [f"headlines\t{headlines}"]
    for token, count in sorted(frequencies.items()):
        if count >= LEAST:
            is_name = token[0].isalpha() and capital[token] >= NAME_SHARE * (capital[token] + small[token])
            lines.append(f"{token}\t{count}" + ("\tname" if is_name else ""))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the file that comes with Tapewatch."""
    splits = official(data_folder())
    titles = [normalise(example.text) for example in (*splits.train, *splits.validation)]
    VOCABULARY.write_text(build(titles), encoding="utf-8")
    sys.stderr.write(f"{VOCABULARY}: {len(titles)} headlines, {VOCABULARY.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
