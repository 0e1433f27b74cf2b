"""The Cityscapes account: where it is read from, where it is sent to, and what happens if it is wrong."""

import pytest
from servers import CONTENT, MD5, PASSWORD, USER, only_the_file, serving

from msgunet.core.errors import UserError
from msgunet.data import fetch as fetching
from msgunet.data import login
from msgunet.data.base import Remote
from msgunet.data.fetch import fetch
from msgunet.data.login import credentials


@pytest.fixture(autouse=True)
def _no_account(monkeypatch):
    for name in (login.USER, login.PASSWORD, login.FILE, "CITYSCAPES_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(login.FILE, "/nonexistent/credentials")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(fetching, "RETRY_DELAYS", (0.0, 0.01, 0.02, 0.03))


def package(server):
    return Remote("x.bin", (f"{server.url}/file-handling/?packageID=1",), "a test", checksum=MD5, login=True)


@pytest.fixture
def site(monkeypatch):
    with serving({"gtFine_trainvaltest.zip": CONTENT}) as running:
        monkeypatch.setenv("CITYSCAPES_URL", running.url)
        yield running


def test_an_account_from_the_environment(tmp_path, site, monkeypatch):
    monkeypatch.setenv(login.USER, USER)
    monkeypatch.setenv(login.PASSWORD, PASSWORD)
    fetch(package(site), tmp_path)
    only_the_file(tmp_path)
    assert site.counts["POST"] == 1


def test_an_account_from_a_file(tmp_path, site, monkeypatch):
    file = tmp_path / "account"
    file.write_text(f"{USER}\n{PASSWORD}\n")
    monkeypatch.setenv(login.FILE, str(file))
    file.chmod(0o640)
    with pytest.raises(UserError, match="can be read by other users; run: chmod 600"):
        fetch(package(site), tmp_path / "out")
    assert site.posted == []
    file.chmod(0o600)
    fetch(package(site), tmp_path / "out")
    file.write_text("only one line")
    with pytest.raises(UserError, match="must contain two lines"):
        credentials()


def test_a_wrong_password_is_one_message_and_one_attempt_and_deletes_nothing(tmp_path, site, monkeypatch):
    file = tmp_path / "account"
    file.write_text(f"{USER}\nnot the password\n")
    file.chmod(0o600)
    monkeypatch.setenv(login.FILE, str(file))
    (tmp_path / ".x.bin.part").write_bytes(b"half")
    with pytest.raises(UserError) as caught:
        fetch(package(site), tmp_path)
    assert len(caught.value.problems) == 1
    assert "rejected user name and password" in caught.value.problems[0]
    assert "not the password" not in str(caught.value)
    assert site.counts["POST"] == 1, "a site can lock an account after several attempts"
    assert file.is_file()
    assert (tmp_path / ".x.bin.part").read_bytes() == b"half"


def test_an_expired_session_logs_in_again(tmp_path, site, monkeypatch):
    monkeypatch.setenv(login.USER, USER)
    monkeypatch.setenv(login.PASSWORD, PASSWORD)
    site.tag = "the session has ended"
    fetch(package(site), tmp_path)
    only_the_file(tmp_path)
    assert site.counts["POST"] == 2


def test_a_missing_account_is_explained(tmp_path, site):
    with pytest.raises(UserError, match=r"Cityscapes needs an account at https.*CITYSCAPES_PASSWORD.*chmod 600"):
        fetch(package(site), tmp_path)


def test_the_password_is_sent_only_to_the_login_form_of_the_site(tmp_path, site, monkeypatch):
    monkeypatch.setenv(login.USER, USER)
    monkeypatch.setenv(login.PASSWORD, PASSWORD)
    site.tag = "redirects the form"
    with pytest.raises(UserError):
        fetch(package(site), tmp_path)
    assert {path for method, path, _ in site.requests if method == "POST"} == {"/login"}
    # Another address gets neither the form nor a cookie, although the package requires a login.
    site.tag = '"one"'
    site.requests.clear()
    with serving({"x.bin": CONTENT}) as other:
        elsewhere = Remote("x.bin", (f"{other.url}/good/x.bin",), "a test", checksum=MD5, login=True)
        fetch(elsewhere, tmp_path)
        assert other.posted == []
        assert all("Cookie" not in headers for *_, headers in other.requests)


def test_passwords_are_only_sent_over_https(monkeypatch):
    monkeypatch.setenv("CITYSCAPES_URL", "http://example.org")
    with pytest.raises(UserError, match="only sent over https"):
        login.site()
