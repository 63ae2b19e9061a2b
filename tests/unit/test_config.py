"""Configuration: layers, origins and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from segue.config import FILE, Config, FlowConfig, ServiceConfig, duration, load, rows
from segue.errors import ConfigError
from segue.hooks import redact


def loaded(folder: Path, text: str = "", environ: Mapping[str, str] = {}, **flags: str) -> Config:
    if text:
        (folder / FILE).write_text(text)
    return load(flags, cwd=folder, environ=environ)


def refused(folder: Path, text: str = "", environ: Mapping[str, str] = {}, flags: Mapping[str, str] = {}) -> str:
    if text:
        (folder / FILE).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(flags, cwd=folder, environ=environ)
    return str(caught.value)


class TestLayers:
    def test_without_anything_the_defaults_hold(self, tmp_path: Path) -> None:
        config = loaded(tmp_path)
        assert config.file is None
        assert config.transport == "nats://127.0.0.1:4222"
        assert config.namespace == "segue"
        assert config.key_lifetime == 7 * 86400
        assert config.flow("any").mode == "orchestrated"
        assert config.service("any").concurrency == 100
        assert config.trace.sample == 1.0
        assert {origin for _, _, origin in rows(config)} == {"default"}

    def test_every_key_of_a_file_is_read(self, tmp_path: Path) -> None:
        config = loaded(
            tmp_path,
            """
            app = "shop.main:app"
            namespace = "shop"
            transport = "memory://"
            store = "memory://"
            journal = "postgresql://db/journal"
            key_lifetime = "2d"
            flows.place_order.mode = "choreographed"
            [services.payments]
            store = "postgresql://db/{part}"
            concurrency = 7
            [trace]
            endpoint = "http://127.0.0.1:4318"
            sample = 0.5
            """,
        )
        assert (config.app, config.namespace, config.transport) == ("shop.main:app", "shop", "memory://")
        assert (config.store, config.journal) == ("memory://", "postgresql://db/journal")
        assert config.key_lifetime == 2 * 86400
        assert config.flow("place_order") == FlowConfig("choreographed")
        assert config.service("payments") == ServiceConfig("postgresql://db/{part}", 7)
        assert (config.trace.endpoint, config.trace.sample) == ("http://127.0.0.1:4318", 0.5)
        assert config.store_for("payments") == "postgresql://db/payments"
        assert config.store_for("stock") == "memory://"

    def test_the_later_layer_wins_and_is_named(self, tmp_path: Path) -> None:
        text = 'namespace = "a"\ntransport = "nats://file"\njournal = "memory://"\n'
        environ = {"SEGUE_TRANSPORT": "nats://environment", "SEGUE_NAMESPACE": "b"}
        config = loaded(tmp_path, text, environ, namespace="c")
        assert (config.namespace, config.transport, config.journal) == ("c", "nats://environment", "memory://")
        origins = {key: origin for key, _, origin in rows(config)}
        assert origins["namespace"] == "flag --namespace"
        assert origins["transport"] == "environment SEGUE_TRANSPORT"
        assert origins["journal"] == "segue.toml:3"
        assert origins["app"] == "default"

    def test_flags_that_were_not_given_are_none(self, tmp_path: Path) -> None:
        config = load({"namespace": None, "config": None, "key-lifetime": "1h"}, cwd=tmp_path, environ={})
        assert config.namespace == "segue"
        assert config.key_lifetime == 3600

    def test_nested_keys_in_environment_and_flags(self, tmp_path: Path) -> None:
        environ = {
            "SEGUE_FLOWS__PLACE_ORDER__MODE": "choreographed",
            "SEGUE_FLOWS__A__B__MODE": "choreographed",
            "SEGUE_TRACE__SAMPLE": "0.25",
            "SEGUE_SERVICES__PAYMENTS__CONCURRENCY": "3",
        }
        config = loaded(tmp_path, "", environ, **{"services.payments.store": "memory://"})
        assert config.flow("place_order").mode == "choreographed"
        assert config.flow("a__b").mode == "choreographed"
        assert config.trace.sample == 0.25
        assert config.service("payments") == ServiceConfig("memory://", 3)

    def test_a_dash_in_a_name_counts_as_an_underscore(self, tmp_path: Path) -> None:
        text = '[flows.place-order]\nmode = "orchestrated"\n'
        config = loaded(tmp_path, text, {"SEGUE_FLOWS__PLACE_ORDER__MODE": "choreographed"})
        assert config.flow("place-order").mode == "choreographed"
        message = refused(tmp_path, text + '[flows.place_order]\nmode = "choreographed"\n')
        assert "segue.toml:2 and segue.toml:4" in message

    def test_other_variables_are_left_alone(self, tmp_path: Path) -> None:
        assert loaded(tmp_path, "", {"SEGUE_DEBUG": "1", "PATH": "/bin", "SEGUEX": "1"}).origins == {}

    def test_the_process_environment_and_folder_are_the_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SEGUE_NAMESPACE", "here")
        (tmp_path / FILE).write_text('transport = "memory://"')
        assert (load().namespace, load().transport) == ("here", "memory://")


class TestFile:
    def test_the_nearest_file_upwards_is_read(self, tmp_path: Path) -> None:
        inner = tmp_path / "a" / "b"
        inner.mkdir(parents=True)
        (tmp_path / FILE).write_text('namespace = "outer"')
        config = load(cwd=inner, environ={})
        assert config.file == tmp_path / FILE
        assert config.origins["namespace"] == f"{tmp_path / FILE}:1"
        (tmp_path / "a" / FILE).write_text('namespace = "nearer"')
        assert load(cwd=inner, environ={}).namespace == "nearer"

    def test_it_may_be_named(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_text('namespace = "found"')
        (tmp_path / "one.toml").write_text('namespace = "one"')
        (tmp_path / "two.toml").write_text('namespace = "two"')
        environ = {"SEGUE_CONFIG": "one.toml"}
        assert load(cwd=tmp_path, environ=environ).origins == {"namespace": "one.toml:1"}
        assert load({"config": "two.toml"}, cwd=tmp_path, environ=environ).namespace == "two"

    def test_a_named_file_must_exist(self, tmp_path: Path) -> None:
        assert "nowhere.toml' (flag --config)" in refused(tmp_path, flags={"config": "nowhere.toml"})
        assert "(environment SEGUE_CONFIG)" in refused(tmp_path, environ={"SEGUE_CONFIG": ""})

    def test_relative_sqlite_paths_start_at_the_file(self, tmp_path: Path) -> None:
        inner = tmp_path / "inner"
        inner.mkdir()
        (tmp_path / FILE).write_text('journal = "sqlite:///j.db?timeout=5"\nservices.a.store = "sqlite:///a.db"')
        config = load(cwd=inner, environ={})
        assert config.store_for("stock") == f"sqlite:///{tmp_path}/.segue/stock.db"
        assert config.store_for("a") == f"sqlite:///{tmp_path}/a.db"
        assert config.journal == f"sqlite:///{tmp_path}/j.db?timeout=5"

    def test_without_a_file_they_start_here(self, tmp_path: Path) -> None:
        assert loaded(tmp_path).journal == f"sqlite:///{tmp_path}/.segue/journal.db"

    @pytest.mark.parametrize("url", ["sqlite:////var/x.db", "sqlite:///:memory:", "sqlite://", "postgresql://h/x.db"])
    def test_other_urls_stay(self, tmp_path: Path, url: str) -> None:
        assert loaded(tmp_path, journal=url).journal == url

    def test_origins_count_lines_through_every_notation(self, tmp_path: Path) -> None:
        text = '''# comment
            transport = """\\
            memory://"""

            flows = { a.mode = "choreographed" } # inline
            [ services . "b" ]
            # the next
            concurrency = 2
            store = "memory://"
            '''
        assert loaded(tmp_path, text.replace("\n", "\r\n")).origins == {
            "transport": "segue.toml:2",
            "flows.a.mode": "segue.toml:5",
            "services.b.concurrency": "segue.toml:8",
            "services.b.store": "segue.toml:9",
        }

    def test_empty_tables_say_nothing(self, tmp_path: Path) -> None:
        assert loaded(tmp_path, "[flows]\n[flows.a]\n[trace]\n").origins == {}


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ('transprot = "memory://"', ["unknown key transprot (segue.toml:1)", "did you mean transport?"]),
            ('\n[flows.a]\nmod = "choreographed"', ["flows.a.mod (segue.toml:3)", "did you mean flows.a.mode?"]),
            ("[flow.a]", ["unknown key flow.a (segue.toml:1)"]),
            ('flows.a.mode = "orchestrate"', ["flows.a.mode = 'orchestrate'", "orchestrated or choreographed"]),
            ('flows.a = "choreographed"', ["flows.a (segue.toml:1) is a table", "flows.<name>.mode"]),
            ("flows = 3", ["flows (segue.toml:1) is a table"]),
            ("[[flows]]\n[[flows]]", ["flows (segue.toml:1) is a table"]),
            ("transport = { a = 1 }", ["unknown key transport.a", "did you mean transport?"]),
            ('[flows."Place Order"]\nmode = "choreographed"', ["segue.toml:2: flow name 'Place Order'", "a-z"]),
            ("namespace = 3", ["namespace = 3 (segue.toml:1)", "Expected `str`, got `int`"]),
            ('namespace = "a.b"', ["namespace name 'a.b' is not allowed", "a-z"]),
            ('services.a.concurrency = "3"', ["services.a.concurrency = '3'", "Expected `int`, got `str`"]),
            ("services.a.concurrency = 0", ["services.a.concurrency = 0", "Expected `int` >= 1"]),
            ("trace.sample = 1.5", ["trace.sample = 1.5", "<= 1.0"]),
            ("trace.sample = nan", ["trace.sample = nan"]),
            ('trace.endpoint = "localhost:4318"', ["trace.endpoint = 'localhost:4318'", "http://"]),
            ("key_lifetime = -1", ["key_lifetime = -1 (segue.toml:1)", ">= 0"]),
            ('key_lifetime = "soon"', ["'soon' is no duration (segue.toml:1: key_lifetime)", "7d"]),
            ("key_lifetime = inf", ["key_lifetime = inf"]),
            ('app = "shop.py"', ["app = 'shop.py'", "shop:app"]),
            ('transport = "127.0.0.1:4222"', ["transport = '127.0.0.1:4222'", "no scheme"]),
            ('transport = ""', ["no scheme"]),
            ('transport = "nats://host:99999"', ["Port out of range"]),
            ('transport = "nats://[::1"', ["Invalid IPv6 URL"]),
            ('store = "sqlite:///{prat}.db"', ["{prat} is no placeholder", "{part}"]),
            ('journal = "sqlite:///{part}.db"', ["placeholder"]),
            ('\nnamespace = "a', ["segue.toml is not valid TOML", "line 2"]),
        ],
    )
    def test_of_a_file(self, tmp_path: Path, text: str, words: list[str]) -> None:
        message = refused(tmp_path, text)
        assert [word for word in words if word not in message] == [], message

    @pytest.mark.parametrize(
        ("variable", "value", "words"),
        [
            ("SEGUE_TRANSPROT", "memory://", ["environment SEGUE_TRANSPROT", "did you mean SEGUE_TRANSPORT?"]),
            ("SEGUE_FLOWS__A__MOD", "x", ["did you mean SEGUE_FLOWS__A__MODE?", "SEGUE_FLOWS__<NAME>__MODE"]),
            ("SEGUE_FLOWS__A", "choreographed", ["SEGUE_FLOWS__A (environment SEGUE_FLOWS__A) is a table"]),
            ("SEGUE_", "x", ["unknown key SEGUE_", "known: SEGUE_APP"]),
            ("SEGUE_TRACE__SAMPLE", "much", ["trace.sample = 'much' (environment SEGUE_TRACE__SAMPLE)", "`float`"]),
            ("SEGUE_SERVICES__A__CONCURRENCY", "1.5", ["Expected `int`"]),
            ("SEGUE_STORE", "sqlite", ["environment SEGUE_STORE", "no scheme"]),
        ],
    )
    def test_of_a_variable(self, tmp_path: Path, variable: str, value: str, words: list[str]) -> None:
        message = refused(tmp_path, environ={variable: value})
        assert [word for word in words if word not in message] == [], message

    @pytest.mark.parametrize(
        ("flag", "value", "words"),
        [
            ("trasport", "memory://", ["unknown key --trasport (flag --trasport)", "did you mean --transport?"]),
            ("flows.a.mode", "both", ["flows.a.mode = 'both' (flag --flows.a.mode)"]),
            ("", "x", ["unknown key --"]),
        ],
    )
    def test_of_a_flag(self, tmp_path: Path, flag: str, value: str, words: list[str]) -> None:
        message = refused(tmp_path, flags={flag: value})
        assert [word for word in words if word not in message] == [], message

    def test_of_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_bytes(b"\xff\xfe")
        assert "cannot be read" in refused(tmp_path)

    def test_never_show_a_password(self, tmp_path: Path) -> None:
        for value in ("nats://me:hunter2@host:99999", "me:hunter2@host:4222", "nats://me:hunter2@[::1"):
            message = refused(tmp_path, environ={"SEGUE_TRANSPORT": value})
            assert "hunter2" not in message


class TestRows:
    def test_list_every_key_once_with_its_value_in_force(self, tmp_path: Path) -> None:
        config = loaded(
            tmp_path,
            '[flows.b]\nmode = "choreographed"\n[services.a]\nconcurrency = 5\n',
            {"SEGUE_TRANSPORT": "nats://me:hunter2@host:4222", "SEGUE_FLOWS__A__MODE": "orchestrated"},
        )
        assert rows(config) == [
            ("app", "", "default"),
            ("namespace", "segue", "default"),
            ("transport", redact("nats://me:hunter2@host:4222"), "environment SEGUE_TRANSPORT"),
            ("store", f"sqlite:///{tmp_path}/.segue/{{part}}.db", "default"),
            ("journal", f"sqlite:///{tmp_path}/.segue/journal.db", "default"),
            ("key_lifetime", "604800", "default"),
            ("flows.a.mode", "orchestrated", "environment SEGUE_FLOWS__A__MODE"),
            ("flows.b.mode", "choreographed", "segue.toml:2"),
            ("services.a.store", "", "default"),
            ("services.a.concurrency", "5", "segue.toml:4"),
            ("trace.endpoint", "", "default"),
            ("trace.sample", "1", "default"),
            ("objects.url", "", "default"),
            ("limits.inline", "32768", "default"),
            ("limits.value", "67108864", "default"),
            ("limits.items", "10000", "default"),
            ("limits.nodes", "100000", "default"),
            ("limits.guards", "100", "default"),
            ("retention.state", "2592000", "default"),
            ("retention.journal", "2592000", "default"),
        ]
        assert "hunter2" not in str(rows(config))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0", 0), ("500ms", 0.5), ("1.5h", 5400), ("30 s", 30), ("5m", 300), ("7d", 604800), ("2w", 1209600)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1s", "1e9", "7 days", "1h30m", "٣d", "inf"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ConfigError, match="is no duration"):
        duration(text)
