"""Records as dictionaries and tuples: filtering, grouping, joining, ranking and reports."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import groupby
from typing import Annotated

from examples.train_mini.kinds import (
    Count,
    Digit,
    Draw,
    Flag,
    Items,
    Naturals,
    Positive,
    Table,
    Word,
    between,
    choice,
    dict_of,
    list_of,
    tuple_of,
)

PERSON: Draw = choice("Ada", "Bo", "Cy", "Di", "Ed")
TEAM: Draw = choice("red", "blue", "red", "gold")
AGE: Draw = between(10, 40)
PEOPLE: Draw = list_of(tuple_of(PERSON, AGE), 0, 5)
SOME_PEOPLE: Draw = list_of(tuple_of(PERSON, AGE), 1, 5)
MEMBERS: Draw = list_of(tuple_of(PERSON, TEAM, between(0, 9)), 0, 4)
MARKS: Draw = list_of(tuple_of(choice("a", "b", "c"), between(0, 9)), 0, 6)
CUSTOMERS: Draw = list_of(tuple_of(between(1, 4), PERSON), 0, 4)
SALES: Draw = list_of(tuple_of(between(1, 4), between(1, 9)), 0, 5)
EDGES: Draw = list_of(tuple_of(choice("a", "b", "c", "d"), choice("a", "b", "c", "d")), 0, 5)
PARENTS: Draw = Draw(
    lambda rng: {
        child: rng.choice("abcde"[: "bcdef".index(child) + 1])
        for child in sorted(rng.sample("bcdef", rng.randint(1, 5)))
    }
)
POINTS: Draw = list_of(dict_of(choice("x", "y", "x"), between(0, 5), 1, 2), 0, 4)
SMALL_POINTS: Draw = list_of(dict_of(choice("x", "y"), between(0, 1), 1, 3), 0, 5)
GOODS: Draw = Draw(
    lambda rng: [{"id": rng.randint(1, 3), "n": rng.randint(0, 9)} for _ in range(rng.randint(0, 4))]
)
USER: Draw = Draw(
    lambda rng: {
        "name": rng.choice(("Ada", "Bo", "", "Cy")),
        **({"age": rng.choice(("30", "x", "7", "140"))} if rng.random() < 0.8 else {}),
    }
)
READINGS: Draw = list_of(Draw(lambda rng: None if rng.random() < 0.35 else rng.randint(0, 9)), 0, 6)
EVENTS: Draw = Draw(
    lambda rng: [
        (
            rng.choice(rng.choice(("a", "a", "ab"))),
            ("on", "off", "off", "on")[(i + rng.randint(0, 2) // 2) % 4],
            t,
        )
        for i, t in enumerate(sorted(rng.sample(range(20), rng.randint(2, 4))))
    ]
)
KEYED: Draw = dict_of(choice("a", "b", "c"), between(0, 3), 0, 3)


def names_of_age(
    people: Annotated[list[tuple[str, int]], PEOPLE],
    low: Positive = 18,
    high: Annotated[int, between(20, 40)] = 35,
) -> list[str]:
    """Name the people between two ages, both included, youngest first."""
    chosen = [person for person in people if low <= person[1] <= high]
    return [name for name, _ in sorted(chosen, key=lambda person: person[1])]


def average_by_key(rows: Annotated[list[tuple[str, int]], MARKS]) -> dict[str, float]:
    """Map each key to the average of its values, rounded to one digit."""
    groups: dict[str, list[int]] = defaultdict(list)
    for key, value in rows:
        groups[key].append(value)
    return {key: round(sum(values) / len(values), 1) for key, values in sorted(groups.items())}


def best_of_each_team(members: Annotated[list[tuple[str, str, int]], MEMBERS]) -> dict[str, str]:
    """Map each team to its member with most points, the earlier one when equal."""
    best: dict[str, tuple[str, int]] = {}
    for name, team, points in members:
        if team not in best or points > best[team][1]:
            best[team] = (name, points)
    return {team: name for team, (name, _) in best.items()}


def join_by_id(
    customers: Annotated[list[tuple[int, str]], CUSTOMERS], sales: Annotated[list[tuple[int, int]], SALES]
) -> list[tuple[str, int]]:
    """Pair the name of a customer with the amount of each sale; sales without a customer are left out."""
    names = dict(customers)
    return [(names[number], amount) for number, amount in sales if number in names]


def customer_totals(
    customers: Annotated[list[tuple[int, str]], CUSTOMERS], sales: Annotated[list[tuple[int, int]], SALES]
) -> list[str]:
    """Report what each customer bought, with 0 for customers without sales."""
    report: list[str] = []
    for number, name in sorted(customers):
        total = sum(amount for buyer, amount in sales if buyer == number)
        report.append(f"{name}={total}")
    return report


def unmatched_sales(
    customers: Annotated[list[tuple[int, str]], CUSTOMERS], sales: Annotated[list[tuple[int, int]], SALES]
) -> int:
    """Sum the sales whose customer is unknown, subtracting one for each."""
    known = {number for number, _ in customers}
    lost = [amount for number, amount in sales if number not in known]
    return sum(lost) - len(lost)


def cross_table(pairs: Annotated[list[tuple[str, str]], EDGES]) -> dict[str, dict[str, int]]:
    """Count pairs in a table of tables: first value, then second."""
    table: dict[str, dict[str, int]] = {}
    for row, column in pairs:
        counts = table.setdefault(row, {})
        counts[column] = counts.get(column, 0) + 1
    return table


def names_by_length(
    words: Annotated[list[str], list_of(choice("Al", "Bo", "Eve", "Ian", "Jo", "Omar"), 0, 5)],
    longest: Annotated[int, between(2, 4)] = 4,
) -> dict[int, list[str]]:
    """Group names by length up to a longest one, each name once."""
    groups: dict[int, list[str]] = {}
    for word in words:
        if len(word) > longest:
            continue
        group = groups.setdefault(len(word), [])
        if word not in group:
            group.append(word)
    return groups


def top_per_group(
    rows: Annotated[list[tuple[str, int]], MARKS], count: Annotated[int, between(1, 3)] = 2
) -> dict[str, list[int]]:
    """Keep the highest values of each key, in falling order."""
    groups: dict[str, list[int]] = {}
    for key, value in sorted(rows, key=lambda row: -row[1]):
        if len(groups.setdefault(key, [])) < count:
            groups[key].append(value)
    return groups


def running_totals_by_name(entries: Annotated[list[tuple[str, int]], MARKS]) -> list[int]:
    """Return after each entry the total of its own key so far."""
    totals: dict[str, int] = {}
    history: list[int] = []
    for key, amount in entries:
        totals[key] = totals.get(key, 0) + amount
        history.append(totals[key])
    return history


def percent_shares(table: Table, smallest: Count = 5) -> dict[str, int]:
    """Map each key with a positive value to its percentage of their sum, leaving out small shares."""
    positive = {key: value for key, value in table.items() if value > 0}
    total = sum(positive.values())
    shares = {key: value * 100 // total for key, value in positive.items()}
    return {key: share for key, share in shares.items() if share >= smallest}


def age_groups(
    people: Annotated[list[tuple[str, int]], PEOPLE], width: Annotated[int, between(5, 12)] = 10
) -> dict[str, int]:
    """Count people in age groups of equal width, such as "20-29"."""
    counts: dict[str, int] = {}
    for _, age in sorted(people, key=lambda person: person[1]):
        start = age // width * width
        label = f"{start}-{start + width - 1}"
        counts[label] = counts.get(label, 0) + 1
    return counts


def ordered_members(members: Annotated[list[tuple[str, str, int]], MEMBERS]) -> list[str]:
    """Name members by team in the order of the alphabet, within a team from most points to least."""
    return [name for name, _, _ in sorted(members, key=lambda member: (member[1], -member[2], member[0]))]


def page_of(
    rows: Items, page: Annotated[int, between(1, 3)], size: Annotated[int, between(1, 3)] = 2
) -> list[str]:
    """Return the first fields on a page, with "..." at the end if more pages follow."""
    start = (page - 1) * size
    shown = [name for name, _ in rows[start : start + size]]
    if start + size < len(rows):
        shown.append("...")
    return shown


def index_unique(
    rows: Annotated[list[tuple[int, str]], list_of(tuple_of(between(1, 12), PERSON), 0, 4)],
) -> dict[int, str]:
    """Index rows by number; equal rows are fine, but one number with two names is an error."""
    index: dict[int, str] = {}
    for number, name in rows:
        if index.setdefault(number, name) != name:
            raise ValueError(f"number {number} is used twice")
    return index


def flat_scores(
    records: Annotated[dict[str, list[int]], dict_of(PERSON, list_of(between(0, 9), 0, 3), 0, 3)],
    minimum: Digit = 0,
) -> list[tuple[str, int]]:
    """Turn lists of scores into (name, score) rows, leaving out scores below a minimum."""
    return [(name, score) for name, scores in records.items() for score in scores if score >= minimum]


def pass_report(
    results: Annotated[list[tuple[str, int]], PEOPLE], needed: Annotated[int, between(15, 35)] = 25
) -> str:
    """Say how many passed and who did best; nobody is mentioned for an empty list."""
    if not results:
        return "no results"
    passed = [points for _, points in results if points >= needed]
    best = max(results, key=lambda result: result[1])
    return f"{len(passed)} of {len(results)} passed, best {best[0]} ({best[1]})"


def report_line(name: Word, amounts: Naturals, width: Annotated[int, between(4, 9)] = 8) -> str:
    """Write a name cut to a width, its total at the right and a star if one amount is above 10."""
    star = "*" if any(amount > 10 for amount in amounts) else ""
    return f"{name[:width]:<{width}}|{sum(amounts):>4}{star}"


def summary_row(values: Naturals) -> tuple[int, int, int, float]:
    """Return count, smallest, largest and average of the values above zero."""
    kept = [value for value in values if value > 0]
    if not kept:
        return 0, 0, 0, 0.0
    return len(kept), min(kept), max(kept), round(sum(kept) / len(kept), 2)


def path_to_root(
    parents: Annotated[dict[str, str], PARENTS], node: Annotated[str, choice("b", "c", "d", "e", "f")]
) -> str:
    """Write the way from the root down to a node, such as "a/b/d"."""
    path = [node]
    while path[-1] in parents:
        path.append(parents[path[-1]])
    return "/".join(reversed(path))


def descendants(
    parents: Annotated[dict[str, str], PARENTS], node: Annotated[str, choice("a", "b", "a", "c")]
) -> int:
    """Count all nodes below a node."""
    children = [child for child, parent in parents.items() if parent == node]
    return len(children) + sum(descendants(parents, child) for child in children)


def leaf_names(parents: Annotated[dict[str, str], PARENTS]) -> list[str]:
    """Return the nodes that are nobody's parent, sorted."""
    inner = set(parents.values())
    return sorted(node for node in parents if node not in inner)


def total_by_id(records: Annotated[list[dict[str, int]], GOODS]) -> list[dict[str, int]]:
    """Join records with the same id by adding their amounts, leaving out empty ones."""
    totals: Counter[int] = Counter()
    for record in records:
        totals[record["id"]] += record["n"]
    return [{"id": number, "n": total} for number, total in sorted(totals.items()) if total]


def matching_records(
    records: Annotated[list[dict[str, int]], SMALL_POINTS],
    query: Annotated[dict[str, int], dict_of(choice("x", "y"), between(0, 1), 1, 1)],
    negate: Flag = False,
) -> int:
    """Count the records that have all fields of a query with its values, or those that do not."""
    count = 0
    for record in records:
        matches = all(record.get(field) == value for field, value in query.items())
        if matches != negate:
            count += 1
    return count


def column_of(
    records: Annotated[list[dict[str, int]], POINTS],
    field: Annotated[str, choice("x", "y")] = "x",
    default: Digit = 0,
) -> list[int]:
    """Return one field of all records, with a default where it is missing."""
    return [record[field] if field in record else default for record in records]


def renamed_fields(
    record: Annotated[dict[str, int], KEYED],
    names: Annotated[dict[str, str], dict_of(choice("a", "b", "c"), choice("x", "y", "b"), 0, 2)],
) -> dict[str, int]:
    """Rename the fields of a record; a field whose new name is taken already keeps its old one."""
    result: dict[str, int] = {}
    for field, value in record.items():
        target = names.get(field, field)
        result[field if target in result else target] = value
    return result


def column_totals(records: Annotated[list[dict[str, int]], POINTS]) -> dict[str, int]:
    """Sum each field over the records and count the records in "n"."""
    totals = {"n": len(records)}
    for record in records:
        for field, value in record.items():
            totals[field] = totals.get(field, 0) + value
    return totals


def fill_gaps(readings: Annotated[list[int | None], READINGS], start: Digit = 0) -> list[int]:
    """Replace missing readings by the last one before, or by a start value."""
    filled: list[int] = []
    last = start
    for reading in readings:
        if reading is not None:
            last = reading
        filled.append(last)
    return filled


def midpoint_gaps(readings: Annotated[list[int | None], READINGS]) -> list[int | None]:
    """Replace each missing reading between two known ones by their mean, rounded down."""
    filled = list(readings)
    for i in range(1, len(readings) - 1):
        before, after = readings[i - 1], readings[i + 1]
        if readings[i] is None and before is not None and after is not None:
            filled[i] = (before + after) // 2
    return filled


def far_values(values: Naturals, limit: Digit = 3) -> list[int]:
    """Return the values further than a limit from the middle between lowest and highest."""
    if not values:
        return []
    middle = (min(values) + max(values)) / 2
    return [value for value in values if abs(value - middle) > limit]


def often_absent(
    register: Annotated[
        dict[str, str],
        dict_of(PERSON, Draw(lambda rng: "".join(rng.choice("PAALL") for _ in range(5))), 0, 3),
    ],
    allowed: Annotated[int, between(0, 3)] = 1,
) -> list[str]:
    """Name those absent (A) more often than allowed; two times late (L) count as absent once."""
    return [name for name, days in register.items() if days.count("A") + days.count("L") // 2 > allowed]


def middle_by_key(rows: Annotated[list[tuple[str, int]], MARKS]) -> dict[str, int]:
    """Map each key to the middle of its sorted values, the lower one of two."""
    result: dict[str, int] = {}
    for key, group in groupby(sorted(rows), key=lambda row: row[0]):
        values = [value for _, value in group]
        result[key] = values[(len(values) - 1) // 2]
    return result


def user_errors(
    user: Annotated[dict[str, str], USER], oldest: Annotated[int, between(20, 150)] = 120
) -> list[str]:
    """List what is wrong with a user record."""
    errors: list[str] = []
    if not user.get("name"):
        errors.append("no name")
    age = user.get("age")
    if age is None:
        errors.append("no age")
    elif not age.isdigit():
        errors.append("age is not a number")
    elif int(age) > oldest:
        errors.append("too old")
    return errors


def last_known_place(
    visits: Annotated[list[tuple[str, int]], MARKS],
    before: Digit,
    unknown: Annotated[str, choice("?", "home")] = "?",
) -> str:
    """Return the place with the greatest time before a moment; the later row wins when equal."""
    place, latest = unknown, -1
    for name, time in visits:
        if latest <= time < before:
            place, latest = name, time
    return place


def patched(
    records: Annotated[list[dict[str, int]], GOODS],
    patch: Annotated[dict[int, int], dict_of(between(1, 3), between(-5, 5), 0, 3)],
) -> list[tuple[int, int]]:
    """Apply changes by id to the amounts, not below zero, and return (id, amount) rows."""
    out: list[tuple[int, int]] = []
    for record in records:
        number, amount = record["id"], record["n"]
        out.append((number, max(0, amount + patch.get(number, 0))))
    return out


def adults_and_children(
    people: Annotated[list[tuple[str, int]], PEOPLE], limit: Annotated[int, between(15, 25)] = 18
) -> tuple[list[str], int]:
    """Return the names of the adults and the number of children."""
    adults: list[str] = []
    children = 0
    for name, age in people:
        if age >= limit:
            adults.append(name)
        else:
            children += 1
    return adults, children


def main_customers(
    sales: Annotated[dict[str, int], dict_of(PERSON, between(1, 9), 0, 5)],
    percent: Annotated[int, between(30, 95)] = 80,
) -> list[str]:
    """Name the fewest customers who make up a percentage of all sales."""
    needed = sum(sales.values()) * percent / 100
    chosen: list[str] = []
    for name in sorted(sales, key=lambda name: (-sales[name], name)):
        if needed <= 0:
            break
        chosen.append(name)
        needed -= sales[name]
    return chosen


def busiest_manager(reports: Annotated[list[tuple[str, str]], EDGES]) -> str:
    """Name the manager in (employee, manager) rows with most employees, self-reports left out."""
    teams: dict[str, set[str]] = {}
    for employee, manager in reports:
        if employee != manager:
            teams.setdefault(manager, set()).add(employee)
    return min(teams, key=lambda name: (-len(teams[name]), name), default="")


def mutual_friends(follows: Annotated[list[tuple[str, str]], EDGES]) -> list[str]:
    """Return pairs such as "ab" that follow each other, once each, and "a!" for who follows themselves."""
    known = set(follows)
    return sorted(
        {a + b for a, b in known if a < b and (b, a) in known} | {a + "!" for a, b in known if a == b}
    )


def followers_count(
    follows: Annotated[list[tuple[str, str]], EDGES], minimum: Annotated[int, between(0, 2)] = 1
) -> dict[str, int]:
    """Count followers minus followed for everyone followed at least `minimum` times."""
    incoming = Counter(target for _, target in follows)
    outgoing = Counter(source for source, _ in follows)
    return {name: n - outgoing[name] for name, n in sorted(incoming.items()) if n >= minimum}


def session_count(
    times: Annotated[list[int], list_of(between(0, 40), 0, 7)], pause: Annotated[int, between(2, 9)] = 5
) -> list[int]:
    """Split times into sessions where the pause is longer than allowed and return their sizes."""
    sizes: list[int] = []
    last = None
    for time in sorted(times):
        if last is None or time - last > pause:
            sizes.append(0)
        sizes[-1] += 1
        last = time
    return sizes


def on_times(events: Annotated[list[tuple[str, str, int]], EVENTS]) -> dict[str, int]:
    """Add up how long each device was on; what is never turned off does not count."""
    since: dict[str, int] = {}
    total: dict[str, int] = {}
    for device, action, time in events:
        if action == "on":
            since.setdefault(device, time)
        elif device in since:
            total[device] = total.get(device, 0) + time - since.pop(device)
    return total


def scaled_column(
    values: Annotated[list[int], list_of(between(0, 20), 0, 6)], top: Annotated[int, choice(10, 100)] = 100
) -> list[int]:
    """Scale values so that the lowest becomes 0 and the highest `top`, or all 0 if they are equal."""
    low, high = min(values, default=0), max(values, default=0)
    if low == high:
        return [0] * len(values)
    return [(value - low) * top // (high - low) for value in values]


def sorted_numeric_labels(
    rows: Annotated[list[str], list_of(choice("a2", "a10", "b1", "a1", "b", "b12", "c3"), 0, 5)],
) -> list[str]:
    """Sort labels by their letter, then by the number after it, missing numbers first."""
    return sorted(rows, key=lambda row: (row[0], int(row[1:] or -1)))


def wide_table(
    rows: Annotated[list[tuple[str, str, int]], list_of(tuple_of(PERSON, TEAM, between(1, 9)), 1, 3)],
    columns: Annotated[list[str], Draw(lambda rng: rng.sample(["red", "blue", "gold"], rng.randint(1, 2)))],
) -> dict[str, list[int]]:
    """Turn (name, column, value) rows into a list of values per name, 0 where there is none."""
    table: dict[str, list[int]] = {}
    for name, column, value in rows:
        if column in columns:
            cells = table.setdefault(name, [0] * len(columns))
            cells[columns.index(column)] += value
    return table


def incomplete_teams(
    members: Annotated[list[tuple[str, str, int]], MEMBERS], size: Annotated[int, between(1, 3)] = 2
) -> dict[str, int]:
    """Map each team that has too few different members to the number that is missing."""
    teams: dict[str, set[str]] = {}
    for name, team, _ in members:
        teams.setdefault(team, set()).add(name)
    return {team: size - len(names) for team, names in sorted(teams.items()) if len(names) < size}


def longest_record_streak(rows: Annotated[list[tuple[str, int]], MARKS]) -> tuple[str, int]:
    """Return the key with the most rows in a row, the first one when equal, and that number."""
    best, best_length = "", 0
    current, length = "", 0
    for key, _ in rows:
        length = length + 1 if key == current else 1
        current = key
        if length > best_length:
            best, best_length = current, length
    return best, best_length


def improved(
    before: Annotated[list[tuple[str, int]], list_of(tuple_of(choice("a", "b"), between(0, 4)), 2, 5)],
    after: Annotated[dict[str, int], dict_of(choice("a", "b"), between(1, 6), 1, 3)],
    by: Annotated[int, between(0, 2)] = 1,
) -> list[str]:
    """Name the keys whose value after is at least `by` above their lowest value before."""
    lowest: dict[str, int] = {}
    for key, value in before:
        lowest[key] = min(value, lowest.get(key, value))
    return [key for key in sorted(lowest) if key in after and after[key] - lowest[key] >= by]


def numbered_duplicates(
    titles: Annotated[list[str], list_of(choice("report", "notes", "plan", "notes"), 0, 5)],
    first: Annotated[int, between(1, 3)] = 2,
) -> list[str]:
    """Number repeated titles: "notes", "notes (2)", "notes (3)"."""
    used: Counter[str] = Counter()
    out: list[str] = []
    for title in titles:
        out.append(f"{title} ({used[title] + first - 1})" if used[title] else title)
        used[title] += 1
    return out


def compact_record(
    name: Annotated[str, PERSON],
    tags: Annotated[list[str], list_of(choice("new", "vip", "old", ""), 0, 4)],
    age: Annotated[int | None, Draw(lambda rng: rng.choice((None, rng.randint(0, 90))))] = None,
) -> str:
    """Write a record in one line, leaving out empty parts and repeated tags."""
    parts = [name]
    if age is not None:
        parts.append(f"({age})")
    unique = dict.fromkeys(tag for tag in tags if tag)
    if unique:
        parts.append("#" + "#".join(unique))
    return " ".join(parts)


def stale_keys(
    seen: Annotated[dict[str, int], dict_of(PERSON, between(0, 30), 0, 4)],
    now: Annotated[int, between(10, 40)],
    age: Count = 8,
) -> list[str]:
    """Name entries last seen more than an age ago, longest ago first."""
    stale = [(time, name) for name, time in seen.items() if now - time > age]
    stale.sort()
    return [name for _, name in stale]


def balanced_teams(people: Annotated[list[tuple[str, int]], SOME_PEOPLE]) -> tuple[list[int], list[int]]:
    """Split people by strength: the strongest one left goes to the team with the smaller sum."""
    left: list[int] = []
    right: list[int] = []
    for _, strength in sorted(people, key=lambda person: person[1], reverse=True):
        team = left if sum(left) <= sum(right) else right
        team.append(strength)
    return left, right


def votes_needed(
    votes: Annotated[dict[str, int], dict_of(choice("a", "b", "c"), between(0, 9), 1, 3)],
    name: Annotated[str, choice("a", "b", "c")],
) -> int:
    """Return how many more votes a name needs to be ahead of all others."""
    others = [count for other, count in votes.items() if other != name]
    return max(0, max(others, default=0) + 1 - votes.get(name, 0))


class RecordTable:
    """Rows with numbers given in order and never used again."""

    def __init__(self, start: Annotated[int, between(1, 5)] = 1) -> None:
        self.next_id = start
        self.rows: dict[int, str] = {}

    def insert(self, name: Annotated[str, PERSON]) -> None:
        """Add a row under the next number."""
        self.rows[self.next_id] = name
        self.next_id += 1

    def delete(self, number: Annotated[int, between(1, 5)]) -> bool:
        """Remove a row and tell whether it was there."""
        return self.rows.pop(number, None) is not None

    def find(self, name: Annotated[str, PERSON]) -> list[int]:
        """Return the numbers of the rows with a name."""
        return [number for number, value in self.rows.items() if value == name]

    def last(self) -> tuple[int, str] | None:
        """Return the row with the highest number."""
        if not self.rows:
            return None
        number = max(self.rows)
        return number, self.rows[number]


class TagIndex:
    """Tags of items, to be asked from both sides."""

    def __init__(self) -> None:
        self.items: dict[str, set[str]] = {}

    def tag(
        self, item: Annotated[str, choice("pen", "cup", "mug")], tag: Annotated[str, choice("new", "red")]
    ) -> None:
        """Give an item a tag."""
        self.items.setdefault(tag, set()).add(item)

    def untag(self, item: Annotated[str, choice("pen", "cup", "mug")]) -> None:
        """Take all tags of an item away; tags without items are forgotten."""
        for name in list(self.items):
            self.items[name].discard(item)
            if not self.items[name]:
                del self.items[name]

    def tags(self, item: Annotated[str, choice("pen", "cup", "mug")]) -> list[str]:
        """Return the tags of an item."""
        return sorted(name for name, items in self.items.items() if item in items)

    def common(
        self, first: Annotated[str, choice("new", "red")], second: Annotated[str, choice("red", "new")]
    ) -> int:
        """Count the items that have both tags."""
        return len(self.items.get(first, set()) & self.items.get(second, set()))


class GradeBook:
    """Marks of students, where the lowest one is dropped."""

    def __init__(self, needed: Annotated[int, between(1, 3)] = 2) -> None:
        self.needed = needed
        self.marks: dict[str, list[int]] = {}

    def record(
        self, student: Annotated[str, choice("Ada", "Bo")], mark: Annotated[int, between(1, 10)]
    ) -> None:
        """Add a mark."""
        self.marks.setdefault(student, []).append(mark)

    def average(self, student: Annotated[str, choice("Ada", "Bo")]) -> float | None:
        """Average the marks, less the lowest one if there are more than needed; None if there are too few."""
        marks = sorted(self.marks.get(student, []))
        if len(marks) < self.needed:
            return None
        if len(marks) > self.needed:
            marks = marks[1:]
        return round(sum(marks) / len(marks), 1)

    def ranking(self) -> list[str]:
        """Name students by the sum of their marks, highest first."""
        return sorted(self.marks, key=lambda name: (-sum(self.marks[name]), name))
