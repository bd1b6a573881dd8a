"""A stack of caches: the near ones quick, the far ones shared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fleche.caches._backfill import made_storable, plain_arguments
from fleche.caches._flights import Flights
from fleche.caches.base import BaseCache
from fleche.caches.layers import Layers
from fleche.caches.upkeep import Upkeep
from fleche.call import CallRecord, LazyCall, QueryCall
from fleche.digest import Digest
from fleche.errors import (
    ParcelError,
    Rejected,
    RemoteConnectionError,
    SignatureError,
    StorageError,
)
from fleche.parcel import Parcel, verify
from fleche.storage.base import Capabilities

__all__ = ["CacheStack"]


class CacheStack(BaseCache):
    """Caches one behind the other.

    Saves go to the first layer, and to those further ones whose policy says ``write_through``. A
    call is looked for from the first layer on, and no layer is asked if one before it can answer. A
    hit further up is copied down as it is: the record and the result, and those arguments that the
    record holds in the clear. Larger arguments stay where they are, since whoever calls the
    function holds them already; they are loaded from there when asked for. A value that is asked
    for by itself is not copied down, for nothing here would refer to it.

    Values are packed, signed and opened as the first layer says.
    """

    def __init__(self, layers: Iterable[BaseCache]) -> None:
        """Put ``layers`` together, the nearest first."""
        super().__init__()
        self._layers = Layers(layers, self.count)
        self._flights = Flights()
        self.packing = self.first.packing
        self.claims = self.first.claims

    @property
    def layers(self) -> tuple[BaseCache, ...]:
        """The caches, the nearest first."""
        return self._layers.caches

    @property
    def first(self) -> BaseCache:
        """The layer that saves go to."""
        return self.layers[0]

    @property
    def capabilities(self) -> Capabilities:
        """What those layers are together that receive saves; others are not even asked."""
        receiving = (self.first, *self._written_through())
        return self._layers.capabilities(read_only=self.read_only, of=receiving)

    @property
    def read_only(self) -> bool:
        """Whether the first layer refuses every save."""
        return self.first.read_only

    @property
    def opens_parcels(self) -> bool:
        """Whether the first layer takes apart what is saved."""
        return self.first.opens_parcels

    # -- looking up --------------------------------------------------------------------------------

    def load_record(self, key: Digest) -> CallRecord:
        """Return the record of the nearest layer that has one."""
        return self._layers.first(key, lambda layer: layer.load_record(key))

    def load_parcel(self, digest: Digest) -> Parcel:
        """Return the parcel of the nearest layer that has one."""
        return self._layers.first(
            digest,
            lambda layer: layer.load_parcel(digest),
            first_last=digest in self._damaged,
        )

    def load_parcels(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, Parcel]]:
        """Yield the parcels that a layer has, each layer asked once, the nearest first."""
        wanted = list(digests)
        damaged = [key for key in wanted if key in self._damaged]
        yield from self._layers.load_parcels(key for key in wanted if key not in self._damaged)
        yield from self._layers.load_parcels(damaged, first_last=True)

    def _note_damage(self, call: LazyCall, result: Digest) -> bool:
        """Remember it; tell whether a further layer has the call, and nobody has asked it yet."""
        known = result in self._damaged
        super()._note_damage(call, result)
        if known:
            return False
        elsewhere = self._layers.ask(
            lambda layer: layer is not self.first and layer.contains(call.key)
        )
        return any(elsewhere)

    def fetch(self, key: Digest) -> tuple[CallRecord, Parcel | None]:
        """Return a record and, where that costs nothing extra, the parcel of its result."""
        with self._flights.join(key):
            return self._search(key)

    def _search(self, key: Digest) -> tuple[CallRecord, Parcel | None]:
        """Return the call from the nearest layer that has both record and result.

        If none has both, the nearest record is returned alone; that of a damaged entry counts last.
        """
        dangling: list[CallRecord] = []
        damage: ParcelError | None = None
        for depth, layer in enumerate(self.layers):
            with self._layers.tolerating(layer):
                try:
                    return self._fetch_from(depth, key, dangling)
                except KeyError:
                    continue
                except ParcelError as error:
                    damage = damage or error
        if dangling:
            return dangling[0], None
        raise damage or KeyError(key)

    def _fetch_from(
        self, depth: int, key: Digest, dangling: list[CallRecord]
    ) -> tuple[CallRecord, Parcel | None]:
        layer = self.layers[depth]
        record, parcel = layer.fetch(key)
        result = record.result
        if parcel is not None or result is None:
            pass
        elif depth:
            dangling.append(record)
            parcel = layer.load_parcel(result)
            dangling.pop()
        elif result in self._damaged or not layer.contains(result):
            dangling.append(record)
            raise KeyError(result)
        if parcel is None:
            return record, None
        if self.packing.keys:  # what would not be opened here is not copied down either
            parcel.check_signature(self.packing.keys)
        for nearer in reversed(self.layers[:depth]):
            self._copy_down(nearer, key, record, parcel)
        if not layer.stores():
            return record, parcel
        parcel.close()  # it is at hand, and would hold a file open until it is used
        return record, None

    def _copy_down(
        self, nearer: BaseCache, key: Digest, record: CallRecord, parcel: Parcel
    ) -> None:
        """Give a nearer layer what a further one has; that it may refuse is no error."""
        try:
            if record.result is not None:
                self._copy_result(nearer, record.result, parcel)
            nearer.save_values(plain_arguments(record))
            nearer.save_record(key, record)
        except (Rejected, SignatureError, StorageError, RemoteConnectionError) as error:
            self._layers.note("refused", nearer, error)
        except KeyError:
            self.count("dangling")
        else:
            self.count("copied")

    def _copy_result(self, nearer: BaseCache, result: Digest, parcel: Parcel) -> None:
        if result in self._damaged:
            verify(parcel, digest=result, keys=self.packing.keys)
            nearer.drop(result)
        for lacking in nearer.missing([result]):
            with made_storable(self, nearer, parcel, self._damaged) as storable:
                nearer.save_parcel(lacking, storable)
        self._damaged.discard(result)
        self._incomplete.discard(result)

    def contains(self, key: Digest | str) -> bool:
        """Tell whether a layer can answer ``key``."""
        try:
            return self._layers.contains(self.complete(key))
        except KeyError:
            return False

    def contains_many(self, keys: Iterable[Digest]) -> list[bool]:
        """Ask each layer once for all that those before it lack."""
        return self._layers.contains_many(keys)

    def expand(self, key: Digest | str) -> Digest:
        """Expand over all layers together."""
        return self._layers.expand(key)

    def _shrink(self, *keys: Digest | str) -> tuple[Digest, ...]:
        return self._layers.shrink(*keys)

    def load_records(self, keys: Iterable[Digest]) -> Iterator[tuple[Digest, CallRecord]]:
        """Yield the records that one of them has, each asked once."""
        return self._layers.load_records(keys)

    def call_keys(self, template: QueryCall) -> Iterator[Digest]:
        """Yield the keys of the calls that match, each once."""
        return self._layers.call_keys(template)

    def _query(self, call: QueryCall) -> Iterable[LazyCall]:
        return self._layers.query(call, self)

    # -- changing ----------------------------------------------------------------------------------

    def save_record(self, key: Digest, record: CallRecord) -> None:
        """Store in the first layer; then a finished call in those that are written through."""
        self.first.save_record(key, record)
        if record.result is not None:
            for layer in self._written_through():
                self._write_through(layer, key, record)

    def _written_through(self) -> list[BaseCache]:
        return [layer for layer in self.layers[1:] if layer.policy.write_through]

    def _write_through(self, layer: BaseCache, key: Digest, record: CallRecord) -> None:
        try:
            self.first.copy_call(layer, key, record)
        except Exception as error:  # noqa: BLE001 (the result is safe in the first layer)
            self._layers.note("errors.write_through", layer, error)
        else:
            self.count("written_through")

    def save_parcel(self, digest: Digest, parcel: Parcel) -> None:
        """Store in the first layer."""
        self.first.save_parcel(digest, parcel)

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return what the first layer lacks: what is saved goes there."""
        return self.first.missing(digests)

    def drop(self, key: Digest) -> None:
        """Remove an entry of the first layer."""
        self.first.drop(key)

    def evict(self, key: Digest | str) -> None:
        """Forget ``key`` in every layer that has it and is not read-only.

        Raises:
            KeyError: no layer has it.
            Rejected: only read-only layers have it.
        """
        full = self.complete(key)
        evicted = [layer for layer in self.layers if self._evict_from(layer, full)]
        if not evicted and self._layers.contains(full):
            raise Rejected(f"{self}: only read-only layers have {full[:12]}, evict refused")
        if not evicted:
            raise KeyError(key)

    def _evict_from(self, layer: BaseCache, key: Digest) -> bool:
        with self._layers.tolerating(layer):
            try:
                if not layer.read_only:
                    layer.evict(key)
                    return True
            except (KeyError, Rejected):
                return False
        return False

    def push(self, target: BaseCache | None = None, **fields: Any) -> int:
        """Copy the matching calls to ``target``, or those of the first layer to all further ones.

        Returns:
            The number of copies made.
        """
        if target is not None:
            return super().push(target, **fields)
        further = [layer for layer in self.layers[1:] if not layer.read_only]
        return sum(self.first.transfer(layer, QueryCall.of(**fields)) for layer in further)

    # -- the whole ---------------------------------------------------------------------------------

    def stores(self) -> tuple[Upkeep, ...]:
        """Return the stores of all layers."""
        return tuple(store for layer in self.layers for store in layer.stores())

    def to_config(self) -> Sequence[Any]:
        """Return the tables of the layers, the nearest first."""
        tables: list[Any] = []
        for layer in self.layers:
            config = layer.to_config()
            tables += config if isinstance(config, list) else [config]
        return tables

    def close(self) -> None:
        """Close every layer."""
        self._layers.close()

    def __repr__(self) -> str:
        return f"CacheStack({', '.join(map(repr, self.layers))})"
