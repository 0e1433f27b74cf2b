"""The login to the Cityscapes site. The password is sent to the site's own form and nowhere else."""

import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

import requests

from msgunet.core.errors import UserError

USER, PASSWORD, FILE = "CITYSCAPES_USERNAME", "CITYSCAPES_PASSWORD", "CITYSCAPES_CREDENTIALS"
ACCOUNT_ADVICE = (
    f"an account at https://www.cityscapes-dataset.com/register: set the environment variables {USER} and {PASSWORD}, "
    "or write user name and password as two lines to a file that only you can read (chmod 600): the file that "
    f"{FILE} names, or ~/.config/msgunet/cityscapes"
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def site() -> str:
    """Return the address of the Cityscapes site, or the one in CITYSCAPES_URL (for example a proxy).

    Raises:
        UserError: the address is neither https nor on this machine.

    """
    url = os.environ.get("CITYSCAPES_URL", "https://www.cityscapes-dataset.com").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise UserError(f"CITYSCAPES_URL is {url}, but passwords are only sent over https; use an https address")
    return url


def credentials_file() -> Path:
    """Return the path of the file that can hold user name and password."""
    return Path(os.environ.get(FILE, "~/.config/msgunet/cityscapes")).expanduser()


def credentials() -> tuple[str, str] | None:
    """Return user name and password, or None if they are not configured.

    Raises:
        UserError: other users can read the file, or it does not have two lines.

    """
    if os.environ.get(USER) and os.environ.get(PASSWORD):
        return os.environ[USER], os.environ[PASSWORD]
    path = credentials_file()
    if not path.is_file():
        return None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UserError(f"{path} can be read by other users; run: chmod 600 {path}")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if len(lines) != 2 or not all(lines) or "\ufffd" in "".join(lines):
        raise UserError(f"{path} must contain two lines in UTF-8, the user name and the password")
    return lines[0], lines[1]


class LoginSession(requests.Session):
    """A session that can log in and refuses redirects from https to http."""

    _logged_in = False

    def get_redirect_target(self, response: requests.Response) -> str | None:
        """Return the target of a redirect, or None if the response is not a redirect.

        Raises:
            requests.RequestException: the redirect is from https to http.

        """
        target = super().get_redirect_target(response)
        if target and response.url.startswith("https:") and urlsplit(target).scheme.lower() == "http":
            raise requests.RequestException(f"refused a redirect from https to http ({target.split('?')[0]})")
        return target

    def log_in(self, url: str) -> None:
        """Submit the site's login form once if `url` belongs to the site. Redirects are not followed with the password.

        Raises:
            UserError: no account is configured, or the site rejects it.
            requests.RequestException: the site cannot be reached.

        """
        if self._logged_in or not url.startswith(site() + "/"):
            return
        account = credentials()
        if account is None:
            raise UserError(f"Cityscapes needs {ACCOUNT_ADVICE}")
        form = {"username": account[0], "password": account[1], "submit": "Login"}
        response = self.post(f"{site()}/login", data=form, allow_redirects=False, timeout=(10, 30))
        redirected_to_form = urlsplit(response.headers.get("Location", "")).path.rstrip("/").endswith("/login")
        if response.status_code not in (200, 302, 303):
            raise requests.RequestException(f"the login page returned HTTP {response.status_code}")
        if response.status_code == 200 or redirected_to_form:
            raise UserError(
                f"the Cityscapes site rejected user name and password (from "
                f"{'the environment' if os.environ.get(PASSWORD) else credentials_file()}); nothing was deleted"
            )
        self._logged_in = True

    def forget_login(self) -> None:
        """Log in again before the next request, because a session can expire during a long download."""
        self._logged_in = False
        self.cookies.clear()
