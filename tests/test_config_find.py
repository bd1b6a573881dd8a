"""Which files configure fleche, and which of several wins."""

from __future__ import annotations

import getpass
import grp
import logging
import os
import pwd
import re
from pathlib import Path

import pytest

from fleche.config import cache_from_config, find_config_files, load_config
from fleche.errors import ConfigError

NEAR = '[near]\ntemplate = "memory"\n'
ROOT = "[default]\nroot = true\n"


def write(directory: Path, text: str, name: str = "fleche.toml") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


class TestSearch:
    def test_nothing(self) -> None:
        assert find_config_files() == []

    def test_from_the_working_directory_to_home_then_xdg(self, tmp_home: Path) -> None:
        deep = tmp_home / "work" / "a" / "b"
        found = [
            write(deep, NEAR),
            write(tmp_home / "work", NEAR),
            write(tmp_home, NEAR),
            write(tmp_home / ".config" / "fleche", NEAR, "cache.toml"),
        ]
        assert find_config_files(deep) == found

    def test_home_is_the_last_directory(self, tmp_home: Path) -> None:
        write(tmp_home.parent, NEAR)
        assert find_config_files() == []

    def test_from_outside_of_home_to_the_root(self, tmp_home: Path, tmp_path: Path) -> None:
        above = write(tmp_path, NEAR)
        inside = write(tmp_path / "elsewhere" / "deep", NEAR)
        assert find_config_files(inside.parent) == [inside, above]

    def test_default_start_is_the_working_directory(
        self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_home / "work", NEAR)
        (path.parent / "sub").mkdir()
        monkeypatch.chdir(path.parent / "sub")
        assert find_config_files() == [path]

    def test_start_may_begin_with_a_tilde(self, tmp_home: Path) -> None:
        path = write(tmp_home / "work", NEAR)
        assert find_config_files("~/work") == [path]

    def test_start_must_be_a_directory(self, tmp_home: Path) -> None:
        with pytest.raises(ConfigError, match=r"nowhere: no directory to look for fleche\.toml in"):
            find_config_files(tmp_home / "nowhere")

    def test_root_stops_the_walk_and_keeps_xdg_out(self, tmp_home: Path) -> None:
        write(tmp_home, NEAR)
        write(tmp_home / ".config" / "fleche", NEAR, "cache.toml")
        last = write(tmp_home / "work", ROOT)
        first = write(tmp_home / "work" / "sub", NEAR)
        assert find_config_files(first.parent) == [first, last]

    def test_root_false_stops_nothing(self, tmp_home: Path) -> None:
        far = write(tmp_home, NEAR)
        near = write(tmp_home / "work", "[default]\nroot = false\n")
        assert find_config_files() == [near, far]

    def test_what_root_hides_may_be_broken(self, tmp_home: Path) -> None:
        write(tmp_home, "= =")
        write(tmp_home / "work", ROOT)
        assert len(load_config().files) == 1


class TestXdg:
    def test_default_is_dot_config(self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_home / ".config" / "fleche", NEAR, "cache.toml")
        monkeypatch.delenv("XDG_CONFIG_HOME")
        assert find_config_files() == [path]

    @pytest.mark.parametrize("value", ["", "relative/config"])
    def test_what_is_no_absolute_path_is_ignored(
        self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        path = write(tmp_home / ".config" / "fleche", NEAR, "cache.toml")
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert find_config_files() == [path]

    def test_elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "etc" / "fleche", NEAR, "cache.toml")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "etc"))
        assert find_config_files() == [path]

    def test_nobody_has_a_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def homeless(_: object = None) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", homeless)
        monkeypatch.delenv("XDG_CONFIG_HOME")
        assert find_config_files() == []


class TestLinks:
    """Where one really is counts, not the way one came."""

    def test_a_linked_directory(self, tmp_home: Path) -> None:
        real = write(tmp_home / "data" / "project", NEAR)
        (tmp_home / "data" / "project" / "sub").mkdir()
        link = tmp_home / "work" / "link"
        link.symlink_to(tmp_home / "data" / "project" / "sub")
        write(tmp_home / "work", NEAR)
        assert find_config_files(link) == [real]

    def test_a_linked_home(
        self, tmp_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = tmp_path / "home-link"
        link.symlink_to(tmp_home)
        monkeypatch.setenv("HOME", str(link))
        write(tmp_path, NEAR)
        path = write(tmp_home / "work", NEAR)
        assert find_config_files() == [path]

    def test_a_linked_file_is_where_the_link_is(self, tmp_home: Path) -> None:
        """Its relative paths are relative to the directory in which it is found."""
        write(tmp_home / "dotfiles", NEAR, "shared.toml")
        link = tmp_home / "work" / "fleche.toml"
        link.symlink_to(tmp_home / "dotfiles" / "shared.toml")
        assert load_config().tables["near"].file == link


def as_foreign(path: Path, uid: int = 4711) -> None:
    """Give ``path`` to another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(path, uid, uid, follow_symlinks=False)


class TestWorkingDirectory:
    def test_one_that_is_gone(
        self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A job whose directory is removed goes on with the user's own configuration."""
        own = write(tmp_home / ".config" / "fleche", NEAR, "cache.toml")
        gone = tmp_home / "work" / "scratch"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        assert find_config_files() == [own]
        assert "the working directory is gone" in caplog.text
        place = {"template": "cloudpickle", "root": str(tmp_home / "results")}
        assert cache_from_config(place).save_value([1])
        with pytest.raises(ConfigError, match="the working directory is gone"):
            cache_from_config({**place, "root": "results"})


class TestTrust:
    """A configuration names programs to run: only files that no other user can have written count.

    The same must be true of every directory above the file.
    """

    def refused(self, caplog: pytest.LogCaptureFixture) -> str:
        """What is said of the one file that is found and not used."""
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fleche.config"):
            assert find_config_files() == []
        (record,) = caplog.records
        return record.getMessage()

    def test_a_file_of_another_user(self, tmp_home: Path, caplog: pytest.LogCaptureFixture) -> None:
        """The message names the file, its owner, its mode, and the line that would trust it."""
        path = write(tmp_home / "work", NEAR)
        path.chmod(0o644)
        as_foreign(path)
        text = self.refused(caplog)
        assert f"{path}: not used" in text
        assert "belongs to user 4711 (mode 0644)" in text
        assert f'trust = ["{path.parent}"]' in text
        assert f"FLECHE_TRUST={path.parent}" in text

    def test_what_might_say_another_default(self, tmp_home: Path) -> None:
        """What is nearer than the file that says the default; no file that is further away."""
        text = '[default]\ncache = "results"\n[results]\ntemplate = "memory"\n'
        near, far = write(tmp_home / "work", text), write(tmp_home, text)
        far.chmod(0o666)
        assert load_config().unused == ()
        near.chmod(0o666)
        assert load_config().unused == (near, far)
        far.chmod(0o644)
        assert load_config().unused == (near,)

    @pytest.mark.parametrize("mode", [0o755, 0o700, 0o2775, 0o1777])
    def test_an_own_file_in_a_directory_of_another_user(
        self, tmp_home: Path, caplog: pytest.LogCaptureFixture, mode: int
    ) -> None:
        """The other user could have moved it there; what its relative paths name is theirs."""
        path = write(tmp_home / "work", NEAR)
        path.parent.chmod(mode)
        as_foreign(path.parent)
        assert f"{path.parent} belongs to user 4711" in self.refused(caplog)

    def test_a_file_below_a_directory_of_another_user(
        self, tmp_home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One `mkdir` of an attacker makes no directory safe."""
        directory = tmp_home / "work" / "data" / "run"
        path = write(directory, NEAR)
        as_foreign(directory.parent)
        monkeypatch.chdir(directory)
        assert f"{directory.parent} belongs to user 4711" in self.refused(caplog)
        assert path.exists()

    @pytest.mark.parametrize("mode", [0o666, 0o646])
    def test_a_file_that_all_can_write(
        self, tmp_home: Path, caplog: pytest.LogCaptureFixture, mode: int
    ) -> None:
        path = write(tmp_home / "work", NEAR)
        path.chmod(mode)
        assert f"can be written by others (mode 0{mode:o})" in self.refused(caplog)

    def test_a_file_that_a_group_can_write(
        self, tmp_home: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write(tmp_home / "work", NEAR)
        path.chmod(0o664)
        if os.geteuid() == 0:
            os.chown(path, 0, 4712)
        elif grp.getgrgid(path.stat().st_gid).gr_name == getpass.getuser():
            pytest.skip("this group is private to the user")
        assert "can be written by others (mode 0664)" in self.refused(caplog)

    def test_a_file_of_the_private_group_of_the_user(self, tmp_home: Path) -> None:
        """A group without other members is as good as the user: many systems have umask 002."""
        path = write(tmp_home / "work", NEAR)
        user = pwd.getpwuid(os.geteuid())
        if grp.getgrgid(user.pw_gid).gr_name != user.pw_name:
            pytest.skip("this user has no group of their own")
        os.chown(path, user.pw_uid, user.pw_gid)
        path.chmod(0o664)
        assert find_config_files() == [path]

    @pytest.mark.parametrize("mode", [0o777, 0o2777])
    def test_a_directory_that_all_can_write(
        self, tmp_home: Path, caplog: pytest.LogCaptureFixture, mode: int
    ) -> None:
        path = write(tmp_home / "work", NEAR)
        path.parent.chmod(mode)
        assert f"{path.parent} can be written by others" in self.refused(caplog)

    def test_an_own_file_in_a_sticky_directory(self, tmp_home: Path) -> None:
        """Others can add files there, and cannot replace this one."""
        path = write(tmp_home / "work", NEAR)
        path.parent.chmod(0o1777)
        assert find_config_files() == [path]

    def test_a_link_to_a_file_of_another_user(
        self, tmp_home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The link and what it leads to both have to be safe."""
        target = write(tmp_path / "elsewhere", NEAR)
        as_foreign(target)
        (tmp_home / "work" / "fleche.toml").symlink_to(target)
        assert "belongs to user 4711" in self.refused(caplog)

    def test_a_root_of_a_stranger_does_not_stop_the_search(
        self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = write(tmp_home, NEAR)
        planted = write(tmp_home / "work", "[default]\nroot = true\n")
        as_foreign(planted)
        assert find_config_files() == [own]

    def test_the_environment_trusts_a_directory(
        self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_home / "work", NEAR)
        path.chmod(0o666)
        monkeypatch.setenv("FLECHE_TRUST", f"/nowhere{os.pathsep}{tmp_home / 'work'}")
        assert find_config_files() == [path]

    def test_the_own_file_trusts_a_directory(self, tmp_home: Path) -> None:
        """A lab's directory is one line in the file of each of its members."""
        own = write(
            tmp_home / ".config" / "fleche", '[default]\ntrust = ["~/work"]\n', "cache.toml"
        )
        path = write(tmp_home / "work", NEAR)
        path.chmod(0o666)
        assert find_config_files() == [path, own]

    def test_a_file_on_the_way_cannot_trust_itself(
        self, tmp_home: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write(tmp_home / "work", f'[default]\ntrust = ["{tmp_home}"]\n')
        path.chmod(0o666)
        assert "can be written by others" in self.refused(caplog)

    @pytest.mark.parametrize("where", [".", "work"])
    def test_a_file_on_the_way_trusts_nothing(self, where: str, tmp_home: Path) -> None:
        """That it would have no effect is an error, which names the file where it has one."""
        path = write(tmp_home / where, '[default]\ntrust = ["/lab"]\n')
        own = tmp_home / ".config" / "fleche" / "cache.toml"
        with pytest.raises(ConfigError) as caught:
            load_config()
        assert str(caught.value) == (
            f"{path}: default.trust: counts in your own file alone; move it to {own}, "
            "or set FLECHE_TRUST"
        )

    def test_a_file_that_cannot_be_asked(
        self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reading it then tells what is the matter."""
        path = write(tmp_home / "work", NEAR)

        def lstat(self: Path) -> os.stat_result:
            raise OSError(116, "Stale file handle")

        monkeypatch.setattr(Path, "lstat", lstat)
        assert find_config_files() == [path]


class TestMerging:
    def test_nearer_tables_win_whole(self, tmp_home: Path) -> None:
        write(tmp_home, '[a]\ntemplate = "pickle"\nroot = "far"\n[b]\ntemplate = "void"\n')
        write(tmp_home / "work", '[a]\ntemplate = "memory"\n')
        config = load_config()
        assert config.tables["a"].data == {"template": "memory"}
        assert config.tables["a"].file == tmp_home / "work" / "fleche.toml"
        assert config.tables["b"].file == tmp_home / "fleche.toml"
        assert config.files == (tmp_home / "work" / "fleche.toml", tmp_home / "fleche.toml")

    def test_default_is_merged_key_by_key(self, tmp_home: Path) -> None:
        """Metadata for one project does not forget the cache that all projects use."""
        write(tmp_home, '[default]\ncache = "void"\nmetadata = ["git"]\n')
        write(tmp_home / "work", '[default]\nmetadata = ["runtime"]\n')
        default = load_config().default
        assert (default.cache, default.metadata) == ("void", ["runtime"])

    def test_names(self, tmp_home: Path) -> None:
        write(tmp_home / "work", NEAR)
        assert load_config().names() == ["default", "memory", "near", "void"]


class TestBrokenFiles:
    """Each is one sentence that names the file."""

    def refusal(self, path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            find_config_files(path.parent)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        return message[len(f"{path}: ") :]

    def test_no_toml(self, tmp_home: Path) -> None:
        path = write(tmp_home / "work", "[default]\ncache = shared\n")
        message = self.refusal(path)
        assert message.startswith(
            "not valid TOML: Invalid value (at line 2, column 9); text stands"
        )

    @pytest.mark.parametrize(
        ("text", "advice"),
        [
            ("[a]\ntype = local\n", 'text stands in straight quotes ("...")'),
            ("[a]\ntype = \u201clocal\u201d\n", 'text stands in straight quotes ("...")'),
            ("[a]\nread_only = True  # look only\n", "truth values are true and false"),
            ("[a]\nx = 1\n[[a]]\nx = 2\n", "write [[a]] above each layer of a stack, also"),
            ("[a]\nx = 1\n\n[a]  # far\nx = 2\n", "write [[a]] above each layer of a stack"),
            ("[[a]]\nx = 1\n[ a ]\nx = 2\n", "write [[a]] above each layer of a stack"),
            ("[a]\nx = 1\nx = 2\n", None),
            ('[a]\nx = "1",\n', None),
            ('[a]\nx = "\\Users"\n', None),
            ("[a\nx = 1\n", None),
        ],
    )
    def test_usual_mistakes(self, text: str, advice: str | None, tmp_home: Path) -> None:
        """What to do is said as well, where it can be told."""
        message = self.refusal(write(tmp_home / "work", text))
        assert re.match(r"not valid TOML: .* \(at line \d+, column \d+\)", message)
        assert advice in message if advice else message.endswith(")")

    def test_not_utf8(self, tmp_home: Path) -> None:
        path = tmp_home / "work" / "fleche.toml"
        path.write_bytes('# ok\nname = "Müller"\n'.encode("latin-1"))
        assert self.refusal(path) == "not valid TOML: line 2 is not UTF-8"

    def test_a_byte_order_mark_is_no_harm(self, tmp_home: Path) -> None:
        path = tmp_home / "work" / "fleche.toml"
        path.write_bytes(NEAR.encode("utf-8-sig"))
        assert find_config_files() == [path]

    def test_a_directory(self, tmp_home: Path) -> None:
        path = tmp_home / "work" / "fleche.toml"
        path.mkdir()
        assert self.refusal(path) == "is no regular file"

    def test_a_pipe_that_nobody_writes_to(self, tmp_home: Path) -> None:
        path = tmp_home / "work" / "fleche.toml"
        os.mkfifo(path)
        assert self.refusal(path) == "is no regular file"

    def test_a_link_to_nowhere(self, tmp_home: Path) -> None:
        path = tmp_home / "work" / "fleche.toml"
        path.symlink_to(tmp_home / "gone.toml")
        assert self.refusal(path) == "cannot be read: No such file or directory"

    def test_no_permission(self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_home / "work", NEAR)

        def read_bytes(self: Path) -> bytes:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        assert self.refusal(path) == "cannot be read: Permission denied"

    def test_nested_beyond_reason(self, tmp_home: Path) -> None:
        path = write(tmp_home / "work", f"a = {'[' * 100_000}")
        assert self.refusal(path).startswith("not valid TOML: ")
