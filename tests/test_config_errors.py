"""Every way in which a configuration can be wrong, and the one sentence that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleche.config import (
    cache_from_config,
    load_cache_config,
    load_config,
    load_default_metadata,
)
from fleche.errors import ConfigError, MissingExtra, StorageError
from fleche.storage import ValueMemory, register_storage

CASES = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split("\n\n")[1:]
BROKEN = [tuple(case.strip().split("\n=> ")) for case in CASES]


@pytest.fixture
def file(tmp_home: Path) -> Path:
    return tmp_home / "work" / "fleche.toml"


@pytest.mark.parametrize(("text", "expected"), BROKEN, ids=[expected for _, expected in BROKEN])
def test_broken(file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_every_cache()
    assert str(caught.value) == f"{file}: {expected}"
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def load_every_cache() -> None:
    for name in load_config().tables:
        load_cache_config(name)
    load_cache_config()


def test_unused_tables_are_checked_too(file: Path) -> None:
    """A mistake is told where it is made, not weeks later where it is needed."""
    file.write_text('[good]\ntemplate = "memory"\n[bad]\ntype = "ssh"\nhots = "x"\n')
    with pytest.raises(ConfigError, match=r"bad\.hots: unknown key"):
        load_cache_config("good")


def test_a_hidden_table_is_checked_too(file: Path, tmp_home: Path) -> None:
    file.write_text('[a]\ntemplate = "memory"\n')
    (tmp_home / "fleche.toml").write_text('[a]\ntype = "ssh"\nhots = "x"\n')
    with pytest.raises(ConfigError, match=r"home/fleche\.toml: a\.hots: unknown key"):
        load_config()


class TestStorages:
    """What the storages themselves refuse is told with its place."""

    @pytest.mark.parametrize(
        ("table", "expected"),
        [
            ('values.type = "cloudpikle"', r"values.type: .*did you mean 'cloudpickle'\?"),
            ('values.type = "sql"', r"values.type: .*'sql'.*calls, not values"),
            ('values = {type = "pickle", root = "x", secret_key = ""}', r"values: secret_key"),
            ('values.type = "no.such.module:Class"', r"values.type: .*no module 'no'"),
        ],
    )
    def test_refused(self, file: Path, table: str, expected: str) -> None:
        file.write_text(f'[a]\n{table}\ncalls.type = "memory"\n')
        with pytest.raises(ConfigError, match=rf"^{file}: a\.{expected}"):
            load_cache_config("a")

    @pytest.fixture
    def storage(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Register a class without Options that raises what it is told to."""
        from fleche.storage import _registry as registry

        registered = {kind: dict(known) for kind, known in registry._registered.items()}
        monkeypatch.setattr(registry, "_registered", registered)

        def register(error: Exception) -> None:
            class Refusing(ValueMemory):
                Options = None  # type: ignore[assignment]

                def __init__(self) -> None:
                    raise error

            register_storage("refusing", "values", Refusing)

        return register

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (MissingExtra("pip install sqlalchemy"), MissingExtra),
            (StorageError("no such database"), ConfigError),
            (ValueError("no such thing"), ConfigError),
            (TypeError("takes no x"), ConfigError),
            (OSError("gone"), ConfigError),
        ],
    )
    def test_raised(
        self, file: Path, storage: Any, error: Exception, expected: type[Exception]
    ) -> None:
        storage(error)
        file.write_text('[a]\nvalues.type = "refusing"\ncalls.type = "memory"\n')
        with pytest.raises(expected) as caught:
            load_cache_config("a")
        assert str(caught.value) == f"{file}: a.values: {error}"

    def test_unexpected_key_of_a_class_without_options(self, file: Path, storage: Any) -> None:
        storage(ValueError("never reached"))
        file.write_text('[a]\nvalues = {type = "refusing", size = 3}\ncalls.type = "memory"\n')
        with pytest.raises(ConfigError, match=r"a\.values: .*unexpected keyword argument 'size'"):
            load_cache_config("a")


class TestRemotes:
    def test_a_host_that_is_an_option(self, file: Path) -> None:
        file.write_text('[[a]]\ntype = "ssh"\nhost = "-oProxyCommand=x"\n')
        with pytest.raises(ConfigError, match=rf"^{file}: a\[0\]\.host: .*-oProxyCommand"):
            load_cache_config("a")


class TestNames:
    def test_unknown(self, file: Path) -> None:
        file.write_text('[shared]\ntemplate = "memory"\n')
        with pytest.raises(ConfigError) as caught:
            load_cache_config("shraed")
        assert str(caught.value) == (
            "no cache is named 'shraed', did you mean 'shared'? "
            f"Known are default, memory, shared, void ({file})"
        )

    def test_unknown_without_any_file(self, tmp_home: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            load_cache_config("mine")
        assert str(caught.value) == (
            "no cache is named 'mine'; known are default, memory, void "
            f"(no fleche.toml was found from {tmp_home / 'work'} upward)"
        )

    def test_the_default_is_not_configured(self, file: Path) -> None:
        file.write_text('[default]\ncache = "memry"\n')
        with pytest.raises(ConfigError) as caught:
            load_cache_config()
        assert str(caught.value) == (
            f"{file}: default.cache: no cache is named 'memry', did you mean 'memory'? "
            "Known are default, memory, void"
        )

    def test_the_default_of_another_file(self, file: Path, tmp_home: Path) -> None:
        """The error names the file that sets the key."""
        file.write_text("[default]\nmetadata = []\n")
        far = tmp_home / "fleche.toml"
        far.write_text('[default]\ncache = "gone"\n')
        with pytest.raises(ConfigError, match=rf"^{far}: default\.cache: "):
            load_cache_config()

    def test_metadata(self, file: Path) -> None:
        file.write_text('[default]\nmetadata = ["runtime", "gti"]\n')
        with pytest.raises(ConfigError) as caught:
            load_default_metadata()
        assert str(caught.value).startswith(
            f"{file}: default.metadata[1]: no metadata is named 'gti', did you mean 'git'? Known "
        )

    @pytest.mark.parametrize("name", ["no.such.module:Class", "os:nothing", "os:getcwd"])
    def test_metadata_by_import_path(self, file: Path, name: str) -> None:
        file.write_text(f'[default]\nmetadata = ["{name}"]\n')
        with pytest.raises(ConfigError, match=rf"^{file}: default\.metadata\[0\]: .*{name}"):
            load_default_metadata()


class TestFromPython:
    """Tables that come from no file."""

    @pytest.mark.parametrize(
        ("table", "expected"),
        [
            ({"type": "ssh", "hots": "x"}, "config.hots: unknown key, did you mean 'host'?"),
            ([{"template": "memory"}, {"type": "ssh"}], "config[1]: missing required key 'host'"),
            ({"type": "ssh", "host": None}, "config: missing required key 'host'"),
            ("memory", "config: expected a table or an array of tables, got str"),
            (None, "config: expected a table or an array of tables, got nothing"),
            (
                {"cache": "x"},
                "config.cache: no cache is named 'x'; known are default, memory, void",
            ),
            ({"type": "ssh", "host": b"x"}, "config.host: expected str, got bytes"),
        ],
    )
    def test_where(self, table: Any, expected: str) -> None:
        with pytest.raises(ConfigError) as caught:
            cache_from_config(table)
        assert str(caught.value) == expected

    def test_another_where(self) -> None:
        with pytest.raises(ConfigError, match=r"^the server's cache\[0\]\.hots: unknown key"):
            cache_from_config([{"type": "ssh", "hots": "x"}], where="the server's cache")


def test_what_was_built_is_closed_when_the_rest_fails(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []

    def close(self: ValueMemory) -> None:
        closed.append(self)

    monkeypatch.setattr(ValueMemory, "close", close)
    file.write_text('[[a]]\ntemplate = "memory"\n[[a]]\ncache = "nowhere"\n')
    with pytest.raises(ConfigError):
        load_cache_config("a")
    assert len(closed) == 1
