"""What the guest has promised, step by step, and what a cut may therefore leave.

A tag is in one state when the last step that touched it was announced as done, and in one of two while a step is under
way: as before, or as after. A state is the version that the tag shows, or None where there is no such tag. The bytes of
a pull that was cut are remembered too, so that what is fetched a second time can be told.
"""
from collections import namedtuple

from images import VERSIONS

MOVING = "live"  # a tag that shows one version after the other
TAGS = VERSIONS + (MOVING,)
# version: what a pull brings.
Step = namedtuple("Step", "verb tag version")
# How often each verb is chosen, of those that make sense.
WEIGHTS = {"pull": 6, "remove": 3, "run": 1, "prune": 1}
STEPS = 12  # more than a machine gets done before its cut


class Ledger:
    def __init__(self):
        self.may_be = {tag: {None} for tag in TAGS}
        self.interrupted = None  # the step that was cut; it is the first of the next boot
        self.fetched = {}  # if that is a pull: digest -> spans of bytes that had reached the guest

    def begin(self, step):
        if step.verb in ("pull", "remove"):
            self.may_be[step.tag] = self.may_be[step.tag] | {step.version}

    def done(self, step):
        if step.verb in ("pull", "remove"):
            self.may_be[step.tag] = {step.version}

    def observe(self, found):
        """What a boot found, {tag: version}; returns what is wrong with it, a line each."""
        wrong = []
        for tag, allowed in self.may_be.items():
            state = found.pop(tag, None)
            if state not in allowed:
                wrong.append("tag %s: is %s, must be %s" % (tag, state, " or ".join(map(str, allowed))))
            self.may_be[tag] = {state}
        return wrong + ["tag %s: nobody made it" % tag for tag in found]

    def plan(self, chance):
        """The steps of the next boot, by a random.Random. The step that was cut is taken up first."""
        state = {tag: next(iter(states)) if len(states) == 1 else None for tag, states in self.may_be.items()}
        steps = [self.interrupted] if self.interrupted else []
        while len(steps) < STEPS:
            for step in steps[-1:]:
                if step.verb in ("pull", "remove"):
                    state[step.tag] = step.version
            verb = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            steps.extend(choose(verb, state, chance))
        return steps

    def cut(self, number, step, transfers):
        """The boot ended during its step `number`, or after it if `step` is None; -1: before it began one. Returns
        {digest: bytes fetched again} if it had taken up a pull that was cut before."""
        if number < 0:
            return {}
        again = {digest: overlap(spans, spans_of(transfers, 0, digest)) for digest, spans in self.fetched.items()}
        fetched = {}
        if step and step.verb == "pull":
            if number == 0:
                fetched.update(self.fetched)
            for digest in {transfer.digest for transfer in transfers if transfer.step == number}:
                fetched[digest] = fetched.get(digest, []) + spans_of(transfers, number, digest)
        self.interrupted, self.fetched = step, fetched
        return again


def choose(verb, state, chance):
    """A step of that kind that makes sense in that state, or none, as a list."""
    here = [tag for tag in TAGS if state[tag]]
    if verb == "pull":
        tag = chance.choice([tag for tag in TAGS if tag == MOVING or not state[tag]])
        version = chance.choice([v for v in VERSIONS if v != state[tag]]) if tag == MOVING else tag
        return [Step("pull", tag, version)]
    if verb == "remove" and len(here) > 1:
        return [Step("remove", chance.choice(here), None)]
    if verb == "run" and here:
        return [Step("run", chance.choice(here), None)]
    return [Step("prune", "", None)] if verb == "prune" else []


def spans_of(transfers, step, digest):
    return [(t.start, t.end) for t in transfers if t.step == step and t.digest == digest]


def overlap(first, second):
    """How many bytes of `second` are in `first` too; what is twice in `second` counts twice."""
    return sum(max(0, min(end, merged_end) - max(start, merged_start))
               for merged_start, merged_end in merged(first) for start, end in second)


def merged(spans):
    result = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1][1] = max(result[-1][1], end)
        else:
            result.append([start, end])
    return result
