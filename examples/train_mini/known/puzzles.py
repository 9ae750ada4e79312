"""Recursion, dynamic programming, backtracking, two pointers, state machines and simulations."""

# One function walks nested lists, whose bare hint is what the shown code carries.
# pyright: reportMissingTypeArgument=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Annotated

from examples.train_mini.kinds import (
    Digit,
    Draw,
    Flag,
    Flags,
    Int,
    Ints,
    Naturals,
    Positive,
    SomeInts,
    SortedInts,
    between,
    choice,
    list_of,
)

Tiny = Annotated[int, between(0, 6)]
Weights = Annotated[list[int], list_of(between(1, 7), 0, 5)]
Cells = Annotated[str, Draw(lambda rng: "".join(rng.choice("#.") for _ in range(rng.randint(2, 8))))]
Grid = Annotated[list[list[int]], Draw(lambda rng: [[rng.randint(0, 2) for _ in range(3)] for _ in range(3)])]
Rough = Annotated[
    list[list[int]],
    Draw(lambda rng: [[rng.choice((0, 1, 1, 1)) for _ in range(3)] for _ in range(rng.randint(1, 3))]),
]
Jumps = Annotated[list[int], list_of(between(0, 3), 1, 6)]
Binary = Annotated[str, Draw(lambda rng: "".join(rng.choice("01") for _ in range(rng.randint(0, 7))))]


def ackermann_like(m: Annotated[int, between(0, 2)], n: Annotated[int, between(0, 4)]) -> int:
    """Return n + 1 for m = 0, otherwise apply the level below again and again."""
    if m == 0:
        return n + 1
    if n == 0:
        return ackermann_like(m - 1, 1)
    return ackermann_like(m - 1, ackermann_like(m, n - 1))


def tilings(width: Annotated[int, between(0, 8)], colours: Annotated[int, between(1, 3)] = 1) -> int:
    """Count the ways to cover a strip with tiles of length 1 and coloured tiles of length 3."""
    ways = [1]
    for i in range(1, width + 1):
        ways.append(ways[i - 1] + (colours * ways[i - 3] if i >= 3 else 0))
    return ways[width]


def can_halve(weights: Weights) -> bool:
    """Tell whether weights can be split into two groups of equal sum."""
    total = sum(weights)
    if total % 2 == 1:
        return False
    sums = {0}
    for weight in weights:
        sums |= {old + weight for old in sums}
    return total // 2 in sums


def sign_choices(values: Weights, goal: Int) -> int:
    """Count the ways to put plus or minus before each value so that the sum is a goal."""
    ways: dict[int, int] = {0: 1}
    for value in values:
        following: dict[int, int] = {}
        for total, count in ways.items():
            for moved in (total + value, total - value):
                following[moved] = following.get(moved, 0) + count
        ways = following
    return ways.get(goal, 0)


def sums_to_goal(
    values: Annotated[list[int], choice([1, 2, 3, 4], [2, 3, 5], [1, 5], [1, 3, 4, 6], [2, 4])],
    goal: Annotated[int, between(1, 9)],
) -> list[list[int]]:
    """List the choices of different values with a given sum by backtracking."""
    found: list[list[int]] = []

    def extend(chosen: list[int], start: int, left: int) -> None:
        if left == 0:
            found.append(chosen)
            return
        for i in range(start, len(values)):
            if values[i] <= left:
                extend([*chosen, values[i]], i + 1, left - values[i])

    extend([], 0, goal)
    return found


def queens_ways(size: Annotated[int, between(1, 5)], corner_free: Flag = False) -> int:
    """Count the ways to place queens, one per row, that do not attack; the first corner free if asked."""

    def place(columns: list[int]) -> int:
        row = len(columns)
        if row == size:
            return 1
        total = 0
        for column in range(size):
            if row == 0 and column == 0 and corner_free:
                continue
            if all(column != c and abs(column - c) != row - r for r, c in enumerate(columns)):
                total += place([*columns, column])
        return total

    return place([])


def bracket_words(
    pairs: Annotated[int, between(0, 3)], deepest: Annotated[int, between(1, 3)] = 2
) -> list[str]:
    """List the proper words of some pairs of brackets that are nested up to a depth."""
    found: list[str] = []

    def extend(word: str, opened: int, closed: int) -> None:
        if closed == pairs:
            found.append(word)
            return
        if opened < pairs and opened - closed < deepest:
            extend(word + "(", opened + 1, closed)
        if closed < opened:
            extend(word + ")", opened, closed + 1)

    extend("", 0, 0)
    return found


def binary_words(length: Annotated[int, between(0, 4)], ones: Annotated[int, between(1, 3)] = 1) -> list[str]:
    """List the words of 0 and 1 that have no more than some ones side by side."""
    words = [""]
    for _ in range(length):
        words = [word + bit for word in words for bit in "01" if not (word + bit).endswith("1" * (ones + 1))]
    return words


def phone_words(keys: Annotated[str, choice("2", "23", "", "9", "7", "34", "1", "20")]) -> list[str]:
    """List the letters that digits of a phone may stand for; other digits stand for a dash."""
    letters = {"2": "abc", "3": "def", "4": "ghi", "7": "pqrs", "9": "wxyz"}
    words = [""] if keys else []
    for key in keys:
        words = [word + letter for word in words for letter in letters.get(key, "-")]
    return words


def nth_arrangement(
    letters: Annotated[str, choice("abc", "abcd", "xy", "q", "dcb")], index: Annotated[int, between(0, 25)]
) -> str:
    """Return an arrangement of letters by its number in alphabetic order, taken modulo their count."""
    rest = sorted(letters)
    count = 1
    for k in range(2, len(rest) + 1):
        count *= k
    index %= count
    word = ""
    while rest:
        count //= len(rest)
        place, index = divmod(index, count)
        word += rest.pop(place)
    return word


def next_arrangement(
    values: Annotated[
        list[int], choice([1, 2, 3], [1, 3, 2], [3, 2, 1], [2, 3, 1], [1, 1, 5], [4, 1, 3, 2], [])
    ],
) -> list[int]:
    """Return the arrangement that follows in order, the sorted values after the last one."""
    values = values[:]
    i = len(values) - 2
    while i >= 0 and values[i] >= values[i + 1]:
        i -= 1
    if i >= 0:
        j = len(values) - 1
        while values[j] <= values[i]:
            j -= 1
        values[i], values[j] = values[j], values[i]
    return values[: i + 1] + values[i + 1 :][::-1]


def fewest_jumps(reach: Jumps) -> int:
    """Return the fewest jumps to the last place when values tell how far one can jump, -1 if stuck."""
    jumps = edge = farthest = 0
    for place in range(len(reach) - 1):
        farthest = max(farthest, place + reach[place])
        if farthest <= place:
            return -1
        if place == edge:
            jumps += 1
            edge = farthest
    return jumps


def cheapest_stairs(costs: Naturals) -> int:
    """Return the least cost of stepping past the last stair, taking one or two stairs at a time."""
    here = before = 0
    for cost in costs:
        before, here = here, min(here, before) + cost
    return min(here, before)


def largest_square(grid: Rough, wall: Annotated[int, between(0, 1)] = 0) -> int:
    """Return the side of the largest square of cells without a wall."""
    best = 0
    sides = [[0] * (len(grid[0]) + 1) for _ in range(len(grid) + 1)]
    for i, row in enumerate(grid):
        for j, cell in enumerate(row):
            if cell != wall:
                sides[i + 1][j + 1] = 1 + min(sides[i][j], sides[i][j + 1], sides[i + 1][j])
                best = max(best, sides[i + 1][j + 1])
    return best


def gold_collected(grid: Grid) -> int:
    """Return the most gold on a way right through the grid, going straight or diagonally."""
    best = [row[0] for row in grid]
    for j in range(1, len(grid[0])):
        best = [grid[i][j] + max(best[max(0, i - 1) : i + 2]) for i in range(len(grid))]
    return max(best)


def minutes_to_rot(grid: Grid) -> int:
    """Return how long until fresh fruit (1) beside rotten fruit (2) is all rotten, -1 if some stays fresh."""
    size = len(grid)
    queue = deque((i, j, 0) for i in range(size) for j in range(size) if grid[i][j] == 2)
    fresh = sum(row.count(1) for row in grid)
    seen: set[tuple[int, int]] = set()
    last = 0
    while queue:
        i, j, minute = queue.popleft()
        for x, y in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= x < size and 0 <= y < size and grid[x][y] == 1 and (x, y) not in seen:
                seen.add((x, y))
                last = minute + 1
                queue.append((x, y, last))
    return last if len(seen) == fresh else -1


def longest_palindrome_at(
    text: Annotated[str, choice("abba", "racer", "aab", "", "level", "xyz", "banana", "noon")],
) -> str:
    """Return the longest part that reads the same backwards, the first of several."""
    best = ""
    for middle in range(len(text)):
        for left, right in ((middle, middle), (middle, middle + 1)):
            while left >= 0 and right < len(text) and text[left] == text[right]:
                left, right = left - 1, right + 1
            if right - left - 1 > len(best):
                best = text[left + 1 : right]
    return best


def word_breaks(
    text: Annotated[str, choice("catsand", "cats", "andcat", "sandcat", "aaa", "", "candy")],
    words: Annotated[
        list[str], choice(["cat", "cats", "and", "sand"], ["a", "aa"], ["cat", "s", "and"], ["can"])
    ],
) -> int:
    """Count the ways to cut a text into known words."""

    @cache
    def ways(start: int) -> int:
        if start == len(text):
            return 1
        return sum(ways(start + len(word)) for word in words if text.startswith(word, start))

    return ways(0)


def decodings(digits: Annotated[str, choice("12", "226", "06", "10", "111", "27", "", "1201", "30")]) -> int:
    """Count the ways to read digits as numbers from 1 to 26 without leading zeros."""
    before, here = 0, 1
    for i, digit in enumerate(digits):
        following = here if digit != "0" else 0
        if i > 0 and 10 <= int(digits[i - 1 : i + 1]) <= 26:
            following += before
        before, here = here, following
    return here


def matches_pattern(
    text: Annotated[str, choice("abc", "ac", "", "abbc", "b", "aabc")],
    pattern: Annotated[str, choice("a*c", "?", "*", "a?c", "*b*", "ab", "a**", "??*")],
) -> bool:
    """Match a text against a pattern with ? for one sign and * for any number of signs."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return matches_pattern(text, pattern[1:]) or (text != "" and matches_pattern(text[1:], pattern))
    if not text or pattern[0] not in ("?", text[0]):
        return False
    return matches_pattern(text[1:], pattern[1:])


def fullest_basin(walls: Naturals) -> int:
    """Return the largest area between two walls over the distance of their places, with two pointers."""
    left, right = 0, len(walls) - 1
    best = 0
    while left < right:
        best = max(best, min(walls[left], walls[right]) * (right - left))
        if walls[left] < walls[right]:
            left += 1
        else:
            right -= 1
    return best


def pairs_below(values: SortedInts, limit: Annotated[int, between(-2, 20)]) -> int:
    """Count the pairs of sorted values with a sum below a limit, from both ends."""
    left, right, count = 0, len(values) - 1, 0
    while left < right:
        if values[left] + values[right] < limit:
            count += right - left
            left += 1
        else:
            right -= 1
    return count


def closest_triple(values: Annotated[list[int], list_of(between(-6, 9), 3, 6)], goal: Int = 0) -> int:
    """Return the sum of three values that is nearest to a goal, the smaller of two."""
    values = sorted(values)
    best = sum(values[:3])
    for i in range(len(values) - 2):
        left, right = i + 1, len(values) - 1
        while left < right:
            total = values[i] + values[left] + values[right]
            if (abs(total - goal), total) < (abs(best - goal), best):
                best = total
            if total < goal:
                left += 1
            else:
                right -= 1
    return best


def boats_needed(weights: Weights, limit: Annotated[int, between(7, 10)]) -> int:
    """Count the boats for people when each carries at most two and a weight limit."""
    weights = sorted(weights)
    light, heavy = 0, len(weights) - 1
    boats = 0
    while light <= heavy:
        if weights[light] + weights[heavy] <= limit:
            light += 1
        heavy -= 1
        boats += 1
    return boats


def sort_three_kinds(values: Annotated[list[int], list_of(between(0, 2), 0, 7)]) -> list[int]:
    """Sort zeros, ones and twos in one pass with three pointers."""
    low, here, high = 0, 0, len(values) - 1
    while here <= high:
        if values[here] == 0:
            values[low], values[here] = values[here], values[low]
            low += 1
            here += 1
        elif values[here] == 2:
            values[high], values[here] = values[here], values[high]
            high -= 1
        else:
            here += 1
    return values


def fuel_start(gains: Annotated[list[int], list_of(between(-4, 5), 1, 5)]) -> int:
    """Return the first place from which a round trip never runs below zero, -1 if there is none."""
    if sum(gains) < 0:
        return -1
    start = tank = 0
    for place, gain in enumerate(gains):
        tank += gain
        if tank < 0:
            start, tank = place + 1, 0
    return start


def divisible_by_three(bits: Binary) -> bool:
    """Tell by a machine of three states whether a binary number is divisible by three."""
    state = 0
    for bit in bits:
        state = (state * 2 + (bit == "1")) % 3
    return state == 0


def number_state(
    text: Annotated[str, choice("12", "-3", "4.5", ".", "1.", "-", "", "x", "3-2", "7.a", "-0.5", "1.2.3")],
) -> str:
    """Read a text with a state machine and name it: integer, decimal or error."""
    state = "start"
    for char in text:
        if char.isdigit():
            state = {"start": "integer", "sign": "integer", "point": "decimal"}.get(state, state)
        elif char == "-" and state == "start":
            state = "sign"
        elif char == "." and state == "integer":
            state = "point"
        else:
            return "error"
    return state if state in ("integer", "decimal") else "error"


def turnstile(
    events: Annotated[str, Draw(lambda rng: "".join(rng.choice("cp") for _ in range(rng.randint(0, 8))))],
) -> tuple[int, int]:
    """Follow coins (c) and pushes (p) and return how many people passed and how many coins were lost."""
    locked = True
    passed = lost = 0
    for event in events:
        if event == "c":
            lost += not locked
            locked = False
        elif not locked:
            passed += 1
            locked = True
    return passed, lost


def debounced(samples: Flags, needed: Annotated[int, between(1, 3)] = 2) -> int:
    """Count how often a switch changes when a new state must be seen some times in a row."""
    state, streak, changes = False, 0, 0
    for sample in samples:
        streak = streak + 1 if sample != state else 0
        if streak == needed:
            state = sample
            streak = 0
            changes += 1
    return changes


def run_program(
    code: Annotated[
        list[str],
        Draw(
            lambda rng: [
                rng.choice(("inc 2", "dec 1", "jmp 2", "dbl 1", "inc 5")) for _ in range(rng.randint(0, 5))
            ]
        ),
    ],
    start: Digit = 1,
) -> int:
    """Run commands on one number; a jump skips forward."""
    value, line = start, 0
    while line < len(code):
        name, argument = code[line].split()
        if name == "jmp":
            line += int(argument)
            continue
        if name == "inc":
            value += int(argument)
        elif name == "dec":
            value -= int(argument)
        else:
            value *= 2 ** int(argument)
        line += 1
    return value


def tape_after(
    program: Annotated[str, Draw(lambda rng: "".join(rng.choice("+>+<-") for _ in range(rng.randint(0, 9))))],
    size: Annotated[int, between(1, 3)] = 3,
) -> list[int]:
    """Run + - < > on a round tape of zeros; cells never fall below zero."""
    tape = [0] * size
    head = 0
    for command in program:
        if command == "+":
            tape[head] += 1
        elif command == "-":
            tape[head] = max(0, tape[head] - 1)
        else:
            head = (head + (1 if command == ">" else -1)) % size
    return tape


def cells_after(cells: Cells, steps: Annotated[int, between(0, 3)] = 1) -> str:
    """Let cells live (#) on when exactly one of their two neighbours lives; outside nothing lives."""
    for _ in range(steps):
        padded = f".{cells}."
        cells = "".join("#" if padded[i] != padded[i + 2] else "." for i in range(len(cells)))
    return cells


def falling_dominoes(
    row: Annotated[str, Draw(lambda rng: "".join(rng.choice("..LR") for _ in range(rng.randint(0, 7))))],
) -> str:
    """Return how dominoes stand after pushes to the left (L) and right (R); equal pushes hold each other."""
    while True:
        padded = f".{row}."
        after = ""
        for i in range(1, len(padded) - 1):
            right, left = padded[i - 1] == "R", padded[i + 1] == "L"
            falls = padded[i] == "." and right != left
            after += ("R" if right else "L") if falls else padded[i]
        if after == row:
            return row
        row = after


def colliding_rocks(
    rocks: Annotated[list[int], list_of(choice(-5, -4, -2, -1, 1, 2, 3, 4, 5), 0, 5)],
) -> list[int]:
    """Let rocks fly right (positive) and left; of two that meet the smaller breaks, equal ones both."""
    flying: list[int] = []
    for rock in rocks:
        alive = True
        while alive and rock < 0 and flying and flying[-1] > 0:
            alive = flying[-1] < -rock
            if flying[-1] <= -rock:
                flying.pop()
        if alive:
            flying.append(rock)
    return flying


def candle_hours(candles: Positive, exchange: Annotated[int, between(2, 5)]) -> int:
    """Count the candles that burn when some burnt ones are melted to a new one."""
    burnt, stubs = candles, candles
    while stubs >= exchange:
        new, stubs = divmod(stubs, exchange)
        burnt += new
        stubs += new
    return burnt


def snail_days(
    depth: Annotated[int, between(0, 30)],
    up: Annotated[int, between(2, 6)],
    down: Annotated[int, between(0, 5)],
) -> int:
    """Return on which day a snail leaves a well, -1 if it never does."""
    if depth > up and up <= down:
        return -1
    height, days = 0, 0
    while height < depth:
        days += 1
        height += up
        if height < depth:
            height -= down
    return days


def pour_steps(
    large: Annotated[int, between(3, 7)],
    small: Annotated[int, between(1, 5)],
    goal: Annotated[int, between(0, 6)],
) -> int:
    """Count the pours from a refilled large jug to an emptied small one until a goal stays, -1 if never."""
    left = filled = pours = 0
    while left != goal:
        if pours > 12:
            return -1
        if left == 0:
            left = large
        moved = min(left, small - filled)
        left -= moved
        filled = (filled + moved) % small
        pours += 1
    return pours


def doors_open(doors: Annotated[int, between(0, 20)], rounds: Annotated[int, between(0, 6)]) -> list[int]:
    """Toggle every k-th door in round k and list the open doors."""
    is_open = [False] * (doors + 1)
    for step in range(1, rounds + 1):
        for door in range(step, doors + 1, step):
            is_open[door] = not is_open[door]
    return [door for door in range(1, doors + 1) if is_open[door]]


def signal_round(strengths: SomeInts, threshold: Digit = 4) -> list[int]:
    """Pass strengths to the right once: what exceeds a threshold moves on, the last keeps all."""
    levels = strengths[:]
    for i in range(len(levels) - 1):
        extra = levels[i] - threshold
        if extra > 0:
            levels[i] -= extra
            levels[i + 1] += extra
    return levels


def least_multiplications(sizes: Annotated[list[int], list_of(between(1, 6), 2, 5)]) -> int:
    """Return the least number of multiplications for a chain of matrices given by its sizes."""

    @cache
    def cost(first: int, last: int) -> int:
        if last - first < 2:
            return 0
        ends = sizes[first] * sizes[last]
        return min(cost(first, k) + cost(k, last) + ends * sizes[k] for k in range(first + 1, last))

    return cost(0, len(sizes) - 1)


def stone_game_lead(stones: Naturals) -> int:
    """Return by how much the first player wins when both take the better end of a row of stones."""
    if not stones:
        return 0
    from_left = stones[0] - stone_game_lead(stones[1:])
    from_right = stones[-1] - stone_game_lead(stones[:-1])
    return max(from_left, from_right)


def winning_heap(
    stones: Annotated[int, between(0, 20)],
    moves: Annotated[list[int], choice([1, 2], [1, 3, 4], [2, 3], [2], [1, 5])],
) -> bool:
    """Tell whether who moves first takes the last possible turn; a move takes one of the given numbers."""
    wins = [False] * (stones + 1)
    for n in range(1, stones + 1):
        wins[n] = any(move <= n and not wins[n - move] for move in moves)
    return wins[stones]


def egg_drops(floors: Annotated[int, between(0, 30)], eggs: Annotated[int, between(1, 3)]) -> int:
    """Return how many drops find the floor from which eggs break in the worst case."""
    drops = 0
    reach = [0] * (eggs + 1)
    while reach[eggs] < floors:
        drops += 1
        for egg in range(eggs, 0, -1):
            reach[egg] += reach[egg - 1] + 1
    return drops


def smallest_capacity(weights: Weights, days: Annotated[int, between(1, 3)]) -> int:
    """Return the least daily capacity that moves weights in their order within some days."""
    capacity = max(weights, default=0)
    while True:
        used, load = 1, 0
        for weight in weights:
            if load + weight > capacity:
                used, load = used + 1, 0
            load += weight
        if used <= days:
            return capacity
        capacity += 1


def nested_depth_sum(
    groups: Annotated[list, choice([1, [2, 3]], [[4], [[5]]], [], [1, [2, [3]]], [[[]], 6])],
    depth: Annotated[int, between(1, 2)] = 1,
) -> int:
    """Add up the numbers in nested lists, each times its depth."""
    total = 0
    for item in groups:
        if isinstance(item, list):
            total += nested_depth_sum(item, depth + 1)
        else:
            total += item * depth
    return total


def survivors(values: Ints, step: Annotated[int, between(2, 4)] = 2) -> list[int]:
    """Strike out every `step`-th value again and again until fewer than `step` are left."""
    while len(values) >= step:
        values = [value for count, value in enumerate(values, start=1) if count % step != 0]
    return values
