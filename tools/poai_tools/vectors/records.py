"""The containers of the specification as kinds: named fields in JSON, instances of the pages' classes in Python."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ssz.sedes import Boolean as SszBoolean
from ssz.sedes import ByteList, ByteVector, List, UInt

from poai_spec.basics.containers import Block, Body, Header, HeaderCore
from poai_spec.basics.notation import Address
from poai_spec.basics.parameters import Config, ModelManifest, TokenRange
from poai_spec.chain.upgrades import Change, Upgrade, UpgradeList
from poai_spec.execution.state import Account, State
from poai_spec.execution.world import Log
from poai_tools.vectors.kinds import ADDRESS, BOOLEAN, HASH32, UINT64, UINT256, Array, Hex, Integer, Kind, RecordKind


@dataclass(frozen=True)
class Container(RecordKind):
    """A container class: a record in JSON, an instance of `kind` in Python."""

    kind: type

    @property
    def name(self) -> str:
        return self.kind.__name__

    def to_json(self, value: Any) -> Any:
        return super().to_json(vars(value))

    def from_json(self, data: Any, where: str) -> Any:
        return self.kind(**super().from_json(data, where))


def get_kind(sedes: Any, item: type | None = None) -> Kind:
    """Return the kind of an SSZ type as `ssz_field` takes it; a container class gives its `Container`."""
    if isinstance(sedes, type):
        return make_container(sedes)
    if isinstance(sedes, UInt):
        return Integer(0, 2**sedes.num_bits - 1)
    if isinstance(sedes, SszBoolean):
        return BOOLEAN
    if isinstance(sedes, ByteList):  # a subclass of List
        return Hex(sedes.max_length, exact=False)
    if isinstance(sedes, List):
        return Array(make_container(item) if item else get_kind(sedes.element_sedes), most=sedes.max_length)
    assert isinstance(sedes, ByteVector), sedes
    return Hex(sedes.length)


def make_container(kind: type) -> Container:
    """Return the kind of a container class, from the SSZ types of its fields."""
    return Container({f.name: get_kind(f.metadata["sedes"], f.metadata["item"]) for f in fields(kind)}, kind)


TOKEN_RANGE = make_container(TokenRange)
MODEL_MANIFEST = make_container(ModelManifest)
CONFIG = make_container(Config)
CHANGE = make_container(Change)
UPGRADE = make_container(Upgrade)
UPGRADES = Array(UPGRADE)
HEADER_CORE = make_container(HeaderCore)
HEADER = make_container(Header)
BODY = make_container(Body)
BLOCK = make_container(Block)
CONTAINERS: dict[str, Container] = {
    "token_range": TOKEN_RANGE,
    "model_manifest": MODEL_MANIFEST,
    "config": CONFIG,
    "change": CHANGE,
    "upgrade": UPGRADE,
    "upgrade_list": make_container(UpgradeList),
    "header_core": HEADER_CORE,
    "header": HEADER,
    "body": BODY,
    "block": BLOCK,
}

ACCOUNT_FIELDS: dict[str, Kind] = {"nonce": UINT64, "balance": UINT256, "storage_root": HASH32, "code_hash": HASH32}
ACCOUNT = Container(ACCOUNT_FIELDS, Account)
ACCOUNTS = Array(RecordKind({"address": ADDRESS} | ACCOUNT_FIELDS))
"""A state with every field of its accounts; addresses are distinct."""
BALANCES = Array(RecordKind({"address": ADDRESS, "balance": UINT256}))
"""A state of version 1, whose accounts differ in their balances only; addresses are distinct."""


def read_state(accounts: Iterable[Mapping[str, Any]]) -> State:
    """Return the state of an `ACCOUNTS` or `BALANCES` value."""
    return {a["address"]: Account(**{key: a[key] for key in a if key != "address"}) for a in accounts}


def list_accounts(state: State) -> list[dict[str, Any]]:
    """Return a state as an `ACCOUNTS` or `BALANCES` value, in ascending order of the addresses."""
    addresses: list[Address] = sorted(state)
    return [{"address": address} | vars(state[address]) for address in addresses]


LOGS = Array(RecordKind({"address": ADDRESS, "topics": Array(HASH32, most=4), "data": Hex(16_384, exact=False)}))
"""Events of contracts, in order."""


def read_logs(logs: Iterable[Mapping[str, Any]]) -> tuple[Log, ...]:
    """Return the events of a `LOGS` value."""
    return tuple(Log(log["address"], tuple(log["topics"]), log["data"]) for log in logs)
