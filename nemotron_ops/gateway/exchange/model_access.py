"""Decides which models and instances a key may use. Pure."""

from __future__ import annotations

from nemotron_ops.gateway.api.catalog import Catalog
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.keys.ring import Key, may_use
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView


def may_use_model(key: Key, model: ModelView) -> bool:
    """Whether `key` may use `model`, under any of its names. A base's name is none of its adapters' names."""
    return may_use(key, model.names if model.adapter else (model.name, *model.names))


def check_model(key: Key, model: ModelView) -> None:
    """Raises Refusal if `key` may not use `model`."""
    if key.models and not may_use_model(key, model):
        raise Refusal(status=403, code="model_not_allowed", message="this API key may not use this model")


def may_see_instance(key: Key, view: InstanceView, directory: Catalog) -> bool:
    """Whether `key` may use the model that an instance serves."""
    model = directory.models.get(view.model)
    return may_use(key, (view.model,)) if model is None else may_use(key, (view.model, *model.names))
