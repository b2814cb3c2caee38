"""The file tree of a container: mounts, propagation, masks, devices, and images that attack."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.errors import RuntimeFailure

pytestmark = [pytest.mark.root, pytest.mark.vm]

Bundle = Any


@pytest.fixture
def source(bundle: Bundle) -> str:
    """A directory of the machine with a file in it."""
    path = f"{bundle.path}/source"
    os.mkdir(path)
    with open(f"{path}/file", "w") as file:
        file.write("content\n")
    return path


@pytest.fixture
def nested(source: str) -> Iterator[str]:
    """The same with another file system mounted below."""
    os.mkdir(f"{source}/below")
    subprocess.run(["mount", "-t", "tmpfs", "none", f"{source}/below"], check=True)
    yield source
    subprocess.run(["umount", f"{source}/below"], check=True)


def test_bind(bundle: Bundle, source: str) -> None:
    """A bind shows and changes the machine's files; its target is made in the container's layer."""
    bundle.mount("/data/deep", "bind", source, "bind", "rprivate")
    got = bundle.sh("cat /data/deep/file; echo new > /data/deep/made")
    assert got.out == "content\n"
    assert os.path.exists(f"{source}/made")
    assert os.path.isdir(f"{bundle.path}/upper/data/deep")


def test_bind_of_a_file(bundle: Bundle, source: str) -> None:
    bundle.mount("/etc/new.conf", "bind", f"{source}/file", "bind", "ro")
    got = bundle.sh("cat /etc/new.conf; echo x > /etc/new.conf")
    assert got.out == "content\n"
    assert "Read-only" in got.err


def test_relative_source_counts_from_the_bundle(bundle: Bundle, source: str) -> None:
    bundle.mount("/data", "bind", os.path.basename(source), "bind")
    assert bundle.run("cat", "/data/file").out == "content\n"


def test_readonly_bind_leaves_what_is_below_writable(bundle: Bundle, nested: str) -> None:
    bundle.mount("/data", "bind", nested, "rbind", "ro")
    got = bundle.sh("touch /data/x || echo top; touch /data/below/x && echo below")
    assert got.lines == ["top", "below"]


def test_recursive_readonly(bundle: Bundle, nested: str) -> None:
    bundle.mount("/data", "bind", nested, "rbind", "rro")
    got = bundle.sh("touch /data/x || echo top; touch /data/below/x || echo below")
    assert got.lines == ["top", "below"]


def test_bind_without_r_leaves_out_what_is_below(bundle: Bundle, nested: str) -> None:
    with open(f"{nested}/below/inner", "w"):
        pass
    bundle.mount("/data", "bind", nested, "bind")
    assert bundle.sh("ls /data/below").out == ""


def test_tmpfs(bundle: Bundle) -> None:
    bundle.mount("/scratch", "tmpfs", "tmpfs", "nosuid", "noexec", "size=64k", "mode=1777")
    got = bundle.sh("stat -c %a /scratch; df -k /scratch | tail -1; grep /scratch /proc/mounts")
    assert got.lines[0] == "1777"
    assert got.lines[1].split()[1] == "64"
    assert "noexec" in got.lines[2]


def test_tmpfs_copies_what_it_covers(bundle: Bundle) -> None:
    os.makedirs(f"{bundle.path}/upper/seed/inner")
    with open(f"{bundle.path}/upper/seed/inner/file", "w") as file:
        file.write("kept")
    os.chown(f"{bundle.path}/upper/seed/inner/file", 1000, 1000)
    os.symlink("inner/file", f"{bundle.path}/upper/seed/link")
    bundle.mount("/seed", "tmpfs", "tmpfs", "tmpcopyup")
    got = bundle.sh("cat /seed/link; stat -c ' %u %a' /seed/inner/file")
    assert got.out == "kept 1000 644\n"


def test_propagation(bundle: Bundle, source: str) -> None:
    """rslave: what the machine mounts later is seen; what the container mounts stays inside."""
    subprocess.run(["mount", "--bind", source, source], check=True)
    try:
        subprocess.run(["mount", "--make-rshared", source], check=True)
        os.mkdir(f"{source}/later")
        bundle.mount("/data", "bind", source, "rbind", "rslave")
        container = bundle.start("sleep", "1000")
        subprocess.run(["mount", "-t", "tmpfs", "none", f"{source}/later"], check=True)
        try:
            with open(f"{source}/later/seen", "w"):
                pass
            assert bundle.execute(container, "ls", "/data/later").out == "seen\n"
        finally:
            subprocess.run(["umount", f"{source}/later"], check=True)
        assert bundle.execute(container, "ls", "/data/later").out == ""
    finally:
        subprocess.run(["umount", "-l", source], check=True)


def test_container_mounts_stay_inside(bundle: Bundle) -> None:
    before = _mount_count()
    kinds = ("bounding", "effective", "permitted")
    bundle.process["capabilities"] = {kind: ["CAP_SYS_ADMIN"] for kind in kinds}
    container = bundle.start("sh", "-c", "mount -t tmpfs none /tmp; sleep 1000")
    assert container.pid
    assert _mount_count() == before


def _mount_count() -> int:
    with open("/proc/self/mountinfo") as file:
        return len(file.readlines())


def test_shared_root_propagation(bundle: Bundle) -> None:
    bundle.linux["rootfsPropagation"] = "rshared"
    assert "shared:" in bundle.sh("grep ' / / ' /proc/self/mountinfo").out


@pytest.mark.parametrize("readonly", [True, False])
def test_root(bundle: Bundle, readonly: bool) -> None:
    bundle.config["root"]["readonly"] = readonly
    got = bundle.sh("touch /made && echo made; touch /dev/shm/made && echo shm")
    assert got.lines == (["shm"] if readonly else ["made", "shm"])


def test_root_without_a_layer(bundle: Bundle, lower: str) -> None:
    """A rootfs that is a plain directory: bound on itself, its changes stay."""
    subprocess.run(["cp", "-a", f"{lower}/.", f"{bundle.path}/rootfs"], check=True)
    assert bundle.sh("touch /stays", rootfs_mounts=()).code == 0
    assert os.path.exists(f"{bundle.path}/rootfs/stays")


def test_without_pivot_root(bundle: Bundle) -> None:
    got = bundle.sh("ls /bin/busybox; ls -d /proc/1", no_pivot=True)
    assert got.lines == ["/bin/busybox", "/proc/1"]


def test_masked_and_readonly_paths(bundle: Bundle) -> None:
    bundle.linux["maskedPaths"] = ["/proc/keys", "/proc/acpi", "/etc/group", "/usr", "/nosuch/path"]
    bundle.linux["readonlyPaths"] = ["/proc/sys", "/home", "/nosuch"]
    got = bundle.sh(
        "cat /etc/group /proc/keys; ls /usr /proc/acpi; touch /home/x || echo home;"
        " touch /usr/x || echo usr; chmod 600 /etc/group || echo mode"
    )
    assert got.lines == ["/proc/acpi:", "", "/usr:", "home", "usr", "mode"]
    assert os.stat("/dev/null").st_mode & 0o777 == 0o666


def test_default_devices(bundle: Bundle) -> None:
    names = "null zero full random urandom tty"
    got = bundle.sh(
        f"cd /dev; for d in {names}; do stat -c '%n %t:%T %a %F' $d; done; ls -l ptmx fd"
    )
    assert got.lines[:6] == [
        "null 1:3 666 character special file",
        "zero 1:5 666 character special file",
        "full 1:7 666 character special file",
        "random 1:8 666 character special file",
        "urandom 1:9 666 character special file",
        "tty 5:0 666 character special file",
    ]
    assert "pts/ptmx" in got.out
    assert "/proc/self/fd" in got.out


def test_listed_devices(bundle: Bundle) -> None:
    bundle.linux["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5},
        {"path": "/elsewhere/pipe", "type": "p"},
        {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600},
    ]
    got = bundle.sh(
        "stat -c '%n %a %u %t:%T' /dev/fuse /dev/zero; test -p /elsewhere/pipe && echo pipe"
    )
    assert got.lines == ["/dev/fuse 640 5 a:e5", "/dev/zero 600 0 1:5", "pipe"]


def _idmapped(bundle: Bundle, script: str) -> Any:
    try:
        return bundle.sh(script)
    except RuntimeFailure as failure:
        if "has no idmapped mounts" not in failure.message:
            raise
        pytest.skip(failure.message)


def test_idmapped_mount(bundle: Bundle, source: str) -> None:
    """Files of the machine's root appear as user 1000's, and what user 1000 makes is root's."""
    row = {"containerID": 0, "hostID": 1000, "size": 1}
    bundle.mount("/data", "bind", source, "bind", uidMappings=[row], gidMappings=[row])
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    got = _idmapped(bundle, "stat -c %u:%g /data/file; echo x > /data/made")
    assert got.out == "1000:1000\n"
    assert os.stat(f"{source}/made").st_uid == 0


def test_idmapped_mount_in_a_user_namespace(bundle: Bundle, source: str) -> None:
    """The option idmap alone takes the container's own mapping."""
    bundle.map_ids()
    bundle.mount("/data", "bind", source, "rbind", "ridmap")
    got = _idmapped(bundle, "stat -c %u:%g /data/file; echo x > /data/made")
    assert got.out == "0:0\n", got
    assert os.stat(f"{source}/made").st_uid == 0


def test_bind_source_that_the_mapped_root_cannot_reach(bundle: Bundle, source: str) -> None:
    os.chmod(source, 0o700)
    os.chmod(f"{source}/file", 0o644)
    bundle.map_ids()
    bundle.mount("/given", "bind", f"{source}/file", "bind", "ro")
    assert bundle.run("cat", "/given").out == "content\n"


def test_cgroup_mount_shows_the_own_cgroup_only(bundle: Bundle) -> None:
    got = bundle.sh("find /sys/fs/cgroup -name cgroup.procs | head -3; mount | grep -c cgroup")
    assert got.lines
    inside = bundle.sh(
        "cat $(find /sys/fs/cgroup -name cgroup.procs | head -1); touch /sys/fs/cgroup/x"
    )
    assert inside.lines[0] == "1"
    assert "Read-only" in inside.err


def test_cgroup_mount_without_a_cgroup_namespace(bundle: Bundle) -> None:
    bundle.share("cgroup")
    got = bundle.sh("cat $(find /sys/fs/cgroup -name cgroup.procs | head -1)")
    assert got.lines[0] == "1"


# -- images that attack ------------------------------------------------------------------------


def test_mount_target_behind_a_link_out(bundle: Bundle, source: str) -> None:
    """A link to / or through .. is followed inside the image: nothing is made on the machine."""
    os.symlink("/../../../../../escape", f"{bundle.path}/upper/out")
    os.symlink("../../../../../../../tmp", f"{bundle.path}/upper/up")
    bundle.mount("/out/made", "bind", source, "bind")
    bundle.mount(f"/up/{bundle.name}", "bind", source, "bind")
    assert bundle.sh(f"cat /escape/made/file /tmp/{bundle.name}/file").out == "content\n" * 2
    assert not os.path.exists("/escape")
    assert not os.path.exists(f"/tmp/{bundle.name}")


def test_proc_that_is_a_link(bundle: Bundle) -> None:
    """See CVE-2019-19921."""
    os.symlink("/etc", f"{bundle.path}/upper/sys")
    with pytest.raises(RuntimeFailure, match="must be mounted on ordinary directory"):
        bundle.create("true")


def test_mount_over_proc(bundle: Bundle, source: str) -> None:
    bundle.mount("/proc/self/attr", "bind", source, "bind")
    with pytest.raises(RuntimeFailure, match="inside /proc"):
        bundle.create("true")


@pytest.mark.parametrize(
    ("where", "kind"),
    [("/link/sys", "bind"), ("/link/1/attr", "bind"), ("/link", "bind"), ("/link", "tmpfs")],
)
def test_mount_over_proc_by_a_link(bundle: Bundle, source: str, where: str, kind: str) -> None:
    """The image has a link to /proc where a volume is to be; see CVE-2023-27561."""
    os.symlink("/proc", f"{bundle.path}/upper/link")
    bundle.mount(where, kind, source, *(["bind"] if kind == "bind" else []))
    with pytest.raises(RuntimeFailure, match="inside /proc"):
        bundle.create("true")


def test_over_proc_itself_only_another_proc(bundle: Bundle, source: str) -> None:
    bundle.config["mounts"] = [
        row for row in bundle.config["mounts"] if row["destination"] != "/proc"
    ]
    bundle.mount("/proc", "bind", "/proc", "rbind")
    assert bundle.sh("cat /proc/uptime").code == 0
    bundle.config["mounts"][-1]["source"] = source
    with pytest.raises(RuntimeFailure, match="not of type proc"):
        bundle.create("true")


def test_dev_null_that_is_something_else(bundle: Bundle) -> None:
    """With the image's own /dev a masked path is still covered by the real null device."""
    bundle.config["mounts"] = [
        row for row in bundle.config["mounts"] if not row["destination"].startswith("/dev")
    ]
    os.makedirs(f"{bundle.path}/upper/dev")
    os.symlink("/etc/passwd", f"{bundle.path}/upper/dev/null")
    bundle.linux["maskedPaths"] = ["/etc/group"]
    with pytest.raises(RuntimeFailure, match="another file exists there"):
        bundle.create("true")


def test_working_directory_outside(bundle: Bundle) -> None:
    """See CVE-2024-21626: a descriptor of the machine is no way to a working directory."""
    keep = os.open("/", os.O_RDONLY)
    os.set_inheritable(keep, True)
    bundle.process["cwd"] = f"/proc/self/fd/{keep}"
    try:
        with pytest.raises(RuntimeFailure):
            bundle.create("true")
    finally:
        os.close(keep)


def test_program_cannot_reach_the_interpreter(bundle: Bundle) -> None:
    """A script whose interpreter is /proc/self/exe runs nothing of ours; see CVE-2019-5736."""
    path = f"{bundle.path}/upper/evil"
    with open(path, "w") as file:
        file.write("#!/proc/self/exe\n")
    os.chmod(path, 0o755)
    mode = stat.S_IMODE(os.stat("/usr/bin/python3").st_mode)
    container = bundle.create("/evil")
    try:
        container.start()
    except RuntimeFailure:
        bundle.running.clear()
    else:
        assert bundle.end(container) != 0
    assert stat.S_IMODE(os.stat("/usr/bin/python3").st_mode) == mode
