"""Which files configure fleche, and which of several wins."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from fleche.config import find_config_files, load_config
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

    def test_the_working_directory_is_gone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        with pytest.raises(ConfigError, match="the working directory is gone"):
            find_config_files()
        assert find_config_files(tmp_path) == []

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


class TestTrust:
    """A configuration names programs to run."""

    @pytest.fixture
    def planted(self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A file that belongs to somebody else."""
        path = write(tmp_home / "work", NEAR)
        real = Path.lstat

        def lstat(self: Path) -> os.stat_result:
            found = list(real(self))
            if self == path:
                found[4] = os.geteuid() + 4711
            return os.stat_result(found)

        monkeypatch.setattr(Path, "lstat", lstat)
        return path

    def test_a_file_of_a_stranger_in_a_directory_of_everybody(
        self, planted: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        planted.parent.chmod(0o1777)
        with caplog.at_level(logging.WARNING, "fleche.config"):
            assert find_config_files() == []
        assert f"{planted}: not used" in caplog.text

    def test_a_file_of_a_colleague_in_a_directory_of_a_group(self, planted: Path) -> None:
        planted.parent.chmod(0o2775)
        assert find_config_files() == [planted]

    def test_a_file_that_cannot_be_asked(
        self, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reading it then tells what is the matter."""
        path = write(tmp_home / "work", NEAR)

        def lstat(self: Path) -> os.stat_result:
            raise OSError(116, "Stale file handle")

        monkeypatch.setattr(Path, "lstat", lstat)
        assert find_config_files() == [path]

    def test_an_own_file_in_a_directory_of_everybody(self, tmp_home: Path) -> None:
        path = write(tmp_home / "work", NEAR)
        path.parent.chmod(0o1777)
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
        assert self.refusal(path) == "not valid TOML: Invalid value (at line 2, column 9)"

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
