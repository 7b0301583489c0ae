"""MLflow: where runs are tracked, and one training's run.

``MLFLOW_TRACKING_URI`` names the server; without it runs go to a SQLite file beside the local store (or in
the work folder, where the store is remote) with the artifacts next to it, never to the working directory. An
``MLFLOW_RUN_ID`` that is set names the run to log to, in whatever experiment that is. This module imports
neither torch nor, before a run is opened, MLflow.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from share4video.errors import UserError
from share4video.training.mlflow_address import (
    SERVERS,
    SILENT,
    check_server,
    first_line,
    hand_over_credentials,
    is_silence,
    shown,
)
from share4video.work import work_folder

EXPERIMENT = "share4video"
KEY_TAG = "share4video.train_key"
CHECKPOINT_TAG = "share4video.checkpoint_uri"
MIXTURE_TAG = "share4video.mixture"
DATASET_TAG = "share4video.dataset_hash"
BASE_TAG = "share4video.base_model"

_REFUSALS = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNAUTHORIZED")
_ANOTHER = "set MLFLOW_TRACKING_URI to a server or a database that MLflow can use"
_AGAIN = "bring it back and run the stage again; the training goes on where it was"
_MAX_NAME = 250
# A server that dies half way is reported within seconds; MLflow's own defaults go on trying for minutes.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
_SYSTEM_METRICS_INTERVAL_S = "5"


def configure(store_root: str | None) -> str:
    """Return the address runs and models are tracked at, once it is known to be usable.

    A server's user and password are not in it, but in the environment, where MLflow looks for them; there too
    it is told to be patient with a server for seconds, where nothing else is set.

    Args:
        store_root: the store whose own database it is where ``MLFLOW_TRACKING_URI`` names none; None or a
            remote store means the work folder.

    Raises:
        UserError: the server does not answer within seconds or refuses this client.
    """
    for name, value in {"MLFLOW_DISABLE_TELEMETRY": "true", **_PATIENCE}.items():
        os.environ.setdefault(name, value)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_folder(store_root) / 'mlflow.db'}"
    if uri.startswith(SERVERS):
        uri = hand_over_credentials(uri)
        check_server(uri)
    return uri


def connect(store_root: str | None) -> Any:
    """Import MLflow, point it at the address `configure` returns, select the experiment; return the module.

    The experiment is ``MLFLOW_EXPERIMENT_NAME``, by default ``share4video``.

    Raises:
        UserError: MLflow cannot be used there.
    """
    uri = configure(store_root)
    with speaking(uri):
        mlflow = _imported(uri)
        _select_experiment(mlflow, uri)
    return mlflow


@contextmanager
def speaking(uri: str) -> Iterator[None]:
    """Turn what MLflow makes of an address it cannot use into a sentence.

    Raises:
        UserError: the server is down or refuses this client, or MLflow fails at ``uri`` in another way.
    """
    try:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise _unusable(error, uri, fix="install share4video with its extra train or serve") from error
    try:
        yield
    except MlflowException as error:
        if error.error_code in _REFUSALS:
            raise UserError(
                "the MLflow server refuses this client",
                where=shown(uri),
                fix="check MLFLOW_TRACKING_USERNAME and the server's allowed hosts"
                f" ({first_line(error).rstrip('.')})",
            ) from error
        if is_silence(error, uri):
            fix = "start it, or set MLFLOW_TRACKING_URI to one that runs"
            raise UserError(SILENT, where=shown(uri), fix=fix) from error
        raise _unusable(error, uri) from error
    except (SQLAlchemyError, ImportError, OSError, ValueError) as error:  # damaged, no driver, no such port
        raise _unusable(error, uri) from error


def _unusable(error: Exception, uri: str, fix: str = _ANOTHER) -> UserError:
    first_sentence = first_line(error).split(". ")[0].strip(" .")
    return UserError(
        f"MLflow cannot be used: {first_sentence}",
        where=shown(uri),
        fix=fix,
    )


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
        """Set tags of the run. Raises UserError where MLflow does not take them."""
        with speaking(self._mlflow.get_tracking_uri()):
            self._mlflow.set_tags(dict(tags))

    def close(self) -> None:
        """Send what waits.

        Raises:
            UserError: the server still does not take it.
        """
        error = self._send()
        if error is not None:
            raise _cut_off(error, self._mlflow.get_tracking_uri(), "MLflow took no metrics") from error

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
        UserError: MLflow cannot be used, stopped answering before all was logged, or the named run does not
            exist or belongs to a training with other parameters. What is raised in the block goes before.
    """
    uri = configure(store_root)
    os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", _SYSTEM_METRICS_INTERVAL_S)
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    named = os.environ.get("MLFLOW_RUN_ID") or None
    with speaking(uri):
        mlflow = _imported(uri)
        mlflow.search_experiments(max_results=1)  # what fails after this is not the address's fault
    with _opening(uri, named):
        if named is not None:
            mlflow.set_experiment(experiment_id=mlflow.get_run(named).info.experiment_id)
        else:
            _select_experiment(mlflow, uri)
        run_id = named or _unfinished_run(mlflow, key)
        mlflow.start_run(run_id=run_id, run_name=f"train-{key[:8]}", log_system_metrics=True)
    with _ended(mlflow, uri):
        with _opening(uri, named):
            mlflow.log_params({name: str(value) for name, value in flatten(params).items()})
            mlflow.set_tags({KEY_TAG: key, **tags})
        run = TrainingRun(mlflow)
        yield run
        run.close()


@contextmanager
def _opening(uri: str, named: str | None) -> Iterator[None]:
    """Do as `speaking`, but lay what MLflow refuses to the run that the user named, where one is named."""
    with speaking(uri):
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if named is None or is_silence(error, uri) or error.error_code in _REFUSALS:
                raise
            raise UserError(
                f"MLflow refused the run: {first_line(error)}",
                where=shown(uri),
                fix="unset MLFLOW_RUN_ID, or give the id of a run of this very training",
            ) from error


@contextmanager
def _ended(mlflow: Any, uri: str) -> Iterator[None]:
    """End the active run after the block.

    MLflow's own context manager would put its complaint about a server that is down in the place of what
    went wrong in the block.

    Raises:
        UserError: the block went well, but the end is not taken.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except BaseException:
        with suppress(MlflowException):
            mlflow.end_run("FAILED")
        raise
    try:
        mlflow.end_run()
    except MlflowException as error:
        raise _cut_off(error, uri, "MLflow did not end the run") from error


def _cut_off(error: Exception, uri: str, what: str) -> UserError:
    """Return what to say of a run that the server did not see to its end."""
    said = SILENT if is_silence(error, uri) else f"{what}: {first_line(error)}"
    return UserError(said, where=shown(uri), fix=_AGAIN)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return ``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _imported(uri: str) -> Any:
    """Import MLflow and point it at ``uri``; return the module.

    MLflow writes the address into the environment too, where it would stand for every other store of this
    process: what a person has not put there is taken out again.
    """
    import mlflow

    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    if given is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return mlflow


def _select_experiment(mlflow: Any, uri: str) -> None:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    if uri.startswith("sqlite:") and mlflow.get_experiment_by_name(name) is None:
        artifacts = Path(uri.removeprefix("sqlite:///")).parent / "artifacts" / name
        mlflow.create_experiment(name, artifact_location=artifacts.as_uri())
    mlflow.set_experiment(name)


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
