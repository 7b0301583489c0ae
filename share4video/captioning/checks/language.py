"""Whether a caption is written in the language that was asked for.

Two rules, and no model. The script: letters of another script than the language's are foreign, and a caption
may have a small share of them (a name; what is quoted is not counted). The function words: of a language in
Latin letters the caption must have more of its own than of any other known one, where there are enough to
tell. Short captions and those without function words pass: the check is there for a model that falls into
another language, not for style.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from share4video.captioning.quoted import without_quotes
from share4video.config import Language

_SCRIPTS: dict[Language, tuple[str, ...]] = {
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "ar": ("ARABIC",),
    "hi": ("DEVANAGARI",),
}
_LATIN = ("LATIN",)
# Words of few letters that are frequent in their language; those that two of the languages share say nothing
# and stand for neither.
_FUNCTION_WORDS: dict[Language, str] = {
    "en": "the of and to is are with on at from by this that his her their its it which into while there has",
    "de": "der die das und ist sind mit auf dem den ein eine einer einem einen von zu im nicht sich wird aus",
    "es": "el los las del y con una por se está están mientras hacia sobre hay muy como sus pero",
    "fr": "le les des et est sont dans avec sur une du au aux qui il elle vers pendant ses ce cette",
    "it": "il gli della del di e con una che si nel nella sono mentre verso sulla suo dei alla",
    "nl": "de het een van en is zijn met op in naar die aan er wordt terwijl zich voor niet bij",
    "pt": "o os das do e com uma está estão em no na enquanto sobre seu sua um ao são pelo",
}
_FEWEST_LETTERS = 12  # of a text with fewer, a share says little
_FEWEST_WORDS = 3  # different function words of the other language, before it is believed
_WORD = re.compile(r"[^\W\d_]+")


def foreign(text: str, language: Language, max_foreign_share: float) -> bool:
    """Whether the text is in another script or language than ``language``.

    Args:
        max_foreign_share: of the letters, that may be of another script.
    """
    own = without_quotes(text)
    letters = [letter for letter in own if letter.isalpha()]
    if len(letters) < _FEWEST_LETTERS:
        return False
    scripts = _SCRIPTS.get(language, _LATIN)
    others = sum(not _script(letter).startswith(scripts) for letter in letters)
    if others > max_foreign_share * len(letters):
        # A caption in Chinese or Hindi may name many things in Latin letters.
        return scripts == _LATIN or others > len(letters) / 2
    return scripts == _LATIN and _other_words(own, language)


def _other_words(text: str, language: Language) -> bool:
    """Whether there are more function words of another language than of this one."""
    counts = Counter(word.casefold() for word in _WORD.findall(text))
    telling = _telling_words()
    own = sum(counts[word] for word in telling[language])
    return any(
        sum(word in counts for word in words) >= _FEWEST_WORDS and sum(counts[word] for word in words) > own
        for other, words in telling.items()
        if other != language
    )


@lru_cache(maxsize=1)
def _telling_words() -> dict[Language, frozenset[str]]:
    words = {language: frozenset(listed.split()) for language, listed in _FUNCTION_WORDS.items()}
    shared = Counter(word for listed in words.values() for word in listed)
    return {
        language: frozenset(word for word in listed if shared[word] == 1)
        for language, listed in words.items()
    }


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "")
