"""Lists: parts, windows, stable orders, merging, ranking, streaks and peaks."""

from __future__ import annotations

from collections import Counter, deque
from itertools import pairwise
from typing import Annotated

from examples.train_mini.kinds import (
    Char,
    Count,
    Digit,
    Flag,
    Flags,
    Groups,
    Int,
    Ints,
    Items,
    Naturals,
    Pairs,
    SomeInts,
    SomeWords,
    SortedInts,
    Words,
    between,
    choice,
    list_of,
    tuple_of,
)

SMALL = list_of(between(0, 4), 0, 8)
Small = Annotated[list[int], SMALL]
Window = Annotated[int, between(1, 4)]


def split_by_pivot(values: Ints, pivot: Int) -> tuple[list[int], list[int]]:
    """Return the values below the pivot and the others, both in their order."""
    below: list[int] = []
    rest: list[int] = []
    for value in values:
        (below if value < pivot else rest).append(value)
    return below, rest


def cut_after_zeros(values: Small) -> list[list[int]]:
    """Split a list at zeros, which are dropped; empty parts are dropped as well."""
    parts: list[list[int]] = []
    current: list[int] = []
    for value in values:
        if value != 0:
            current.append(value)
        elif current:
            parts.append(current)
            current = []
    if current:
        parts.append(current)
    return parts


def is_rotation(
    first: Annotated[list[int], choice([1, 2, 3], [1, 2], [1, 1, 2], [])],
    second: Annotated[list[int], choice([3, 1, 2], [2, 1], [1, 2, 1], [3, 2, 1], [2, 1, 1], [])],
) -> bool:
    """Tell whether the second list is the first one turned by some places."""
    if len(first) != len(second):
        return False
    if not first:
        return True
    return any(first[i:] + first[:i] == second for i in range(len(first)))


def bring_to_front(values: Ints, wanted: Int) -> list[int]:
    """Rotate to the left until the wanted value comes first; leave the list if it is not there."""
    if wanted not in values:
        return values
    start = values.index(wanted)
    return values[start:] + values[:start]


def rotation_point(values: Annotated[list[int], list_of(between(0, 9), 0, 6)]) -> int:
    """Return the index of the first value smaller than the one before it, 0 if there is none."""
    for i in range(1, len(values)):
        if values[i] < values[i - 1]:
            return i
    return 0


def window_maxima(values: Ints, size: Window = 2) -> list[int]:
    """Return the largest value of every window of neighbours, with a queue of candidates."""
    queue: deque[int] = deque()
    result: list[int] = []
    for i, value in enumerate(values):
        while queue and values[queue[-1]] <= value:
            queue.pop()
        queue.append(i)
        if queue[0] <= i - size:
            queue.popleft()
        if i >= size - 1:
            result.append(values[queue[0]])
    return result


def best_window_sum(values: Ints, size: Window) -> int | None:
    """Return the largest sum of `size` neighbours, None if the list is too short."""
    if len(values) < size:
        return None
    total = best = sum(values[:size])
    for i in range(size, len(values)):
        total += values[i] - values[i - size]
        best = max(best, total)
    return best


def shortest_stretch_reaching(values: Naturals, goal: Annotated[int, between(1, 30)]) -> int:
    """Return the length of the shortest run of neighbours with a sum of at least `goal`, 0 if none."""
    best = len(values) + 1
    total = left = 0
    for right, value in enumerate(values):
        total += value
        while total >= goal:
            best = min(best, right - left + 1)
            total -= values[left]
            left += 1
    return best if best <= len(values) else 0


def longest_distinct_run(values: Small) -> int:
    """Return the length of the longest stretch without a repeated value."""
    seen: dict[int, int] = {}
    start = best = 0
    for i, value in enumerate(values):
        if value in seen and seen[value] >= start:
            start = seen[value] + 1
        seen[value] = i
        best = max(best, i - start + 1)
    return best


def longest_with_two_kinds(values: Small) -> int:
    """Return the length of the longest stretch with at most two different values."""
    counts: Counter[int] = Counter()
    left = 0
    for value in values:
        counts[value] += 1
        if len(counts) > 2:
            counts[values[left]] -= 1
            if counts[values[left]] == 0:
                del counts[values[left]]
            left += 1
    return len(values) - left


def stretches_with_sum(values: Ints, target: Digit) -> int:
    """Count the runs of neighbours whose sum is exactly `target`."""
    seen: dict[int, int] = {0: 1}
    total = count = 0
    for value in values:
        total += value
        count += seen.get(total - target, 0)
        seen[total] = seen.get(total, 0) + 1
    return count


def is_subsequence(short: Small, long: Annotated[list[int], list_of(between(0, 4), 3, 9)]) -> bool:
    """Tell whether the items of the first list occur in the second in the same order."""
    position = 0
    for item in long:
        if position < len(short) and short[position] == item:
            position += 1
    return position == len(short)


def longest_zigzag(values: Ints) -> int:
    """Return the length of the longest subsequence that goes up and down in turn."""
    if not values:
        return 0
    up = down = 1
    for before, after in pairwise(values):
        if after > before:
            up = down + 1
        elif after < before:
            down = up + 1
    return max(up, down)


def best_sum_without_neighbours(values: Naturals) -> int:
    """Return the largest sum of items of which no two stand side by side."""
    taken, skipped = 0, 0
    for value in values:
        taken, skipped = skipped + value, max(taken, skipped)
    return max(taken, skipped)


def evens_then_odds(values: Ints) -> list[int]:
    """Put even numbers before odd ones and keep the order within both."""
    return sorted(values, key=lambda value: value % 2)


def zeros_to_end(values: Small) -> list[int]:
    """Move zeros to the end in place; the other values keep their order."""
    place = 0
    for i in range(len(values)):
        if values[i] != 0:
            values[place], values[i] = values[i], values[place]
            place += 1
    return values


def by_length_then_alphabet(words: Words, longest_first: Flag = False) -> list[str]:
    """Sort words by length, equal lengths by the alphabet."""
    sign = -1 if longest_first else 1
    return sorted(words, key=lambda word: (sign * len(word), word))


def sort_like(
    values: Small, order: Annotated[list[int], choice([2, 0], [4, 3, 1], [1], [3, 2, 1, 0])]
) -> list[int]:
    """Sort values by their place in `order`; the rest follows in rising order."""
    places = {value: i for i, value in enumerate(order)}
    return sorted(values, key=lambda value: (places.get(value, len(order)), value))


def by_frequency(values: Small) -> list[int]:
    """Return the different values, the most frequent first, then the smaller."""
    counts: dict[int, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return sorted(counts, key=lambda value: (-counts[value], value))


def common_of_sorted(first: SortedInts, second: SortedInts) -> list[int]:
    """Return what two sorted lists share, repeated as often as in both."""
    shared: list[int] = []
    i = j = 0
    while i < len(first) and j < len(second):
        if first[i] == second[j]:
            shared.append(first[i])
            i += 1
            j += 1
        elif first[i] < second[j]:
            i += 1
        else:
            j += 1
    return shared


def squares_in_order(values: SortedInts) -> list[int]:
    """Return the squares of sorted values in rising order, filling from the end."""
    result = [0] * len(values)
    left, right = 0, len(values) - 1
    for place in range(len(values) - 1, -1, -1):
        if abs(values[left]) > abs(values[right]):
            result[place] = values[left] ** 2
            left += 1
        else:
            result[place] = values[right] ** 2
            right -= 1
    return result


def sorting_places(values: Ints) -> list[int]:
    """Return the indices that would sort the values; of equal ones the earlier first."""
    return sorted(range(len(values)), key=lambda i: values[i])


def smaller_after(values: Ints) -> list[int]:
    """Count for each value how many later values are smaller."""
    counts: list[int] = []
    for i, value in enumerate(values):
        counts.append(sum(1 for later in values[i + 1 :] if later < value))
    return counts


def inversions(values: Ints) -> int:
    """Count the pairs that stand in the wrong order."""
    count = 0
    for i in range(len(values)):
        for j in range(i + 1, len(values)):
            if values[i] > values[j]:
                count += 1
    return count


def longest_true_streak(flags: Flags, allowed: Annotated[int, between(0, 2)] = 0) -> int:
    """Return the longest stretch of true flags that has at most `allowed` false ones in it."""
    best = left = misses = 0
    for right, flag in enumerate(flags):
        if not flag:
            misses += 1
        while misses > allowed:
            misses -= not flags[left]
            left += 1
        best = max(best, right - left + 1)
    return best


def current_streak(results: Flags) -> int:
    """Return how many equal results stand at the end: positive if true, negative if false."""
    if not results:
        return 0
    length = 0
    for result in reversed(results):
        if result != results[-1]:
            break
        length += 1
    return length if results[-1] else -length


def longest_consecutive(values: Ints) -> int:
    """Return the length of the longest chain n, n+1, n+2 found anywhere among the values."""
    known = set(values)
    best = 0
    for value in known:
        if value - 1 in known:
            continue
        end = value
        while end + 1 in known:
            end += 1
        best = max(best, end - value + 1)
    return best


def peak_indices(values: Ints) -> list[int]:
    """Return the indices of values above both neighbours; the ends are never peaks."""
    return [i for i in range(1, len(values) - 1) if values[i - 1] < values[i] > values[i + 1]]


def is_mountain(
    values: Annotated[list[int], choice([1, 3, 2], [1, 2, 3], [3, 2], [1, 2, 2, 1], [0, 4, 5, 1], [])],
) -> bool:
    """Tell whether the values strictly rise to one top and strictly fall after it."""
    if len(values) < 3:
        return False
    top = values.index(max(values))
    if top in (0, len(values) - 1):
        return False
    rising = all(values[i] < values[i + 1] for i in range(top))
    return rising and all(values[i] > values[i + 1] for i in range(top, len(values) - 1))


def sunny_roofs(heights: Naturals) -> list[int]:
    """Return the indices of houses that are higher than all before them."""
    seen: list[int] = []
    tallest = -1
    for i, height in enumerate(heights):
        if height > tallest:
            seen.append(i)
            tallest = height
    return seen


def days_until_warmer(degrees: Ints) -> list[int]:
    """Return for each day how many days it takes until a warmer one, 0 if none comes."""
    waits = [0] * len(degrees)
    open_days: list[int] = []
    for day, degree in enumerate(degrees):
        while open_days and degrees[open_days[-1]] < degree:
            earlier = open_days.pop()
            waits[earlier] = day - earlier
        open_days.append(day)
    return waits


def sums_of_ranges(values: Ints, queries: Pairs) -> list[int]:
    """Return the sum from the first to the last index of each query, both included."""
    sums = [0]
    for value in values:
        sums.append(sums[-1] + value)
    last = len(values)
    return [sums[min(high + 1, last)] - sums[min(low, last)] for low, high in queries]


def products_without_self(values: Annotated[list[int], list_of(between(-3, 5), 0, 5)]) -> list[int]:
    """Return for each place the product of all other values."""
    result = [1] * len(values)
    before = after = 1
    for i in range(len(values)):
        result[i] *= before
        before *= values[i]
    for i in range(len(values) - 1, -1, -1):
        result[i] *= after
        after *= values[i]
    return result


def apply_raises(length: Annotated[int, between(1, 7)], raises: Pairs, amount: Digit = 1) -> list[int]:
    """Add an amount to each range of places (end excluded) of a list of zeros."""
    changes = [0] * (length + 1)
    for start, end in raises:
        if start < end and start < length:
            changes[start] += amount
            changes[min(end, length)] -= amount
    level = 0
    result: list[int] = []
    for change in changes[:length]:
        level += change
        result.append(level)
    return result


def lowest_level(changes: Ints, start: Int = 0) -> int:
    """Return the lowest level that is reached when changes are added one by one."""
    level = lowest = start
    for change in changes:
        level += change
        if level < lowest:
            lowest = level
    return lowest


def thin_out(values: SortedInts, gap: Annotated[int, between(1, 6)] = 2) -> list[int]:
    """Keep sorted values that are at least `gap` above the last kept one."""
    kept: list[int] = []
    for value in values:
        if not kept or value - kept[-1] >= gap:
            kept.append(value)
    return kept


def drop_repeats(values: Small, most: Annotated[int, between(1, 2)] = 1) -> list[int]:
    """Keep at most `most` copies of each value, the first ones."""
    kept: list[int] = []
    for value in values:
        if kept.count(value) < most:
            kept.append(value)
    return kept


def squeeze_neighbours(values: Small) -> list[int]:
    """Replace each run of equal neighbours by one of them."""
    return [value for i, value in enumerate(values) if i == 0 or value != values[i - 1]]


def cancel_pairs(values: Small) -> list[int]:
    """Remove equal neighbours in pairs until none are left."""
    left: list[int] = []
    for value in values:
        if left and left[-1] == value:
            left.pop()
        else:
            left.append(value)
    return left


def only_once(values: Small) -> list[int]:
    """Return the values that occur exactly once."""
    return [value for value in values if values.count(value) == 1]


def take_while_small(values: Naturals, budget: Annotated[int, between(0, 30)]) -> list[int]:
    """Take values from the start as long as their sum stays within a budget."""
    taken: list[int] = []
    for value in values:
        if value > budget:
            break
        budget -= value
        taken.append(value)
    return taken


def trim_ends(values: Small, unwanted: Digit = 0) -> list[int]:
    """Remove an unwanted value from both ends."""
    start, end = 0, len(values)
    while start < end and values[start] == unwanted:
        start += 1
    while end > start and values[end - 1] == unwanted:
        end -= 1
    return values[start:end]


def fold_halves(values: Ints) -> list[int]:
    """Add the first to the last value, the second to the last but one; a middle value stays."""
    half = len(values) // 2
    folded = [values[i] + values[-1 - i] for i in range(half)]
    if len(values) % 2 == 1:
        folded.append(values[half])
    return folded


def reverse_in_groups(values: Ints, size: Annotated[int, between(1, 4)] = 2) -> list[int]:
    """Reverse each full group of `size` values; a shorter rest stays as it is."""
    result: list[int] = []
    for start in range(0, len(values), size):
        group = values[start : start + size]
        result += group[::-1] if len(group) == size else group
    return result


def split_evenly(values: Ints, parts: Annotated[int, between(1, 4)]) -> list[list[int]]:
    """Split into a number of parts; the first parts get one more if it does not work out."""
    size, extra = divmod(len(values), parts)
    result: list[list[int]] = []
    start = 0
    for i in range(parts):
        end = start + size + (1 if i < extra else 0)
        result.append(values[start:end])
        start = end
    return result


def split_when_falling(values: Ints) -> list[list[int]]:
    """Split a list before every value that is smaller than its predecessor."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value >= runs[-1][-1]:
            runs[-1].append(value)
        else:
            runs.append([value])
    return runs


def balance_index(values: SomeInts) -> int:
    """Return how many first values to cut off so that both parts differ least in their sums."""
    total, left = sum(values), 0
    best, best_cut = abs(total), 0
    for cut, value in enumerate(values, start=1):
        left += value
        gap = abs(total - 2 * left)
        if gap < best:
            best, best_cut = gap, cut
    return best_cut


def closest_pair_gap(values: Ints) -> int | None:
    """Return the smallest distance between two of the values, None for fewer than two."""
    ordered = sorted(values)
    gaps = [ordered[i] - ordered[i - 1] for i in range(1, len(ordered))]
    return min(gaps) if gaps else None


def farthest_equal(values: Small) -> int:
    """Return the largest distance between the places of two equal values, 0 if all differ."""
    first: dict[int, int] = {}
    best = 0
    for i, value in enumerate(values):
        best = max(best, i - first.setdefault(value, i))
    return best


def nearest_other(words: SomeWords, letter: Char) -> list[int]:
    """Return for each word the distance to the nearest word that has a letter, -1 if none has."""
    places = [i for i, word in enumerate(words) if letter in word]
    if not places:
        return [-1] * len(words)
    return [min(abs(i - place) for place in places) for i in range(len(words))]


def column_of_longest(groups: Groups) -> list[int]:
    """Add up the groups place by place, shorter ones counting as zeros."""
    width = max((len(group) for group in groups), default=0)
    sums = [0] * width
    for group in groups:
        for i, value in enumerate(group):
            sums[i] += value
    return sums


def in_every_group(groups: Groups) -> list[int]:
    """Return in rising order the values that all groups contain."""
    if not groups:
        return []
    shared = set(groups[0])
    for group in groups[1:]:
        shared &= set(group)
    return sorted(shared)


def latest_by_name(items: Items) -> list[tuple[str, int]]:
    """Keep for each name only its last entry, at the place of the last entry."""
    kept: list[tuple[str, int]] = []
    seen: set[str] = set()
    for name, value in reversed(items):
        if name not in seen:
            seen.add(name)
            kept.append((name, value))
    kept.reverse()
    return kept


def stable_by_value(items: Items, limit: Count = 4) -> list[str]:
    """Return names by falling value; values above the limit count as the limit."""
    ordered = sorted(items, key=lambda item: min(item[1], limit), reverse=True)
    return [name for name, _ in ordered]


def dominant_points(
    points: Annotated[list[tuple[int, int]], list_of(tuple_of(between(0, 6), between(0, 6)), 0, 5)],
) -> list[tuple[int, int]]:
    """Return the points that no other point exceeds in both coordinates, by falling x."""
    front: list[tuple[int, int]] = []
    highest = -1
    for x, y in sorted(points, reverse=True):
        if y > highest:
            front.append((x, y))
            highest = y
    return front


def insert_between(values: Ints, separator: Int, every: Annotated[int, between(1, 3)] = 1) -> list[int]:
    """Put a separator after every few items, never at the end."""
    result: list[int] = []
    for count, value in enumerate(values, start=1):
        result.append(value)
        if count % every == 0 and count < len(values):
            result.append(separator)
    return result


def swaps_to_sort(
    values: Annotated[
        list[int], choice([2, 0, 1], [0, 1, 2], [1, 0, 3, 2], [3, 0, 1, 2], [2, 1, 0], [4, 3, 2, 1, 0])
    ],
) -> int:
    """Count the exchanges that bring each number of a permutation to its index."""
    values = values[:]
    swaps = 0
    for i in range(len(values)):
        while values[i] != i:
            goal = values[i]
            values[i], values[goal] = values[goal], values[i]
            swaps += 1
    return swaps


def shift_until_sorted(values: Ints) -> int:
    """Count how many places items move when each is inserted into the sorted part before it."""
    values = values[:]
    moves = 0
    for i in range(1, len(values)):
        j = i
        while j > 0 and values[j - 1] > values[j]:
            values[j - 1], values[j] = values[j], values[j - 1]
            moves += 1
            j -= 1
    return moves


def cyclic_pairs(words: SomeWords) -> list[str]:
    """Join each word's first letter with the last letter of the next word, the first after the last."""
    return [word[0] + words[(i + 1) % len(words)][-1] for i, word in enumerate(words)]


def mutual_order(
    first: Annotated[list[int], list_of(between(0, 1), 0, 3)],
    second: Annotated[list[int], list_of(between(0, 1), 0, 3)],
) -> int:
    """Compare two lists item by item: -1, 0 or 1; a list that ends earlier comes first."""
    for a, b in zip(first, second, strict=False):
        if a != b:
            return -1 if a < b else 1
    return (len(first) > len(second)) - (len(first) < len(second))
