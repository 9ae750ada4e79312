"""Evaluation only: small classes with state."""

from __future__ import annotations

from typing import Annotated

from examples.train_mini.kinds import Count, Digit, Int, Positive, Word, between, choice

Small = Annotated[str, choice("a", "b", "c")]


class BankAccount:
    """An account that refuses to go below zero."""

    def __init__(self, balance: Count = 0) -> None:
        self.balance = balance
        self.history: list[int] = []

    def deposit(self, amount: Positive) -> None:
        """Add money."""
        self.balance += amount
        self.history.append(amount)

    def withdraw(self, amount: Positive) -> bool:
        """Take money if there is enough."""
        if amount > self.balance:
            return False
        self.balance -= amount
        self.history.append(-amount)
        return True

    def total_deposited(self) -> int:
        """Return all money ever put in."""
        return sum(change for change in self.history if change > 0)

    def current(self) -> int:
        """Return the balance."""
        return self.balance


class LruCache:
    """A cache that forgets what was used longest ago."""

    def __init__(self, capacity: Annotated[int, between(1, 3)]) -> None:
        self.capacity = capacity
        self.items: dict[str, int] = {}

    def put(self, key: Small, value: Digit) -> None:
        """Store a value."""
        if key in self.items:
            del self.items[key]
        self.items[key] = value
        if len(self.items) > self.capacity:
            oldest = next(iter(self.items))
            del self.items[oldest]

    def get(self, key: Small) -> int:
        """Return a value, -1 if it is not there."""
        if key not in self.items:
            return -1
        value = self.items.pop(key)
        self.items[key] = value
        return value

    def keys(self) -> list[str]:
        """Return keys, the oldest first."""
        return list(self.items)


class MinStack:
    """A stack that knows its smallest item."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.smallest: list[int] = []

    def push(self, item: Int) -> None:
        """Put an item on top."""
        self.items.append(item)
        if not self.smallest or item <= self.smallest[-1]:
            self.smallest.append(item)

    def drop(self) -> None:
        """Remove the top item if there is one."""
        if self.items and self.items.pop() == self.smallest[-1]:
            self.smallest.pop()

    def minimum(self) -> int | None:
        """Return the smallest item."""
        return self.smallest[-1] if self.smallest else None

    def size(self) -> int:
        """Return the number of items."""
        return len(self.items)


class ShoppingCart:
    """Items with prices and a discount for large sums."""

    def __init__(self, limit: Annotated[int, choice(50, 100)] = 50) -> None:
        self.limit = limit
        self.prices: dict[str, int] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: Small, price: Positive, count: Annotated[int, between(1, 3)] = 1) -> None:
        """Put items into the cart."""
        self.prices[name] = price
        self.counts[name] = self.counts.get(name, 0) + count

    def remove(self, name: Small) -> None:
        """Take one item out."""
        if name in self.counts:
            self.counts[name] -= 1
            if self.counts[name] == 0:
                del self.counts[name]

    def total(self) -> int:
        """Return the sum to pay."""
        amount = sum(self.prices[name] * count for name, count in self.counts.items())
        if amount >= self.limit:
            amount -= amount // 10
        return amount

    def item_count(self) -> int:
        """Return how many items there are."""
        return sum(self.counts.values())


class ParkingLot:
    """Places for cars."""

    def __init__(self, places: Annotated[int, between(1, 3)]) -> None:
        self.free = places
        self.parked: list[str] = []

    def enter(self, plate: Small) -> bool:
        """Let a car in if there is a place."""
        if self.free == 0 or plate in self.parked:
            return False
        self.parked.append(plate)
        self.free -= 1
        return True

    def leave(self, plate: Small) -> bool:
        """Let a car out."""
        if plate not in self.parked:
            return False
        self.parked.remove(plate)
        self.free += 1
        return True

    def free_places(self) -> int:
        """Return the free places."""
        return self.free


class Rectangle:
    """A rectangle by its sides."""

    def __init__(self, width: Positive, height: Positive) -> None:
        self.width = width
        self.height = height

    def scale(self, factor: Annotated[int, between(1, 4)]) -> None:
        """Make it larger."""
        self.width *= factor
        self.height *= factor

    def area(self) -> int:
        """Return the area."""
        return self.width * self.height

    def perimeter(self) -> int:
        """Return the length of the border."""
        return 2 * (self.width + self.height)

    def is_square(self) -> bool:
        """Tell whether the sides are equal."""
        return self.width == self.height


class TrafficLight:
    """Red, green, yellow."""

    def __init__(self) -> None:
        self.colors = ["red", "green", "yellow"]
        self.index = 0
        self.changes = 0

    def advance(self, steps: Annotated[int, between(1, 4)] = 1) -> None:
        """Go on by some colours."""
        self.index = (self.index + steps) % len(self.colors)
        self.changes += steps

    def color(self) -> str:
        """Return the colour now."""
        return self.colors[self.index]

    def cycles(self) -> int:
        """Return how many full rounds were made."""
        return self.changes // len(self.colors)


class Leaderboard:
    """Best scores of players."""

    def __init__(self) -> None:
        self.best: dict[str, int] = {}

    def record(self, player: Small, score: Digit) -> None:
        """Keep a score if it is the player's best."""
        if player not in self.best or score > self.best[player]:
            self.best[player] = score

    def leader(self) -> str | None:
        """Return the best player."""
        if not self.best:
            return None
        return max(sorted(self.best), key=lambda player: self.best[player])

    def above(self, score: Digit) -> int:
        """Count players above a score."""
        return sum(1 for value in self.best.values() if value > score)


class Elevator:
    """An elevator with a limited house."""

    def __init__(self, floors: Annotated[int, between(3, 9)]) -> None:
        self.top = floors
        self.floor = 0
        self.travelled = 0

    def go(self, floor: Annotated[int, between(-1, 10)]) -> None:
        """Move to a floor of the house, nearest if it is outside."""
        target = max(0, min(floor, self.top))
        self.travelled += abs(target - self.floor)
        self.floor = target

    def position(self) -> int:
        """Return the floor now."""
        return self.floor

    def distance(self) -> int:
        """Return the floors travelled."""
        return self.travelled


class WordIndex:
    """Where words stand."""

    def __init__(self) -> None:
        self.places: dict[str, list[int]] = {}
        self.count = 0

    def add(self, word: Word) -> None:
        """Add the next word."""
        self.places.setdefault(word, []).append(self.count)
        self.count += 1

    def repeated(self) -> int:
        """Count words that occur more than once."""
        return len([word for word, places in self.places.items() if len(places) > 1])

    def total(self) -> int:
        """Return the number of added words."""
        return self.count
