"""What whoever installs Cortex configures, read once at start from the file that the chart writes."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from cortex_api import __version__


class Settings(BaseModel):
    """A part of the platform file: camelCase keys, no unknown ones."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class GatewayRef(Settings):
    """A Gateway (gateway.networking.k8s.io) that APIs are reached through."""

    name: str
    namespace: str
    hostname: str | None = None


class IngressRef(Settings):
    """An ingress class that APIs are reached through."""

    class_name: str
    hostname: str | None = None


class Platform(Settings):
    """The whole platform file; every key has a default."""

    runtime_image: str = f"cortex-runtime:{__version__}"
    """Image of the runtime, for APIs that name none."""
    tensorflow_serving_image: str = "tensorflow/serving:2.19.1"
    """Image of TensorFlow Serving, for APIs that name none."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = Field(default=())
    """Names of Secrets in the API's namespace."""
    watch_namespaces: tuple[str, ...] = Field(default=())
    """Namespaces that are served; empty: all."""
    gateway: GatewayRef | None = None
    ingress: IngressRef | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def read(path: Path) -> Platform:
    """The platform file at `path`; defaults when there is none. Raises ValueError naming every bad key."""
    if not path.is_file():
        return Platform()
    try:
        return Platform.model_validate(yaml.safe_load(path.read_text()) or {})
    except (ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
