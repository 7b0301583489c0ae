"""MLflow: where runs are tracked, and one training's run.

``MLFLOW_TRACKING_URI`` names the server; without it runs go to a SQLite file beside the local store (or in
the work folder, where the store is remote) with the artifacts next to it, never to the working directory. An
``MLFLOW_RUN_ID`` that is set names the run to log to. This module imports neither torch nor, before a run is
opened, MLflow.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from share4video.errors import UserError
from share4video.work import work_folder

EXPERIMENT = "share4video"
KEY_TAG = "share4video.train_key"
CHECKPOINT_TAG = "share4video.checkpoint_uri"
MIXTURE_TAG = "share4video.mixture"
DATASET_TAG = "share4video.dataset_hash"
BASE_TAG = "share4video.base_model"

_SERVERS = ("http://", "https://")
_REFUSALS = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNAUTHORIZED")
_ANOTHER = "set MLFLOW_TRACKING_URI to a server or a database that MLflow can use"
_MAX_NAME = 250
_SERVER_TIMEOUT_S = 5.0
_SYSTEM_METRICS_INTERVAL_S = "5"


def configure(store_root: str | None) -> str:
    """Return the address runs and models are tracked at, once it is known to be usable.

    Args:
        store_root: the store whose own database it is where ``MLFLOW_TRACKING_URI`` names none; None or a
            remote store means the work folder.

    Raises:
        UserError: the server does not answer within seconds or refuses this client.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_folder(store_root) / 'mlflow.db'}"
    if uri.startswith(_SERVERS):
        check_server(uri)
    return uri


def connect(store_root: str | None) -> Any:
    """Import MLflow, point it at the address `configure` returns, select the experiment; return the module.

    The experiment is ``MLFLOW_EXPERIMENT_NAME``, by default ``share4video``.

    Raises:
        UserError: MLflow cannot be used there.
    """
    uri = configure(store_root)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    with speaking(uri):
        import mlflow

        mlflow.set_tracking_uri(uri)
        if uri.startswith("sqlite:") and mlflow.get_experiment_by_name(name) is None:
            artifacts = Path(uri.removeprefix("sqlite:///")).parent / "artifacts" / name
            mlflow.create_experiment(name, artifact_location=artifacts.as_uri())
        mlflow.set_experiment(name)
    return mlflow


@contextmanager
def speaking(uri: str) -> Iterator[None]:
    """Turn what MLflow makes of an address it cannot use into a sentence.

    Raises:
        UserError: the server is down or refuses this client, or MLflow fails at ``uri`` in another way.
    """
    try:
        from mlflow.exceptions import MlflowException, RestException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise _unusable(error, uri, fix="install share4video with its extra train or serve") from error
    try:
        yield
    except MlflowException as error:
        if error.error_code in _REFUSALS:
            raise UserError(
                "the MLflow server refuses this client",
                where=_shown(uri),
                fix="check MLFLOW_TRACKING_USERNAME and the server's allowed hosts"
                f" ({_first_line(error).rstrip('.')})",
            ) from error
        if uri.startswith(_SERVERS) and not isinstance(error, RestException):
            raise UserError(
                "the MLflow server does not answer",
                where=_shown(uri),
                fix="start it, or set MLFLOW_TRACKING_URI to one that runs",
            ) from error
        raise _unusable(error, uri) from error
    except (SQLAlchemyError, ImportError, OSError, ValueError) as error:  # damaged, no driver, no such port
        raise _unusable(error, uri) from error


def _unusable(error: Exception, uri: str, fix: str = _ANOTHER) -> UserError:
    first_sentence = _first_line(error).split(". ")[0].strip(" .")
    return UserError(
        f"MLflow cannot be used: {first_sentence}",
        where=_shown(uri),
        fix=fix,
    )


def _shown(uri: str) -> str:
    """Return ``uri`` without the user and the password that may stand in it."""
    return re.sub(r"//[^/@]*@", "//", uri)


def allowed_name(name: str) -> str:
    """Return ``name`` as MLflow takes it for a tag or a metric: what it refuses becomes an underscore."""
    return re.sub(r"[^/\w. -]", "_", name)[:_MAX_NAME]


def find_run(store_root: str | None, key: str) -> str | None:
    """Return the id of the newest run of the training that publishes under ``key``, None where there is none.

    Raises:
        UserError: MLflow cannot be used.
    """
    return next((run_id for run_id, _ in _runs(connect(store_root), key)), None)


class TrainingRun:
    """The open MLflow run of a training."""

    def __init__(self, mlflow: Any) -> None:
        self._mlflow = mlflow
        self._waiting: list[tuple[dict[str, float], int]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers of a step. What the server does not take now is sent again with the next numbers."""
        self._waiting.append(({allowed_name(name): value for name, value in metrics.items()}, step))
        self._send()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._mlflow.set_tags(dict(tags))

    def close(self) -> None:
        """Send what waits.

        Raises:
            UserError: the server still does not take it.
        """
        error = self._send()
        if error is not None:
            raise UserError(
                f"MLflow took no metrics: {_first_line(error)}",
                where=self._mlflow.get_tracking_uri(),
                fix="bring the server back and run the stage again; the training goes on where it was",
            ) from error

    def _send(self) -> Exception | None:
        from mlflow.exceptions import MlflowException

        while self._waiting:
            metrics, step = self._waiting[0]
            try:
                self._mlflow.log_metrics(metrics, step=step)
            except MlflowException as error:
                return error
            del self._waiting[0]
        return None


@contextmanager
def training_run(
    store_root: str | None, *, key: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> Iterator[TrainingRun]:
    """Open the run of the training with ``key``, or open it again where an earlier attempt did not finish.

    Args:
        key: the training stage's key in the store; it becomes the tag by which the run is found.
        params: the configuration, nested; it is flattened to ``a.b`` names.
        tags: lineage.

    Raises:
        UserError: MLflow cannot be used, or the named run belongs to a training with other parameters.
    """
    mlflow = connect(store_root)
    from mlflow.exceptions import MlflowException

    os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", _SYSTEM_METRICS_INTERVAL_S)
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    run_id = os.environ.get("MLFLOW_RUN_ID") or _unfinished_run(mlflow, key)
    try:
        with mlflow.start_run(run_id=run_id, run_name=f"train-{key[:8]}", log_system_metrics=True):
            mlflow.log_params({name: str(value) for name, value in flatten(params).items()})
            mlflow.set_tags({KEY_TAG: key, **tags})
            run = TrainingRun(mlflow)
            yield run
            run.close()
    except MlflowException as error:
        raise UserError(
            f"MLflow refused the run: {_first_line(error)}",
            where=mlflow.get_tracking_uri(),
            fix="unset MLFLOW_RUN_ID, or give the id of a run of this very training",
        ) from error


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return ``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _unfinished_run(mlflow: Any, key: str) -> str | None:
    return next((run_id for run_id, status in _runs(mlflow, key) if status != "FINISHED"), None)


def _runs(mlflow: Any, key: str) -> list[tuple[str, str]]:
    """Return id and status of the training's runs, newest first."""
    with speaking(mlflow.get_tracking_uri()):
        found = mlflow.search_runs(filter_string=f"tags.`{KEY_TAG}` = '{key}'", output_format="list")
    return [(str(run.info.run_id), str(run.info.status)) for run in found]


def _folder(store_root: str | None) -> Path:
    if store_root is None or "://" in store_root:
        return work_folder("mlflow")
    folder = Path(store_root) / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def check_server(uri: str) -> None:
    """Ask the server how it is: MLflow's own client would try for minutes.

    Raises:
        UserError: it does not answer, or not as it should.
    """
    import httpx

    try:
        answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=_SERVER_TIMEOUT_S, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"the MLflow server does not answer: {_first_line(error) or type(error).__name__}",
            where=_shown(uri),
            fix="start it, or unset MLFLOW_TRACKING_URI to track in a local file",
        ) from error
    if answer.is_error:
        raise UserError(
            f"the MLflow server answers {answer.status_code}",
            where=_shown(uri),
            fix="check its address, its allowed hosts and the credentials",
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
