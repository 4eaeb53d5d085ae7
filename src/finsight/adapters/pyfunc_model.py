"""The bundle as MLflow's pyfunc sees it. MLflow runs this file when it loads the model (models from code), so that nothing is pickled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

import finsight
from finsight.errors import DataError

TEXT, BUNDLE = "text", "bundle"


class BundleModel(PythonModel):  # type: ignore[misc]
    """Answers a table of texts with a table of predictions."""

    def load_context(self, context: PythonModelContext) -> None:
        """Check the bundle and open it."""
        self._model = finsight.load(context.artifacts[BUNDLE])

    # A hint of list[str] would let MLflow take the first column of a table, whatever it holds.
    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow calls it with three arguments of these names
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Predict each text.

        :param model_input: with a column ``text``; other columns are left alone. A list of strings does too.
        :return: a row a text, with its index: ``label``, ``score`` and ``sure`` as in :class:`finsight.pipeline.predict.Prediction`,
            ``prob_…`` of each label.
        :raises DataError: when a text is none.
        """
        texts, index = _texts(model_input)
        found = self._model.predict(texts)
        table = {
            "label": [p.label for p in found],
            "score": [p.score for p in found],
            "sure": [p.sure for p in found],
        }
        table |= {f"prob_{label}": [p.probabilities[label] for p in found] for label in self._model.labels}
        return pd.DataFrame(table, index=index)


def _texts(given: pd.DataFrame | Sequence[str]) -> tuple[list[str], pd.Index[Any] | None]:
    """The texts and the index of their table, None where they come as a list."""
    texts: list[str] = given[TEXT].to_list() if isinstance(given, pd.DataFrame) else list(given)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{TEXT} of row {i}: got {text!r}, expected a string")
    return texts, given.index if isinstance(given, pd.DataFrame) else None


set_model(BundleModel())
