"""Licences: one name however they are written, and commercial use only where it is known to be allowed."""

from __future__ import annotations

import pytest

from share4video.dataset.licences import commercial_use, normalise


@pytest.mark.parametrize(
    ("written", "name", "use"),
    [
        ("CC BY 4.0", "CC-BY-4.0", "yes"),
        ("cc-by-nc-sa-3.0", "CC-BY-NC-SA-3.0", "no"),
        ("Creative Commons BY-NC 4.0", "CC-BY-NC-4.0", "no"),
        ("https://creativecommons.org/licenses/by-nd/2.0/", "CC-BY-ND-2.0", "yes"),
        ("https://creativecommons.org/licenses/by-nc/4.0/deed.en", "CC-BY-NC-4.0", "no"),
        ("cc by", "CC-BY-4.0", "yes"),
        ("CC0", "CC0-1.0", "yes"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0", "yes"),
        ("Public Domain", "CC-PDDC", "yes"),
        ("MIT License", "MIT", "yes"),
        ("Pexels licence", "Pexels", "unknown"),
        ("https://www.pexels.com/license/", "Pexels", "unknown"),
        ("mixit", "Mixkit", "unknown"),
        ("panda70m", "Panda-70M", "no"),
        ("BDD", "BDD100K", "unknown"),
        ("Ego4D License", "Ego4D", "unknown"),
        ("", "unknown", "unknown"),
        ("My  own terms", "My own terms", "unknown"),
        ("cc by-nc (but ask me)", "cc by-nc (but ask me)", "unknown"),
    ],
)
def test_a_licence_has_one_name_and_one_answer(written: str, name: str, use: str) -> None:
    assert (normalise(written), commercial_use(written)) == (name, use)
    assert normalise(name) == name


def test_a_user_may_have_read_a_licence() -> None:
    assert commercial_use("pexels license", ["Pexels"]) == "yes"
    assert commercial_use("My own terms", ["my own terms"]) == "unknown"  # other words may be other terms
    assert commercial_use("My own terms", ["My own terms"]) == "yes"
