"""The default patterns hide what is secret in usual command lines, and little else."""

import pytest

from nfct_fast.processes.redactor import DEFAULT_REDACTIONS, Redactor

SECRET = "S3cr3t/+x"
DEFAULT = Redactor(DEFAULT_REDACTIONS)


def shown(*arguments):
    return DEFAULT.redacted("\0".join(arguments).encode())[0].decode().split("\0")


@pytest.mark.parametrize(
    "arguments",
    [
        ["tool", "--password", SECRET],
        ["tool", "--password=" + SECRET],
        ["tool", "--db-password=" + SECRET, "--verbose"],
        ["tool", "--PASSWORD-file-content", SECRET],
        ["tool", "-passwd", SECRET],
        ["tool", "--api-key", SECRET],
        ["tool", "--apikey=" + SECRET],
        ["tool", "--client-secret=" + SECRET],
        ["tool", "--token=" + SECRET],
        ["tool", "--password=two " + SECRET],
        ["env", "PGPASSWORD=" + SECRET, "psql"],
        ["env", "AWS_SECRET_ACCESS_KEY=" + SECRET],
        ["sh", "-c", f"mysql --password {SECRET} db"],
        ["sh", "-c", f"PASSWORD='{SECRET}' ./run"],
        ["curl", "http://h/?access_token=" + SECRET],
        ["curl", "-d", f'{{"password": "{SECRET}"}}', "http://h/"],
        ["curl", "-H", f"Authorization: Bearer {SECRET}", "http://h/"],
        ["curl", "-HX-Api-Key: " + SECRET],
        ["curl", "-u", "me:" + SECRET, "http://h/"],
        ["curl", "-ume:" + SECRET, "http://h/", "--next", "--user", "you:" + SECRET, "http://i/"],
        ["/usr/bin/curl", "--user=me:" + SECRET],
        ["git", "clone", f"https://me:{SECRET}@example.org/x.git".replace("/+", "++")],
        ["mysql", "-h", "db", "-p" + SECRET, "shop"],
        ["/usr/bin/mysqldump", "-p" + SECRET],
        ["mariadb-dump", "-uroot", "-p" + SECRET],
        ["sshpass", "-p", SECRET, "ssh", "h"],
        ["sshpass", "-p" + SECRET, "ssh", "h"],
        ["redis-cli", "-h", "r", "-a", SECRET],
        ["ldapsearch", "-D", "cn=x", "-w", SECRET],
        ["docker", "login", "-u", "me", "-p", SECRET, "registry"],
        ["openssl", "rsa", "-passin", "pass:" + SECRET],
        ["smbclient", "//h/s", "-U", "me%" + SECRET],
    ],
    ids=" ".join,
)
def test_secrets_are_hidden(arguments):
    result = " ".join(shown(*arguments))
    for word in (SECRET, "S3cr3t"):
        assert word not in result
    assert result.startswith(arguments[0]) and "[redacted]" in result


@pytest.mark.parametrize(
    "key",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
        "glpat-0123456789abcdefghij",
        "xoxb-0123456789-abcdefghij",
        "sk-proj-0123456789abcdefghij",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ],
)
def test_keys_are_known_by_their_form(key):
    assert shown("tool", key, "rest") == ["tool", "[redacted]", "rest"]
    assert shown("tool", f"x={key}", "rest") == ["tool", "x=[redacted]", "rest"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nginx: worker process"],
        ["sshd: someone [priv]"],
        ["docker", "run", "-p", "8080:80", "image"],
        ["mysql", "-p", "shop"],
        ["ssh", "-p", "22", "user@host"],
        ["git", "clone", "ssh://git@example.org/x.git"],
        ["curl", "http://127.0.0.1:8080/a@b"],
        ["gnome-keyring-daemon", "--foreground", "--components=secrets"],
        ["vim", "token.txt", "passwords.txt"],
        ["cp", "-a", "x", "y"],
    ],
    ids=" ".join,
)
def test_the_rest_is_shown(arguments):
    assert shown(*arguments) == arguments


def test_hiding_all():
    assert Redactor(hides=True).redacted(b"tool\0--password\0x") is None


def test_many_small_matches_stay_small():
    text, size = Redactor(["a"]).redacted(b"ab" * 2048)
    assert len(text) <= 4096 < size and b"a" not in text.replace(b"[redacted]", b"").rstrip(b"[redacted")
