"""What users of relatives expect, and what they may say wrongly at first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fleche
from fleche import D, MetaData, Secret, cache
from fleche.call import Call, where
from fleche.config import cache_from_config, load_cache_config
from fleche.metadata import Runtime, metadata_class
from tests.helpers.layers import in_memory


class Sizes(MetaData):
    """Sees the call before, and the call and its result afterwards."""

    def start(self, call: Call) -> None:
        self.given = len(call.arguments["items"])
        assert call.name == "doubled"

    def finish(self, call: Call, result: Any) -> dict[str, Any]:
        return {"given": self.given, "returned": len(result), "unit": call.arguments["unit"]}


class Late(MetaData):
    def finish(self, call: Call, result: Any) -> dict[str, Any]:
        return {"last": result[-1]}


@fleche.fleche(version=1, meta=(Sizes, Late(), "RUNTIME"))
def doubled(items: list[int], unit: str = "m") -> list[int]:
    return items * 2


@pytest.fixture(autouse=True)
def store() -> None:
    cache(in_memory())


class TestMetadata:
    def test_it_sees_the_call_and_the_result(self) -> None:
        """And what it returns can be asked for."""
        doubled([1, 2])
        doubled([1, 2, 3], unit="s")
        found = doubled.query(metadata={"sizes": {"returned": where(">", 4)}}).only()
        assert found.metadata["sizes"] == {"given": 3, "returned": 6, "unit": "s"}
        assert found.metadata["late"] == {"last": 3}
        assert list(doubled.query().groupby("sizes.unit")) == ["m", "s"]

    def test_a_failing_one_is_left_out(self) -> None:
        other = fleche.fleche(version=2)(lambda numbers: numbers)
        with fleche.meta(Sizes()), pytest.warns(fleche.FlecheWarning, match="sizes"):
            assert other([1]) == [1]
        assert other.load([1]).metadata == {}

    @pytest.mark.parametrize("name", ["Runtime", "runtime", "RUNTIME"])
    def test_names_in_any_case(self, name: str) -> None:
        assert metadata_class(name) is Runtime
        Path("fleche.toml").write_text(f'[default]\nmetadata = ["{name}"]\n')
        fleche.state.reset()
        assert fleche.meta() == (Runtime(),)


class TestCompress:
    @pytest.mark.parametrize("template", ["cloudpickle", "local", "hdf5"])
    def test_true(self, template: str, tmp_path: Path) -> None:
        """It is a kind of compression, and the configuration says so again."""
        if template == "hdf5":
            pytest.importorskip("h5py")
        values = {"type": template, "root": str(tmp_path / "v"), "compress": True}
        made = cache_from_config({"values": values, "calls": {"type": "memory"}})
        value = b"a" * 200_000 if template != "hdf5" else [0.0] * 50_000
        key = made.save(Call(name="f", arguments={}, result=value))
        assert made.load(key).result == value
        assert made.to_config()["values"]["compress"] is True
        assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 100_000

    def test_of_a_local_cache(self, tmp_path: Path) -> None:
        Path("fleche.toml").write_text('[mine]\ntype="local"\nroot="store"\ncompress=true\n')
        with load_cache_config("mine") as made:
            made.save(Call(name="f", arguments={}, result=b"a" * 2_000_000))
        assert sum(each.stat().st_size for each in Path("store").rglob("values/**/*")) < 1_000_000


def test_a_digest_of_a_value() -> None:
    """D() makes one of its characters; the message says what to call for a value."""
    for wrong in (3, [1], 2.5):
        with pytest.raises(TypeError, match=r"fleche.digest\(value\) is the digest of a value"):
            D(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'Fe' is not a digest: .*fleche.digest\(value\)"):
        D("Fe")


class TestSecret:
    def test_it_is_kept_nowhere(self, tmp_path: Path, capsys: Any) -> None:
        """Not in records, files, tables, explanations or the log; yet it counts."""

        @fleche.fleche(version=1)
        def fetch(url: str, token: Secret[Any]) -> int:
            return len(url) + len(token)

        tokens = ["hush-hush-" * 5, ["hush-hush-" * 5] * 2000, b"hush-hush-" * 200_000]
        with fleche.open(tmp_path / "store") as made, cache(made), fleche.verbose():
            for token in tokens:
                fetch("a", token)
            shown = [str(made.table(metadata=True).to_text(500)), str(fetch.explain("a", "x"))]
            shown += [repr(call) + call._repr_html_() for call in made.query()]
            assert fetch.contains("a", tokens[0])
            assert not fetch.contains("a", "hush")
            assert fetch.query(token=tokens[1]).count() == 1
            with pytest.raises(KeyError):
                _ = fetch.load("a", tokens[1]).arguments["token"]
        shown.append(capsys.readouterr().err)
        assert "hush" not in "".join(shown)
        for path in (tmp_path / "store").rglob("*"):
            assert not path.is_file() or b"hush-hush" not in path.read_bytes()
