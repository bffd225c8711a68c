"""From the body that a client sent to the profile that it names, and what that profile's worker is sent. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NoReturn

import msgspec

from draftd.errors import RequestError
from draftd.peers.peer_models import PeerModel
from draftd.peers.prefixes import Away
from draftd.profiles import Profile, ProfileSet
from draftd.web import json_codec
from draftd.web.dialects import messages_request, responses_request
from draftd.web.dialects.pictures import refuse_pictures
from draftd.web.passed_on import JSON, NATIVE, Given, Passed
from draftd.web.peer_body import prepare_for_peers
from draftd.web.request_body import Endpoint, Forward, prepare

PREFIX = "speculative/"  # our provider's name in OpenCode, which some clients leave in front of the model's
Dialect = Literal[Endpoint, "messages", "count_tokens", "responses"]
_AS_CHATS: Mapping[Dialect, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "messages": messages_request.chat_request,
    "count_tokens": messages_request.count_request,
    "responses": responses_request.chat_request,
}


PassedKind = Literal["embeddings", "rerank", "audio", "images"]


class Router:
    """Holds the current table. A reload, or a peer with other models, replaces it in one assignment; a request
    keeps the one it began with. `alone` is the same without peers, for requests that come from one.
    """

    def __init__(self, profiles: ProfileSet, default: str) -> None:
        self._default = default
        self.table = self.alone = RoutingTable(profiles, default)

    def replace(self, profiles: ProfileSet) -> None:
        """Route to these profiles from now on."""
        self.alone = RoutingTable(profiles, self._default)
        self.table = RoutingTable(profiles, self._default, self.table.peers)

    def replace_peers(self, models: Mapping[str, PeerModel]) -> None:
        """Peers have these models from now on."""
        self.table = RoutingTable(self.alone.profiles, self._default, models)


class RoutingTable:
    """Names and aliases of profiles, and of `peers`' models; it never changes. `default` answers requests that name
    no model.
    """

    def __init__(
        self, profiles: ProfileSet, default: str, peers: Mapping[str, PeerModel] | None = None
    ) -> None:
        self.profiles = profiles
        self.peers = peers or {}
        table = {alias: profile for profile in profiles.profiles.values() for alias in profile.aliases}
        self._table: Mapping[str, Profile] = table | dict(profiles.profiles)
        aliases = {alias: model for model in self.peers.values() for alias in model.aliases}
        self._elsewhere = aliases | dict(self.peers)
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
                text = f"the request does not name a model, and there is no default one; {self._there_are()}"
                raise RequestError(400, text, param="model")
            return self.default
        if not isinstance(model, str):
            raise RequestError(400, "model must be a string", param="model")
        found = self._table.get(model) or self._table.get(model.removeprefix(PREFIX))
        if found is None:
            text = f"there is no model '{model[:100]}'; {self._there_are()}"
            raise RequestError(404, text, code="model_not_found", param="model")
        return found

    def _there_are(self) -> str:
        known = ", ".join((*self.profiles.profiles, *self.elsewhere))
        return f"there are: {known}" if known else "there are none here, and no peer has told of any yet"

    @cached_property
    def elsewhere(self) -> Mapping[str, PeerModel]:
        """The models that only peers have."""
        return {name: model for name, model in self.peers.items() if name not in self._table}

    def only_elsewhere(self, model: object) -> PeerModel | None:
        """The model that a request names, if only peers have it."""
        if not isinstance(model, str):
            return None
        names = (model, model.removeprefix(PREFIX))
        if any(name in self._table for name in names):
            return None
        return next((found for name in names if (found := self._elsewhere.get(name))), None)


class Routed(msgspec.Struct, frozen=True):
    """The name of the profile that a request is for, and what its worker is sent.

    `repeated` is what the answer repeats of the request, in a dialect where it does. `away` is what a peer would be
    sent; None if none has the model.
    """

    profile: str
    forward: Forward
    repeated: Mapping[str, Any] = msgspec.field(default_factory=dict)
    away: Away | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a body is not taken; `profile` is the name of the one that it is for, None if that is not known."""

    profile: str | None
    error: RequestError


def read(raw: bytes, asked: Dialect | Given, table: RoutingTable) -> Routed | Passed | Refused:
    """What a body is for; `asked` is its dialect, or the head of a request that draftd has none for."""
    if isinstance(asked, Given):
        return pass_on(replace(asked, body=raw), table)
    return route(raw, asked, table)


def pass_on(given: Given, table: RoutingTable) -> Passed | Refused:
    """Find the profile of a request that draftd has no dialect for, and make the request for its server."""
    name: str | None = None
    try:
        if {".", ".."} & set(given.path.split("/")):  # it would reach other parts of that server
            raise RequestError(404, "there is nothing at this path", code="not_found")
        if found := table.only_elsewhere(given.model()):
            return given.passed_to(found, away=True)
        profile = table.resolve(given.model())
        name = profile.name
        if not profile.command:
            text = f"'{name}' serves chat and text completions; {given.path} needs a profile whose command has it"
            raise RequestError(404, text, code="not_found")
        return given.passed_to(profile)
    except RequestError as error:
        return Refused(name, error)


def route(raw: bytes, dialect: Dialect, table: RoutingTable) -> Routed | Passed | Refused:
    """Parse a body, find its profile, and make the request for the worker."""
    name: str | None = None
    try:
        asked = parse_body(raw)
        if table.peers and (found := table.only_elsewhere(asked.get("model"))):
            return _route_away(asked, dialect, found)
        profile = table.resolve(asked.get("model"))
        name = profile.name
        if dialect in profile.native:
            return Given(NATIVE[dialect], "", JSON, raw).passed_to(profile)
        body, endpoint = _as_chat(asked, dialect)
        translated = body is not asked
        if translated and not profile.command:
            refuse_pictures(asked, body["messages"])
        prompt = table.profiles.prompt_of(profile)
        client_model = asked.get("model") or name
        upstream = profile.upstream_model
        forward = prepare(body, endpoint, profile, prompt, upstream, client_model, translated=translated)
    except RequestError as error:
        return Refused(name, error)
    away = None
    if table.peers and name in table.peers:
        with suppress(RequestError):  # it stays here, where everything is honoured
            peer = table.peers[name]
            _, away = prepare_for_peers(
                body, endpoint, peer, client_model, profile, prompt, translated=translated
            )
    return Routed(name, forward, _repeated(asked, dialect, client_model), away)


def _route_away(asked: Mapping[str, Any], dialect: Dialect, model: PeerModel) -> Routed | Refused:
    """The request for a model that only peers have."""
    client_model = asked["model"]
    try:
        body, endpoint = _as_chat(asked, dialect)
        forward, away = prepare_for_peers(body, endpoint, model, client_model, translated=body is not asked)
    except RequestError as error:
        return Refused(model.name, error)
    return Routed(model.name, forward, _repeated(asked, dialect, client_model), away)


def _as_chat(asked: Mapping[str, Any], dialect: Dialect) -> tuple[Mapping[str, Any], Endpoint]:
    """A request of any dialect as one that workers understand, and their address for it. Raises RequestError."""
    body = _AS_CHATS[dialect](asked) if dialect in _AS_CHATS else asked
    return body, "completions" if dialect == "completions" else "chat.completions"


def _repeated(asked: Mapping[str, Any], dialect: Dialect, client_model: str) -> Mapping[str, Any]:
    return responses_request.repeated(asked) | {"model": client_model} if dialect == "responses" else {}


def parse_body(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises RequestError (400) for anything else, without quoting it."""
    try:
        body = json_codec.strictly(raw)
    except (*json_codec.FAULTS, RecursionError) as error:
        raise RequestError(400, f"the body {_fault(raw)}") from error
    if not isinstance(body, dict):
        raise RequestError(400, "the body must be a JSON object")
    return body


def _fault(raw: bytes) -> str:
    """What is wrong with a body that was refused, in the words of the json module, which says more."""
    try:
        json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        return "is not valid UTF-8"
    except RecursionError:
        return "is nested too deeply"
    except json.JSONDecodeError as error:
        return f"is not JSON: {error.msg} at character {error.pos}"
    except ValueError:
        return "holds a number that cannot be represented"
    return "holds half of a surrogate pair or a number that cannot be represented"


def _no_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)
