"""From the model name of a request to a profile. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from draftd.errors import RequestError
from draftd.profiles import Profile, ProfileSet

PREFIX = "speculative/"  # the name of our provider in OpenCode, which some clients leave before the model's


class Router:
    """Holds the current table. A reload replaces it in one assignment; a request keeps the one it began with."""

    def __init__(self, profiles: ProfileSet, default: str) -> None:
        self._default = default
        self.table = RoutingTable(profiles, default)

    def replace(self, profiles: ProfileSet) -> None:
        """Route to these profiles from now on."""
        self.table = RoutingTable(profiles, self._default)


class RoutingTable:
    """Names and aliases of profiles; it never changes. `default` answers requests that name no model."""

    def __init__(self, profiles: ProfileSet, default: str) -> None:
        self.profiles = profiles
        table = {alias: profile for profile in profiles.profiles.values() for alias in profile.aliases}
        self._table: Mapping[str, Profile] = table | dict(profiles.profiles)
        self.default = self._default_of(default)

    def _default_of(self, name: str) -> Profile | None:
        """The profile `name`, else the first that starts by itself."""
        starters = (profile for profile in self.profiles.profiles.values() if profile.autostart)
        return self._table.get(name) or next(starters, None)

    def resolve(self, model: object) -> Profile:
        """The profile for a request's `model`, which is None if the request does not name one.

        Raises RequestError: 400 for anything but a name, 404 for an unknown one.
        """
        if model is None:
            if self.default is None:
                raise RequestError(
                    400, "the request does not name a model, and there is no default one", param="model"
                )
            return self.default
        if not isinstance(model, str):
            raise RequestError(400, "model must be a string", param="model")
        found = self._table.get(model) or self._table.get(model.removeprefix(PREFIX))
        if found is None:
            known = ", ".join(self.profiles.profiles)
            text = f"there is no model '{model[:100]}'; there are: {known}"
            raise RequestError(404, text, code="model_not_found", param="model")
        return found
