"""What several tasks share is worked out by one of them."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.sweep.schedule import Schedule


@dataclass(frozen=True)
class Job:
    key: str
    stages: tuple[str, ...] = ()


def started(schedule: Schedule[Job]) -> list[str]:
    found = []
    while (job := schedule.next()) is not None:
        found.append(job.key)
    return found


A = [Job(f"a{n}", ("sa", "ca")) for n in range(3)]
B = [Job(f"b{n}", ("sa", "cb")) for n in range(2)]
C = [Job("c0", ("sc",)), Job("free")]


def test_one_works_out_what_the_others_wait_for() -> None:
    schedule: Schedule[Job] = Schedule()
    schedule.add([*A, *B, *C])
    assert started(schedule) == ["a0", "c0", "free"]
    assert len(schedule) == 4
    schedule.over(A[0], done=True)
    assert started(schedule) == ["a1", "a2", "b0"]  # b1 waits for what b0 alone works out
    schedule.over(B[0], done=True)
    assert started(schedule) == ["b1"]
    assert len(schedule) == 0


def test_where_it_fails_the_next_one_does_it() -> None:
    schedule: Schedule[Job] = Schedule()
    schedule.add(A)
    assert started(schedule) == ["a0"]
    schedule.over(A[0], done=False)
    assert started(schedule) == ["a1"]
    schedule.add([A[0]])  # it is tried again
    assert started(schedule) == []
    schedule.over(A[1], done=True)
    assert started(schedule) == ["a2", "a0"]


def test_each_task_is_looked_at_a_few_times() -> None:
    looks = 0

    class Counted(Job):
        def __getattribute__(self, name: str) -> object:
            nonlocal looks
            looks += name == "stages"
            return super().__getattribute__(name)

    jobs = [Counted(f"{family}-{n}", (f"s{family}", f"c{family}")) for family in range(20) for n in range(50)]
    schedule: Schedule[Job] = Schedule()
    schedule.add(jobs)
    over = 0
    while (job := schedule.next()) is not None or len(schedule):
        assert job is not None
        schedule.over(job, done=True)
        over += 1
    assert over == len(jobs)
    assert looks <= 5 * len(jobs)
