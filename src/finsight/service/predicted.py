"""What was predicted, for Prometheus: labels, how sure they are, and how far both are from what the model was made with."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from finsight.domain.drift import index_drift
from finsight.domain.reference import CONFIDENCES, Reference, counted

WINDOW = 2000  # of the latest predictions, which drift is measured on; a shift of a tenth of the labels is plain in as many
_BATCH = 128  # rows that are counted at once: counting costs microseconds, however few they are


class Predicted(Collector):
    """Counts rows of probabilities, of the bundle in service."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[NDArray[np.float64]] = []
        self._waiting = 0
        self._labels: Sequence[str] = ()
        self._scores: Mapping[str, float] = {}
        self._reference: Reference | None = None
        self._by_label: dict[str, int] = {}
        self._by_bin = np.zeros(len(CONFIDENCES), dtype=np.int64)
        self._sum = 0.0
        self._latest: deque[tuple[int, NDArray[np.int64]]] = deque()
        self._rows = 0

    def begin(self, labels: Sequence[str], scores: Mapping[str, float], reference: Reference | None) -> None:
        """Another bundle is in service.

        :param scores: what it had on its test rows, by metric.
        """
        with self._lock:
            self._count()
            self._latest.clear()
            self._rows = 0
            self._labels, self._scores, self._reference = labels, scores, reference
            self._by_label = {**dict.fromkeys(labels, 0), **self._by_label}

    def saw(self, probs: NDArray[np.float64]) -> None:
        """Predictions (n, k) of the bundle in service were given. They are counted by the batch, so that a request costs little."""
        with self._lock:
            self._pending.append(probs)
            self._waiting += len(probs)
            if self._waiting >= _BATCH:
                self._count()

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        with self._lock:
            self._count()
            predictions, confidence, scores, training, drift, rows = self._families()
            for label, count in self._by_label.items():
                predictions.add_metric([label], count)
            ends = [*map(str, CONFIDENCES[:-1]), "+Inf"]  # the last bin ends with 1, which no probability is above
            confidence.add_metric([], list(zip(ends, accumulate(self._by_bin.tolist()), strict=True)), self._sum)
            for name, score in self._scores.items():
                scores.add_metric([name], score)
            if self._reference:
                for label, count in zip(self._labels, self._reference.labels, strict=True):
                    training.add_metric([label], count)
                rows.add_metric([], self._rows)
            if (
                self._reference and self._rows
            ):  # none are as far from anything as can be, and would be an alert of a service that nobody asks
                found = sum((one for _, one in self._latest), np.zeros((len(self._labels), len(CONFIDENCES)), dtype=np.int64))
                drift.add_metric(["labels"], index_drift(self._reference.labels, found.sum(axis=1).tolist()))
                drift.add_metric(["confidence"], index_drift(self._reference.confidences, found.sum(axis=0).tolist()))
        yield from (predictions, confidence, scores, training, drift, rows)

    def _count(self) -> None:
        if not self._waiting:
            return
        probs = np.concatenate(self._pending)
        self._pending, self._waiting = [], 0
        found = counted(probs)
        for label, count in zip(self._labels, found.sum(axis=1).tolist(), strict=True):
            self._by_label[label] += count
        self._by_bin += found.sum(axis=0)
        self._sum += float(probs.max(axis=1).sum())
        self._latest.append((len(probs), found))
        self._rows += len(probs)
        while self._rows - self._latest[0][0] >= WINDOW:
            self._rows -= self._latest.popleft()[0]

    @staticmethod
    def _families() -> tuple[
        CounterMetricFamily, HistogramMetricFamily, GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily
    ]:
        return (
            CounterMetricFamily("finsight_predictions", "Predictions that were given, by their label.", labels=["label"]),
            HistogramMetricFamily("finsight_prediction_confidence", "Probability of the predicted label."),
            GaugeMetricFamily("finsight_model_test_score", "What the bundle in service had on its test rows.", labels=["metric"]),
            GaugeMetricFamily("finsight_training_rows", "Rows that the bundle in service has learnt from.", labels=["label"]),
            GaugeMetricFamily(
                "finsight_prediction_drift_psi",
                "Population stability index of the latest predictions less what chance adds: labels against the training rows, confidence "
                "against the test rows.",
                labels=["of"],
            ),
            GaugeMetricFamily("finsight_prediction_drift_rows", "Latest predictions that drift was measured on."),
        )
