"""Small classes with state: counters, queues, rate limits, registries, logs, meters and permissions."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Annotated

from examples.train_mini.kinds import Digit, Draw, Flag, between, choice, list_of

KEY: Draw = choice("a", "b", "c")
TWO: Draw = choice("a", "b")
USER: Draw = choice("ada", "bo", "cy")
TASK: Draw = choice("copy", "scan", "mail")
NOW: Draw = between(0, 20)
PATH: Draw = choice("/", "/a", "/a/b", "/a/b/c", "/b", "/ab")


class ClampedCounter:
    """A counter that stays between 0 and a top, and remembers how often it hit the top."""

    def __init__(self, top: Annotated[int, between(1, 6)]) -> None:
        self.top = top
        self.value = 0
        self.overflows = 0

    def up(self, by: Annotated[int, between(1, 4)] = 1) -> None:
        """Count up."""
        self.value += by
        if self.value > self.top:
            self.value = self.top
            self.overflows += 1

    def down(self) -> None:
        """Count down by one."""
        if self.value > 0:
            self.value -= 1

    def read(self) -> tuple[int, int]:
        """Return the value and the number of overflows."""
        return self.value, self.overflows


class HitTable:
    """Counts hits by key, with a total."""

    def __init__(self) -> None:
        self.hits: dict[str, int] = {}

    def hit(self, key: Annotated[str, KEY], times: Annotated[int, between(1, 3)] = 1) -> None:
        """Count hits of a key."""
        self.hits[key] = self.hits.get(key, 0) + times

    def forget(self, key: Annotated[str, KEY]) -> None:
        """Drop a key."""
        self.hits.pop(key, None)

    def share(self, key: Annotated[str, KEY]) -> int:
        """Return the percentage of all hits that a key has."""
        total = sum(self.hits.values())
        return self.hits.get(key, 0) * 100 // total if total else 0

    def favourite(self) -> str | None:
        """Return the key with most hits."""
        return max(self.hits, key=lambda key: (self.hits[key], key), default=None)


class PrintQueue:
    """Jobs by priority, and in order of arrival within one priority."""

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, str]] = []
        self.arrived = 0

    def submit(self, job: Annotated[str, TASK], priority: Annotated[int, between(0, 2)] = 0) -> None:
        """Add a job; higher priorities go first."""
        heapq.heappush(self.heap, (-priority, self.arrived, job))
        self.arrived += 1

    def next_job(self) -> str | None:
        """Take the next job out."""
        return heapq.heappop(self.heap)[2] if self.heap else None

    def waiting(self, priority: Annotated[int, between(0, 2)]) -> int:
        """Count the jobs with at least a priority."""
        return sum(1 for negative, _, _ in self.heap if -negative >= priority)


class TicketDispenser:
    """Numbers for people who wait at a counter."""

    def __init__(self, last: Annotated[int, between(2, 5)] = 3) -> None:
        self.last = last
        self.number = 0
        self.waiting: list[int] = []

    def draw(self) -> int:
        """Hand out the next number; after the last one they start at 1 again."""
        self.number = self.number % self.last + 1
        self.waiting.append(self.number)
        return self.number

    def serve(self) -> int | None:
        """Call the number that waits longest."""
        return self.waiting.pop(0) if self.waiting else None

    def ahead_of(self, number: Annotated[int, between(1, 4)]) -> int:
        """Count the people before a number, or all if it does not wait."""
        if number in self.waiting:
            return self.waiting.index(number)
        return len(self.waiting)


class WindowLimiter:
    """Allows some calls in each window of time of fixed length."""

    def __init__(
        self, limit: Annotated[int, between(1, 3)], window: Annotated[int, between(3, 10)] = 5
    ) -> None:
        self.limit = limit
        self.window = window
        self.current = -1
        self.used = 0

    def allow(self, now: Annotated[int, between(0, 12)]) -> bool:
        """Count a call and tell whether it is allowed."""
        index = now // self.window
        if index != self.current:
            self.current = index
            self.used = 0
        if self.used >= self.limit:
            return False
        self.used += 1
        return True

    def left(self) -> int:
        """Return how many calls the window still allows."""
        return self.limit - self.used


class TokenBucket:
    """Tokens that refill over time up to a capacity."""

    def __init__(
        self, capacity: Annotated[int, between(2, 8)], rate: Annotated[int, between(1, 3)] = 1
    ) -> None:
        self.capacity = capacity
        self.rate = rate
        self.tokens = capacity

    def wait(self, seconds: Annotated[int, between(1, 5)]) -> None:
        """Let time pass."""
        self.tokens = min(self.capacity, self.tokens + seconds * self.rate)

    def take(self, amount: Annotated[int, between(1, 5)] = 1) -> bool:
        """Use tokens if enough are there."""
        if amount > self.tokens:
            return False
        self.tokens -= amount
        return True

    def seconds_until(self, amount: Annotated[int, between(1, 8)]) -> int:
        """Return the time until an amount is there."""
        missing = max(0, amount - self.tokens)
        return (missing + self.rate - 1) // self.rate


class Cooldowns:
    """Actions that can be repeated only after a pause."""

    def __init__(self, pause: Annotated[int, between(2, 9)]) -> None:
        self.pause = pause
        self.ready_at: dict[str, int] = {}

    def use(self, action: Annotated[str, TWO], now: Annotated[int, NOW]) -> bool:
        """Use an action if it is ready."""
        if now < self.ready_at.get(action, 0):
            return False
        self.ready_at[action] = now + self.pause
        return True

    def remaining(self, action: Annotated[str, TWO], now: Annotated[int, NOW]) -> int:
        """Return the time until an action is ready."""
        return max(0, self.ready_at.get(action, now) - now)


class NameRegistry:
    """Values by name, with other names that point to names."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.aliases: dict[str, str] = {}

    def register(self, name: Annotated[str, TWO], value: Digit) -> None:
        """Store a value, under the real name if the name is another name for it."""
        self.values[self.aliases.get(name, name)] = value

    def alias(self, new: Annotated[str, TWO], name: Annotated[str, TWO]) -> None:
        """Make a name point to a registered one; registered names stay what they are."""
        if name in self.values and new not in self.values:
            self.aliases[new] = name

    def lookup(self, name: Annotated[str, TWO]) -> int | None:
        """Return the value of a name."""
        return self.values.get(self.aliases.get(name, name))


class EventLog:
    """Messages with a level; old ones are dropped when the log is full."""

    LEVELS = ("debug", "info", "error")

    def __init__(self, capacity: Annotated[int, between(1, 4)] = 3) -> None:
        self.capacity = capacity
        self.entries: list[tuple[int, str]] = []
        self.dropped = 0

    def write(
        self, level: Annotated[str, choice("debug", "info", "error", "trace")], text: Annotated[str, TASK]
    ) -> None:
        """Add a message if its level is known."""
        if level not in self.LEVELS:
            return
        self.entries.append((self.LEVELS.index(level), text))
        if len(self.entries) > self.capacity:
            self.entries.pop(0)
            self.dropped += 1

    def read(self, level: Annotated[str, choice("debug", "info", "error")] = "debug") -> list[str]:
        """Return the messages of at least a level."""
        wanted = self.LEVELS.index(level)
        return [text for rank, text in self.entries if rank >= wanted]

    def lost(self) -> int:
        """Count the dropped messages."""
        return self.dropped


class RepeatLog:
    """A log that joins equal messages which follow each other."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []

    def write(self, text: Annotated[str, choice("up", "up", "down")]) -> None:
        """Add a message."""
        if self.lines and self.lines[-1][0] == text:
            self.lines[-1] = (text, self.lines[-1][1] + 1)
        else:
            self.lines.append((text, 1))

    def show(self, last: Annotated[int, between(1, 4)] = 3) -> str:
        """Return the last lines, repeated ones with their number."""
        return ", ".join(text if n == 1 else f"{text} x{n}" for text, n in self.lines[-last:])

    def longest(self) -> int:
        """Return the highest number of repeats."""
        return max((n for _, n in self.lines), default=0)


class FuelTank:
    """Fuel of a car that uses a fixed amount per distance."""

    def __init__(
        self, capacity: Annotated[int, between(20, 60)], per_100_km: Annotated[int, between(4, 12)] = 8
    ) -> None:
        self.capacity = capacity
        self.per_100_km = per_100_km
        self.fuel = 0
        self.driven = 0

    def fill(self, liters: Annotated[int, between(1, 50)]) -> None:
        """Fill up; what does not fit is not taken."""
        self.fuel = min(self.capacity, self.fuel + liters)

    def drive(self, km: Annotated[int, choice(25, 50, 100, 200, 400)]) -> bool:
        """Drive if the fuel is enough, using whole liters rounded up."""
        needed = -(-km * self.per_100_km // 100)
        if needed > self.fuel:
            return False
        self.fuel -= needed
        self.driven += km
        return True

    def reach(self) -> int:
        """Return how many km the fuel lasts."""
        return self.fuel * 100 // self.per_100_km


class TripMeter:
    """Distance in total and since the last reset, where the display has few digits."""

    def __init__(self, digits: Annotated[int, between(1, 2)] = 2) -> None:
        self.modulus = 10**digits
        self.total = 0
        self.mark = 0

    def advance(self, distance: Annotated[int, between(1, 60)]) -> None:
        """Add a distance."""
        self.total += distance

    def reset(self) -> None:
        """Begin a new trip."""
        self.mark = self.total

    def trip(self) -> int:
        """Return the distance of this trip."""
        return self.total - self.mark

    def display(self) -> str:
        """Return the digits of the total that the display can show, with zeros in front."""
        return str(self.total % self.modulus).zfill(len(str(self.modulus)) - 1)


class SizedStore:
    """Keeps named files of some size; the oldest go when the space is used up."""

    def __init__(self, space: Annotated[int, between(5, 12)]) -> None:
        self.space = space
        self.sizes: dict[str, int] = {}

    def put(self, name: Annotated[str, KEY], size: Annotated[int, between(1, 8)]) -> None:
        """Store a file as the newest one; files larger than the space are not stored."""
        if size > self.space:
            return
        self.sizes.pop(name, None)
        while self.used() + size > self.space:
            oldest = next(iter(self.sizes))
            del self.sizes[oldest]
        self.sizes[name] = size

    def used(self) -> int:
        """Return the space in use."""
        return sum(self.sizes.values())

    def names(self) -> str:
        """Return the names from the oldest to the newest."""
        return "".join(self.sizes)


class PermissionTable:
    """Actions that users may do; "all" stands for every action."""

    def __init__(self) -> None:
        self.granted: dict[str, set[str]] = {}

    def grant(
        self, user: Annotated[str, USER], action: Annotated[str, choice("read", "edit", "all")]
    ) -> None:
        """Allow an action."""
        self.granted.setdefault(user, set()).add(action)

    def revoke(
        self, user: Annotated[str, USER], action: Annotated[str, choice("read", "edit", "all")]
    ) -> None:
        """Take a permission back; revoking "all" takes everything."""
        if action == "all":
            self.granted.pop(user, None)
        elif user in self.granted:
            self.granted[user].discard(action)

    def users_with(self, action: Annotated[str, choice("read", "edit")]) -> list[str]:
        """Name the users who may do an action."""
        return sorted(user for user, actions in self.granted.items() if {action, "all"} & actions)

    def level(self, user: Annotated[str, USER]) -> int:
        """Return 2 for users with all permissions, else 1 for users with any, else 0."""
        actions = self.granted.get(user, set())
        return 2 if "all" in actions or {"read", "edit"} <= actions else min(1, len(actions))


class RoleTree:
    """Roles that inherit the rights of other roles."""

    def __init__(self) -> None:
        self.rights: dict[str, int] = {}
        self.parents: dict[str, str] = {}

    def give(self, role: Annotated[str, KEY], bits: Annotated[int, between(1, 7)]) -> None:
        """Give a role rights, one bit each."""
        self.rights[role] = self.rights.get(role, 0) | bits

    def inherit(self, role: Annotated[str, TWO], parent: Annotated[str, choice("b", "c")]) -> None:
        """Let a role have the rights of a later role in the alphabet too."""
        if parent > role:
            self.parents[role] = parent

    def effective(self, role: Annotated[str, KEY]) -> int:
        """Return all rights of a role."""
        bits = self.rights.get(role, 0)
        while role in self.parents:
            role = self.parents[role]
            bits |= self.rights.get(role, 0)
        return bits

    def may(self, role: Annotated[str, KEY], bits: Annotated[int, choice(1, 2, 3, 4)]) -> bool:
        """Tell whether a role has all of some rights."""
        return self.effective(role) & bits == bits


class Backoff:
    """Waiting times that double after failures."""

    def __init__(
        self, first: Annotated[int, between(1, 4)], longest: Annotated[int, between(5, 20)] = 10
    ) -> None:
        self.first = first
        self.longest = longest
        self.failures = 0
        self.waited = 0

    def fail(self) -> None:
        """Wait and note a failure."""
        self.waited += self.delay()
        self.failures += 1

    def succeed(self) -> None:
        """Start over with short waits."""
        self.failures = 0

    def delay(self) -> int:
        """Return the next waiting time."""
        return min(self.longest, self.first * 2**self.failures)

    def total(self) -> int:
        """Return the time waited so far."""
        return self.waited


class Breaker:
    """Opens after failures in a row and closes after some time."""

    def __init__(
        self, limit: Annotated[int, between(1, 2)], pause: Annotated[int, between(3, 7)] = 4
    ) -> None:
        self.limit = limit
        self.pause = pause
        self.failures = 0
        self.opened: int | None = None

    def report(
        self, good: Annotated[bool, choice(False, False, False, True)], now: Annotated[int, between(0, 9)]
    ) -> None:
        """Note how a call went."""
        if good:
            self.failures = 0
            self.opened = None
            return
        self.failures += 1
        if self.failures >= self.limit:
            self.opened = now

    def state(self, now: Annotated[int, between(3, 12)]) -> str:
        """Describe whether calls are possible."""
        if self.opened is None:
            return "closed"
        return "open" if now - self.opened < self.pause else "trial"


class LeaseLock:
    """A lock that its owner holds for a limited time."""

    def __init__(self, length: Annotated[int, between(2, 8)] = 5) -> None:
        self.length = length
        self.owner: str | None = None
        self.until = 0

    def acquire(self, owner: Annotated[str, TWO], now: Annotated[int, between(0, 12)]) -> bool:
        """Take or renew the lock if it is free, expired or one's own."""
        if self.owner not in (None, owner) and now < self.until:
            return False
        self.owner = owner
        self.until = now + self.length
        return True

    def release(self, owner: Annotated[str, TWO]) -> None:
        """Give the lock back; only its owner can."""
        if owner == self.owner:
            self.owner = None

    def holder(self, now: Annotated[int, between(3, 15)]) -> str | None:
        """Name who holds the lock."""
        return self.owner if now < self.until else None


class SlotPool:
    """Numbered slots of which the lowest free one is handed out."""

    def __init__(self, size: Annotated[int, between(1, 4)]) -> None:
        self.taken = [False] * size

    def claim(self) -> int:
        """Take the lowest free slot, or return -1."""
        for i, taken in enumerate(self.taken):
            if not taken:
                self.taken[i] = True
                return i
        return -1

    def release(self, slot: Annotated[int, between(0, 3)]) -> None:
        """Free a slot if it exists."""
        if slot < len(self.taken):
            self.taken[slot] = False

    def occupy(self, slot: Annotated[int, between(0, 3)]) -> None:
        """Take a certain slot; numbers that are too large go round."""
        self.taken[slot % len(self.taken)] = True

    def free(self) -> int:
        """Count free slots."""
        return self.taken.count(False)


class UndoText:
    """A text with steps that can be undone and done again."""

    def __init__(self, text: Annotated[str, choice("", "ab", "x")] = "") -> None:
        self.text = text
        self.past: list[str] = []
        self.future: list[str] = []

    def append(self, piece: Annotated[str, choice("a", "bc", "d")]) -> None:
        """Add a piece at the end."""
        self.past.append(self.text)
        self.future.clear()
        self.text += piece

    def undo(self) -> None:
        """Take the last step back."""
        if self.past:
            self.future.append(self.text)
            self.text = self.past.pop()

    def redo(self) -> bool:
        """Do a step again that was taken back."""
        if not self.future:
            return False
        self.past.append(self.text)
        self.text = self.future.pop()
        return True

    def content(self) -> str:
        """Return the text."""
        return self.text


class FeatureFlags:
    """Features that are on for a percentage of users, or for named users."""

    def __init__(self, percent: Annotated[int, between(0, 100)] = 50) -> None:
        self.percent = percent
        self.forced: dict[int, bool] = {}

    def force(self, user: Annotated[int, between(1, 4)], enabled: Flag = True) -> None:
        """Turn the feature on or off for one user."""
        self.forced[user] = enabled

    def widen(self, step: Annotated[int, between(5, 40)]) -> None:
        """Raise the percentage."""
        self.percent = min(100, self.percent + step)

    def enabled(self, user: Annotated[int, between(1, 5)]) -> bool:
        """Tell whether a user has the feature."""
        return self.forced.get(user, user * 37 % 100 < self.percent)

    def reached(self) -> int:
        """Count the users from 1 to 10 who have the feature."""
        return sum(self.enabled(user) for user in range(1, 11))


class HealthMonitor:
    """A service is down after some failed checks in a row and up again after two good ones."""

    def __init__(self, limit: Annotated[int, between(1, 3)] = 2) -> None:
        self.limit = limit
        self.up = True
        self.streak = 0
        self.outages = 0

    def check(self, good: Annotated[bool, choice(False, False, True)]) -> None:
        """Note a check; those that agree with the state end a streak."""
        if good == self.up:
            self.streak = 0
            return
        self.streak += 1
        if self.streak >= (self.limit if self.up else 2):
            self.up = not self.up
            self.streak = 0
            self.outages += not self.up

    def status(self) -> str:
        """Describe the service."""
        return f"{'up' if self.up else 'down'}, {self.outages} outages"

    def shaky(self) -> int:
        """Return the length of the streak against the state."""
        return self.streak


class Heater:
    """Turns on below a target and off above it, with a margin in between."""

    def __init__(
        self, target: Annotated[int, between(18, 22)], margin: Annotated[int, between(1, 3)] = 1
    ) -> None:
        self.target = target
        self.margin = margin
        self.on = False
        self.switched = 0

    def measure(self, degrees: Annotated[int, choice(12, 14, 15, 17, 19, 21, 24, 25, 27)]) -> None:
        """Take a measurement and switch if needed."""
        if not self.on and degrees < self.target - self.margin:
            self.on = True
            self.switched += 1
        elif self.on and degrees > self.target + self.margin:
            self.on = False
            self.switched += 1

    def adjust(self, change: Annotated[int, between(-3, 3)]) -> None:
        """Move the target, between 15 and 25 degrees."""
        self.target = max(15, min(25, self.target + change))

    def state(self) -> tuple[str, int]:
        """Return whether the heater is on, and how often it was switched."""
        return "on" if self.on else "off", self.switched


class Turnstile:
    """A gate that opens for coins; one push goes through per coin."""

    def __init__(self, limit: Annotated[int, between(1, 3)] = 2) -> None:
        self.limit = limit
        self.coins = 0
        self.passed = 0
        self.alarms = 0

    def coin(self) -> None:
        """Put in a coin; more than the limit fall through."""
        self.coins = min(self.limit, self.coins + 1)

    def push(self) -> None:
        """Try to go through."""
        if self.coins:
            self.coins -= 1
            self.passed += 1
        else:
            self.alarms += 1

    def report(self) -> str:
        """Describe the day so far."""
        return f"{self.passed} passed, {self.alarms} alarms"

    def is_open(self) -> bool:
        """Tell whether one could go through."""
        return self.coins > 0


class BatchWriter:
    """Collects values and writes them in batches."""

    def __init__(self, size: Annotated[int, between(1, 4)]) -> None:
        self.size = size
        self.pending: list[int] = []
        self.batches: list[int] = []

    def add(self, values: Annotated[list[int], list_of(between(0, 9), 0, 3)]) -> None:
        """Add values; each full batch is written as its sum."""
        for value in values:
            self.pending.append(value)
            if len(self.pending) == self.size:
                self.flush()

    def flush(self) -> None:
        """Write what is pending, if anything is."""
        if self.pending:
            self.batches.append(sum(self.pending))
            self.pending = []

    def written(self) -> list[int]:
        """Return the sums of the written batches."""
        return self.batches

    def waiting(self) -> int:
        """Count the pending values."""
        return len(self.pending)


class Debouncer:
    """Lets a signal through only when it stayed the same for some samples."""

    def __init__(self, needed: Annotated[int, between(1, 3)] = 2) -> None:
        self.needed = needed
        self.stable = 0
        self.candidate = 0
        self.count = 0

    def sample(self, value: Annotated[int, between(0, 2)], times: Annotated[int, between(1, 3)] = 1) -> None:
        """Take the same sample some times."""
        if value != self.candidate:
            self.candidate = value
            self.count = 0
        self.count += times
        if self.count >= self.needed:
            self.stable = value

    def output(self) -> int:
        """Return the stable value."""
        return self.stable

    def settled(self) -> bool:
        """Tell whether the last sample is the stable value."""
        return self.candidate == self.stable


class Poll:
    """One vote per person, which can be changed until the poll is closed."""

    def __init__(self, quorum: Annotated[int, between(1, 3)] = 2) -> None:
        self.quorum = quorum
        self.votes: dict[str, str] = {}
        self.open = True

    def vote(self, person: Annotated[str, USER], option: Annotated[str, choice("yes", "no")]) -> None:
        """Vote, or change the vote."""
        if self.open:
            self.votes[person] = option

    def close(self) -> None:
        """End the poll if enough people voted."""
        if len(self.votes) >= self.quorum:
            self.open = False

    def result(self) -> str:
        """Return the result; a tie is a no."""
        yes = sum(option == "yes" for option in self.votes.values())
        no = len(self.votes) - yes
        text = "yes" if yes > no else "no"
        return f"{text} {yes}:{no}" + (" so far" if self.open else "")


class NewsFeed:
    """Messages by topic, delivered to who follows the topic at that time."""

    def __init__(self) -> None:
        self.followers: dict[str, list[str]] = {}
        self.inbox: dict[str, list[int]] = {}

    def follow(self, user: Annotated[str, TWO], topic: Annotated[str, choice("art", "cars")]) -> None:
        """Follow a topic."""
        users = self.followers.setdefault(topic, [])
        if user not in users:
            users.append(user)

    def post(
        self, topic: Annotated[str, choice("art", "cars")], number: Annotated[int, between(1, 9)]
    ) -> int:
        """Deliver a message and return to how many users."""
        users = self.followers.get(topic, [])
        for user in users:
            self.inbox.setdefault(user, []).append(number)
        return len(users)

    def unfollow(self, user: Annotated[str, TWO]) -> None:
        """Stop following all topics."""
        for users in self.followers.values():
            if user in users:
                users.remove(user)

    def topics(self, user: Annotated[str, TWO]) -> list[str]:
        """Return the topics a user follows."""
        return [topic for topic, users in self.followers.items() if user in users]


class Inbox:
    """Messages that are unread, read or flagged."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []

    def receive(self, sender: Annotated[str, USER]) -> None:
        """Put a new message on top."""
        self.messages.insert(0, (sender, "new"))

    def read(self, index: Annotated[int, between(0, 2)] = 0) -> None:
        """Mark a message as read."""
        if index < len(self.messages):
            self.messages[index] = (self.messages[index][0], "read")

    def flag(self, sender: Annotated[str, USER]) -> None:
        """Flag all messages of a sender."""
        self.messages = [(name, "flag" if name == sender else state) for name, state in self.messages]

    def unread(self) -> int:
        """Count new messages."""
        return sum(1 for _, state in self.messages if state == "new")

    def view(self) -> str:
        """Show a sign per message: "*" new, "." read, "!" flagged."""
        return "".join({"new": "*", "read": "."}.get(state, "!") for _, state in self.messages)


class LayeredSettings:
    """Settings where user values hide project values, which hide defaults."""

    def __init__(self, default: Digit = 1) -> None:
        self.default = default
        self.layers: list[dict[str, int]] = [{}, {}]

    def set_project(self, key: Annotated[str, TWO], value: Digit) -> None:
        """Set a project value."""
        self.layers[1][key] = value

    def set_user(self, key: Annotated[str, TWO], value: Digit) -> None:
        """Set a user value."""
        self.layers[0][key] = value

    def reset(self, key: Annotated[str, TWO]) -> None:
        """Remove the value that counts, so that the one below shows."""
        for layer in self.layers:
            if key in layer:
                del layer[key]
                break

    def get(self, key: Annotated[str, TWO]) -> int:
        """Return the value that counts."""
        return next((layer[key] for layer in self.layers if key in layer), self.default)

    def hidden(self) -> int:
        """Count the project values that are hidden."""
        return len(self.layers[0].keys() & self.layers[1].keys())


class QuotaBook:
    """Monthly quotas by user, where a part of the unused rest is carried over."""

    def __init__(self, quota: Annotated[int, between(4, 10)]) -> None:
        self.quota = quota
        self.extra: dict[str, int] = {}
        self.used: dict[str, int] = {}

    def use(self, user: Annotated[str, TWO], amount: Annotated[int, between(1, 9)]) -> bool:
        """Use a part of the quota if that much is left."""
        if amount > self.left(user):
            return False
        self.used[user] = self.used.get(user, 0) + amount
        return True

    def next_month(self) -> None:
        """Carry half of the rest over for everyone who used something."""
        self.extra = {user: self.left(user) // 2 for user in self.used}
        self.used = dict.fromkeys(self.used, 0)

    def left(self, user: Annotated[str, TWO]) -> int:
        """Return what is left for a user."""
        return self.quota + self.extra.get(user, 0) - self.used.get(user, 0)


class SessionTable:
    """Sessions that end when they are not used for some time."""

    def __init__(self, timeout: Annotated[int, between(3, 9)] = 5) -> None:
        self.timeout = timeout
        self.last_use: dict[str, int] = {}

    def touch(self, user: Annotated[str, USER], now: Annotated[int, between(0, 9)]) -> None:
        """Begin or prolong a session; time never goes back."""
        self.last_use[user] = max(now, self.last_use.get(user, 0))

    def logout(self, user: Annotated[str, USER]) -> None:
        """End a session at once."""
        self.last_use.pop(user, None)

    def active(self, now: Annotated[int, between(2, 10)]) -> list[str]:
        """Name the users with a session that has not ended."""
        return sorted(user for user, used in self.last_use.items() if now - used < self.timeout)


class GapFinder:
    """Receives numbered packets and knows which ones are missing."""

    def __init__(self, first: Annotated[int, between(0, 2)] = 1) -> None:
        self.first = first
        self.got: set[int] = set()
        self.repeated = 0

    def receive(self, number: Annotated[int, between(0, 6)]) -> None:
        """Note a packet; those before the first one are ignored."""
        if number in self.got:
            self.repeated += 1
        elif number >= self.first:
            self.got.add(number)

    def missing(self) -> list[int]:
        """Return the missing numbers below the highest one."""
        return [n for n in range(self.first, max(self.got, default=0)) if n not in self.got]

    def complete_until(self) -> int:
        """Return the first number that has not arrived."""
        number = self.first
        while number in self.got:
            number += 1
        return number

    def duplicates(self) -> int:
        """Count packets that came again."""
        return self.repeated


class RangeTracker:
    """Lowest and highest values, with how often a new record was set."""

    def __init__(self) -> None:
        self.low: int | None = None
        self.high: int | None = None
        self.records = 0

    def add(self, value: Annotated[int, between(-9, 9)]) -> None:
        """Note a value; the first one is no record."""
        if self.low is None or self.high is None:
            self.low = self.high = value
        elif value < self.low:
            self.low = value
            self.records += 1
        elif value > self.high:
            self.high = value
            self.records += 1

    def span(self) -> int:
        """Return highest minus lowest."""
        if self.low is None or self.high is None:
            return 0
        return self.high - self.low

    def summary(self) -> tuple[int | None, int]:
        """Return the lowest value and the number of records."""
        return self.low, self.records


class PathRouter:
    """Finds the handler with the longest path that leads to a request."""

    def __init__(self) -> None:
        self.routes: dict[str, str] = {}

    def add(
        self, path: Annotated[str, PATH], handler: Annotated[str, choice("home", "list", "item")]
    ) -> None:
        """Add a handler for a path and everything below it."""
        self.routes[path.rstrip("/")] = handler

    def find(self, path: Annotated[str, PATH]) -> str | None:
        """Return the handler for a path."""
        path = path.rstrip("/")
        while path:
            if path in self.routes:
                return self.routes[path]
            path = path[: path.rindex("/")]
        return self.routes.get("")

    def paths(self, handler: Annotated[str, choice("home", "list", "item")]) -> list[str]:
        """Return the paths of a handler."""
        return [path or "/" for path, name in sorted(self.routes.items()) if name == handler]


class LeastBusy:
    """Sends requests to the server with the fewest open ones."""

    def __init__(self, servers: Annotated[int, between(2, 3)]) -> None:
        self.open = [0] * servers

    def send(self, weight: Annotated[int, between(1, 4)] = 1) -> int:
        """Choose a server, the first one when equal, and return its number."""
        server = min(range(len(self.open)), key=lambda i: self.open[i])
        self.open[server] += weight
        return server

    def finish(self, server: Annotated[int, between(0, 2)]) -> None:
        """End one request of a server."""
        if server < len(self.open) and self.open[server] > 0:
            self.open[server] -= 1

    def load(self, server: Annotated[int, between(0, 2)], amount: Annotated[int, between(1, 5)]) -> None:
        """Put load on a certain server, or on the last one if there is no such server."""
        self.open[min(server, len(self.open) - 1)] += amount

    def imbalance(self) -> int:
        """Return the difference between the busiest and the idlest server."""
        return max(self.open) - min(self.open)


class VersionedValue:
    """A value with its history by time."""

    def __init__(self, first: Digit = 0) -> None:
        self.history = [(0, first)]

    def set(self, time: Annotated[int, between(1, 9)], value: Digit) -> None:
        """Set the value from a time on; times before the last change are ignored."""
        if time < self.history[-1][0]:
            return
        if time == self.history[-1][0]:
            self.history.pop()
        self.history.append((time, value))

    def at(self, time: Annotated[int, between(0, 9)]) -> int:
        """Return the value at a time."""
        value = self.history[0][1]
        for since, new in self.history:
            if since <= time:
                value = new
        return value

    def rollback(self) -> None:
        """Undo the last change, but keep the first value."""
        if len(self.history) > 1:
            self.history.pop()

    def changes(self) -> int:
        """Count the changes that gave another value than before."""
        values = [value for _, value in self.history]
        return sum(values[i] != values[i - 1] for i in range(1, len(values)))


class WaitingList:
    """Seats of a course; who comes late waits, and moves up when someone leaves."""

    def __init__(self, seats: Annotated[int, between(1, 2)]) -> None:
        self.seats = seats
        self.people: list[str] = []

    def join(self, name: Annotated[str, USER]) -> None:
        """Join at the end; nobody joins twice."""
        if name not in self.people:
            self.people.append(name)

    def leave(self, name: Annotated[str, USER]) -> None:
        """Leave the course or the list."""
        if name in self.people:
            self.people.remove(name)

    def place(self, name: Annotated[str, USER]) -> int | None:
        """Return 0 for a seat, else the place in the waiting list, or None."""
        if name not in self.people:
            return None
        return max(0, self.people.index(name) + 1 - self.seats)

    def waiting(self) -> list[str]:
        """Name who waits."""
        return self.people[self.seats :]


class Playlist:
    """Songs with a current one and a repeat mode."""

    def __init__(self, songs: Annotated[str, choice("a", "ab", "abc", "abcd")], repeat: Flag = False) -> None:
        self.songs = list(songs)
        self.repeat = repeat
        self.at = 0

    def skip(self, count: Annotated[int, between(1, 3)] = 1) -> None:
        """Go on; without repeat the last song is the end."""
        self.at += count
        if self.repeat:
            self.at %= len(self.songs)
        else:
            self.at = min(self.at, len(self.songs) - 1)

    def back(self) -> None:
        """Go back one song, with repeat from the first to the last."""
        if self.at > 0:
            self.at -= 1
        elif self.repeat:
            self.at = len(self.songs) - 1

    def play_next(self, song: Annotated[str, choice("x", "y")]) -> None:
        """Put a song right after the current one."""
        self.songs.insert(self.at + 1, song)

    def current(self) -> str:
        """Return the current song."""
        return self.songs[self.at]

    def rest(self) -> str:
        """Return the songs that follow until the end."""
        return "".join(self.songs[self.at + 1 :])


class Dimmer:
    """A lamp with brightness in steps, which remembers the last brightness."""

    def __init__(self, step: Annotated[int, choice(10, 20, 25)] = 20) -> None:
        self.step = step
        self.level = 0
        self.remembered = 60

    def press(self) -> None:
        """Switch the lamp on or off."""
        if self.level:
            self.remembered = self.level
            self.level = 0
        else:
            self.level = self.remembered

    def brighter(self) -> None:
        """Make the lamp brighter, also when it is off."""
        self.level = min(100, self.level + self.step)

    def darker(self) -> None:
        """Make a lamp that is on darker, but not off."""
        if self.level > 0:
            self.level = max(self.step, self.level - self.step)

    def brightness(self) -> int:
        """Return the brightness in percent."""
        return self.level


class LoginGuard:
    """Locks users out after wrong passwords, each time for longer."""

    def __init__(self, tries: Annotated[int, between(1, 2)] = 2) -> None:
        self.tries = tries
        self.wrong: dict[str, int] = {}
        self.locks: dict[str, int] = {}

    def attempt(
        self, user: Annotated[str, TWO], good: Annotated[bool, choice(False, False, True)] = False
    ) -> None:
        """Note a try; users who are locked out cannot try."""
        if self.locked(user):
            return
        if good:
            self.wrong.pop(user, None)
            return
        self.wrong[user] = self.wrong.get(user, 0) + 1
        if self.locked(user):
            self.locks[user] = self.locks.get(user, 0) + 1

    def unlock(self, user: Annotated[str, TWO]) -> None:
        """Let a user try again."""
        self.wrong[user] = 0

    def locked(self, user: Annotated[str, TWO]) -> bool:
        """Tell whether a user is locked out."""
        return self.wrong.get(user, 0) >= self.tries

    def penalty(self, user: Annotated[str, TWO]) -> int:
        """Return the minutes of the last lock: 5, then three times as long each."""
        count = self.locks.get(user, 0)
        return 5 * 3 ** (count - 1) if count else 0


class DelayQueue:
    """Tasks that become ready after a delay."""

    def __init__(self) -> None:
        self.now = 0
        self.tasks: list[tuple[int, str]] = []

    def schedule(self, task: Annotated[str, TASK], delay: Annotated[int, between(0, 5)]) -> None:
        """Add a task."""
        self.tasks.append((self.now + delay, task))

    def pass_time(self, ticks: Annotated[int, between(1, 4)]) -> None:
        """Let time pass."""
        self.now += ticks

    def ready(self) -> list[str]:
        """Take out the tasks that are ready, by time and name."""
        done = sorted(entry for entry in self.tasks if entry[0] <= self.now)
        self.tasks = [entry for entry in self.tasks if entry[0] > self.now]
        return [task for _, task in done]

    def next_in(self) -> int:
        """Return the time until the next task, 0 if one is ready, -1 if there is none."""
        if not self.tasks:
            return -1
        return max(0, min(time for time, _ in self.tasks) - self.now)


class RecentFilter:
    """Lets a message through unless it is among the last few different ones."""

    def __init__(self, memory: Annotated[int, between(1, 3)] = 2) -> None:
        self.recent: deque[str] = deque(maxlen=memory)
        self.passed: list[str] = []

    def offer(self, message: Annotated[str, choice("a", "b", "c", "d")]) -> None:
        """Offer a message."""
        if message not in self.recent:
            self.recent.append(message)
            self.passed.append(message)

    def output(self) -> str:
        """Return the messages that went through."""
        return "".join(self.passed)

    def would_pass(self, message: Annotated[str, KEY]) -> bool:
        """Tell whether a message would go through now."""
        return message not in self.recent


class StageBoard:
    """Cards that move through stages, with a limit for each stage but the first and the last."""

    def __init__(self, limit: Annotated[int, between(1, 2)] = 1) -> None:
        self.limit = limit
        self.stages: dict[str, int] = {}

    def add(self, card: Annotated[str, TWO]) -> None:
        """Put a new card into the first stage."""
        self.stages.setdefault(card, 0)

    def advance(self, card: Annotated[str, TWO]) -> None:
        """Move a card to the next of stages 0, 1, 2, 3 if there is room."""
        stage = self.stages.get(card, 3) + 1
        if stage < 3 and self.count(stage) >= self.limit:
            return
        if stage <= 3:
            self.stages[card] = stage

    def count(self, stage: Annotated[int, between(0, 3)]) -> int:
        """Count the cards in a stage."""
        return list(self.stages.values()).count(stage)

    def overview(self) -> dict[str, int]:
        """Return the stage of each card that is not done."""
        return {card: stage for card, stage in self.stages.items() if stage < 3}


class LineEditor:
    """A line of text with a cursor."""

    def __init__(self, text: Annotated[str, choice("", "abc", "to do", "x")] = "") -> None:
        self.text = text
        self.cursor = len(text)

    def type(self, text: Annotated[str, choice("a", "-", "no", " ")]) -> None:
        """Insert text before the cursor."""
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)

    def left(self, steps: Annotated[int, between(1, 3)] = 1) -> None:
        """Move the cursor to the left."""
        self.cursor = max(0, self.cursor - steps)

    def erase(self) -> None:
        """Delete the character before the cursor."""
        if self.cursor > 0:
            self.text = self.text[: self.cursor - 1] + self.text[self.cursor :]
            self.cursor -= 1

    def home(self) -> None:
        """Move the cursor to the start."""
        self.cursor = 0

    def show(self) -> str:
        """Return the text with the cursor as "|"."""
        return self.text[: self.cursor] + "|" + self.text[self.cursor :]


class SharedDoor:
    """Many readers or one writer at a time."""

    def __init__(self, most: Annotated[int, between(1, 3)] = 2) -> None:
        self.most = most
        self.readers = 0
        self.writing = False
        self.refused = 0

    def start_read(self) -> None:
        """Let a reader in unless someone writes or too many read."""
        if self.writing or self.readers >= self.most:
            self.refused += 1
        else:
            self.readers += 1

    def start_write(self) -> None:
        """Let a writer in if nobody is there."""
        if self.readers == 0 and not self.writing:
            self.writing = True
        else:
            self.refused += 1

    def leave(self) -> None:
        """Let the writer out, or else one reader."""
        if self.writing:
            self.writing = False
        elif self.readers > 0:
            self.readers -= 1

    def state(self) -> str:
        """Describe who is there."""
        who = "writer" if self.writing else f"{self.readers} readers"
        return f"{who}, {self.refused} refused"
