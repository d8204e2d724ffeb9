"""MLflow: one run, which a resumed training continues.

Without `MLFLOW_TRACKING_URI`, the run is written into a database in the folder of the run:
`mlflow ui --backend-store-uri sqlite:///RUN/mlflow/mlflow.db`. `MLFLOW_EXPERIMENT_NAME` sets the
experiment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from onetrunk.store.atomic import make_folder
from onetrunk.train.loggers._scalars import Tracker

LONGEST = 500  # characters of a parameter
AT_ONCE = 100  # parameters or metrics in one call


class MlflowLogger(Tracker):
    """Logs numbers as metrics, and the recipe as parameters and as an artifact."""

    package = "mlflow"
    _client: Any = None

    def open(self, name: str, config: dict[str, Any]) -> None:
        """Open the run of this folder."""
        uri, artifacts = os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            home = (self.folder / "mlflow").absolute()
            make_folder(home)
            uri, artifacts = f"sqlite:///{home / 'mlflow.db'}", (home / "artifacts").as_uri()
        self._client = self.api.MlflowClient(tracking_uri=uri)
        if self.sent.id:
            self._client.update_run(self.sent.id, status="RUNNING")
            return
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "onetrunk"
        known = self._client.get_experiment_by_name(title)
        experiment = (
            self._client.create_experiment(title, artifact_location=artifacts)
            if known is None
            else known.experiment_id
        )
        run_id = self._client.create_run(experiment, run_name=name).info.run_id
        params = [self.api.entities.Param(k, str(v)[:LONGEST]) for k, v in _flat(config)]
        for first in range(0, len(params), AT_ONCE):
            self._client.log_batch(run_id, params=params[first : first + AT_ONCE])
        self._client.log_dict(run_id, config, "recipe.json")
        self.sent.open(run_id)

    def send(self, step: int, numbers: dict[str, float]) -> None:
        """Log the numbers of one step."""
        now, make = int(1000 * time.time()), self.api.entities.Metric
        metrics = [make(name, value, now, step) for name, value in numbers.items()]
        for first in range(0, len(metrics), AT_ONCE):  # each call is a transaction
            self._client.log_batch(self.sent.id, metrics=metrics[first : first + AT_ONCE])

    def close(self) -> None:
        """Mark the run as finished."""
        if self._client is not None:
            self._client.set_terminated(self.sent.id)
            self._client = None


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of a recipe: `train.lr`, `domains.digits.source`."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for inner in value:
                yield from _flat(inner, f"{prefix}{key}.{inner.get('name', '')}.")
        else:
            yield f"{prefix}{key}", value


LOGGER = MlflowLogger
