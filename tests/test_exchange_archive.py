"""Many calls in one file: what it holds, and what damage does to it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fleche
from fleche.caches import Cache
from fleche.call import Call, QueryCall
from fleche.digest import digest
from fleche.errors import CorruptParcel, Rejected
from fleche.exchange import export_calls, import_calls, open_export
from tests.helpers.commands import fleche_command
from tests.helpers.layers import in_memory

GRID = np.arange(100_000.0)


@pytest.fixture
def source() -> Cache:
    """Three calls, two of which share an array."""
    cache = in_memory()
    cache.save(Call("small", {"x": 1}, result=2, metadata={"tags": {"study": "eos"}}))
    cache.save(Call("make", {"n": 1}, result=GRID))
    cache.save(Call("use", {"x": GRID}, result=[GRID, 1]))
    return cache


def test_there_and_back(source: Cache, tmp_path: Path) -> None:
    """Every call with all its values, metadata included; shared arrays once."""
    path = tmp_path / "study.fleche"
    assert export_calls(source, path) == 3
    assert path.stat().st_size < 1.2 * GRID.nbytes
    target = in_memory()
    assert import_calls(path, target) == 3
    assert import_calls(path, target) == 0
    for call in source.query():
        copy = target.load(call.key)
        assert copy.record == call.record
        assert digest(copy.result) == digest(call.result)
    assert target.verify().ok
    assert not target.verify().incomplete
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["study.fleche"]


def test_a_part(source: Cache, tmp_path: Path) -> None:
    """Which calls are written, and which are read."""
    path = tmp_path / "study.fleche"
    assert export_calls(source, path, source.query(name="make")) == 1
    assert export_calls(source, path) == 3  # in place of the other
    target = in_memory()
    assert import_calls(path, target, QueryCall(name="s*")) == 1


def test_an_archive_is_a_cache(source: Cache, tmp_path: Path) -> None:
    """Opened in place, or unpacked."""
    path = tmp_path / "study.fleche"
    export_calls(source, path)
    with open_export(path) as (head, cache):
        assert head.calls == 3
        assert cache.query(name="make").only().result[5] == 5
        with pytest.raises(Rejected):
            cache.evict(cache.query().first().key)
    zipfile.ZipFile(path).extractall(tmp_path / "unpacked")
    with fleche.open(str(tmp_path / "unpacked")) as cache:
        assert cache.query().count() == 3


def test_what_is_no_archive(source: Cache, tmp_path: Path) -> None:
    """Another file, another zip, one of a newer fleche: one sentence each."""
    other = tmp_path / "other"
    other.write_text("text")
    with pytest.raises(CorruptParcel, match="no archive of fleche"):
        import_calls(other, in_memory())
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("a", "b")
    with pytest.raises(CorruptParcel, match="'fleche export' writes one"):
        import_calls(other, in_memory())
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("fleche.json", json.dumps({"format": 99, "fleche": "9.9"}))
    with pytest.raises(CorruptParcel, match=r"fleche 9\.9, which is newer"):
        import_calls(other, in_memory())
    with pytest.raises(FileNotFoundError):
        import_calls(tmp_path / "absent", in_memory())


def test_damage_takes_its_call_alone(source: Cache, tmp_path: Path) -> None:
    """A value that arrived damaged is left out; nothing wrong gets in."""
    path = tmp_path / "study.fleche"
    export_calls(source, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda each: each.file_size)
    data[largest.header_offset + 200 + largest.compress_size // 2] ^= 0xFF
    path.write_bytes(data)
    target = in_memory()
    assert import_calls(path, target) == 1
    assert target.query().only().name == "small"
    assert target.verify().ok


def test_members_lead_nowhere_else(source: Cache, tmp_path: Path) -> None:
    """A path that climbs out of the archive is passed over."""
    path = tmp_path / "study.fleche"
    export_calls(source, path)
    with zipfile.ZipFile(path, "a") as file:
        for name in ("values/../../../escaped", "/escaped", "calls/../../escaped", "escaped"):
            file.writestr(name, "x")
    assert import_calls(path, in_memory()) == 3
    assert not list(tmp_path.parent.rglob("escaped"))


def test_a_failure_leaves_the_old_file(source: Cache, tmp_path: Path) -> None:
    path = tmp_path / "study.fleche"
    path.write_text("old")

    def fail(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_calls(source, path, progress=fail)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir() if "study" in each.name] == ["study.fleche"]


def test_the_commands(source: Cache, tmp_path: Path) -> None:
    """``fleche export FILE QUERY`` and ``fleche import FILE``."""
    near = tmp_path / "near"
    with fleche.open(str(near)) as cache:
        source.transfer(cache)
    path = tmp_path / "study.fleche"
    told = fleche_command("export", path, "--cache", near, "--tag", "study=eos")
    assert (told.status, "1 call, " in told.out) == (0, True), told
    told = fleche_command("export", path, "--cache", near)
    assert (told.status, "--force replaces" in told.err) == (2, True)
    told = fleche_command("export", path, "--cache", near, "--force", "--json")
    assert told.json["calls"] == 3
    assert told.json["bytes"] == path.stat().st_size
    assert fleche_command("export", tmp_path / "n", "absent", "--cache", near).status == 1
    assert not (tmp_path / "n").exists()
    dry = fleche_command("import", path, "--dry-run", "--json").json
    assert (dry["selected"], dry["imported"]) == (3, 3)
    assert fleche_command("log").status == 1
    told = fleche_command("import", path, "make")
    assert (told.status, "imported 1 of 1 call" in told.out) == (0, True)
    told = fleche_command("import", path)
    assert "imported 2 of 3 calls, 1 there already" in told.out
    (tmp_path / "n").write_text("text")
    told = fleche_command("import", tmp_path / "n")
    assert (told.status, "no archive of fleche" in told.err) == (2, True)
