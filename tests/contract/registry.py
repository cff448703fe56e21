"""A stand-in for TensorRT's plugin registry, which lives in the library that is not here."""

from __future__ import annotations

from typing import Any


class Registry:
    """Stands for IPluginRegistry: by name, version and namespace, each once."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, plugin_namespace: str = "") -> bool:
        key = (creator.name, creator.plugin_version, plugin_namespace)
        new = key not in self.creators
        self.creators.setdefault(key, creator)
        return new

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        return self.creators.get((type, version, plugin_namespace))
