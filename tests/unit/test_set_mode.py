"""Editing the mode of a flow in `segue.toml`: one value changes, nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.config import FILE, load, set_mode
from segue.config.document import parse, with_mode
from segue.errors import ConfigError


class TestSetMode:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("", '[flows.a]\nmode = "choreographed"\n'),
            ('app = "x:y" # mine', 'app = "x:y" # mine\n\n[flows.a]\nmode = "choreographed"\n'),
            ('[flows.a]\nmode="orchestrated"  # why\n', '[flows.a]\nmode="choreographed"  # why\n'),
            ("[flows.a]\nmode = 'orchestrated'\n[trace]\n", '[flows.a]\nmode = "choreographed"\n[trace]\n'),
            ("[flows.a]", '[flows.a]\nmode = "choreographed"\n'),
            ("[flows.a] # A\n\n[trace]\n", '[flows.a] # A\nmode = "choreographed"\n\n[trace]\n'),
            ("[flows]\n", '[flows]\n\n[flows.a]\nmode = "choreographed"\n'),
            ('[flows]\na.mode = "orchestrated"\n', '[flows]\na.mode = "choreographed"\n'),
            ('[flows]\nb.mode = "orchestrated"\n', None),
            (
                'flows = { b = { mode = "orchestrated" }, a = { "mode" = "orchestrated" } }',
                'flows = { b = { mode = "orchestrated" }, a = { "mode" = "choreographed" } }',
            ),
            (
                '# flows.a.mode = "orchestrated"\nflows.a.mode = "orchestrated" # mode = "x"\n',
                '# flows.a.mode = "orchestrated"\nflows.a.mode = "choreographed" # mode = "x"\n',
            ),
            ("[flows.a]\r\n[trace]\r\n", '[flows.a]\r\nmode = "choreographed"\r\n[trace]\r\n'),
            ("[trace]\r\nsample = 1", '[trace]\r\nsample = 1\r\n\r\n[flows.a]\r\nmode = "choreographed"\r\n'),
            ("[flows]\r\n[flows.a]", '[flows]\r\n[flows.a]\r\nmode = "choreographed"\r\n'),
            ('flows.a.mode = """\norchestrated"""\n', "refused"),
            ("flows.a = {}\n", "refused"),
            ('flows = { b.mode = "orchestrated" }\n', "refused"),
        ],
    )
    def test_changes_one_value(self, tmp_path: Path, before: str, after: str | None) -> None:
        path = tmp_path / FILE
        path.write_bytes(before.encode())
        if after == "refused":
            with pytest.raises(ConfigError, match="by hand"):
                set_mode(path, "a", "choreographed")
            assert path.read_bytes() == before.encode()
            return
        where = set_mode(path, "a", "choreographed")
        text = path.read_bytes().decode()
        assert after is None or text == after
        config = load(cwd=tmp_path, environ={})
        assert config.flow("a").mode == "choreographed"
        assert config.origins["flows.a.mode"] == where
        assert [entry.name for entry in tmp_path.iterdir()] == [FILE]

    def test_creates_the_file(self, tmp_path: Path) -> None:
        assert set_mode(tmp_path / FILE, "place-order", "choreographed") == "segue.toml:2"
        assert (tmp_path / FILE).read_text() == '[flows.place-order]\nmode = "choreographed"\n'

    def test_finds_a_name_in_either_spelling(self, tmp_path: Path) -> None:
        path = tmp_path / FILE
        path.write_text('[flows.place_order]\nmode = "orchestrated"\n')
        set_mode(path, "place-order", "choreographed")
        assert path.read_text() == '[flows.place_order]\nmode = "choreographed"\n'

    def test_keeps_permissions_and_symbolic_links(self, tmp_path: Path) -> None:
        real = tmp_path / "real.toml"
        real.write_text("")
        real.chmod(0o600)
        (tmp_path / FILE).symlink_to(real)
        set_mode(tmp_path / FILE, "a", "choreographed")
        assert (tmp_path / FILE).is_symlink()
        assert real.stat().st_mode & 0o777 == 0o600
        assert "choreographed" in real.read_text()

    def test_refuses_bad_arguments_and_bad_files(self, tmp_path: Path) -> None:
        path = tmp_path / FILE
        with pytest.raises(ConfigError, match="flow name"):
            set_mode(path, "a.b", "choreographed")
        with pytest.raises(ConfigError, match="orchestrated or choreographed"):
            set_mode(path, "a", "both")  # type: ignore[arg-type]
        assert not path.exists()
        path.write_text("a = ")
        with pytest.raises(ConfigError, match="not valid TOML"):
            set_mode(path, "a", "choreographed")
        with pytest.raises(ConfigError, match="cannot be written"):
            set_mode(tmp_path / "absent" / FILE, "a", "choreographed")

    @given(
        st.lists(
            st.sampled_from(
                [
                    '[flows.{n}]\nmode = "orchestrated"',
                    "[flows.{n}]",
                    'flows.{n}.mode = "orchestrated" # mode = "no"',
                    '[services.{n}] # x\nstore = "memory://"',
                    "# comment {n}\n",
                    "x{n} = [\n  1, # one\n  2,\n]",
                    'y{n} = """\n[flows.a]\nmode = "text"\n"""',
                    'z{n} = {{ mode = "orchestrated", s = "{n}" }}',
                ]
            ),
            max_size=6,
        ),
        st.sampled_from(["\n", "\r\n"]),
    )
    def test_never_changes_anything_else(self, parts: list[str], end: str) -> None:
        text = "\n".join(part.format(n=letter) for part, letter in zip(parts, "abcdef", strict=False))
        text = text.replace("\n", end)
        before = parse(text, "x")
        table = ("flows", "a")
        after = with_mode(text, table, "choreographed")
        assert after is not None
        expected = tomllib.loads(text)
        expected.setdefault("flows", {}).setdefault("a", {})["mode"] = "choreographed"
        assert tomllib.loads(after) == expected
        assert before == tomllib.loads(text)
        assert re.sub(r"(?m)^\[?flows\.a.*\n?|^mode.*\n?", "", after).split() == (
            re.sub(r"(?m)^\[?flows\.a.*\n?|^mode.*\n?", "", text).split()
        )
