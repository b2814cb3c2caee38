"""Control groups: v1, v2 and the hybrid layout behind one interface; see cgroups(7).

`manager.open_cgroup` is the door; `base.Cgroup` is what it gives. `layout` knows what is mounted,
`v1` and `v2` perform, `v1_resources` and `v2_resources` translate OCI resources without I/O,
`devices` holds device rules, `stats` what is read back, `scope` asks systemd for a scope.
"""
