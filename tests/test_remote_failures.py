"""What the cache behind the server raises arrives, whatever it is, and the server goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleche.caches import BaseCache, CacheBackend, CacheStack, CacheView, ViewBackend
from fleche.digest import Address, Digest, digest
from fleche.errors import RemoteConnectionError, StorageError
from fleche.parcel import Buffer, Parcel
from fleche.remote import LocalSubprocessChannel, RemoteCache
from tests.helpers.backends import lacking, load_parcel
from tests.helpers.layers import in_memory
from tests.helpers.serving import Serving

KEY = digest("key")


class Failing(CacheView):
    """A cache that raises what it is given when it is asked what it contains."""

    def __init__(self, make: Callable[[], BaseException]) -> None:
        self.make = make
        super().__init__(in_memory())

    def _make_backend(self, inner: CacheBackend) -> CacheBackend:
        return _FailingBackend(inner, self.make)


class _FailingBackend(ViewBackend):
    def __init__(self, inner: CacheBackend, make: Callable[[], BaseException]) -> None:
        super().__init__(inner)
        self.make = make

    def contains(self, keys: Sequence[Digest | Address]) -> list[bool]:
        raise self.make()


def raised(serving: Serving, make: Callable[[], BaseException]) -> BaseException:
    """Return what arrives of that, having seen that the server goes on."""
    with RemoteCache(serving.channel("pipe", lambda: Failing(make)), timeout=30) as remote:
        found: BaseException | None = None
        try:
            remote.contains_many([KEY])
        except Exception as error:  # noqa: BLE001 (whatever arrives)
            found = error
        assert found is not None
        assert lacking(remote, [KEY]) == [KEY]
    return found


class Untold(Exception):
    """What it is cannot be said."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class TestTexts:
    def test_a_path_that_is_no_utf8(self, serving: Serving) -> None:
        """Python has lone surrogates in it; they arrive as escapes."""
        path = os.fsdecode(b"/data/caf\xe9")
        found = raised(serving, lambda: StorageError(f"cannot write {path}"))
        assert isinstance(found, StorageError)
        assert str(found) == r"pipe: cannot write /data/caf\udce9"

    def test_of_a_foreign_exception(self, serving: Serving) -> None:
        """It arrives as itself; what is told of it besides is made legible."""
        found = raised(serving, lambda: FileNotFoundError(2, "no such file", "caf\udce9"))
        assert isinstance(found, FileNotFoundError)
        assert found.filename == "pipe:caf\udce9"

    def test_that_cannot_be_told(self, serving: Serving) -> None:
        found = raised(serving, lambda: Untold(threading.Lock()))
        assert isinstance(found, RuntimeError)
        assert "Untold" in str(found)

    def test_a_miss_that_cannot_be_told(self, serving: Serving) -> None:
        assert isinstance(raised(serving, lambda: KeyError(Untold())), KeyError)

    def test_of_the_info(
        self, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server may stand in a directory whose name is no text."""
        monkeypatch.setattr(os, "getcwd", lambda: "/data/caf\udce9")
        with RemoteCache(serving.channel("pipe", in_memory)) as remote:
            assert remote.info()["cwd"] == r"/data/caf\udce9"


class TestSize:
    """Something huge in an exception is left out; the exception is told all the same."""

    def test_a_long_text(self, serving: Serving) -> None:
        found = raised(serving, lambda: ValueError("x" * 20_000_000))
        assert isinstance(found, RuntimeError)
        assert "ValueError" in str(found)
        assert 1000 < len(str(found)) < 2_000_000

    def test_a_large_attribute(self, serving: Serving) -> None:
        def make() -> ValueError:
            error = ValueError("much")
            error.data = b"x" * 20_000_000  # type: ignore[attr-defined]
            return error

        found = raised(serving, make)
        assert isinstance(found, RuntimeError)
        assert "much" in str(found)

    def test_one_of_ours(self, serving: Serving) -> None:
        found = raised(serving, lambda: StorageError("x" * 20_000_000))
        assert isinstance(found, StorageError)
        assert len(str(found)) < 1_000_000


class Dying(Parcel):
    """A parcel whose bytes cannot be read to the end."""

    def chunks(self, size: int = 1 << 20) -> Iterator[Buffer]:
        yield from list(super().chunks(size))[:2]
        error = OSError("the disk is gone")
        error.report = b"x" * 3_000_000  # type: ignore[attr-defined]
        raise error


def test_in_the_middle_of_a_value(serving: Serving) -> None:
    """A failure that takes several frames, where bytes are due."""

    class Served(ViewBackend):
        def load_values(self, addresses: Iterable[Address]) -> Iterator[tuple[Address, Any]]:
            for address, parcel in super().load_values(addresses):
                assert isinstance(parcel, Parcel)
                yield address, Dying(parcel.source)

    inner = in_memory()
    wanted = inner.save_value("x" * 5_000_000)
    served = BaseCache(Served(inner.backend))
    with RemoteCache(serving.channel("pipe", lambda: served), timeout=30) as remote:
        with pytest.raises(OSError, match="the disk is gone") as caught:
            load_parcel(remote, wanted)
        assert len(caught.value.report) == 3_000_000  # type: ignore[attr-defined]
        assert remote.contains(wanted)


@pytest.mark.parametrize("near", [False, True], ids=["alone", "in a stack"])
def test_a_server_whose_own_remote_dies(serving: Serving, tmp_path: Path, near: bool) -> None:
    """Its client is told that, at once and every time: its own connection is sound."""
    (tmp_path / "fleche.toml").write_text('[default]\ncache = "far"\n[far]\ntemplate = "memory"\n')
    far = RemoteCache(LocalSubprocessChannel(workdir=str(tmp_path)))
    served: Any = CacheStack([in_memory(), far]) if near else far
    with far, RemoteCache(serving.channel("pipe", lambda: served), timeout=30) as remote:
        assert not remote.contains(KEY)
        os.kill(far.info()["pid"], signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(RemoteConnectionError, match=r"reconnect\(\)"):
                remote.contains(KEY)
        far.reconnect()
        assert not remote.contains(KEY)
