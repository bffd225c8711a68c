"""From the model name of a request to a profile. Pure; a reload replaces the whole table in one assignment."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from draftd.errors import RequestError
from draftd.profiles import Profile, ProfileSet

PREFIX = "speculative/"  # OpenCode's provider name, which some clients leave in front of the model


class Router:
    """An immutable table of names and aliases."""

    def __init__(self, profiles: ProfileSet, default: str) -> None:
        self.profiles = profiles
        table = {alias: profile for profile in profiles.profiles.values() for alias in profile.aliases}
        self._table: Mapping[str, Profile] = MappingProxyType(table | dict(profiles.profiles))
        self.default = self._default(default)

    def _default(self, name: str) -> Profile | None:
        """The profile `name`, else the first that starts by itself."""
        starters = (profile for profile in self.profiles.profiles.values() if profile.autostart)
        return self._table.get(name) or next(starters, None)

    def resolve(self, model: object) -> Profile:
        """The profile for a request's `model`; None means that the request has none.

        Raises RequestError: 400 for what is no name, 404 for an unknown one.
        """
        if model is None:
            if self.default is None:
                raise RequestError(400, "the request names no model, and there is no default", param="model")
            return self.default
        if not isinstance(model, str):
            raise RequestError(400, "model must be a string", param="model")
        found = self._table.get(model) or self._table.get(model.removeprefix(PREFIX))
        if found is None:
            known = ", ".join(self.profiles.profiles)
            text = f"there is no model '{model[:100]}'; there are: {known}"
            raise RequestError(404, text, code="model_not_found", param="model")
        return found
