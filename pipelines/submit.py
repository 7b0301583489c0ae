"""Submit a pipeline to Kubeflow Pipelines: a version per compiled text, and a run of it."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.compiler import compile_pipeline
from share4video.errors import UserError

CONNECT_TIMEOUT_S = 10.0


def submit_pipeline(
    name: str,
    arguments: Mapping[str, str],
    *,
    host: str,
    image: str,
    pipeline_root: str,
    namespace: str | None = None,
    experiment: str = "share4video",
) -> str:
    """Upload pipeline ``name`` where this version is not there yet, start a run, and return its address.

    A version is named after the hash of its compiled text, so that equal sources are uploaded once.

    Args:
        pipeline_root: where KFP keeps artifacts. It must hold the store: KFP refuses an artifact whose
            address lies outside, and ours point into the store.

    Raises:
        UserError: the host does not answer or refuses this client.
    """
    compiled = compile_pipeline(name, image)
    version_name = f"{name}-{hashlib.sha256(compiled.encode()).hexdigest()[:12]}"
    with _speaking(host):
        client = _client(host, namespace)
        pipeline_id, version_id = _version(client, name, version_name, compiled, namespace)
        listed = client.create_experiment(experiment, namespace=namespace)
        run = client.run_pipeline(
            experiment_id=listed.experiment_id,
            job_name=version_name,
            pipeline_id=pipeline_id,
            version_id=version_id,
            params=dict(arguments),
            pipeline_root=pipeline_root,
        )
    return f"{host.rstrip('/')}/#/runs/details/{run.run_id}"


def _client(host: str, namespace: str | None) -> Any:
    """Connect. KFP's client waits minutes for a host that is down, so the health route is asked first."""
    import httpx
    from kfp import Client

    httpx.get(f"{host.rstrip('/')}/apis/v2beta1/healthz", timeout=CONNECT_TIMEOUT_S).raise_for_status()
    return Client(host=host, namespace=namespace or "kubeflow")


def _version(
    client: Any, name: str, version_name: str, compiled: str, namespace: str | None
) -> tuple[str, str]:
    """Return the ids of the pipeline and of this version of it, uploading what is missing."""
    with tempfile.TemporaryDirectory() as folder:
        package = str(Path(folder) / f"{name}.yaml")
        Path(package).write_text(compiled, encoding="utf-8")
        pipeline_id = client.get_pipeline_id(name)
        if pipeline_id is None:
            pipeline_id = client.upload_pipeline(package, pipeline_name=name, namespace=namespace).pipeline_id
        token = ""
        while True:
            page = client.list_pipeline_versions(pipeline_id, page_token=token, page_size=100)
            for version in page.pipeline_versions or ():
                if version.display_name == version_name:
                    return pipeline_id, version.pipeline_version_id
            token = page.next_page_token
            if not token:
                break
        made = client.upload_pipeline_version(
            package, pipeline_version_name=version_name, pipeline_id=pipeline_id
        )
        return pipeline_id, made.pipeline_version_id


@contextmanager
def _speaking(host: str) -> Iterator[None]:
    """Turn a host that is down, or that refuses, into a sentence."""
    import httpx
    import urllib3
    from kfp_server_api.exceptions import ApiException

    try:
        yield
    except httpx.HTTPStatusError as error:
        raise UserError(
            f"the host answers with status {error.response.status_code}",
            where=host,
            fix="give the address of Kubeflow Pipelines' API, and credentials it takes",
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, urllib3.exceptions.HTTPError) as error:
        raise UserError(
            "Kubeflow Pipelines does not answer",
            where=host,
            fix="check the address, or forward the port of ml-pipeline-ui",
        ) from error
    except ApiException as error:
        if error.status not in (401, 403):
            raise
        raise UserError(
            f"Kubeflow Pipelines refuses this client: {error.reason}", where=host, fix="check the credentials"
        ) from error
