"""Evaluation only: lists, grids, graphs, tables."""

from __future__ import annotations

from typing import Annotated

from examples.train_mini.kinds import (
    Count,
    Int,
    Ints,
    Items,
    Naturals,
    Positive,
    Rows,
    SomeInts,
    SomeWords,
    SortedInts,
    Square,
    Table,
    Words,
    between,
    choice,
)

Intervals = Annotated[
    list[tuple[int, int]],
    choice(
        [(1, 3), (2, 6), (8, 9)], [], [(1, 4), (4, 5)], [(5, 6), (1, 2)], [(0, 9), (2, 3)], [(1, 2), (3, 4)]
    ),
]
Board = Annotated[
    list[str],
    choice(
        ["XXX", "O O", "   "],
        ["XOX", "OXO", "OXO"],
        ["XO ", "XO ", " O "],
        ["OX ", "XO ", "  O"],
        ["  X", " X ", "XOO"],
    ),
]
Graph = Annotated[
    dict[str, list[str]],
    choice(
        {"a": ["b"], "b": ["c"], "c": []},
        {"a": [], "b": ["a"]},
        {"x": ["y", "z"], "y": ["z"], "z": []},
        {"a": ["b"], "b": ["a"]},
    ),
]
Grid = Annotated[
    list[str],
    choice(["##.", "...", "#.#"], ["..", ".."], ["#"], ["#.#", ".#.", "#.#"], ["###", "..#", "###"]),
]
Tree = list["int | Tree"]
Nested = Annotated[Tree, choice([1, [2, [3]]], [], [[1, 2], 3], [[[4]]], [1, [], [2]])]


def merge_intervals(intervals: Intervals) -> list[tuple[int, int]]:
    """Join intervals that touch or overlap."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def rooms_needed(meetings: Intervals) -> int:
    """Return how many rooms meetings need at once."""
    events: list[tuple[int, int]] = []
    for start, end in meetings:
        events.append((start, 1))
        events.append((end, -1))
    needed = current = 0
    for _, change in sorted(events):
        current += change
        needed = max(needed, current)
    return needed


def binary_search(values: SortedInts, target: Int) -> int:
    """Return a place of `target` in sorted values, or -1."""
    low, high = 0, len(values) - 1
    while low <= high:
        middle = (low + high) // 2
        if values[middle] == target:
            return middle
        if values[middle] < target:
            low = middle + 1
        else:
            high = middle - 1
    return -1


def insertion_place(values: SortedInts, target: Int) -> int:
    """Return where `target` belongs in sorted values."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < target:
            low = middle + 1
        else:
            high = middle
    return low


def bubble_sort(values: Ints) -> list[int]:
    """Sort by swapping neighbours."""
    items = list(values)
    for end in range(len(items) - 1, 0, -1):
        for i in range(end):
            if items[i] > items[i + 1]:
                items[i], items[i + 1] = items[i + 1], items[i]
    return items


def merge_sorted(a: SortedInts, b: SortedInts) -> list[int]:
    """Merge two sorted lists."""
    result: list[int] = []
    i = j = 0
    while i < len(a) and j < len(b):
        if a[i] <= b[j]:
            result.append(a[i])
            i += 1
        else:
            result.append(b[j])
            j += 1
    return result + a[i:] + b[j:]


def merge_sort(values: Ints) -> list[int]:
    """Sort by merging halves."""
    if len(values) <= 1:
        return list(values)
    middle = len(values) // 2
    return merge_sorted(merge_sort(values[:middle]), merge_sort(values[middle:]))


def quick_sort(values: Ints) -> list[int]:
    """Sort around a pivot."""
    if len(values) < 2:
        return list(values)
    pivot, *rest = values
    smaller = [value for value in rest if value < pivot]
    larger = [value for value in rest if value >= pivot]
    return [*quick_sort(smaller), pivot, *quick_sort(larger)]


def two_sum(values: Ints, target: Int) -> tuple[int, int] | None:
    """Return the places of two values with a given sum."""
    places: dict[int, int] = {}
    for i, value in enumerate(values):
        if target - value in places:
            return places[target - value], i
        places[value] = i
    return None


def majority(values: Naturals) -> int | None:
    """Return the value that takes more than half the places."""
    candidate, count = None, 0
    for value in values:
        if count == 0:
            candidate = value
        count += 1 if value == candidate else -1
    if candidate is not None and values.count(candidate) > len(values) // 2:
        return candidate
    return None


def rotate_right(values: Ints, steps: Count) -> list[int]:
    """Rotate to the right."""
    if not values:
        return []
    steps %= len(values)
    return values[-steps:] + values[:-steps] if steps else list(values)


def chunks(values: Ints, size: Annotated[int, between(1, 4)]) -> list[list[int]]:
    """Cut a list into pieces."""
    return [values[i : i + size] for i in range(0, len(values), size)]


def flatten(nested: Nested) -> list[int]:
    """Flatten lists within lists."""
    result: list[int] = []
    for item in nested:
        if isinstance(item, list):
            result.extend(flatten(item))
        else:
            result.append(item)
    return result


def transpose(rows: Rows) -> list[list[int]]:
    """Swap rows and columns."""
    return [[row[column] for row in rows] for column in range(len(rows[0]))]


def rotate_square(matrix: Square) -> list[list[int]]:
    """Turn a matrix clockwise."""
    size = len(matrix)
    result = [[0] * size for _ in range(size)]
    for i in range(size):
        for j in range(size):
            result[j][size - 1 - i] = matrix[i][j]
    return result


def diagonal_sums(matrix: Square) -> tuple[int, int]:
    """Return the sums of both diagonals."""
    size = len(matrix)
    main = sum(matrix[i][i] for i in range(size))
    other = sum(matrix[i][size - 1 - i] for i in range(size))
    return main, other


def matrix_product(a: Square, b: Square) -> list[list[int]]:
    """Multiply two matrices as far as they fit."""
    size = min(len(a), len(b))
    return [[sum(a[i][k] * b[k][j] for k in range(size)) for j in range(size)] for i in range(size)]


def determinant(matrix: Square) -> int:
    """Return the determinant by the first row."""
    if len(matrix) == 1:
        return matrix[0][0]
    total = 0
    for column, value in enumerate(matrix[0]):
        minor = [row[:column] + row[column + 1 :] for row in matrix[1:]]
        sign = -1 if column % 2 else 1
        total += sign * value * determinant(minor)
    return total


def spiral(rows: Rows) -> list[int]:
    """Read a matrix in a spiral."""
    result: list[int] = []
    left = [list(row) for row in rows]
    while left:
        result += left.pop(0)
        left = [list(column) for column in zip(*left, strict=True)][::-1]
    return result


def saddle_points(rows: Rows) -> list[tuple[int, int]]:
    """Find values that are largest in their row and smallest in their column."""
    points: list[tuple[int, int]] = []
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            column = [other[j] for other in rows]
            if value == max(row) and value == min(column):
                points.append((i, j))
    return points


def winner(board: Board) -> str | None:
    """Return who won at tic-tac-toe."""
    lines = list(board)
    lines += ["".join(row[i] for row in board) for i in range(3)]
    lines.append("".join(board[i][i] for i in range(3)))
    lines.append("".join(board[i][2 - i] for i in range(3)))
    for line in lines:
        if line[0] != " " and line.count(line[0]) == 3:
            return line[0]
    return None


def islands(grid: Grid) -> int:
    """Count groups of joined # signs."""
    cells = {(i, j) for i, row in enumerate(grid) for j, sign in enumerate(row) if sign == "#"}
    count = 0
    while cells:
        count += 1
        stack = [min(cells)]
        while stack:
            i, j = stack.pop()
            if (i, j) in cells:
                cells.remove((i, j))
                stack += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
    return count


def live_neighbours(
    grid: Grid, row: Annotated[int, between(0, 2)], column: Annotated[int, between(0, 2)]
) -> int:
    """Count the # signs around a cell."""
    count = 0
    for i in range(row - 1, row + 2):
        for j in range(column - 1, column + 2):
            if (i, j) == (row, column):
                continue
            if 0 <= i < len(grid) and 0 <= j < len(grid[i]) and grid[i][j] == "#":
                count += 1
    return count


def grid_paths(width: Annotated[int, between(1, 5)], height: Annotated[int, between(1, 5)]) -> int:
    """Count ways right and down through a grid."""
    row = [1] * width
    for _ in range(height - 1):
        for i in range(1, width):
            row[i] += row[i - 1]
    return row[-1]


def topological_order(graph: Graph) -> list[str] | None:
    """Order nodes so that each stands after those it needs; None for a cycle."""
    order: list[str] = []
    waiting = {node: set(needs) for node, needs in graph.items()}
    while waiting:
        ready = sorted(node for node, needs in waiting.items() if not needs)
        if not ready:
            return None
        for node in ready:
            order.append(node)
            del waiting[node]
        for needs in waiting.values():
            needs.difference_update(ready)
    return order


def shortest_path(
    graph: Graph,
    start: Annotated[str, choice("a", "b", "x")],
    goal: Annotated[str, choice("a", "b", "c", "z")],
) -> int:
    """Return the number of edges between two nodes, or -1."""
    distances = {start: 0}
    queue = [start]
    while queue:
        node = queue.pop(0)
        if node == goal:
            return distances[node]
        for other in graph.get(node, []):
            if other not in distances:
                distances[other] = distances[node] + 1
                queue.append(other)
    return -1


def longest_increasing(values: Ints) -> int:
    """Return the length of the longest increasing subsequence."""
    best: list[int] = []
    for i, value in enumerate(values):
        length = 1
        for j in range(i):
            if values[j] < value and best[j] + 1 > length:
                length = best[j] + 1
        best.append(length)
    return max(best, default=0)


def knapsack(
    weights: Annotated[list[int], choice([1, 2, 3], [2, 2], [4], [1, 3, 4])], capacity: Count
) -> int:
    """Return the best value; an item is worth its weight times its place."""
    table = [0] * (capacity + 1)
    for place, weight in enumerate(weights, 1):
        for room in range(capacity, weight - 1, -1):
            table[room] = max(table[room], table[room - weight] + weight * place)
    return table[capacity]


def subsets(values: Annotated[list[int], choice([1, 2], [], [3], [1, 2, 3])]) -> list[list[int]]:
    """List all subsets."""
    result: list[list[int]] = [[]]
    for value in values:
        result += [[*subset, value] for subset in result]
    return result


def permutations_of(values: Annotated[list[int], choice([1, 2], [5], [1, 2, 3], [])]) -> list[list[int]]:
    """List all orders."""
    if not values:
        return [[]]
    result: list[list[int]] = []
    for i, value in enumerate(values):
        rests = permutations_of(values[:i] + values[i + 1 :])
        result += [[value, *rest] for rest in rests]
    return result


def hanoi(
    disks: Annotated[int, between(0, 3)],
    source: Annotated[str, choice("A")] = "A",
    target: Annotated[str, choice("C")] = "C",
    spare: Annotated[str, choice("B")] = "B",
) -> list[str]:
    """List the moves of the tower puzzle."""
    if disks == 0:
        return []
    moves = hanoi(disks - 1, source, spare, target)
    moves.append(source + target)
    return moves + hanoi(disks - 1, spare, target, source)


def top_scores(scores: Items, count: Annotated[int, between(1, 3)]) -> list[str]:
    """Return the names with the highest scores."""
    ordered = sorted(scores, key=lambda item: (-item[1], item[0]))
    return [name for name, _ in ordered[:count]]


def ranks(scores: Naturals) -> list[int]:
    """Return the rank of each score, equal scores share one."""
    ordered = sorted(scores, reverse=True)
    return [ordered.index(score) + 1 for score in scores]


def invert(table: Table) -> dict[int, list[str]]:
    """Swap keys and values; keys of equal values are listed."""
    result: dict[int, list[str]] = {}
    for key, value in table.items():
        result.setdefault(value, []).append(key)
    return result


def merge_counts(a: Table, b: Table) -> dict[str, int]:
    """Add two tables of counts."""
    result = dict(a)
    for key, value in b.items():
        result[key] = result.get(key, 0) + value
    return result


def changed_keys(old: Table, new: Table) -> list[str]:
    """Return keys that were added, removed or changed."""
    keys = set(old) | set(new)
    return sorted(key for key in keys if old.get(key) != new.get(key))


def pairs_to_table(pairs: Items) -> dict[str, list[int]]:
    """Collect values by name."""
    table: dict[str, list[int]] = {}
    for name, value in pairs:
        if name not in table:
            table[name] = []
        table[name].append(value)
    return table


def word_lengths(words: Words) -> dict[int, int]:
    """Count words by their length."""
    counts: dict[int, int] = {}
    for word in words:
        size = len(word)
        counts[size] = counts.get(size, 0) + 1
    return counts


def missing_numbers(values: Naturals) -> list[int]:
    """Return what is missing between the smallest and the largest."""
    if not values:
        return []
    return [n for n in range(min(values), max(values) + 1) if n not in values]


def equilibrium(values: SomeInts) -> int:
    """Return the first place with equal sums on both sides, or -1."""
    left = 0
    total = sum(values)
    for i, value in enumerate(values):
        if left == total - left - value:
            return i
        left += value
    return -1


def interleave(a: Ints, b: Ints) -> list[int]:
    """Take items from both lists in turn."""
    result: list[int] = []
    for i in range(max(len(a), len(b))):
        if i < len(a):
            result.append(a[i])
        if i < len(b):
            result.append(b[i])
    return result


def remove_every(values: Ints, step: Annotated[int, between(2, 4)]) -> list[int]:
    """Leave out every `step`-th item."""
    return [value for i, value in enumerate(values, 1) if i % step != 0]


def round_robin(names: SomeWords, rounds: Positive) -> list[str]:
    """Name whose turn it is in each of up to six rounds."""
    return [names[i % len(names)] for i in range(min(rounds, 6))]
