"""Containers of a manifest as processes: as its user, without capabilities, over a root file system that is read-only but for its volumes.

What an engine does with namespaces, for tests where there is none. What is not the image's comes from this machine: the interpreter, git,
Redis. Needs root on Linux.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from charts import Manifest, named, pods
from conftest import REPO

_NEW_NET = 0x40000000  # of unshare(2)
_BIN = Path(sys.prefix).resolve() / "bin"
# The command of this tree, whichever one is installed.
_FINSIGHT = f"#!{_BIN}/python\nfrom finsight.cli import main\n\nmain()\n"


def needs_namespaces() -> None:
    """Skip the test where namespaces can't be made."""
    words = ["unshare", "--mount", "--net", "sh", "-c", "mount -t tmpfs none /mnt"]
    if not (shutil.which("unshare") and shutil.which("setpriv")) or os.geteuid() or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mount and network namespaces can't be made here: that needs root on Linux, unshare and setpriv")


@contextmanager
def own_network() -> Iterator[None]:
    """A network of its own for this thread, and all that it starts, with nothing but loopback: every port is free, nothing is outside."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:  # noqa: PTH123
        if libc.unshare(_NEW_NET):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            with socket.socket() as one:
                fcntl.ioctl(one, 0x8914, struct.pack("16sH14s", b"lo", 1, b""))  # SIOCSIFFLAGS, IFF_UP
            yield
        finally:
            libc.setns(before.fileno(), _NEW_NET)


@dataclass
class Running:
    """A container at work."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def ends(self, seconds: float) -> int:
        """Its exit status."""
        return self.process.wait(seconds)

    def stop(self, seconds: float) -> int:
        """End it as the kubelet does: SIGTERM to its first process, and no longer than its grace period."""
        (first,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        return self.ends(seconds)


@dataclass
class Cluster:
    """The pods of some manifests, on loopback.

    :param secrets: of the Secret that they name.
    :param values: that the chart made the manifests of.
    """

    folder: Path
    manifests: Sequence[Manifest]
    secrets: Mapping[str, str]
    values: Mapping[str, Any] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)

    def start(self, owner: str, container: str, index: int | None = None) -> Running:
        """Start one container of the pod of ``owner``, of an indexed Job that of an index; its volumes are shared with the pod's others."""
        pod = pods(self.manifests)[owner]
        (one,) = [each for each in (*pod.get("initContainers", []), *pod["containers"]) if each["name"] == container]
        return self._run(owner, pod, one, [*one["command"], *one.get("args", [])], container, index)

    def probe(self, owner: str, kind: str) -> bool:
        """Whether a probe of the first container of a pod finds it well."""
        pod = pods(self.manifests)[owner]
        one = pod["containers"][0]
        asked = one[kind]
        if "exec" in asked:
            return (
                self._run(owner, pod, {**one, "workingDir": "/"}, asked["exec"]["command"], "probe").ends(20) == 0
            )  # no folder is promised
        (port,) = [each["containerPort"] for each in one["ports"] if each["name"] == asked["httpGet"]["port"]]
        try:  # the kubelet names the pod's address
            answer = httpx.get(f"http://127.0.0.1:{port}{asked['httpGet']['path']}", headers={"Host": f"10.42.0.7:{port}"}, timeout=5)
        except httpx.TransportError:
            return False
        return 200 <= answer.status_code < 400

    def wait(self, owner: str, running: Running, kind: str = "startupProbe", seconds: float = 120) -> None:
        """Wait until a probe finds a pod well."""
        end = time.monotonic() + seconds
        while not self.probe(owner, kind):
            assert running.process.poll() is None, f"{owner} ended with {running.process.returncode}: {running.said()}"
            assert time.monotonic() < end, f"{owner}: {running.said()}"
            time.sleep(0.2)

    def close(self) -> None:
        """End what still runs."""
        for one in self.running:
            one.process.kill()  # its first process goes with it, and with that one all others
            one.process.wait()

    def _run(self, owner: str, pod: Manifest, one: Manifest, command: Sequence[str], name: str, index: int | None = None) -> Running:
        place, environment = self.folder / owner.replace("/", "-"), self._environment(owner, one, index)
        user, volumes = pod["securityContext"]["runAsUser"], []
        claimed = {each["name"] for each in pod.get("volumes", []) if "persistentVolumeClaim" in each}
        for mount in one.get("volumeMounts", []):
            own = "" if index is None or mount["name"] in claimed else f"-{index}"
            below = re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], mount.get("subPathExpr", mount.get("subPath", "")))
            volume = place / "volumes" / f"{mount['name']}{own}"
            for folder in dict.fromkeys((volume, volume / below)):
                if not folder.is_dir():
                    folder.mkdir(parents=True)
                    os.chown(folder, 0, pod["securityContext"]["fsGroup"])  # as a kubelet leaves them: root's, and the group's
                    folder.chmod(0o2775)
            for key, file in self._secret(pod, mount["name"]):
                (volume / file).write_text(self.secrets[key])
                os.chown(volume / file, 0, pod["securityContext"]["fsGroup"])
                (volume / file).chmod(0o440)
            volumes.append((volume / below, mount["mountPath"], mount.get("readOnly", False)))
        name = name if index is None else f"{name}-{index}"
        root = place / f"root-{name}"
        root.mkdir(exist_ok=True)
        hosts = self.folder / "hosts"
        services = [key.partition("/")[2] for key in named(self.manifests) if key.startswith("Service/")]
        services += [f"{key.partition('/')[2]}-0.{its['subdomain']}" for key, its in pods(self.manifests).items() if "subdomain" in its]
        hosts.write_text("".join(f"127.0.0.1 {each}\n" for each in ("localhost", *services)))
        program = self.folder / "bin/finsight"
        program.parent.mkdir(exist_ok=True)
        program.write_text(_FINSIGHT)
        program.chmod(0o755)
        volumes.append((program.parent, "/image", True))
        script = _script(root, hosts, volumes, user, command, one.get("workingDir", "/"))
        log = self.folder / f"{owner.replace('/', '-')}-{name}.log"
        with log.open("wb") as out:
            unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-euc", script]
            started = Running(subprocess.Popen(unshare, env=environment, stdout=out, stderr=out), log)
        self.running.append(started)
        return started

    def _secret(self, pod: Manifest, volume: str) -> list[tuple[str, str]]:
        """Keys of the Secret that a volume is made of, each with its file."""
        (items,) = [each.get("secret", {}).get("items", []) for each in pod.get("volumes", []) if each["name"] == volume] or [[]]
        return [(each["key"], each["path"]) for each in items]

    def _environment(self, owner: str, one: Manifest, index: int | None) -> dict[str, str]:
        found = {"PATH": f"/image:{_BIN}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(REPO / "src"), "OMP_NUM_THREADS": "1"}
        for each in one.get("envFrom", []):
            found |= named(self.manifests)[f"ConfigMap/{each['configMapRef']['name']}"]["data"]
        found |= {} if index is None else {"JOB_COMPLETION_INDEX": str(index)}
        for each in one.get("env", []):
            asked: Any = each.get("valueFrom", {}).get("secretKeyRef")
            if "fieldRef" in each.get("valueFrom", {}):
                assert each["valueFrom"]["fieldRef"] == {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}
                found[each["name"]] = owner.partition("/")[2]
            elif asked is None:
                found[each["name"]] = each["value"]
            elif asked["key"] in self.secrets or not asked.get("optional"):
                found[each["name"]] = self.secrets[asked["key"]]
        return found


def _script(root: Path, hosts: Path, volumes: Sequence[tuple[Path, str, bool]], user: int, command: Sequence[str], where: str) -> str:
    """Lays out the root, then gives up all that root may; signals reach the command itself."""
    lines = [f"cd {shlex.quote(str(root))}", "mount -t tmpfs -o mode=755 none .", "cd ."]
    base = shlex.quote(str(root))
    for name in ("usr", "bin", "sbin", "lib", "lib64", "etc"):
        if Path("/", name).is_symlink():
            lines.append(f"cp -P /{name} {base}/{name}")
        elif Path("/", name).is_dir():
            lines += [f"mkdir {base}/{name}", f"mount --bind /{name} {base}/{name}", f"mount -o remount,bind,ro {base}/{name}"]
    lines += [f"mount --bind {shlex.quote(str(hosts))} {base}/etc/hosts"]
    lines += [f"mkdir {base}/proc {base}/dev", f"mount -t proc none {base}/proc", f"mount --rbind /dev {base}/dev"]
    for source, target, read_only in volumes:
        place = f"{base}{shlex.quote(target)}"
        lines += [f"mkdir -p {place}", f"mount --bind {shlex.quote(str(source))} {place}"]
        lines += [f"mount -o remount,bind,ro {place}"] if read_only else []
    for image in dict.fromkeys((Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), REPO / "src")):
        if not image.is_relative_to("/usr"):
            place = f"{base}{shlex.quote(str(image))}"
            lines += [f"mkdir -p {place}", f"mount --bind {shlex.quote(str(image))} {place}", f"mount -o remount,bind,ro {place}"]
    lines.append(f"mount -o remount,ro {base}")
    # A new user is not told of its parent's death any more, unless it asks for that anew.
    confined = f"setpriv --pdeathsig KILL --reuid {user} --regid {user} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
    inner = f"cd {shlex.quote(where)} && exec {shlex.join(command)}"
    lines.append(f"exec {shutil.which('chroot')} {base} {confined} sh -c {shlex.quote(inner)}")
    return "\n".join(lines)
