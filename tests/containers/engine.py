"""What builds an image and runs it: Docker or podman where they work, else buildah's chroot and unshare.

All run the app as hard as a site may: as a user whom the image does not know, with a read-only root, no
network, no home, and (but with `tmpfs`) no /tmp.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER = "4321:4321"
RUNC, FEW = ["--runtime", "runc"], ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]
ENVIRONMENT = {"HOME": "/nonexistent"}


class UnavailableError(Exception):
    """Why there is no engine, or no base image, here."""


def call(*words: str | Path, **options: Any) -> str:
    """Run a command of this machine and return what it prints. Raises with all that it said."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, (
        f"{shlex.join(map(str, words))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return str(done.stdout)


@dataclass
class Engine:
    """Docker or podman. `limits`: where a container may not have more open files than this process."""

    name: str
    command: list[str]
    limits: list[str] = field(default_factory=list)

    def import_root(self, archive: Path, tag: str) -> None:
        call(*self.command, "import", archive, tag)

    def build(self, context: Path, tag: str, arguments: Mapping[str, str], wheels: Path) -> None:
        options = [word for pair in arguments.items() for word in ("--build-arg", "=".join(pair))]
        if self.name == "podman":
            options += ["--layers=false", "--timestamp", arguments["SOURCE_DATE_EPOCH"]]
        options += [*self.limits, "--build-context", f"wheels={wheels}", "--tag", tag]
        call(*self.command, "build", *options, context, env={**os.environ, "DOCKER_BUILDKIT": "1"})

    def labels(self, image: str) -> dict[str, str]:
        return dict(json.loads(call(*self.command, "image", "inspect", image))[0]["Config"]["Labels"])

    def start(
        self,
        image: str,
        *words: str,
        mounts: Sequence[str] = (),
        entrypoint: str | None = None,
        tmpfs: bool = False,
        user: str = USER,
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> "Running":
        """Start the image's program with `words`; `mounts` are SOURCE:TARGET[:ro]."""
        name = f"bids-alphagan-{uuid.uuid4().hex[:12]}"
        options = ["--rm", "--name", name, *self.limits, "--network", "none", "--read-only", "--user", user]
        options += ["--read-only-tmpfs=false"] if self.name == "podman" else []
        options += ["--tmpfs", "/tmp"] if tmpfs else []
        options += [word for mount in mounts for word in ("--volume", mount)]
        options += [word for pair in environment.items() for word in ("--env", "=".join(pair))]
        options += ["--entrypoint", entrypoint] if entrypoint else []
        process = _started([*self.command, "run", *options, image, *words])
        return Running(process, [*self.command, "kill", "--signal", "{}", name])

    def unpack(self, image: str, place: Path) -> Path:
        """All files of the image, in a new folder."""
        place.mkdir()
        container = call(*self.command, "create", image).strip()
        with subprocess.Popen([*self.command, "export", container], stdout=subprocess.PIPE) as export:
            call("tar", "-C", place, "--numeric-owner", "-xf", "-", stdin=export.stdout)
        call(*self.command, "rm", container)
        return place

    def remove(self, image: str) -> None:
        call(*self.command, "rmi", image)

    def run(self, image: str, *words: str, **options: Any) -> "Done":
        return self.start(image, *words, **options).wait()


class Chroot(Engine):
    """The image's root as buildah mounts it, with namespaces of its own for processes, mounts and network."""

    def import_root(self, archive: Path, tag: str) -> None:
        container = call("buildah", "from", "scratch").strip()
        call("buildah", "add", container, archive)
        call("buildah", "commit", "--rm", container, tag)

    def build(self, context: Path, tag: str, arguments: Mapping[str, str], wheels: Path) -> None:
        options = [word for pair in arguments.items() for word in ("--build-arg", "=".join(pair))]
        options += ["--layers=false", "--timestamp", arguments["SOURCE_DATE_EPOCH"]]
        options += ["--build-context", f"wheels={wheels}", "--tag", tag]
        call("buildah", "build", "--isolation", "chroot", *options, context)

    def unpack(self, image: str, place: Path) -> Path:
        container = call("buildah", "from", "--pull-never", image).strip()
        call("cp", "-a", call("buildah", "mount", container).strip(), place)
        call("buildah", "rm", container)
        return place

    def _inspect(self, image: str) -> dict[str, Any]:
        said = call("buildah", "inspect", "--type", "image", image)
        return dict(json.loads(said)["OCIv1"]["config"])

    def labels(self, image: str) -> dict[str, str]:
        return dict(self._inspect(image)["Labels"])

    def start(
        self,
        image: str,
        *words: str,
        mounts: Sequence[str] = (),
        entrypoint: str | None = None,
        tmpfs: bool = False,
        user: str = USER,
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> "Running":
        settings = self._inspect(image)
        container = call("buildah", "from", "--pull-never", image).strip()
        root = Path(call("buildah", "mount", container).strip())
        values = [*settings.get("Env", []), *map("=".join, environment.items())]
        program = [entrypoint] if entrypoint else settings["Entrypoint"]
        lines = ["set -e", f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc"]
        lines += [f"mount --rbind /dev {root}/dev"]
        lines += [f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp"] if tmpfs else []
        for mount in mounts:
            source, target, *read_only = mount.split(":")
            place = shlex.quote(f"{root}{target}")
            lines += [f"mkdir -p {place}", f"mount --bind {shlex.quote(source)} {place}"]
            lines += [f"mount -o remount,bind,ro {place}"] if read_only else []
        lines += [f"mount -o remount,bind,ro {root}"]
        inside = [
            "chroot",
            f"--userspec={user}",
            str(root),
            "/usr/bin/env",
            "-i",
            *values,
            *program,
            *words,
        ]
        lines += [f"exec {shlex.join(inside)}"]
        unshare = ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child"]
        process = _started([*unshare, "sh", "-c", "\n".join(lines)])
        # The first process in there is the only child of unshare out here.
        return Running(process, ["pkill", "-{}", "-P", str(process.pid)], ["buildah", "rm", container])


@dataclass
class Done:
    code: int
    out: str
    err: str


@dataclass
class Running:
    """A program in a container; `signalling` is the command that sends it the signal {}."""

    process: "subprocess.Popen[str]"
    signalling: list[str]
    tidying: list[str] | None = None

    def send(self, number: signal.Signals) -> None:
        call(*(word.format(number.name) for word in self.signalling))

    def wait(self) -> Done:
        out, err = self.process.communicate(timeout=900)
        if self.tidying:
            call(*self.tidying)
        return Done(self.process.returncode, out, err)


def _started(command: Sequence[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def candidates() -> list[Engine]:
    """In the order of trial. CONTAINER_ENGINE=docker|podman|chroot leaves one of them."""
    found = []
    if shutil.which("docker") and (os.environ.get("CONTAINER_IMAGE") or _has_buildx()):
        found.append(Engine("docker", ["docker"]))
    if shutil.which("podman"):
        runtimes = [[], RUNC] if shutil.which("runc") else [[]]
        podmen = [(["podman", *runtime], limits) for limits in ([], FEW) for runtime in runtimes]
        found += [Engine("podman", command, limits) for command, limits in podmen]
    if shutil.which("buildah") and shutil.which("unshare"):
        found.append(Chroot("chroot", ["buildah"]))
    wanted = os.environ.get("CONTAINER_ENGINE")
    return [engine for engine in found if wanted in (None, "", engine.name)]


def _has_buildx() -> bool:
    """Whether this docker takes --build-context."""
    return subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0


def working(archive: Path, tag: str) -> Engine:
    """The first engine that takes a base image and runs a program in it."""
    said = []
    for engine in candidates():
        try:
            engine.import_root(archive, tag)
            done = engine.run(tag, "-c", "exit 7", entrypoint="/bin/sh")
        except (AssertionError, OSError) as error:
            said.append(f"{engine.name}: {str(error).strip().splitlines()[-1]}")
            continue
        if done.code == 7:
            return engine
        said.append(f"{engine.name}: {done.err.strip()[-300:]}")
    raise UnavailableError(
        "no container engine works here: " + ("; ".join(said) or "docker, podman, buildah missing")
    )
