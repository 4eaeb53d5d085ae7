"""Which texts are certainly in another language."""

from __future__ import annotations

from collections.abc import Callable

from finsight.errors import ParamsError

# Among all 140 languages of the model short headlines full of names are taken for Luxembourgish or Latin; among these they are not.
MAJOR = ("ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "hi", "id", "it", "ja", "ko", "nl", "no", "pl", "pt", "ru", "sv", "tr", "zh")
CERTAIN = 0.9  # probability from which a language is believed
MIN_WORDS = 4  # "Nokia Oyj 2009" is in every language


def foreign_to(language: str) -> Callable[[str], bool]:
    """A function that says whether a text is in a major language other than ``language`` beyond doubt; a short one never is.

    :param language: ISO 639 code.
    :raises ParamsError: when the model does not know it.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # its model is an npz that is loaded without pickle

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if language not in identifier.labels:
        raise ParamsError(
            f'validate.language: got {language!r}, expected one of {", ".join(sorted(identifier.labels))}, or "" to switch the check off'
        )
    identifier.set_languages({*MAJOR, language})

    def foreign(text: str) -> bool:
        # Scripts without spaces have no words to count: what is not ASCII is long enough by its bytes.
        if len(text.split()) < MIN_WORDS and len(text.encode()) - len(text) < 2 * MIN_WORDS:
            return False
        found, probability = identifier.classify(text)
        return bool(found != language and probability >= CERTAIN)

    return foreign
