"""The model registry (MLflow): versions with their evidence, and the alias ``champion``.

A version stands for a checkpoint in the store, by content: registering the same checkpoint again finds the
same version, so a release that was killed half way goes on where it stopped. Everything a decision rests on
is a tag of the version, under ``share4video.``; weights stay in the store.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import fetch_files
from share4video.errors import UserError
from share4video.evaluation.gate import GateDecision
from share4video.store import LocalStore, Store
from share4video.training import tracking
from share4video.training.mlflow_address import shown
from share4video.work import work_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MODEL_SCHEME = "models:/"
CHAMPION = "champion"
CHECKPOINT_FOLDER = "checkpoint"  # below the prefix of the stage that made it
_TAG = "share4video."
_URI = re.compile(r"models:/([^/@]+)(?:@([\w.-]+)|/(\d{1,99}))")
_MAX_VERSION = 2**31 - 1  # databases hold no greater number
_STORE_VARIABLE, _DEFAULT_STORE = "SHARE4VIDEO_STORE", "store"  # as on the command line
_SQLITE = "sqlite:///"
_IN_THE_STORE = "share4video:/"  # an MLflow server refuses local folders as a version's source


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a registered model.

    Attributes:
        checkpoint: the stage output that holds it, in ``checkpoint/``.
        store: root of the store that output is in.
        tags: the evidence, without the common prefix.
    """

    name: str
    version: int
    checkpoint: StageRef
    store: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        return f"{MODEL_SCHEME}{self.name}/{self.version}"

    @property
    def release(self) -> StageRef | None:
        """The release that decided on this version, None before the decision."""
        text = self.tags.get("release")
        return StageRef.parse(text) if text else None

    @property
    def decision(self) -> GateDecision | None:
        text = self.tags.get("gate")
        return GateDecision.model_validate_json(text) if text else None

    def evaluation(self, benchmark: str) -> StageRef | None:
        """Return this version's evaluation on a benchmark (`Results.benchmark`), if it is on record."""
        text = self.tags.get(f"evaluation.{benchmark}")
        return StageRef.parse(text) if text else None

    def folder(self) -> Path:
        """Return a local folder with the checkpoint, fetching it where the store is not a local folder.

        Raises:
            UserError: the store no longer holds it, or holds other bytes.
        """
        return fetch_checkpoint(Store.open(self.store), self.checkpoint)


class ModelRegistry:
    """The versions of one registered model on one MLflow server or database.

    Args:
        name: the registered model's name.
        tracking_uri: as `share4video.training.tracking.configure` returns it.

    Raises:
        UserError: the name is none MLflow takes.
    """

    def __init__(self, name: str, tracking_uri: str) -> None:
        if not re.fullmatch(r"[\w.-]+( [\w.-]+)*", name):
            raise UserError(
                "not a name for a model",
                where=repr(name),
                fix="use letters, digits, dots, dashes and underscores",
            )
        self.name, self.tracking_uri = name, tracking_uri
        self._remote = tracking_uri.startswith(("http://", "https://"))

    @cached_property
    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.tracking_uri)

    def champion(self) -> RegisteredModel | None:
        """Return the version in service, None before the first promotion."""
        return self.aliased(CHAMPION)

    def aliased(self, alias: str) -> RegisteredModel | None:
        """Return the version that carries ``alias``, None where none does or there is no such model."""
        with self._speaking():
            aliases = self._aliases()
            if alias not in aliases:
                return None
            return self._read(self._client.get_model_version(self.name, str(aliases[alias])))

    def version(self, number: int) -> RegisteredModel | None:
        """Return a version by its number, None where there is none."""
        if number > _MAX_VERSION:
            return None
        with self._speaking():
            from mlflow.exceptions import MlflowException

            try:
                return self._read(self._client.get_model_version(self.name, str(number)))
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    def register(self, store: Store, checkpoint: StageRef) -> RegisteredModel:
        """Return the version that stands for ``checkpoint``, making it where there is none.

        A new version is linked to the MLflow run that trained it, where this server has it. One that was
        there keeps saying where its checkpoint lies as long as this store has it there: the same content may
        be published under several keys.

        Raises:
            UserError: the registry does not answer or refuses.
        """
        folder = store.url(f"{checkpoint.prefix}/{CHECKPOINT_FOLDER}")
        tags = {
            "content_hash": checkpoint.content_hash,
            "checkpoint": str(checkpoint),
            "checkpoint_uri": folder,
            "store": store_root(store),
        }
        known = self._find(checkpoint.content_hash)
        if known is not None:
            there = known.store == tags["store"] and store.exists(f"{known.checkpoint.prefix}/manifest.json")
            return known if there else self.record(known, tags)
        with self._speaking():
            from mlflow.exceptions import MlflowException

            try:
                self._client.create_registered_model(self.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = folder
            if self._remote and isinstance(store, LocalStore):
                source = f"{_IN_THE_STORE}{checkpoint.prefix}/{CHECKPOINT_FOLDER}"
            made = self._client.create_model_version(
                self.name,
                source,
                run_id=self._run_of(checkpoint),
                tags={_TAG + key: value for key, value in tags.items()},
            )
            return self._read(made)

    def record(
        self, model: RegisteredModel, evidence: Mapping[str, str], description: str | None = None
    ) -> RegisteredModel:
        """Write evidence as tags of a version, over what was there under the same names."""
        with self._speaking():
            for key, value in evidence.items():
                name = tracking.allowed_name(_TAG + key)
                if model.tags.get(name.removeprefix(_TAG)) != value:
                    self._client.set_model_version_tag(self.name, str(model.version), name, value)
            if description is not None:
                self._client.update_model_version(self.name, str(model.version), description)
            return self._read(self._client.get_model_version(self.name, str(model.version)))

    def promote(self, model: RegisteredModel) -> None:
        """Point the alias ``champion`` at a version."""
        with self._speaking():
            self._client.set_registered_model_alias(self.name, CHAMPION, str(model.version))

    def _find(self, content_hash: str) -> RegisteredModel | None:
        """Return the first version of this content, None where there is none."""
        with self._speaking():
            wanted = f"name = '{self.name}' and tags.`{_TAG}content_hash` = '{content_hash}'"
            found = self._client.search_model_versions(wanted)
            return self._read(min(found, key=lambda version: int(version.version))) if found else None

    def _run_of(self, checkpoint: StageRef) -> str | None:
        """Return the id of the run that trained ``checkpoint``, None where it was tracked elsewhere."""
        experiments = [found.experiment_id for found in self._client.search_experiments()]
        wanted = f"tags.`{tracking.KEY_TAG}` = '{checkpoint.key}'"
        runs = self._client.search_runs(experiments, wanted, max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _aliases(self) -> Mapping[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            aliases: Mapping[str, str] = self._client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return aliases

    def _read(self, version: ModelVersion) -> RegisteredModel:
        tags = {key.removeprefix(_TAG): value for key, value in version.tags.items() if key.startswith(_TAG)}
        if "checkpoint" not in tags or "store" not in tags:
            raise UserError(
                "the version was not registered by share4video: it names no checkpoint",
                where=f"{MODEL_SCHEME}{self.name}/{version.version}",
                fix="register it with share4video promote, or point the alias at another version",
            )
        return RegisteredModel(
            self.name, int(version.version), StageRef.parse(tags["checkpoint"]), tags["store"], tags
        )

    def _speaking(self) -> AbstractContextManager[None]:
        """Turn what MLflow raises into a sentence; the client is made inside as well."""
        return tracking.speaking(self.tracking_uri)


def resolve(uri: str, store: Store | None = None) -> RegisteredModel:
    """Return the version that ``models:/NAME@ALIAS`` or ``models:/NAME/NUMBER`` names.

    Args:
        store: the store whose own database is the registry where ``MLFLOW_TRACKING_URI`` names none; None
            takes the one that ``SHARE4VIDEO_STORE`` names, or ``store`` in the working directory.

    Raises:
        UserError: the address has another form, there is no registry, or it knows no such version.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise UserError(
            "not the address of a registered model",
            where=uri,
            fix="write models:/NAME@champion or models:/NAME/3",
        )
    name, alias, number = match.groups()
    registry = ModelRegistry(name, _registry_address(store))
    model = registry.aliased(alias) if alias else registry.version(int(number))
    if model is None:
        raise UserError(
            "the registry knows no such model",
            where=f"{uri} at {shown(registry.tracking_uri)}",
            fix="run the release pipeline first, or set MLFLOW_TRACKING_URI to the registry it used",
        )
    return model


def _registry_address(store: Store | None) -> str:
    """Return where the registry is, without making one."""
    root = store_root(store) if store is not None else os.environ.get(_STORE_VARIABLE) or _DEFAULT_STORE
    address = tracking.configure(root)
    if address.startswith(_SQLITE) and not Path(address.removeprefix(_SQLITE)).is_file():
        raise UserError(
            "no model is registered yet",
            where=address,
            fix=f"run the release pipeline, or set {_STORE_VARIABLE} to its store or MLFLOW_TRACKING_URI",
        )
    return address


def store_root(store: Store) -> str:
    """Return the address that `Store.open` opens this store by."""
    return store.url("x").removesuffix("/x")


def fetch_checkpoint(store: Store, ref: StageRef) -> Path:
    """Return a local folder with the checkpoint that a stage published, every file checked by its hash.

    In a local store that is the published folder itself; from S3 it is a copy in the work folder, fetched
    once.

    Raises:
        UserError: the output is missing, changed, damaged, or holds no checkpoint.
    """
    if isinstance(store, LocalStore):
        target = Path(store.url(ref.prefix))
    else:
        target = work_folder("checkpoints", ref.content_hash)
    if not fetch_files(store, ref, target, f"{CHECKPOINT_FOLDER}/"):
        raise UserError(
            "the output holds no checkpoint", where=str(ref), fix="name the output of a train stage"
        )
    return target / CHECKPOINT_FOLDER
