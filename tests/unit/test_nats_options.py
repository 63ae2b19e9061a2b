"""What a NATS URL may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.errors import ConfigError, PluginError
from segue_nats.options import parse


def test_a_full_url() -> None:
    options = parse("nats://me:p%40ss@one:4333,[::1],three/?redelivery=1m&replicas=3&max_age=1.5h")
    assert options.servers == ("nats://one:4333", "nats://[::1]:4222", "nats://three:4222")
    assert (options.user, options.password, options.tls) == ("me", "p@ss", False)
    assert (options.redelivery, options.replicas, options.max_age) == (60, 3, 5400)
    assert "p%40ss" not in options.shown


def test_defaults() -> None:
    options = parse("tls://broker")
    assert (options.servers, options.tls) == (("tls://broker:4222",), True)
    assert (options.user, options.password, options.creds) == ("", "", "")
    assert (options.redelivery, options.replicas, options.max_age) == (5, None, None)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://h?colour=red", "unknown option 'colour'"),
        ("nats://h?redelivery=soon", "redelivery=soon"),
        ("nats://h?redelivery=0", "at least"),
        ("nats://h?redelivery=5&redelivery=6", "twice"),
        ("nats://h?replicas=9", "1 to 5"),
        ("nats://h?creds=/does/not/exist", "creds"),
        ("nats://h?max_age", "not a NATS URL"),
        ("nats://h/path", "after the servers"),
        ("nats://h#fragment", "after the servers"),
        ("nats://", "no host name"),
        ("nats://a,,b", "no host name"),
        ("nats://h:port", "not a NATS URL"),
        ("nats://h:99999", "not a NATS URL"),
        ("http://h", "scheme"),
        ("nats://h?ca=/does/not/exist", "ca=/does/not/exist: No such file"),
        ("nats://h?inbox=a.b", "letters, digits"),
    ],
)
def test_bad_urls_are_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(url)


def test_errors_do_not_show_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("nats://me:s3cret@h?colour=red")
    assert "s3cret" not in str(caught.value)


def test_a_broken_credentials_file_is_refused(tmp_path: Path) -> None:
    creds = tmp_path / "user.creds"
    creds.write_text("nothing")
    with pytest.raises(ConfigError, match="no user JWT"):
        parse(f"nats://h?creds={creds}")


def test_credentials_need_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    creds = tmp_path / "user.creds"
    creds.write_text("-----BEGIN NATS USER JWT-----\nx\n-----BEGIN USER NKEY SEED-----\ny\n")
    monkeypatch.setattr("segue_nats.options.find_spec", lambda name: None)
    with pytest.raises(PluginError, match="nkeys"):
        parse(f"nats://h?creds={creds}")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    return path


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://h?password_file={}", "needs a user"),
        ("nats://me:pw@h?password_file={}", "several credentials: password_file, the one before @"),
        ("nats://token@h?token_file={}", "several credentials"),
        ("nats://me@h?password_file={0}&token_file={0}", "several credentials: password_file, token_file"),
        ("nats://h?nkey={}", "no seed of a user's NKEY"),
        ("nats://h?key={}", "key needs cert"),
    ],
)
def test_credentials_that_contradict_each_other_are_refused(secret: Path, url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse(url.format(secret))
    assert "s3cret" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="the file is empty"):
        parse(f"nats://me@h?password_file={tmp_path}/empty")


def test_secrets_stay_in_their_files(secret: Path) -> None:
    options = parse(f"nats://me@h?password_file={secret}")
    assert (options.user, options.password, options.password_file) == ("me", "", str(secret))
    assert "s3cret" not in repr(parse("nats://me:s3cret@h"))


def test_files_are_found_whatever_the_current_folder_is_later(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(secret.parent)
    assert parse("nats://me@h?password_file=secret").password_file == str(secret)


@pytest.mark.parametrize(
    ("url", "inbox"),
    [
        ("nats://h", ""),
        ("nats://token@h", ""),
        ("nats://payments:pw@h", "payments"),
        ("nats://payments:pw@h?inbox=mine", "mine"),
        ("nats://a%20b:pw@h", ""),
        ("nats://h?inbox=payments", "payments"),
    ],
)
def test_answers_come_to_the_user_s_own_inbox(url: str, inbox: str) -> None:
    assert parse(url).inbox == inbox


@pytest.mark.parametrize(("url", "tls"), [("nats://h", False), ("nats://h?tls_name=n", True), ("nats://h?ca={}", True)])
def test_what_speaks_of_tls_insists_on_it(secret: Path, url: str, tls: bool) -> None:
    assert parse(url.format(secret)).tls is tls
