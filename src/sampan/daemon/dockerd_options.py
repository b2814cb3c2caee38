"""dockerd's options that Sampan does not have: known, so that each is refused by name and with a reason.

A value that asks for what is so anyway is taken: a `daemon.json` of dockerd's often says its defaults.
Source: dockerd(8) of 20.10 and of 29.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sampan.errors import InvalidArgument


class Option(NamedTuple):
    """The kind of its value, the values that change nothing, and why others are refused."""

    kind: type
    harmless: tuple[Any, ...]
    reason: str


_NO_PLUGINS = "there are no plugins"
_NO_SWARM = "there is no swarm mode"
_NO_TLS = "the API is not served over TLS yet"
_NO_CONTAINERD = "there is no containerd; blobs and layers are Sampan's own"
_LATER = "not built yet"
_OWN_FIREWALL = "Sampan keeps its rules in an nftables table of its own, and needs them"

OPTIONS: dict[str, Option] = {
    "allow-direct-routing": Option(bool, (False,), _LATER),
    "allow-nondistributable-artifacts": Option(list, ([],), "all layers are pushed anyway"),
    "api-cors-header": Option(str, ("",), "other origins get no access"),
    "authorization-plugin": Option(list, ([],), _NO_PLUGINS),
    "bridge-accept-fwmark": Option(str, ("",), _LATER),
    "builder": Option(dict, ({},), "images are not built yet"),
    "cdi-spec-dir": Option(list, ([],), "devices of CDI are not given to containers"),
    "cluster-advertise": Option(str, ("",), _NO_SWARM),
    "cluster-store": Option(str, ("",), _NO_SWARM),
    "containerd": Option(str, ("",), _NO_CONTAINERD),
    "containerd-namespace": Option(str, ("", "moby"), _NO_CONTAINERD),
    "containerd-plugins-namespace": Option(str, ("", "plugins.moby"), _NO_CONTAINERD),
    "cpu-rt-period": Option(int, (0,), "give it to the parent cgroup"),
    "cpu-rt-runtime": Option(int, (0,), "give it to the parent cgroup"),
    "cri-containerd": Option(bool, (False,), _NO_CONTAINERD),
    "deprecated-key-path": Option(str, ("",), "there is no such key"),
    "experimental": Option(bool, (False,), "there is nothing experimental to turn on"),
    "exec-opt": Option(list, ([], ["native.cgroupdriver=cgroupfs"]), "cgroups are made by way of their files"),
    "features": Option(dict, ({}, {"buildkit": True}), "there are no such switches"),
    "firewall-backend": Option(str, ("", "nftables"), _OWN_FIREWALL),
    "init-path": Option(str, ("",), "the init of containers is part of Sampan"),
    "ip-forward": Option(bool, (True,), "containers would reach nobody"),
    "ip6tables": Option(bool, (True,), _OWN_FIREWALL),
    "iptables": Option(bool, (True,), _OWN_FIREWALL),
    "live-restore": Option(bool, (True,), "containers always outlive the daemon"),
    "metrics-addr": Option(str, ("",), "metrics have an issue of their own"),
    "min-api-version": Option(str, ("", "1.12"), "every version from 1.12 on is served"),
    "network-control-plane-mtu": Option(int, (0, 1500), _NO_SWARM),
    "node-generic-resource": Option(list, ([],), _NO_SWARM),
    "oci-runtime-path": Option(str, ("",), "name runtimes by add-runtime"),
    "rootless": Option(bool, (False,), "the engine has to be started as root"),
    "selinux-enabled": Option(bool, (False,), "labels of SELinux are not set"),
    "storage-driver": Option(str, ("", "overlay2", "overlay", "overlayfs"), "overlay2 is the one there is"),
    "swarm-default-advertise-addr": Option(str, ("",), _NO_SWARM),
    "tls": Option(bool, (False,), _NO_TLS),
    "tlscacert": Option(str, ("",), _NO_TLS),
    "tlscert": Option(str, ("",), _NO_TLS),
    "tlskey": Option(str, ("",), _NO_TLS),
    "tlsverify": Option(bool, (False,), _NO_TLS),
    "userland-proxy-path": Option(str, ("",), "no published port has a process"),
    "userns-remap": Option(str, ("",), "user namespaces have an issue of their own"),
}  # fmt: skip

# Of these every value is right: what they choose between is the same here.
NO_DIFFERENCE: dict[str, type] = {
    "raw-logs": bool,  # the daemon's log has full times and no colours
    "userland-proxy": bool,  # published ports answer on loopback addresses, without a process
}

# Options that may be given several times are plural in the file.
FILE_NAMES = {
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "exec-opt": "exec-opts",
    "node-generic-resource": "node-generic-resources",
}


def refuse(values: dict[str, Any]) -> None:
    """Refuse what is asked for and is not there.

    Raises:
        InvalidArgument: which option, and why.
    """
    for name, option in OPTIONS.items():
        if name in values and values[name] not in option.harmless:
            shown = json.dumps(values[name]) if option.kind is bool else ""
            raise InvalidArgument(f"{name}{shown and '='}{shown} is not supported: {option.reason}")
