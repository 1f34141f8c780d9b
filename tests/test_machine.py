"""What this process may use: cores and memory, bounded by its container."""

import pytest

from dr_cli import machine


@pytest.mark.parametrize(("quota", "cores"), [("100000 100000", 1), ("50000 100000", 1)])
def test_a_containers_quota_bounds_the_cores(monkeypatch, quota, cores):
    monkeypatch.setattr(machine, "_cgroup", lambda name: quota)
    assert machine.cores() == cores


def test_without_a_quota_the_cores_are_those_that_the_process_may_run_on(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    monkeypatch.setattr(machine, "_cgroup", lambda name: "max 100000")
    assert machine.cores() == 3
    monkeypatch.setattr(machine, "_cgroup", lambda name: "")
    assert machine.cores() == 3


def test_free_memory_is_the_machines_or_the_containers(monkeypatch):
    limits = {"memory.max": "5000", "memory.current": "2000"}
    monkeypatch.setattr(machine, "_available", lambda: 8_000)
    monkeypatch.setattr(machine, "_cgroup", lambda name: limits.get(name, ""))
    assert machine.free_memory() == 3_000
    limits["memory.max"] = "max"
    assert machine.free_memory() == 8_000
    limits["memory.max"] = "1000"  # more is used than the limit that was set since
    assert machine.free_memory() == 0


@pytest.mark.parametrize(
    ("text", "ran_out"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", True),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to …", True),
        ("unable to mmap 44766204 bytes from file <…>: Cannot allocate memory (12)", True),
        ("could not create a primitive", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_memory_that_ran_out_is_known_by_what_each_library_says(text, ran_out):
    assert machine.out_of_memory(RuntimeError(text)) == ran_out
    assert machine.out_of_memory(MemoryError())
