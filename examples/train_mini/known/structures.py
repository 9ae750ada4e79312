"""Stacks, queues, linked lists, trees, heaps, ring buffers, sets, graphs, tries and matrices."""

# Trees are nested tuples whose bare hints are what the shown code carries.
# pyright: reportMissingTypeArgument=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import heapq
from collections import deque
from random import Random
from typing import Annotated

from examples.train_mini.kinds import (
    Digit,
    Draw,
    Flag,
    Int,
    Ints,
    Items,
    Naturals,
    Pairs,
    Positive,
    Rows,
    SortedInts,
    Square,
    Word,
    Words,
    between,
    choice,
    dict_of,
    list_of,
)


def _draw_tree(rng: Random, depth: int = 3) -> tuple | None:
    if depth == 0 or rng.random() < 0.3:
        return None
    return (_draw_tree(rng, depth - 1), rng.randint(0, 9), _draw_tree(rng, depth - 1))


def _draw_search_tree(rng: Random) -> tuple | None:
    def build(values: list[int]) -> tuple | None:
        if not values:
            return None
        i = rng.randrange(len(values))
        return (build(values[:i]), values[i], build(values[i + 1 :]))

    return build(sorted(rng.sample(range(12), rng.randint(0, 4))))


def _draw_chain(rng: Random) -> tuple | None:
    chain = None
    for _ in range(rng.randint(0, 4)):
        chain = (rng.randint(0, 5), chain)
    return chain


def _draw_graph(rng: Random) -> dict[str, list[str]]:
    nodes = "abcd"[: rng.randint(1, 4)]
    return {node: sorted(rng.sample(nodes, rng.randint(0, min(2, len(nodes))))) for node in nodes}


TREE = Draw(_draw_tree)
Tree = Annotated[tuple | None, TREE]
SmallTree = Annotated[
    tuple | None,
    choice(
        (None, 1, (None, 2, None)),
        ((None, 1, None), 1, (None, 3, None)),
        (None, 2, None),
        ((None, 0, None), 0, None),
    ),
]
SearchTree = Annotated[tuple | None, Draw(_draw_search_tree)]
Chain = Annotated[tuple | None, Draw(_draw_chain)]
Graph = Annotated[dict[str, list[str]], Draw(_draw_graph)]
Node = Annotated[str, choice("a", "a", "b", "c", "d")]
Parents = Annotated[dict[str, str], dict_of(choice("d", "e", "f", "g"), choice("a", "b", "c"), 0, 3)]
Keys = Annotated[list[str], list_of(choice("to", "tea", "ten", "in", "inn", "t"), 0, 4)]
Small = Annotated[int, between(0, 5)]


def tree_height(tree: Tree) -> int:
    """Return the number of levels of a tree of (left, value, right)."""
    if tree is None:
        return 0
    left, _, right = tree
    return 1 + max(tree_height(left), tree_height(right))


def tree_values(tree: Tree) -> list[int]:
    """Return the values of a tree (left, value, right) from left to right."""
    if tree is None:
        return []
    left, value, right = tree
    return [*tree_values(left), value, *tree_values(right)]


def level_sums(tree: Tree) -> list[int]:
    """Add up each level of a tree (left, value, right), from the root down."""
    sums: list[int] = []
    level = [tree] if tree else []
    while level:
        sums.append(sum(value for _, value, _ in level))
        level = [child for left, _, right in level for child in (left, right) if child is not None]
    return sums


def count_leaves(tree: Tree) -> int:
    """Count the nodes of a tree (left, value, right) without children."""
    waiting = [tree]
    leaves = 0
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        left, _, right = node
        if left is None and right is None:
            leaves += 1
        waiting += [left, right]
    return leaves


def best_path_sum(tree: Tree) -> int:
    """Return the largest sum of values on a way from the root of (left, value, right) to a leaf."""
    if tree is None:
        return 0
    left, value, right = tree
    return value + max(best_path_sum(left), best_path_sum(right))


def has_path_sum(tree: SmallTree, goal: Annotated[int, between(0, 4)]) -> bool:
    """Tell whether the values on a way from the root to a leaf add up to a goal."""
    if tree is None:
        return False
    left, value, right = tree
    rest = goal - value
    if left is None and right is None:
        return rest == 0
    return has_path_sum(left, rest) or has_path_sum(right, rest)


def mirror_tree(tree: Tree) -> tuple | None:
    """Exchange left and right everywhere in a tree (left, value, right)."""
    if tree is None:
        return None
    left, value, right = tree
    return (mirror_tree(right), value, mirror_tree(left))


def is_balanced_tree(tree: Tree) -> bool:
    """Tell whether the heights below every node of (left, value, right) differ by at most one."""

    def height(node: tuple | None) -> int:
        if node is None:
            return 0
        left, right = height(node[0]), height(node[2])
        if left < 0 or right < 0 or abs(left - right) > 1:
            return -1
        return max(left, right) + 1

    return height(tree) >= 0


def insert_into_tree(tree: SearchTree, value: Annotated[int, between(0, 12)]) -> tuple:
    """Return a search tree (left, value, right) with one more value; a known one changes nothing."""
    if tree is None:
        return (None, value, None)
    left, here, right = tree
    if value < here:
        return (insert_into_tree(left, value), here, right)
    if value > here:
        return (left, here, insert_into_tree(right, value))
    return tree


def largest_not_above(tree: SearchTree, limit: Annotated[int, between(-1, 12)]) -> int | None:
    """Return the largest value of a search tree that is at most a limit, or None."""
    best = None
    while tree is not None:
        left, value, right = tree
        if value <= limit:
            best = value
            tree = right
        else:
            tree = left
    return best


def values_in_range(tree: SearchTree, low: Small, high: Annotated[int, between(3, 11)]) -> list[int]:
    """Return the values of a search tree from low to high, skipping branches outside."""
    if tree is None:
        return []
    left, value, right = tree
    found: list[int] = values_in_range(left, low, high) if value > low else []
    if low <= value <= high:
        found.append(value)
    return found + (values_in_range(right, low, high) if value < high else [])


def depth_in_tree(tree: SearchTree, value: Annotated[int, between(0, 11)]) -> int:
    """Return how deep a value stands in a search tree, 0 for the root and -1 if it is not there."""
    depth = 0
    while tree is not None and tree[1] != value:
        tree = tree[0] if value < tree[1] else tree[2]
        depth += 1
    return depth if tree is not None else -1


def balanced_tree(values: SortedInts) -> tuple | None:
    """Build a tree (left, value, right) of least height from sorted values."""
    if not values:
        return None
    middle = len(values) // 2
    return (balanced_tree(values[:middle]), values[middle], balanced_tree(values[middle + 1 :]))


def chain_values(chain: Chain, most: Annotated[int, between(0, 5)] = 3) -> list[int]:
    """Return the first values of a linked list of (value, rest)."""
    values: list[int] = []
    while chain is not None and len(values) < most:
        value, chain = chain
        values.append(value)
    return values


def reverse_chain(chain: Chain) -> tuple | None:
    """Reverse a linked list of (value, rest)."""
    reverse: tuple | None = None
    while chain is not None:
        value, chain = chain
        reverse = (value, reverse)
    return reverse


def remove_from_chain(chain: Chain, unwanted: Small) -> tuple | None:
    """Return a linked list of (value, rest) without a value."""
    if chain is None:
        return None
    value, rest = chain
    kept = remove_from_chain(rest, unwanted)
    return kept if value == unwanted else (value, kept)


def chain_from_end(chain: Chain, place: Annotated[int, between(1, 4)]) -> int:
    """Return the value at a place counted from the end of (value, rest), -1 if it is too short."""
    ahead = chain
    for _ in range(place):
        if ahead is None:
            return -1
        ahead = ahead[1]
    behind = chain
    while ahead is not None and behind is not None:
        ahead, behind = ahead[1], behind[1]
    return behind[0] if behind else -1


def cycle_length(
    follow: Annotated[list[int], choice([1, 2, 0], [0], [1, 0, 1], [2, 2, 1], [3, 0, 1, 1], [1, 2, 3, 3])],
) -> int:
    """Follow indices from 0 and return the length of the loop that is reached."""
    seen: dict[int, int] = {}
    place = step = 0
    while place not in seen:
        seen[place] = step
        place = follow[place]
        step += 1
    return step - seen[place]


def reachable(graph: Graph, start: Node) -> list[str]:
    """Return in alphabetic order all nodes that can be reached from a node, itself included."""
    seen = {start}
    waiting = [start]
    while waiting:
        for follower in graph.get(waiting.pop(), []):
            if follower not in seen:
                seen.add(follower)
                waiting.append(follower)
    return sorted(seen)


def in_degrees(graph: Graph) -> dict[str, int]:
    """Count for each node of a graph how many edges of others lead to it."""
    degrees = dict.fromkeys(graph, 0)
    for node, followers in graph.items():
        for follower in followers:
            if follower != node:
                degrees[follower] += 1
    return degrees


def has_cycle(graph: Graph) -> bool:
    """Tell whether some way through a directed graph comes back to its start."""
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> bool:
        if node in path:
            return True
        if node in done:
            return False
        done.add(node)
        return any(visit(follower, (*path, node)) for follower in graph[node])

    return any(visit(node, ()) for node in graph)


def reversed_graph(graph: Graph) -> dict[str, list[str]]:
    """Turn all edges of a graph around."""
    turned: dict[str, list[str]] = {node: [] for node in graph}
    for node, followers in graph.items():
        for follower in followers:
            turned[follower].append(node)
    return turned


def mutual_edges(graph: Graph) -> list[tuple[str, str]]:
    """List the pairs of different nodes that lead to each other, each pair once."""
    return [(a, b) for a in graph for b in graph[a] if a < b and a in graph[b]]


def two_colours(edges: Pairs) -> bool:
    """Tell whether the nodes of an undirected graph can be coloured so that no edge joins equal colours."""
    neighbours: dict[int, list[int]] = {}
    for a, b in edges:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    colours: dict[int, int] = {}
    for start in neighbours:
        colours.setdefault(start, 0)
        waiting = [start]
        while waiting:
            node = waiting.pop()
            for other in neighbours[node]:
                if other not in colours:
                    colours[other] = 1 - colours[node]
                    waiting.append(other)
                elif colours[other] == colours[node]:
                    return False
    return True


def components(size: Annotated[int, between(1, 7)], edges: Pairs) -> int:
    """Count the connected groups among the nodes 0 to size - 1; edges to other nodes are ignored."""
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    for a, b in edges:
        if a < size and b < size:
            parent[root(a)] = root(b)
    return sum(parent[node] == node for node in range(size))


def ancestors(
    parents: Annotated[
        dict[str, str], choice({"b": "a", "c": "b", "d": "c"}, {"b": "a", "d": "a"}, {"c": "b", "b": "d"})
    ],
    node: Node,
) -> list[str]:
    """List the parents of a node up to the root, the nearest first."""
    line: list[str] = []
    while node in parents:
        node = parents[node]
        line.append(node)
    return line


def children_of(parents: Parents) -> dict[str, list[str]]:
    """Turn a table of parents into a table of sorted children."""
    table: dict[str, list[str]] = {}
    for child, parent in sorted(parents.items()):
        table.setdefault(parent, []).append(child)
    return table


def cheapest_route(
    roads: Annotated[
        dict[str, int],
        choice(
            {"ab": 3, "bc": 1, "ac": 7},
            {"ab": 2, "bd": 9, "ac": 4, "cd": 1},
            {"ab": 5},
            {"cb": 1, "ac": 1, "ab": 4},
        ),
    ],
    goal: Node,
) -> int:
    """Return the least cost from a to a goal along one-way roads named by their ends, -1 if none."""
    queue = [(0, "a")]
    done: set[str] = set()
    while queue:
        cost, node = heapq.heappop(queue)
        if node == goal:
            return cost
        if node in done:
            continue
        done.add(node)
        for road, length in roads.items():
            if road[0] == node:
                heapq.heappush(queue, (cost + length, road[1]))
    return -1


def is_heap(values: Annotated[list[int], list_of(between(0, 9), 0, 4)]) -> bool:
    """Tell whether no value is smaller than its parent in a binary heap kept in a list."""
    return all(values[(i - 1) // 2] <= values[i] for i in range(1, len(values)))


def sift_up(
    heap: Annotated[list[int], choice([1, 3, 2], [], [2], [1, 4, 6, 5], [0, 2, 1, 7, 3])], value: Digit
) -> list[int]:
    """Add a value to a smallest-first heap kept in a list."""
    heap = [*heap, value]
    i = len(heap) - 1
    while i > 0 and heap[i] < heap[(i - 1) // 2]:
        parent = (i - 1) // 2
        heap[i], heap[parent] = heap[parent], heap[i]
        i = parent
    return heap


def join_smallest(lengths: Naturals) -> int:
    """Return the cost of joining ropes to one when each join costs the length it makes."""
    heap = list(lengths)
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        cost += joined
        heapq.heappush(heap, joined)
    return cost


def trie_of(words: Keys) -> dict:
    """Build a trie of dictionaries in which a full stop marks the end of a word."""
    trie: dict = {}
    for word in words:
        node = trie
        for char in word:
            node = node.setdefault(char, {})
        node["."] = {}
    return trie


def completions(words: Keys, start: Annotated[str, choice("t", "te", "in", "", "x", "to")]) -> list[str]:
    """Return the different words that begin with a start but are longer, sorted."""
    longer = {word for word in words if word.startswith(start) and word != start}
    return sorted(longer)


def row_with_most(
    matrix: Annotated[list[list[int]], list_of(list_of(between(0, 2), 3, 3), 1, 3)],
    wanted: Annotated[int, between(0, 2)],
) -> int:
    """Return the index of the row that has a value most often, the first of several."""
    best = 0
    for i, row in enumerate(matrix):
        if row.count(wanted) > matrix[best].count(wanted):
            best = i
    return best


def is_symmetric(
    matrix: Annotated[
        list[list[int]],
        choice(
            [[1, 2], [2, 1]],
            [[1, 2], [3, 1]],
            [[5]],
            [[0, 1, 2], [1, 4, 3], [2, 3, 0]],
            [[0, 1, 2], [1, 4, 3], [2, 9, 0]],
        ),
    ],
    sign: Annotated[int, choice(1, 1, -1)] = 1,
) -> bool:
    """Tell whether a matrix equals its mirror image at the diagonal, times a sign."""
    size = len(matrix)
    return all(matrix[i][j] == sign * matrix[j][i] for i in range(size) for j in range(i))


def zero_crosses(matrix: Rows) -> list[list[int]]:
    """Set every row and column of a matrix to zero that has a zero in it."""
    rows = {i for i, row in enumerate(matrix) if 0 in row}
    columns = {j for row in matrix for j, value in enumerate(row) if value == 0}
    result: list[list[int]] = []
    for i, row in enumerate(matrix):
        result.append([0 if i in rows or j in columns else value for j, value in enumerate(row)])
    return result


def border_sum(matrix: Square) -> int:
    """Add up the values on the border of a square matrix."""
    last = len(matrix) - 1
    total = 0
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            if i in (0, last) or j in (0, last):
                total += value
    return total


def diagonals(matrix: Rows) -> list[list[int]]:
    """Collect the values of a matrix by the sum of row and column number."""
    lines: list[list[int]] = [[] for _ in range(len(matrix) + len(matrix[0]) - 1)]
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            lines[i + j].append(value)
    return lines


def times_vector(matrix: Rows, vector: Annotated[list[int], list_of(between(-2, 3), 3, 3)]) -> list[int]:
    """Multiply a matrix by the first values of a vector."""
    return [sum(a * b for a, b in zip(row, vector, strict=False)) for row in matrix]


class BoundedStack:
    """A stack that refuses items when it is full."""

    def __init__(self, capacity: Annotated[int, between(1, 3)]) -> None:
        self.capacity = capacity
        self.items: list[int] = []

    def push(self, item: Int) -> bool:
        """Add an item and tell whether there was room."""
        if len(self.items) >= self.capacity:
            return False
        self.items.append(item)
        return True

    def drop(self, count: Annotated[int, between(0, 2)]) -> None:
        """Remove some items from the top."""
        self.items = self.items[: max(0, len(self.items) - count)]

    def fill(self, item: Int) -> None:
        """Fill the free room with an item."""
        while len(self.items) < self.capacity:
            self.items.append(item)

    def top(self) -> int | None:
        """Return the top item, None if there is none."""
        return self.items[-1] if self.items else None


class TwoStackQueue:
    """A queue made of two stacks."""

    def __init__(self) -> None:
        self.inbox: list[int] = []
        self.outbox: list[int] = []

    def add(self, item: Int) -> None:
        """Put an item at the end."""
        self.inbox.append(item)

    def skip(self) -> None:
        """Remove the first item if there is one."""
        self._move()
        if self.outbox:
            self.outbox.pop()

    def first(self) -> int:
        """Return the first item, -1 if the queue is empty."""
        self._move()
        return self.outbox[-1] if self.outbox else -1

    def size(self) -> int:
        """Return the number of items."""
        return len(self.inbox) + len(self.outbox)

    def _move(self) -> None:
        if not self.outbox:
            while self.inbox:
                self.outbox.append(self.inbox.pop())


class RingBuffer:
    """Keeps the last values in a list of fixed size."""

    def __init__(self, size: Annotated[int, between(1, 3)]) -> None:
        self.slots: list[int | None] = [None] * size
        self.written = 0

    def write(self, value: Int) -> None:
        """Store a value in place of the oldest one."""
        self.slots[self.written % len(self.slots)] = value
        self.written += 1

    def oldest(self) -> int | None:
        """Return the oldest value kept, None if there is none."""
        if self.written < len(self.slots):
            return self.slots[0]
        return self.slots[self.written % len(self.slots)]

    def lost(self) -> int:
        """Return how many values were overwritten."""
        return max(0, self.written - len(self.slots))


class LinkedList:
    """A list of nodes [value, next]."""

    def __init__(self) -> None:
        self.head: list | None = None

    def push_front(self, value: Small) -> None:
        """Put a value at the start."""
        self.head = [value, self.head]

    def append(self, value: Small) -> None:
        """Put a value at the end."""
        if self.head is None:
            self.head = [value, None]
            return
        node = self.head
        while node[1] is not None:
            node = node[1]
        node[1] = [value, None]

    def remove_first(self) -> None:
        """Drop the first value if there is one."""
        if self.head is not None:
            self.head = self.head[1]

    def values(self) -> list[int]:
        """Return all values in order."""
        found: list[int] = []
        node = self.head
        while node:
            found.append(node[0])
            node = node[1]
        return found


class PriorityLine:
    """A queue in which a smaller number goes first; equal ones keep their order."""

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, str]] = []
        self.arrivals = 0

    def join(self, name: Word, priority: Annotated[int, between(1, 3)] = 2) -> None:
        """Let somebody join."""
        heapq.heappush(self.heap, (priority, self.arrivals, name))
        self.arrivals += 1

    def serve(self) -> str:
        """Remove and return the next name, an empty text if nobody waits."""
        return heapq.heappop(self.heap)[2] if self.heap else ""

    def waiting(self, priority: Annotated[int, between(1, 3)]) -> int:
        """Count those whose number is at most a limit."""
        return sum(1 for entry in self.heap if entry[0] <= priority)


class Multiset:
    """A set that counts its members."""

    def __init__(self, members: Words) -> None:
        self.counts: dict[str, int] = {}
        for member in members:
            self.add(member)

    def add(self, member: Word, times: Annotated[int, between(1, 3)] = 1) -> None:
        """Add a member a number of times."""
        self.counts[member] = self.counts.get(member, 0) + times

    def discard(self, member: Word) -> None:
        """Take one copy of a member away if there is one."""
        if member in self.counts:
            self.counts[member] -= 1
            if self.counts[member] == 0:
                del self.counts[member]

    def repeated(self) -> list[str]:
        """Return in order the members that are there more than once."""
        return sorted(member for member, count in self.counts.items() if count > 1)

    def size(self, distinct: Flag = False) -> int:
        """Return how many members there are, with or without copies."""
        return len(self.counts) if distinct else sum(self.counts.values())


class DisjointSets:
    """Groups of numbers that can be joined."""

    def __init__(self, size: Annotated[int, between(2, 6)]) -> None:
        self.parent = list(range(size))

    def root(self, node: Small) -> int:
        """Return the number that stands for the group of a number."""
        node %= len(self.parent)
        while self.parent[node] != node:
            node = self.parent[node]
        return node

    def join(self, a: Small, b: Small) -> None:
        """Join two groups; the smaller root stays."""
        low, high = sorted((self.root(a), self.root(b)))
        self.parent[high] = low

    def groups(self) -> int:
        """Return the number of groups."""
        return sum(1 for i, parent in enumerate(self.parent) if i == parent)


class History:
    """Pages with back and forward."""

    def __init__(self, home: Word) -> None:
        self.pages = [home]
        self.place = 0

    def visit(self, page: Word) -> None:
        """Open a page; pages ahead are forgotten."""
        del self.pages[self.place + 1 :]
        self.pages.append(page)
        self.place += 1

    def back(self, steps: Annotated[int, between(1, 2)] = 1) -> None:
        """Go back as far as possible up to some steps."""
        self.place = max(0, self.place - steps)

    def forward(self) -> None:
        """Go forward one page if there is one."""
        if self.place + 1 < len(self.pages):
            self.place += 1

    def current(self) -> str:
        """Return the page that is shown."""
        return self.pages[self.place]


class SparseRow:
    """A long row of numbers that are mostly zero."""

    def __init__(
        self, entries: Annotated[dict[int, int], dict_of(between(0, 5), between(-2, 4), 0, 3)]
    ) -> None:
        self.entries = {place: value for place, value in entries.items() if value != 0}

    def put(self, place: Small, value: Annotated[int, between(-1, 3)]) -> None:
        """Set a value; a zero frees its place."""
        if value == 0:
            self.entries.pop(place, None)
        else:
            self.entries[place] = value

    def shift(self, by: Annotated[int, between(1, 2)]) -> None:
        """Move all values to higher places."""
        self.entries = {place + by: value for place, value in self.entries.items()}

    def get(self, place: Small) -> int:
        """Return the value at a place."""
        return self.entries.get(place, 0)

    def weight(self) -> int:
        """Add up the values, each times its place."""
        return sum(place * value for place, value in self.entries.items())


class RecentCounter:
    """Counts calls within a span of time."""

    def __init__(self, span: Annotated[int, between(1, 9)]) -> None:
        self.span = span
        self.now = 0
        self.calls: deque[int] = deque()

    def call(self, wait: Small) -> None:
        """Note a call some time after the last one."""
        self.now += wait
        self.calls.append(self.now)
        while self.calls[0] < self.now - self.span:
            self.calls.popleft()

    def recent(self) -> int:
        """Return how many calls lie within the span before the last one."""
        return len(self.calls)

    def age(self) -> int:
        """Return the time since the oldest call that counts, 0 if there is none."""
        return self.now - self.calls[0] if self.calls else 0


class Trie:
    """Words by their letters."""

    def __init__(self, words: Keys) -> None:
        self.root: dict = {}
        for word in words:
            self.insert(word)

    def insert(self, word: Annotated[str, choice("tent", "tin", "inn", "a", "at")]) -> None:
        """Add a word."""
        node = self.root
        for char in word:
            node = node.setdefault(char, {})
        node["$"] = word

    def known_start(self, text: Annotated[str, choice("tena", "inner", "tea", "tools", "at", "x")]) -> int:
        """Return how many first letters of a text are the start of some word."""
        node = self.root
        for length, char in enumerate(text):
            if char not in node:
                return length
            node = node[char]
        return len(text)

    def has(self, word: Annotated[str, choice("to", "tea", "te", "in", "at", "tin")]) -> bool:
        """Tell whether a word was added."""
        node = self.root
        for char in word:
            node = node.get(char, {})
        return "$" in node


class Marks:
    """Whole numbers marked on a line, sorted and distinct."""

    def __init__(self, marks: Ints) -> None:
        self.marks = sorted(set(marks))

    def toggle(self, mark: Int) -> None:
        """Add a mark, or remove it if it is there."""
        if mark in self.marks:
            self.marks.remove(mark)
        else:
            self.marks.append(mark)
            self.marks.sort()

    def widest_gap(self) -> int:
        """Return the largest distance between neighbouring marks, 0 for fewer than two."""
        return max((b - a for a, b in zip(self.marks, self.marks[1:], strict=False)), default=0)

    def nearest(self, place: Int) -> int | None:
        """Return the mark nearest to a place, the lower of two, None without marks."""
        return min(self.marks, key=lambda mark: (abs(mark - place), mark), default=None)


class Registry:
    """Names with values and a fallback to a parent table."""

    def __init__(self, defaults: Items) -> None:
        self.defaults = dict(defaults)
        self.own: dict[str, int] = {}

    def define(self, name: Word, value: Digit) -> None:
        """Set a value that hides the default."""
        self.own[name] = value

    def reset(self, name: Word) -> None:
        """Return to the default of a name."""
        self.own.pop(name, None)

    def lookup(self, name: Word) -> int:
        """Return the own value, else the default, else -1."""
        if name in self.own:
            return self.own[name]
        return self.defaults.get(name, -1)

    def hidden(self) -> list[str]:
        """Return in order the names whose default is hidden by another value."""
        return sorted(n for n, value in self.own.items() if n in self.defaults and self.defaults[n] != value)


class RunningMiddle:
    """Keeps the lower middle value of all numbers seen, with two heaps."""

    def __init__(self) -> None:
        self.low: list[int] = []
        self.high: list[int] = []

    def add(self, value: Int) -> None:
        """Take a number in."""
        heapq.heappush(self.low, -value)
        heapq.heappush(self.high, -heapq.heappop(self.low))
        if len(self.high) > len(self.low):
            heapq.heappush(self.low, -heapq.heappop(self.high))

    def middle(self) -> int | None:
        """Return the middle number, the lower one of two, None if there is none."""
        return -self.low[0] if self.low else None

    def above(self, value: Positive) -> int:
        """Count the numbers in the upper half that are greater than a value."""
        return sum(1 for item in self.high if item > value)
