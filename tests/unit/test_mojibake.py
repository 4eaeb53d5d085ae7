"""Damage by a wrong decoding is found and undone, and sound texts are left alone."""

from pathlib import Path

import pytest

from finsight.pipeline.mojibake import damaged, repair


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("Sepp+ñl+ñ 's sales", "Seppälä 's sales"),
        ("Bank of +àland and +àm+Ñl", "Bank of Åland and Åmål"),
        ("the +ä+ñnekoski mill", "the Äänekoski mill"),
        ("TYRV+ä+äN SANOMAT", "TYRVÄÄN SANOMAT"),
        ("said +£lo P+ñrnits", "said Ülo Pärnits"),
        ("France T+®l+®com", "France Télécom"),
        ("Tel+¬maco of Paran+í .", "Telêmaco of Paraná ."),
        ("Walter G++nter", "Walter Günter"),
        ("the company+óEUR TM s capital", "the company’ s capital"),
        ("a loss of +ó  x201a -¼ 59.3 million", "a loss of € 59.3 million"),
        ("Group -¦ s sales", "Group ´ s sales"),
        ("+1 617-á801-á6888", "+1 617\xa0801\xa06888"),
        ("0.1-1200 -Ál volume", "0.1-1200 µl volume"),
        ("Tekla -® 2009", "Tekla © 2009"),
        ("KÃ¶ln â€“ up", "Köln – up"),
        ("SÃƒÂ©nior", "Sénior"),
        ("\x80 100 million", "€ 100 million"),
    ],
)
def test_damage_is_found_and_undone(text: str, sound: str) -> None:
    assert damaged(text)
    assert repair(text) == sound
    assert not damaged(sound)


@pytest.mark.parametrize("text", ["profit of +é 5.5 million", "Myllykoski+ó s banks", "lost \ufffd here", "right\x9d quote"])
def test_what_is_lost_is_found_and_left(text: str) -> None:
    assert damaged(text)
    assert damaged(repair(text)) or "\x9d" in text


@pytest.mark.parametrize(
    "text",
    [
        "K+S Group , R+D and C++ developers , C++based , rated A++ or AA++",
        "Köln , São Paulo , Škoda , Łódź – “up 5 %” … £5 ¥6 €7",
        "5+½ years , 3-½ points , +5 % , T+2 , 52-week",
        "García-Álvarez , Peña-Ñúñez , -« Bonjour »",
        "Disney+® , Canal+ à la carte , Bauer+Söhne , Müller+Äpfel , +über , 10+ähnliche",
        "プラス + マイナス",
        "Excel + ñandú , a+b=c , x+¼ y",
        "",
    ],
)
def test_a_sound_text_stays(text: str) -> None:
    assert not damaged(text)
    assert repair(text) == text


def test_the_official_phrasebank(phrasebank: Path) -> None:
    lines = (phrasebank / "Sentences_50Agree.txt").read_bytes().decode("latin-1").split("\r\n")
    bad = [line for line in lines if damaged(line)]
    assert len(bad) == 113  # 111 with letters beyond ASCII, and two in which both bytes of ü became +
    assert all(damaged(line) for line in lines if not line.isascii())
    assert sum(damaged(repair(line)) for line in bad) == 5  # half of what they had is lost
    assert [repair(line) for line in lines if line not in bad] == [line for line in lines if line not in bad]
