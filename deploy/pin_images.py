"""Write the digest of each image behind its tag, as the registry answers it now: `make pin-images`.

Images are the bases of the Dockerfiles and the `image:` lines of the compose file; those that are built here have none. What a registry
does not answer stays as it is, and the exit status says so: a digest is never made up. Registries are asked without an account.
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import requests

from finsight.files import atomic_file

HERE = Path(__file__).resolve().parent
SECONDS = 20
HUB = "registry-1.docker.io"
OURS = "finsight/"
"""Built here. A registry that knows such a name has somebody else's."""
# An index first: its digest is good for every platform.
_KINDS = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
_PLACE = re.compile(r"^(?:FROM\s+|\s*image:\s*)(?P<name>[\w./:-]+?):(?P<tag>[\w.-]+)(?:@sha256:[0-9a-f]{64})?(?=\s|$)", re.M)
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1)(:\d+)?")


class RegistryError(Exception):
    """A registry gives no digest, and why."""


@dataclass(frozen=True)
class Image:
    """An image as the files name it, such as ``redis:8.2.3-alpine``."""

    name: str
    tag: str

    def place(self) -> tuple[str, str]:
        """Its registry's host and its name there."""
        host, _, rest = self.name.partition("/")
        if rest and ("." in host or ":" in host or host == "localhost"):
            return (HUB if host == "docker.io" else host), rest
        return HUB, self.name if "/" in self.name else f"library/{self.name}"


def digest(image: Image) -> str:
    """What the tag points to now, ``sha256:…``, computed from the manifest that the registry sends.

    :raises RegistryError: when it sends none, or another than it says.
    """
    host, name = image.place()
    scheme = "http" if _LOOPBACK.fullmatch(host) else "https"
    address, headers = f"{scheme}://{host}/v2/{name}/manifests/{image.tag}", {"Accept": _KINDS}
    try:
        answer = requests.get(address, headers=headers, timeout=SECONDS)
        if answer.status_code == 401:
            headers["Authorization"] = f"Bearer {_token(answer.headers.get('WWW-Authenticate', ''))}"
            answer = requests.get(address, headers=headers, timeout=SECONDS)
    except requests.RequestException as error:
        raise RegistryError(f"{host} does not answer ({type(error).__name__})") from None
    if answer.status_code != 200:
        raise RegistryError(f"{host} answers {answer.status_code}")
    found = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    if (said := answer.headers.get("Docker-Content-Digest", found)) != found:
        raise RegistryError(f"{host} says {said}, and sends {found}")
    return found


def _token(challenge: str) -> str:
    """An anonymous token, from where a registry's challenge says."""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = asked.pop("realm", "")
    if not challenge.lower().startswith("bearer ") or not re.match(rf"https://|http://{_LOOPBACK.pattern}/", realm):
        raise RegistryError("the registry wants an account")
    answer = requests.get(realm, params=asked, timeout=SECONDS)
    if answer.status_code != 200:
        raise RegistryError(f"{realm} answers {answer.status_code}")
    content = answer.json()
    return str(content.get("token") or content.get("access_token") or "")


def pin(paths: list[Path]) -> dict[Image, str]:
    """Pin what the files name; what could not be, and why."""
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    named = {Image(found["name"], found["tag"]) for text in texts.values() for found in _PLACE.finditer(text)}
    images = {image for image in named if not image.name.startswith(OURS)}
    digests, failed = dict[Image, str](), dict[Image, str]()
    for image in sorted(images, key=lambda image: image.name):
        try:
            digests[image] = digest(image)
        except RegistryError as error:
            failed[image] = str(error)

    def pinned(found: re.Match[str]) -> str:
        image = Image(found["name"], found["tag"])
        return f"{found[0].partition('@')[0]}@{digests[image]}" if image in digests else found[0]

    for path, text in texts.items():
        if (new := _PLACE.sub(pinned, text)) != text:
            with atomic_file(path) as partial:
                partial.write_text(new, encoding="utf-8")
    return failed


def main(paths: list[str]) -> int:
    """Pin, and say what came of it."""
    files = [Path(path) for path in paths] or [*sorted(HERE.glob("images/*.Dockerfile")), HERE / "compose.yaml"]
    failed = pin(files)
    for image, why in failed.items():
        print(f"error: {image.name}:{image.tag}: {why}; left as it was", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
