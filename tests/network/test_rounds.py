"""Photographs that several processes grade together."""

from contextlib import nullcontext
from dataclasses import dataclass, field

from dr_cli.network.rounds import in_rounds
from dr_cli.ranks import Ranks


@dataclass(frozen=True)
class First(Ranks):
    """The first of two processes; the second one's part is as long. What it does is noted."""

    did: list[str] = field(default_factory=list)

    def joined(self, *_):
        return nullcontext()

    def from_first(self, work):
        return work()

    def wait(self):
        self.did.append("wait")

    def gather(self, value):
        self.did.append("gather")
        return [value, ["theirs"] * len(value)]


def test_a_share_that_takes_long_is_waited_for_before_what_was_found_is_told():
    """What they tell each other must come within --rank-timeout, which `predict` does not have."""
    ranks = First(0, 2, 0, 2)
    found = list(in_rounds(lambda own: [f"{one}!" for one in own], "abcd", 1, ranks))
    assert found == ["a!", "b!", "theirs", "theirs"]
    assert ranks.did == ["wait", "gather"]
