"""``fleche config``, ``fleche init`` and ``fleche tree``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pexpect
import pytest

from fleche import cache, fleche
from fleche.caches import CacheStack, Local
from fleche.config import load_cache_config, load_config, starter_config
from fleche.remote import SshCache
from tests.helpers.commands import fleche_command


class TestConfig:
    def test_where_each_key_comes_from(self, tmp_home: Path) -> None:
        """Files, nearest first; of a cache that two files declare, the nearest."""
        (tmp_home / "fleche.toml").write_text(
            '[default]\ncache = "far"\nmetadata = ["runtime"]\n'
            '[far]\ntype = "local"\nroot = "far"\n[near]\ntype = "local"\nroot = "shadowed"\n'
        )
        Path("fleche.toml").write_text(
            '[default]\ncache = "near"\n[near]\ntype = "local"\nroot = "here"\n'
            'secret_key = "hush"\n'
        )
        found = fleche_command("config", "--json").json
        near, far = str(Path("fleche.toml").absolute()), str(tmp_home / "fleche.toml")
        assert found["files"] == [near, far]
        assert found["default"]["cache"] == {"value": "near", "file": near}
        assert found["default"]["metadata"] == {"value": ["runtime"], "file": far}
        assert found["caches"]["near"]["file"] == near
        assert found["caches"]["near"]["table"]["root"] == "here"
        assert found["caches"]["far"]["file"] == far
        told = fleche_command("config").out
        assert "hush" not in told
        assert "hush" not in json.dumps(found)
        assert 'root = "shadowed"' not in told
        assert f"~/{Path.cwd().name}/fleche.toml" in told

    def test_no_files(self, tmp_home: Path) -> None:
        told = fleche_command("config")
        assert (told.status, "'fleche init' writes one" in told.out) == (0, True)

    def test_broken_files(self) -> None:
        """The place is named."""
        Path("fleche.toml").write_text('[a]\ntype = "locl"\n')
        told = fleche_command("config")
        assert (told.status, "did you mean 'local'" in told.err) == (2, True)

    def test_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Variables that count; secrets are hidden."""
        monkeypatch.setenv("FLECHE_SECRET_KEY", "hush")
        found = fleche_command("config", "--json").json
        assert found["environment"]["FLECHE_SECRET_KEY"] == "***"

    @pytest.mark.parametrize(
        "words", [("config", "--cache", "void"), ("--cache", "void", "config")], ids=["own", "all"]
    )
    def test_it_is_about_all_caches(self, words: tuple[str, ...]) -> None:
        """An option that would change nothing is refused, wherever it stands."""
        told = fleche_command(*words)
        assert (told.status, told.out, "--cache" in told.err) == (2, "", True)


class TestInit:
    def test_what_it_writes_loads(self) -> None:
        """Without a question; with another machine."""
        assert fleche_command("init").status == 0
        assert isinstance(load_cache_config(), Local)
        told = fleche_command("init")
        assert (told.status, "--force" in told.err) == (2, True)
        options = (
            "--host",
            "me@bigpc",
            "--python",
            "/opt/py",
            "--workdir",
            "~/p",
            "--setup",
            "a b",
        )
        told = fleche_command("init", "--force", *options, "--write-through", "--json")
        assert told.json["text"] == Path("fleche.toml").read_text()
        stack = load_cache_config()
        assert isinstance(stack, CacheStack)
        far = stack.layers[1]
        assert isinstance(far, SshCache)
        assert (far.host, far.python, far.workdir) == ("me@bigpc", "/opt/py", "~/p")
        assert far.setup_commands == ("a b",)
        assert far.policy.write_through
        assert far.policy.on_error == "miss"

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (("--name", "default"), "no cache can be named 'default'"),
            (("--host=-x",), "results[1].host"),
            (("--root", "\x7f"), "not valid TOML"),
            (("--python", "/opt/py"), "--python is about another machine"),
            (("--workdir", "~/p"), "--workdir is about another machine"),
            (("--setup", "true"), "--setup is about another machine"),
            (("--write-through",), "--write-through is about another machine"),
            (("--strict",), "--strict is about another machine"),
            (("--cache", "void"), "--cache"),
        ],
        ids=lambda value: value[0] if isinstance(value, tuple) else None,
    )
    @pytest.mark.parametrize("before", [None, '[good]\ntemplate = "memory"\n'], ids=["new", "old"])
    def test_what_it_cannot_write(
        self, before: str | None, options: tuple[str, ...], reason: str
    ) -> None:
        """The reason; a file that is there stays, and a new one is not begun."""
        file = Path("fleche.toml")
        if before:
            file.write_text(before)
        told = fleche_command("init", "--force", *options)
        assert (told.status, reason in told.err) == (2, True), told
        assert [each.read_text() for each in Path().iterdir()] == ([before] if before else [])

    def test_beside_another_file(self, tmp_home: Path) -> None:
        """Nothing is written that could not be read, since a file further up is broken."""
        (tmp_home / "fleche.toml").write_text("[default\n")
        told = fleche_command("init")
        assert (told.status, "nothing was written" in told.err) == (2, True), told
        assert f"{tmp_home}/fleche.toml: not valid TOML" in told.err
        assert not Path("fleche.toml").exists()

    def test_in_place_of_a_broken_file(self, tmp_home: Path) -> None:
        """It is mended, wherever it stands; its mode, and a link to it, stay."""
        real = tmp_home / "dotfiles" / "cache.toml"
        link = tmp_home / ".config" / "fleche" / "cache.toml"
        for path in (real, link):
            path.parent.mkdir(parents=True)
        link.symlink_to(real)
        for file, options in ((real, ["--home"]), (Path("fleche.toml"), [])):
            file.write_text("[default\n")
            file.chmod(0o600)
            assert fleche_command("init", "--force", *options).status == 0
            assert file.stat().st_mode & 0o777 == 0o600
        assert link.is_symlink()
        assert [path.name for path in load_config().files] == ["fleche.toml", "cache.toml"]

    def test_at_home(self, tmp_home: Path) -> None:
        """The user's own file."""
        assert fleche_command("init", "--home").status == 0
        assert (tmp_home / ".config/fleche/cache.toml").is_file()
        cache = load_cache_config()
        assert isinstance(cache, Local)
        assert cache.backend.options.root == str(tmp_home / ".local/share/fleche/results")

    @pytest.mark.parametrize("name", ["results", "my results", 'q"uote', "ä"])
    def test_any_name(self, name: str) -> None:
        """The text is TOML, whatever is in it."""
        Path("fleche.toml").write_text(
            starter_config(name=name, root='a "b" \\ c', host="h", stop_here=True)
        )
        stack = load_cache_config(name)
        assert isinstance(stack, CacheStack)

    def test_asks_on_a_terminal(self) -> None:
        """A few questions, each with a sensible answer."""
        child = pexpect.spawn(
            sys.executable, ["-m", "fleche", "init"], encoding="utf-8", timeout=30
        )
        child.expect("Where are results to be kept.*: ")
        child.sendline("kept")
        child.expect("Another machine.*: ")
        child.sendline("me@bigpc")
        child.expect("interpreter on me@bigpc.*: ")
        child.sendline("")
        child.expect("fleche doctor tries it")
        child.expect(pexpect.EOF)
        child.close()
        text = Path("fleche.toml").read_text()
        assert 'root = "kept"' in text
        assert 'host = "me@bigpc"' in text


@pytest.fixture
def family() -> dict[str, str]:
    """Keys of calls that called each other."""

    @fleche
    def leaf(x: int) -> int:
        return x

    @fleche
    def branch(x: int) -> int:
        return leaf(x) + leaf(x + 1)

    @fleche
    def root() -> int:
        return branch(1) + branch(2)

    with Local("store") as store:
        with cache(store):
            root()
        return {
            f"{call.name.rpartition('.')[2]}{dict(call.arguments).get('x', '')}": call.key
            for call in store.query()
        }


class TestTree:
    def test_downwards(self, family: dict[str, str]) -> None:
        """What a call called, hits included, each branch once."""
        told = fleche_command("tree", family["root"], "--cache", "store/")
        lines = told.out.splitlines()
        assert len(lines) == 7, told
        assert family["root"][:8] in lines[0]
        assert [family[name][:8] in told.out for name in family] == [True] * 6
        found = fleche_command("tree", family["root"], "--cache", "store/", "--json").json
        assert [each["key"] for each in found["below"]] == [family["branch1"], family["branch2"]]
        assert found["below"][0]["below"][1]["arguments"] == {"x": 2}
        shallow = fleche_command("tree", family["root"], "--cache", "store/", "--depth", "1")
        assert len(shallow.out.splitlines()) == 3

    def test_upwards(self, family: dict[str, str]) -> None:
        """What used it."""
        told = fleche_command("tree", family["leaf2"], "--cache", "store/")
        assert "used by 2 calls" in told.out
        found = fleche_command(
            "tree", family["leaf2"], "--used-by", "--cache", "store/", "--json"
        ).json
        assert {each["key"] for each in found["below"]} == {family["branch1"], family["branch2"]}

    def test_what_is_gone(self, family: dict[str, str]) -> None:
        """A call that is not stored any more is said to be one."""
        with Local("store") as store:
            store.evict(family["leaf1"])
        told = fleche_command("tree", family["branch1"], "--cache", "store/")
        assert "not stored here" in told.out
