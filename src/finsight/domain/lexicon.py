"""A word list for financial news: the simplest thing that reads a text at all, as a baseline.

Written for this project, from the words that reports and headlines use for what goes up or down. It knows single words and a negation
before them, not that a loss which narrows is good news: that is what makes it a baseline.
"""

from __future__ import annotations

import re

_GOOD = """
accelerate accelerated advance advanced approval approved award awarded beat beats benefit benefited best boost boosted buoyant climb
climbed climbs commended confident contract delight deliver delivered doubled ease eased effective efficiency efficient exceed exceeded
exceeds excellent expand expanded expansion favorable favourable gain gained gains good great grew grow growing growth healthy helped
high higher highest improve improved improvement improves improving increase increased increases increasing jump jumped jumps lead
leading lifted lifts momentum opportunity optimistic outpaced outperform outperformed outperforms positive profit profitability
profitable profits progress promising raised raises rallied rally rebound rebounded record recover recovered recovery reward rise risen
rises rising robust rose secure secured secures soar soared solid strength strengthen strengthened strong stronger strongest succeed
success successful surge surged surpass surpassed swung tops tripled turnaround upbeat upgrade upgraded upgrades upside upturn win
winner wins won
"""
_BAD = """
abandon abandoned adverse alert bad bankrupt bankruptcy bearish below breach challenging close closed closure collapse collapsed
complaint concern concerns cut cuts cutting damage damaged debt decline declined declines declining decrease decreased decreases default
defaulted deficit delay delayed delays deteriorate deteriorated difficult disappoint disappointed disappointing dispute down downgrade
downgraded downgrades downturn drop dropped drops fail failed fails failure fall fallen falling falls fear fears fell fine fined fraud
halt halted halts hurt impairment inquiry insolvency insolvent investigation lawsuit layoff layoffs litigation lose loses losing loss
losses lost low lower lowered lowers lowest miss missed misses negative penalty plummet plummeted plunge plunged plunges poor pressure
probe problem problems recall recalled recession reduced redundancies resign resigned resigns restructuring scandal shortage shortfall
shrank shrink shut sink slash slashed slid slide slip slipped slips slow slowdown slowed slower sluggish slump slumped strike struggle
struggled struggling sue sued suspend suspended tumble tumbled tumbles uncertain uncertainty underperform underperformed unprofitable
violation warn warned warning warns weak weaken weakened weaker weakness widen widened worse worsened worst write-down write-off
writedown
"""
_NOT = "can't cannot didn't doesn't don't hasn't haven't isn't neither never no nor not wasn't without won't"
POSITIVE, NEGATIVE, NEGATION = frozenset(_GOOD.split()), frozenset(_BAD.split()), frozenset(_NOT.split())
_WORD = re.compile(r"[a-z]+(?:['’-][a-z]+)*")
_REACH = 3  # words after a negation that it turns


def tone(text: str) -> float:
    """How good the news is, from -1 to 1: good words less bad ones, by their number; 0 where there are none."""
    words = [word.replace("’", "'") for word in _WORD.findall(text.lower())]
    good = bad = 0
    for i, word in enumerate(words):
        sign = (word in POSITIVE) - (word in NEGATIVE)
        if NEGATION & set(words[max(0, i - _REACH) : i]):
            sign = -sign
        good, bad = good + (sign > 0), bad + (sign < 0)
    return (good - bad) / max(1, good + bad)
