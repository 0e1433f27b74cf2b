"""The account at the Cityscapes site. The password goes to the site's own form and nowhere else."""

import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

import requests

from msgunet.core.errors import UserError

USER, PASSWORD, FILE = "CITYSCAPES_USERNAME", "CITYSCAPES_PASSWORD", "CITYSCAPES_CREDENTIALS"
HOW = (
    f"an account at https://www.cityscapes-dataset.com/register: put user name and password into the environment as "
    f"{USER} and {PASSWORD}, or as two lines into a file that only you can read (chmod 600), named by {FILE} or "
    "~/.config/msgunet/cityscapes"
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def site() -> str:
    """The address of the Cityscapes site; CITYSCAPES_URL names another, such as a proxy of one's own.

    Raises:
        UserError: that address is neither https nor on this machine.

    """
    url = os.environ.get("CITYSCAPES_URL", "https://www.cityscapes-dataset.com").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise UserError(f"CITYSCAPES_URL is {url}: a password is only sent over https")
    return url


def credentials_file() -> Path:
    """Where a file with user name and password is looked for."""
    return Path(os.environ.get(FILE, "~/.config/msgunet/cityscapes")).expanduser()


def credentials() -> tuple[str, str] | None:
    """User name and password, or None where there are none.

    Raises:
        UserError: the file can be read by others, or is not two lines.

    """
    if os.environ.get(USER) and os.environ.get(PASSWORD):
        return os.environ[USER], os.environ[PASSWORD]
    path = credentials_file()
    if not path.is_file():
        return None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UserError(f"{path} can be read by others: chmod 600 {path}")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if len(lines) != 2 or not all(lines) or "\ufffd" in "".join(lines):
        raise UserError(f"{path} must hold two lines in UTF-8, the user name and the password")
    return lines[0], lines[1]


class LoginSession(requests.Session):
    """A session that logs in where it must, and never leaves https for http."""

    _logged_in = False

    def get_redirect_target(self, response: requests.Response) -> str | None:
        """Where a redirect leads.

        Raises:
            requests.RequestException: from https to http.

        """
        target = super().get_redirect_target(response)
        if target and response.url.startswith("https:") and urlsplit(target).scheme.lower() == "http":
            raise requests.RequestException(f"a redirect from https to http ({target.split('?')[0]}) was refused")
        return target

    def log_in(self, url: str) -> None:
        """Send the site's own form, once, if `url` is of the site; follow no redirect with the password.

        Raises:
            UserError: there is no account, or the site refuses it.
            requests.RequestException: the site cannot be reached.

        """
        if self._logged_in or not url.startswith(site() + "/"):
            return
        account = credentials()
        if account is None:
            raise UserError(f"Cityscapes needs {HOW}")
        form = {"username": account[0], "password": account[1], "submit": "Login"}
        answer = self.post(f"{site()}/login", data=form, allow_redirects=False, timeout=(10, 30))
        back_to_the_form = urlsplit(answer.headers.get("Location", "")).path.rstrip("/").endswith("/login")
        if answer.status_code not in (200, 302, 303):
            raise requests.RequestException(f"the login page says HTTP {answer.status_code}")
        if answer.status_code == 200 or back_to_the_form:
            raise UserError(
                f"the Cityscapes site refuses user name and password (from "
                f"{'the environment' if os.environ.get(PASSWORD) else credentials_file()}); nothing was deleted"
            )
        self._logged_in = True

    def forget_login(self) -> None:
        """Log in anew next time: a session may have ended in the middle of a long download."""
        self._logged_in = False
        self.cookies.clear()
