"""The rows that the model has wrong, the surest first, with the training rows that are most like them and what led it astray."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from finsight.pipeline.cells import plain
from finsight.pipeline.explain import Probs, explain
from finsight.pipeline.linear import sampled, vectorizer
from finsight.pipeline.predictions import Predictions

MOST = 200
NEIGHBOURS = 3
EXPLAINED = 30  # of them; each costs a pass a word
_NEAR = [f"near_{number}_{what}" for number in range(1, NEIGHBOURS + 1) for what in ("label", "likeness", "text")]
COLUMNS = ("id", "label", "predicted", "confidence", "text", *_NEAR, "words")


def mistakes(found: Predictions, learned: pa.Table, probs: Probs) -> list[dict[str, str]]:
    """A row for each of the ``MOST`` mistakes that the model was surest of; a wrong label in training or test often shows beside one.

    :param learned: ``text`` and ``label`` of the training rows; likeness is the cosine of TF-IDF over words and word pairs.
    :param probs: the model. ``words`` of the first ``EXPLAINED`` rows is what each word did for the wrong label: JSON, [[word, effect], …].
    """
    confidence = found.probs.max(axis=1)
    wrong = np.flatnonzero(found.predicted != found.actual)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST]
    ids, texts = found.table["id"].to_pylist(), found.table["text"].to_pylist()
    learned = learned.take(pa.array(sampled(learned.num_rows)))
    answers, known = learned["label"].to_pylist(), learned["text"].to_pylist()
    near = _nearest([texts[i] for i in wrong], known)
    why = [[[word.text, round(word.effect, 4)] for word in e.words] for e in explain(probs, [texts[i] for i in wrong[:EXPLAINED]])]
    rows = []
    for rank, (i, neighbours) in enumerate(zip(wrong, near, strict=True)):
        row = [ids[i], found.labels[found.actual[i]], found.labels[found.predicted[i]], f"{confidence[i]:.4f}", plain(texts[i])]
        for j, likeness in neighbours:
            row += [answers[j], f"{likeness:.2f}", plain(known[j])]
        words = {"words": json.dumps(why[rank], ensure_ascii=False)} if rank < EXPLAINED else {}
        rows.append(dict(zip(COLUMNS, row, strict=False)) | words)
    return rows


def _nearest(asked: Sequence[str], known: Sequence[str]) -> list[list[tuple[int, float]]]:
    """For each text the numbers of the known ones that are most like it, with their likeness; fewer where none has a word of it."""
    features = vectorizer(1)
    try:
        matrix = features.fit_transform(known)
    except ValueError:  # none has a word
        return [[] for _ in asked]
    found = []
    for text in asked:
        likeness = (matrix @ features.transform([text]).T).toarray().ravel()
        best = np.argsort(-likeness, kind="stable")[:NEIGHBOURS]
        found.append([(int(j), float(likeness[j])) for j in best if likeness[j] > 0])
    return found
