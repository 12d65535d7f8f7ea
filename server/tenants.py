"""The tenants of a node, by name: from the settings, and from files that can be read again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from actors.limits import Limits
from actors.principal import matches
from actors.quota import UNLIMITED, Quotas
from server.explain import explain
from server.keys import VerifyingKey, read_key
from server.keysets import KeySet
from server.settings import BadSettings, Settings, read_table
from server.tenant_settings import DEV, Tenant, check_tenants, inherit

log = logging.getLogger("roomcast.tenants")


class Customer:
    """One tenant as it is served: its settings, and its keys made of them."""

    __slots__ = ("_keys", "_sets", "limits", "name", "options")

    def __init__(self, name: str, options: Tenant, sets: dict[str, KeySet], limits: Limits) -> None:
        """Make the keys; sets behind the same address are shared. Raises ValueError."""
        self.name, self.options = name, options
        self.limits = options.limits.within(limits)
        """Those of the node, and its own in their place."""
        self._keys: dict[str, VerifyingKey] = {}
        for key_id, key in options.keys.items():
            if not key.jwks:
                try:
                    self._keys[key_id] = read_key(key)
                except ValueError as error:
                    raise ValueError(f"tenants.{name}.keys.{key_id}: {error}") from None

        addresses = dict.fromkeys(key.jwks for key in options.keys.values() if key.jwks)
        self._sets = {url: sets.setdefault(url, KeySet()) for url in addresses}

    @property
    def sets(self) -> Mapping[str, KeySet]:
        """The sets of keys, by address."""
        return self._sets

    def find(self, kid: str) -> VerifyingKey | None:
        """Return the key of this id; of some that share it, the first."""
        return next((keys[kid] for keys in self._places if kid in keys), None)

    def suited(self, algorithm: str) -> dict[str, VerifyingKey]:
        """Return the keys of an algorithm by id; of some that share one, the first."""
        every = [pair for keys in self._places for pair in keys.items()]
        return {kid: key for kid, key in reversed(every) if key.algorithm == algorithm}

    def is_like(self, other: Customer) -> bool:
        """Say whether it has the same settings and keys; sets of keys change by themselves."""
        return self.options == other.options and self._keys == other._keys

    @property
    def _places(self) -> Sequence[Mapping[str, VerifyingKey]]:
        return (self._keys, *(each.keys for each in self._sets.values()))


SAID = 10
"""Tenants that a line of the log names of those that are new, gone or others."""


class Reading(msgspec.Struct, frozen=True):
    """What a directory held: tenants, and for each broken file what is wrong with it."""

    customers: dict[str, Customer]
    broken: dict[str, str]


class Tenants:
    """Every tenant. `read` may block and changes nothing; `take` changes and blocks nobody."""

    def __init__(self, settings: Settings, quiet: bool = False) -> None:
        """Read them. Raises BadSettings for a table or a directory.

        A broken file is logged; not with `quiet`, for who shows what is `broken`.
        """
        self._quiet = quiet
        self._directory, self._enabled = settings.tenants_directory, settings.engines.enabled
        self._node = settings
        self.broken: Mapping[str, str] = {}
        """What is wrong with each file that could not be used when it was read last."""
        self.sets: dict[str, KeySet] = {}
        """The sets of keys that some tenant uses, by address."""
        try:
            self._fixed = {
                name: Customer(name, options, self.sets, settings.limits)
                for name, options in settings.tenants.items()
            }
        except ValueError as error:
            raise BadSettings(str(error)) from None

        self.by_name: Mapping[str, Customer] = self._fixed
        """The tenants that are served."""
        self.configured = bool(settings.tenants or settings.tenants_directory)
        """Whether there are tenants, or may be some after a reload."""
        self.take(self.read())

    def engines(self, name: str) -> Sequence[str]:
        """Name the only engines that a tenant may use; none for all of the node's."""
        customer = self.by_name.get(name)
        return customer.options.engines if customer else ()

    def quotas(self, name: str) -> Quotas:
        """Say what a tenant may use; the tenant of development mode, whatever it likes."""
        customer = self.by_name.get(name)
        if customer is not None:
            return customer.options.quotas

        return UNLIMITED if name == DEV else self._node.quotas

    def limits(self, name: str) -> Limits:
        """Say by which limits the rooms and sessions of a tenant go."""
        customer = self.by_name.get(name)
        return self._node.limits if customer is None else customer.limits

    def keeps_presence(self, name: str, room: str) -> bool:
        """Say whether a tenant wants it to be known who is in a room."""
        customer = self.by_name.get(name)
        patterns = ("*",) if customer is None else customer.options.presence
        return any(matches(each, room) for each in patterns)

    def read(self) -> Reading:
        """Read the directory. Raises BadSettings if it cannot be listed."""
        customers: dict[str, Customer] = {}
        broken: dict[str, str] = {}
        sets = dict(self.sets)
        for path in self._files():
            try:
                options, limits = self._options(path), self._node.limits
                customers[path.stem] = Customer(path.stem, options, sets, limits)
            except (ValueError, BadSettings) as error:
                told = str(error)
                broken[path.stem] = told if str(path) in told else f"{path}: {told}"

        return Reading(customers, broken)

    def take(self, reading: Reading) -> str:
        """Serve what was read, and say who is new, gone or another now.

        Who has a broken file stays as it was, and the log says so once.
        """
        for name, error in reading.broken.items():
            if self.broken.get(name) != error and not self._quiet:
                state = "stays as it was" if name in self.by_name else "is left out"
                log.warning("tenant %r %s: %s", name, state, error)

        kept = {name: self.by_name[name] for name in reading.broken if name in self.by_name}
        self.broken, before = reading.broken, self.by_name
        self.by_name = {**reading.customers, **kept, **self._fixed}
        self.sets = {url: keys for each in self.by_name.values() for url, keys in each.sets.items()}
        return _differences(before, self.by_name)

    def owner(self, url: str) -> str:
        """Name the tenant whose keys are behind an address, and how many more have them there."""
        owners = [
            f"tenant {name!r}, key {key_id!r}"
            for name, each in sorted(self.by_name.items())
            for key_id, key in each.options.keys.items()
            if key.jwks == url
        ]
        return f"{owners[0]}{_more(owners, 1)}" if owners else "a tenant that is gone"

    def reload(self) -> Reading | None:
        """Read again; a directory that cannot be listed is logged, and None returned."""
        try:
            return self.read()
        except BadSettings as error:
            log.warning("the tenants stay as they were: %s", error)
            return None

    def _files(self) -> Iterator[Path]:
        if not self._directory:
            return

        try:
            paths = sorted(Path(self._directory).iterdir())
        except OSError as error:
            why = f"tenants_directory: {self._directory}: {error.strerror}"
            raise BadSettings(why) from None

        yield from (path for path in paths if path.suffix == ".toml" and path.stem[0] != ".")

    def _options(self, path: Path) -> Tenant:
        """Read one file. Raises ValueError or BadSettings."""
        if path.stem in self._fixed:
            raise ValueError("the settings have a tenant of this name")

        tree = inherit(read_table(path), msgspec.to_builtins(self._node))
        try:
            options = msgspec.convert(tree, Tenant)
        except msgspec.ValidationError as error:
            raise ValueError(explain(error, Tenant, tree=tree)) from None

        check_tenants({path.stem: options}, self._enabled)
        return options


def _differences(before: Mapping[str, Customer], after: Mapping[str, Customer]) -> str:
    """Say in a line of bounded length which tenants are new, gone, or others than they were."""
    both = before.keys() & after.keys()
    groups = {
        "added": after.keys() - before.keys(),
        "removed": before.keys() - after.keys(),
        "changed": {name for name in both if not before[name].is_like(after[name])},
    }
    said = [
        f"{group} {', '.join(sorted(names)[:SAID])}{_more(names, SAID)}"
        for group, names in groups.items()
        if names
    ]
    return "; ".join(said) or "nothing has changed"


def _more(names: Collection[str], shown: int) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""
