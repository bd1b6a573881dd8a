"""Many calls in one file: what it holds, and what damage does to it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fleche
from fleche.caches import Cache, Local
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


@pytest.mark.parametrize("environment", [None, "another"])
def test_signed_calls(
    environment: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secrets of the caches count on both ways, not those that the environment gives others."""
    if environment is not None:
        monkeypatch.setenv("FLECHE_SECRET_KEY", environment)

    def signed(name: str, secret: str) -> Local:
        return Local(tmp_path / name, secret_key=secret)

    path = tmp_path / "study.fleche"
    with signed("one", "sesame") as source, signed("two", "sesame") as target:
        source.save(Call("make", {"n": 1}, result=GRID))
        assert export_calls(source, path) == 1
        assert import_calls(path, target) == 1
        assert (target.query().only().result == GRID).all()
        with signed("three", "other") as stranger:
            assert import_calls(path, stranger) == 0


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
        assert (head.calls, head.lost) == (3, 0)
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
        file.writestr("fleche.json", json.dumps({"format": 99, "fleche": "9.9\x1b[2J"}))
    with pytest.raises(CorruptParcel, match=r"fleche 9\.9\\x1b\[2J, which is newer"):
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


def flipped(path: Path, data: bytes, place: int) -> Path:
    """Write an archive in which one bit of the byte in a place is another."""
    altered = bytearray(data)
    altered[place] ^= 1 << place % 8
    path.write_bytes(altered)
    return path


def middle_of(path: Path, part: str) -> int:
    """Return where the content of the first member of a part is."""
    with zipfile.ZipFile(path) as file:
        member = next(each for each in file.infolist() if each.filename.startswith(part))
    return member.header_offset + 30 + len(member.filename) + member.compress_size // 2


def test_a_damaged_member_is_told(
    source: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named, and so is how many calls are lost; none of them passes for there already."""
    path = tmp_path / "study.fleche"
    export_calls(source, path)
    data = path.read_bytes()
    in_a_call, in_a_value = middle_of(path, "calls/"), middle_of(path, "values/")
    assert import_calls(flipped(path, data, in_a_call), in_memory()) == 2
    assert "left out, damaged" in caplog.text
    assert "1 of its 3 calls cannot be read" in caplog.text
    told = fleche_command("import", path, "--json")
    assert (told.status, told.json["imported"], told.json["lost"]) == (1, 2, 1)
    told = fleche_command("import", path, "--dry-run")
    assert (told.status, ", 1 lost" in told.out) == (1, True)
    flipped(path, data, in_a_value)
    other = f'{{type = "local", root = "{tmp_path / "other"}"}}'
    told = fleche_command("import", path, "--cache", other)
    assert told.status == 1
    assert told.out.startswith("imported 1 of 3 calls, 2 left out\n")
    told = fleche_command("import", path, "--cache", other, "--json")
    assert (told.json["imported"], told.json["left_out"], told.json["lost"]) == (0, 2, 0)


def test_any_bit_may_be_another(tmp_path: Path) -> None:
    """Either the file is refused as a whole, or what it still holds gets in: no other error."""
    source, path, other = in_memory(), tmp_path / "study.fleche", tmp_path / "altered"
    source.save(Call("f", {"x": 1}, result=2))
    export_calls(source, path)
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        target = in_memory()
        try:
            number = import_calls(flipped(other, data, place), target)
        except CorruptParcel:
            number = 0
        assert number == target.query().count()


def test_export_leaves_out_what_is_damaged(tmp_path: Path) -> None:
    """And says so, with status 1."""
    near, path = tmp_path / "near", tmp_path / "study.fleche"
    with fleche.open(str(near)) as cache:
        cache.save(Call("f", {"x": 1}, result=GRID))
        cache.save(Call("f", {"x": 2}, result=2))
    (value,) = near.glob("values/*/*")
    value.write_bytes(value.read_bytes()[:-1] + b"!")
    told = fleche_command("export", path, "--cache", near)
    assert (told.status, "1 call, " in told.out, "; 1 left out" in told.out) == (1, True, True)
    told = fleche_command("export", path, "--cache", near, "--force", "--json")
    assert (told.json["calls"], told.json["left_out"]) == (1, 1)


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


def test_into_a_new_directory(source: Cache, tmp_path: Path) -> None:
    """It is made, as ``push --to`` makes one; a name that means nothing is no directory."""
    export_calls(source, tmp_path / "all.fleche")
    new = tmp_path / "new"
    told = fleche_command("import", tmp_path / "all.fleche", "--dry-run", "--cache", new)
    assert (told.status, new.exists()) == (0, False)
    assert fleche_command("import", tmp_path / "all.fleche", "--cache", new).status == 0
    with Local(new) as cache:
        assert len(cache) == len(source)
    told = fleche_command("import", tmp_path / "all.fleche", "--cache", "newer")
    assert (told.status, "no cache is named 'newer'" in told.err) == (2, True)
    assert fleche_command("log", "--cache", tmp_path / "absent").status == 2


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
