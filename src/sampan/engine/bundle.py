"""A container's OCI bundle, and what its shim is asked for.

The bundle is the container's directory: `config.json` as the OCI runtime-spec has it, whole, for
whoever looks; the shim gets the same configuration with its request, without the seccomp list, which
is compiled already.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

import msgspec

from sampan.engine import sharing, spec
from sampan.engine.container import Container
from sampan.engine.log_options import driver_options
from sampan.engine.model import HostConfig
from sampan.engine.networking import write_file
from sampan.engine.services import Services
from sampan.engine.trace import StartTrace
from sampan.shim.client import ShimRequest

# What another OCI runtime keeps of a container, in its directory; see `runtime.foreign`.
RUNTIME_FILES = "runtime"


class Bundles:
    """Prepares the start of containers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def prepare(
        self, container: Container, trace: StartTrace, mount_sources: Mapping[str, str]
    ) -> ShimRequest:
        """Write the bundle and return the shim's request for it, without endpoints.

        `mount_sources`: see `spec.Surroundings`.

        Raises:
            OSError: a file cannot be written.
            NotFound, Conflict: a container whose namespace is to be joined is not there or not running.
        """
        record, options = container.record, self._services.options
        runtime = self._services.runtimes.command(record.host_config.runtime)
        if runtime:
            shutil.rmtree(f"{container.directory}/{RUNTIME_FILES}", ignore_errors=True)
        config = spec.oci_config(record, self._surroundings(container, mount_sources))
        trace.mark("config")
        profile = self._services.profiles.of(record)
        whole: dict[str, Any] = config
        if profile is not None:
            whole = {**config, "linux": {**config["linux"], "seccomp": profile.section}}
        write_file(f"{container.directory}/config.json", msgspec.json.encode(whole), 0o600)
        _unlink(container.exit_path)
        trace.mark("bundle")
        size = record.host_config.console_size
        return ShimRequest(
            id=record.id,
            directory=container.directory,
            socket=self._services.socket_path(container.id),
            config=config,
            # A snapshot's mounts count from the root file system; the runtime wants them absolute.
            rootfs_mounts=[
                {**mount.to_dict(), "target": f"{container.directory}/rootfs{mount.target}"}
                for mount in self._services.snapshots.mounts(record.id)
            ],
            seccomp_program=profile.program if profile else None,
            terminal=record.config.tty,
            open_stdin=record.config.open_stdin,
            stdin_once=record.config.stdin_once,
            reaper=not runtime and self._wants_init(record.host_config),
            runtime=runtime,
            log_driver=container.log_driver,
            log_path=container.log_path,
            log_options=driver_options(record),
            console_size=size if size != (0, 0) else None,
            trace=options.trace_start,
        )

    def _wants_init(self, host: HostConfig) -> bool:
        return self._services.preset().init if host.init is None else host.init

    def _surroundings(
        self, container: Container, mount_sources: Mapping[str, str]
    ) -> spec.Surroundings:
        host, services = container.host_config, self._services
        paths: dict[str, str] = {}
        if (network := services.networking.namespace_path(container)) is not None:
            paths["network"] = network
        if host.uts_mode == "host":
            paths["uts"] = ""
        if host.ipc_mode == "host":
            paths["ipc"] = ""
        if host.pid_mode == "host":
            paths["pid"] = ""
        paths |= sharing.namespace_paths(container, services.registry.find)
        if not spec.cgroup_namespace_is_private(host, services.cgroup_version):
            paths["cgroup"] = ""
        return spec.Surroundings(
            apparmor=container.record.apparmor_profile,
            files=services.networking.write_files(container),
            namespace_paths=paths,
            default_ulimits=services.preset().ulimits,
            mount_sources=mount_sources,
            link_variables=services.networking.link_variables(container),
        )


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
