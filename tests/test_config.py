"""Settings: each variable is read, checked, and named if it is invalid; passwords stay hidden."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from packmule.config import VARIABLES, Settings, SettingsError, child_environment
from packmule.plain_text import mask

GOOD = {
    "redis_url": ("redis://cache:6380/2", "redis://cache:6380/2"),
    "data_dir": ("/var/lib/packmule", Path("/var/lib/packmule")),
    "lock_urls": ("redis://a,rediss://:p@b:1, unix:///c", ("redis://a", "rediss://:p@b:1", "unix:///c")),
    "allow_eviction": ("Yes", True),
    "queues": ("mail, image ,mail,", ("mail", "image")),
    "modules": ("shop.jobs,shop.more", ("shop.jobs", "shop.more")),
    "hooks": ("shop.hooks", ("shop.hooks",)),
    "allow": ("shop.old.report", ("shop.old.report",)),
    "schedules": ("etc/schedules.toml", Path("etc/schedules.toml")),
    "processes": ("8", 8),
    "isolated": ("3", 3),
    "image_memory": ("4G", 4 * 2**30),
    "grace": ("1m7.5s", 67.5),
    "environment": ("production", "production"),
    "storage": ("s3://bucket/files", "s3://bucket/files"),
    "fetch_from": ("*.example.org, https://a.org/b/", ("*.example.org", "https://a.org/b/")),
    "clamd": ("tcp://clamav:3310", "tcp://clamav:3310"),
    "templates": ("mails", "mails"),
    "presets": ("presets.toml", Path("presets.toml")),
    "images_keep": ("14d", 14 * 86_400),
    "images_bytes": ("2G", 2 * 1024**3),
    "files_keep": ("30d", 30 * 86_400),
    "files_bytes": ("50G", 50 * 1024**3),
    "pipelines": ("pipelines.toml", Path("pipelines.toml")),
    "mail_urls": ("smtp://mail:587  resend://key", ("smtp://mail:587", "resend://key")),
    "mail_to": ("staging@example.org", "staging@example.org"),
    "mail_pace": ("gmail.com=20/s, *=100/s", "gmail.com=20/s, *=100/s"),
    "mail_from": ("shop@example.com", "shop@example.com"),
    "mail_keep": ("90d", 90 * 86_400),
    "mail_return_path": ("bounces+{to}@example.org", "bounces+{to}@example.org"),
    "bounces": ("/var/mail/bounces, imaps://b@mx/INBOX", ("/var/mail/bounces", "imaps://b@mx/INBOX")),
    "dkim": (
        "a._domainkey.x.org=a.pem, b._domainkey.x.org=b.pem",
        ("a._domainkey.x.org=a.pem", "b._domainkey.x.org=b.pem"),
    ),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("65535", 65535),
    "hosts": ("Jobs.Example.com, 10.0.0.5,[::1]", ("jobs.example.com", "10.0.0.5", "::1")),
    "trusted_proxy": ("10.0.0.5, 172.16.0.0/12, unix", ("10.0.0.5/32", "172.16.0.0/12", "unix")),
    "prefix": ("/tools/packmule/", "/tools/packmule"),
    "user_header": ("X-Forwarded-User", "X-Forwarded-User"),
    "health": ("127.0.0.1:9465", "127.0.0.1:9465"),
    "api_rate": ("100/s burst 500", "100/s burst 500"),
    "api_origins": (
        "https://Shop.example.com, http://[::1]:3000",
        ("https://shop.example.com", "http://[::1]:3000"),
    ),
    "webhooks": ("hooks.toml", Path("hooks.toml")),
    "webhook_allow": ("hooks.internal, 10.1.0.0/16", ("hooks.internal", "10.1.0.0/16")),
    "log_format": ("json", "json"),
    "log_level": ("WARNING", "warning"),
    "job_log_level": ("Off", "off"),
    "tracing": ("otlp", "otlp"),
    "index_jobs": ("5000", 5000),
    "memory_high_water": ("6G", str(6 << 30)),
    "max_job_bytes": ("1000", 1000),
    "max_result_bytes": ("2M", 2 << 20),
    "unknown_for": ("20m", 1200.0),
    "machine": ("node-7", "node-7"),
    "release": ("2026-11-30.1", "2026-11-30.1"),
    "max_file_bytes": ("1000", 1000),
    "max_attachment_bytes": ("1000", 1000),
    "max_pixels": ("1000", 1000),
    "max_unpacked_bytes": ("4G", 4 << 30),
    "max_members": ("500", 500),
}
COUNTS = [name for name in GOOD if name in ("processes", "isolated", "index_jobs") or name.startswith("max_")]
BAD = [
    *[(name, text) for name in COUNTS for text in ("0", "-1", "1.5", "many", "١", "9" * 5000)],
    *[("port", text) for text in ("0", "65536", "http", "-1", "80 81")],
    *[("grace", text) for text in ("-1", "nan", "inf", "soon")],
    *[
        (name, text)
        for name in ("mail_keep", "images_keep", "files_keep")
        for text in ("12h", "3651d", "soon")
    ],
    ("allow_eviction", "maybe"),
    ("environment", "staging"),
    *[
        ("clamd", text)
        for text in ("clamav:3310", "tcp://", "tcp://a:99999", "unix://", "tcp://a/b", "tcp://a b")
    ],
    *[("fetch_from", text) for text in ("https://", "ftp://a/b", "a b", "*", "a/b")],
    ("log_format", "xml"),
    ("log_level", "loud"),
    ("job_log_level", "loud"),
    ("tracing", "zipkin"),
    *[("health", text) for text in ("9465", ":9465", "host:", "host:x", "host:65536", "host:²")],
    *[("memory_high_water", text) for text in ("0", "much", "101%", "0%", "-1G")],
    ("queues", ","),
    ("mail_urls", "mail.example.org"),
    ("mail_urls", "smtp://ada:pass word@host"),
    *[("hosts", text) for text in ("https://a", "a:80", "a b", "*", "a/b")],
    *[("trusted_proxy", text) for text in ("proxy", "10.0.0.1/8", "10.0.0.256", "*", "::g")],
    *[("user_header", text) for text in ("a b", "x:y", "-x", "x\r\nY", "é", "x_y")],
    *[("api_origins", text) for text in ("*", "shop.example.com", "https://a/b", "null", "https://a:b")],
    *[("prefix", text) for text in ("/", "jobs", "//evil", "/a//b", "/..", "/a?b", "/a b", "/%2e")],
    *[
        ("lock_urls", text)
        for text in (
            ",",
            "redis://a,redis://b",
            "redis://a,redis://a,redis://b",
            "a:6379",
            "redis://",
            "redis+sentinel://a:1/m",
        )
    ],
]


def test_every_setting_has_a_variable_and_every_variable_a_setting():
    assert set(VARIABLES) == {field.name for field in dataclasses.fields(Settings)} == set(GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_a_variable_sets_its_setting_and_no_other(name):
    text, value = GOOD[name]
    settings = Settings.from_env({VARIABLES[name][0]: f" {text} "})
    assert getattr(settings, name) == value
    assert settings == dataclasses.replace(Settings(), **{name: value})


@pytest.mark.parametrize(("name", "text"), BAD, ids=[f"{name}={text[:9]}" for name, text in BAD])
def test_an_invalid_value_is_refused_with_its_variable(name, text):
    variable = VARIABLES[name][0]
    with pytest.raises(SettingsError, match=f"^{variable}(=.*)?: .*[a-z]") as refused:
        Settings.from_env({variable: text})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["resned://s3cret", "smtp://ada:s3cret s3cret@host", "s3cret@host"])
def test_a_refused_url_of_a_mail_server_is_not_shown_at_all(text):
    with pytest.raises(SettingsError, match="PACKMULE_MAIL_URL: write URLs such as") as refused:
        Settings.from_env({"PACKMULE_MAIL_URL": text})
    assert "s3cret" not in str(refused.value)


def test_a_refused_url_is_named_without_its_password():
    with pytest.raises(SettingsError, match=r"PACKMULE_LOCK_URLS=.*even number") as refused:
        Settings.from_env({"PACKMULE_LOCK_URLS": "redis://:s3cret@a,redis://:s3cret@b"})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("text", ["1", "true", "YES", "on"])
def test_words_for_yes_are_yes(text):
    assert Settings.from_env({"PACKMULE_ALLOW_EVICTION": text}).allow_eviction is True


@pytest.mark.parametrize("text", ["0", "false", "NO", "off", "", "  "])
def test_words_for_no_and_nothing_at_all_are_no(text):
    assert Settings.from_env({"PACKMULE_ALLOW_EVICTION": text}).allow_eviction is False


def test_platform_variables_are_read_but_ours_win():
    platform = {"REDIS_URL": "redis://platform", "PORT": "5000"}
    settings = Settings.from_env(platform)
    assert (settings.redis_url, settings.port) == ("redis://platform", 5000)
    ours = {"PACKMULE_REDIS_URL": "redis://ours", "PACKMULE_PORT": "6000"}
    settings = Settings.from_env(platform | ours)
    assert (settings.redis_url, settings.port) == ("redis://ours", 6000)


def test_an_empty_variable_of_ours_leaves_the_platforms_in_place():
    settings = Settings.from_env({"PACKMULE_REDIS_URL": "", "REDIS_URL": "redis://platform"})
    assert settings.redis_url == "redis://platform"


def test_a_bad_platform_value_is_named_as_the_platform_names_it():
    with pytest.raises(SettingsError, match=r"^PORT='web'"):
        Settings.from_env({"PORT": "web"})


def test_the_process_environment_is_read_by_default(monkeypatch):
    monkeypatch.setenv("PACKMULE_PROCESSES", "11")
    assert Settings.from_env().processes == 11


def test_storage_is_a_folder_of_the_data_directory_by_default():
    assert Settings(data_dir=Path("/data")).storage_url == "/data/files"
    assert Settings(storage="s3://bucket").storage_url == "s3://bucket"


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user@host/0", "redis://user@host/0"),
        ("redis://:s3cret@host/0", "redis://:***@host/0"),
        ("rediss://ada:s3cret@host:6380/0", "rediss://ada:***@host:6380/0"),
        ("redis+sentinel://ada:s3cret@a:1,b:2/main", "redis+sentinel://ada:***@a:1,b:2/main"),
        ("unix://ada:s3cret@/run/redis.sock", "unix://ada:***@/run/redis.sock"),
        ("redis://:s3c@ret@host", "redis://:***@host"),
        ("redis://:s3c/ret@host", "redis://:***@host"),
        ("redis://:s3c#ret@host", "redis://:***@host"),
        ("redis://:s3c?ret@host", "redis://:***@host"),
        ("redis://ada@example.com:s3cret@host", "redis://ada@example.com:***@host"),
        ("smtp://ada:s3cret@[::1", "smtp://ada:***@[::1"),
        ("packmule@localhost", "packmule@localhost"),
        ("resend://re_s3cret", "resend://***"),
        ("mailgun://s3cret@example.org?region=eu", "mailgun://***?region=eu"),
        ("ses://AKIA:s3c/r?e@t@eu-west-1?x=1", "ses://***?x=1"),
        ("s3://bucket/a?region=eu&secret_key=s3cret&x=1", "s3://bucket/a?region=eu&secret_key=***&x=1"),
        ("memory://a?ACCESS-TOKEN=s3cret b?token=s3cret", "memory://a?ACCESS-TOKEN=*** b?token=***"),
        ("rediss://h?ssl_keyfile=/key.pem", "rediss://h?ssl_keyfile=/key.pem"),
    ],
)
def test_only_passwords_are_masked_wherever_they_are(url, shown):
    assert mask(url) == shown


def test_no_password_shows_in_masked_settings():
    secret = Settings(
        redis_url="redis://:s3cret@h/0",
        mail_urls=("smtp://u:s3cret@h", "resend://s3cret", "ses://k:s3cret@eu"),
        storage="s3://k:s3cret@bucket",
    )
    secret = dataclasses.replace(secret, lock_urls=("redis://:s3cret@a", "redis://:s3cret@b", "redis://c"))
    shown = secret.masked()
    assert shown["lock_urls"] == "redis://:***@a, redis://:***@b, redis://c"
    assert "s3cret" not in str(shown)
    assert shown["redis_url"] == "redis://:***@h/0"
    assert (shown["queues"], shown["templates"], shown["port"]) == ("high, default, low", "-", "9181")


def test_a_childs_environment_is_ours_with_changes(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("GONE", "1")
    environment = child_environment(GONE=None, NEW="2")
    assert (environment["KEPT"], environment["NEW"], "GONE" in environment) == ("1", "2", False)
