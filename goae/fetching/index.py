"""Finding a file in the package index that pip is configured to use, without pip's setup step.

Reads pip's settings (`pip config list` and PIP_* variables), then the simple repository API (PEP 503 pages, PEP 691
JSON) over http(s) or from local folders. No package is installed, built or imported.
"""

import ast
import base64
import os
import re
import ssl
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from eg3d.limits import read_json

PUBLIC_INDEX = "https://pypi.org/simple"  # what pip itself uses when nothing is configured
ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
MAX_PAGE = 64 << 20  # bytes
TIMEOUT = 60.0  # seconds of silence


@dataclass(frozen=True)
class PipSettings:
    """What of pip's configuration decides where packages come from."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    cert: str | None = None
    proxy: str | None = None


@dataclass(frozen=True)
class Link:
    """One file offered by an index; sha256 as the index states it."""

    filename: str
    url: str
    sha256: str | None


def pip_settings() -> PipSettings:
    """Read pip's configuration files and PIP_* variables; the variables win, as in pip."""
    values = _configured()
    for key in ("index-url", "extra-index-url", "find-links", "cert", "proxy", "no-index"):
        if value := os.environ.get("PIP_" + key.upper().replace("-", "_")):
            values[key] = value
    indexes = [values.get("index-url", PUBLIC_INDEX), *values.get("extra-index-url", "").split()]
    if values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        indexes = []
    return PipSettings(
        tuple(indexes), tuple(values.get("find-links", "").split()), values.get("cert"), values.get("proxy")
    )


def _configured() -> dict[str, str]:
    """What pip's configuration files say; nothing where there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return _parse_config(done.stdout if done.returncode == 0 else "")


def _parse_config(listing: str) -> dict[str, str]:
    """Lines `section.key='value'`; [download] and [install] override [global], variables are read elsewhere."""
    values: dict[str, str] = {}
    for section in ("global", "install", "download"):
        for line in listing.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section + "."):
                values[name.removeprefix(section + ".")] = str(ast.literal_eval(value))
    return values


def opener(settings: PipSettings | None = None) -> urllib.request.OpenerDirector:
    """An HTTP client with the proxies of the environment and, if given, pip's certificate file and proxy."""
    context = ssl.create_default_context(cafile=settings.cert if settings and settings.cert else None)
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if settings and settings.proxy:
        handlers.append(urllib.request.ProxyHandler({"http": settings.proxy, "https": settings.proxy}))
    return urllib.request.build_opener(*handlers)


def request(url: str, headers: dict[str, str] | None = None) -> urllib.request.Request:
    """A request for `url`; a user name and password in it travel as basic authentication."""
    made, parts = urllib.request.Request(without_credentials(url), headers=headers or {}), urlsplit(url)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        made.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    return made


def without_credentials(url: str) -> str:
    """The URL as it may be printed and recorded."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _with_credentials(url: str, page: str) -> str:
    """Files on the host of a page that took a user name and password take them too."""
    user, _, host = urlsplit(page).netloc.rpartition("@")
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}@{host}")) if user and parts.netloc == host else url


def find(project: str, filename: str, settings: PipSettings, *, sha256: str) -> list[Link]:
    """All places that offer `filename` of `project`, in pip's order; those that state another hash are left out.

    Raises: FileNotFoundError listing what was asked and what each place answered.
    """
    client, found, answers = opener(settings), [], []
    pages = [f"{index.rstrip('/')}/{_normalised(project)}/" for index in settings.indexes] + list(settings.find_links)
    for page in pages:
        try:
            links = [link for link in _links(page, client) if link.filename == filename]
        except (URLError, OSError, ValueError) as error:
            answers.append(f"{without_credentials(page)}: {error}")
            continue
        good = [link for link in links if link.sha256 in (None, sha256)]
        found += good
        if not good:
            answers.append(
                f"{without_credentials(page)}: {'has it with another hash' if links else 'does not have it'}"
            )
    if not found:
        raise FileNotFoundError(
            f"No configured package index offers {filename}. Asked: {'; '.join(answers) or 'none (no-index is set)'}. "
            f"Check `pip config list`, or set PIP_INDEX_URL to an index that carries {project}."
        )
    return found


def _normalised(project: str) -> str:
    return re.sub(r"[-_.]+", "-", project).lower()


def _links(page: str, client: urllib.request.OpenerDirector) -> list[Link]:
    folder = _local(page)
    if folder is not None:
        if folder.is_dir() and not (folder / "index.html").is_file():
            return [Link(p.name, p.resolve().as_uri(), None) for p in sorted(folder.iterdir()) if p.is_file()]
        file = folder / "index.html" if folder.is_dir() else folder
        base = folder.resolve().as_uri() + "/" if folder.is_dir() else file.resolve().as_uri()
        return _parse_html(file.read_text(), base)
    try:
        with client.open(request(page, {"Accept": ACCEPT}), timeout=TIMEOUT) as answer:
            body, base = answer.read(MAX_PAGE), answer.geturl()
    except HTTPError as error:
        if error.code == 404:  # an index that lacks the project
            return []
        raise
    links = _parse_json(body, base) if body.lstrip().startswith(b"{") else _parse_html(body.decode(), base)
    return [replace(link, url=_with_credentials(link.url, page)) for link in links]


def _local(page: str) -> Path | None:
    parts = urlsplit(page)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    return Path(page) if "://" not in page else None


def _parse_json(body: bytes, base: str) -> list[Link]:
    content = read_json(body, f"the answer of {without_credentials(base)}")
    try:
        files = [(f["filename"], f["url"], f.get("hashes", {}).get("sha256")) for f in content.get("files", [])]
        return [Link(str(name), urljoin(base, url), sha256) for name, url, sha256 in files]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the answer of {without_credentials(base)} is no list of files: {error!r}") from None


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _parse_html(text: str, base: str) -> list[Link]:
    anchors, links = _Anchors(), []
    anchors.feed(text)
    for href in anchors.hrefs:
        url, fragment = urldefrag(urljoin(base, href))
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        links.append(Link(unquote(url.rsplit("/", 1)[-1]), url, sha256))
    return links
